"""Where a tensor is not zero: the smaller of two ways to write it.

*Grid*: rows and columns are sorted into classes by how full they are, and each block of the two
classes is coded with its own density. Empty rows and columns (dead units, dead pixels) cost
nothing; a uniform mask becomes one block and costs its entropy.
*Gaps*: empty rows and columns dropped, then the number of zeros before each non-zero, as in Han
et al. 2016; unlike theirs (5 bits, fillers) the alphabet is as wide as pays, up to 4096.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import ans, symbols
from .stream import Reader, damaged, varint
from .symbols import ANS, Coder

_FINEST = 16
_STEPS = sorted({((8 + m) << e) >> 3 for e in range(15) for m in range(8)})
_LADDER = np.array([0, *_STEPS, *(ans.TOTAL - f for f in reversed(_STEPS)), ans.TOTAL])
"""Densities a block may have, in 1/65536: 8 steps an octave from either end; one byte each."""


def encode(mask: np.ndarray, shape: tuple[int, ...], coders: Sequence[Coder]) -> bytes:
    """Return where ``mask`` (n,) bool, of a tensor of this shape, is true."""
    mask = mask.view(np.uint8)
    splits = range(1, max(len(shape), 2))
    options = [_gaps(mask, shape, split, coders) for split in (1, *splits[1:][-1:])]
    if ANS in coders:
        options.append(_grid(mask, shape, coders))
    best = min(range(len(options)), key=lambda i: len(options[i]))
    return bytes([int(ANS in coders and best == len(options) - 1)]) + options[best]


def decode(reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask (n,) bool that :func:`encode` wrote."""
    return (_read_gaps, _read_grid)[reader.byte(2)](reader, shape)


def _matrix(shape: tuple[int, ...], split: int) -> tuple[int, int]:
    """Return rows and columns of the tensor seen as a matrix: axes before ``split``, and the rest."""
    if len(shape) < 2:
        return 1, math.prod(shape)
    return math.prod(shape[:split]), math.prod(shape[split:])


def _split(reader: Reader, shape: tuple[int, ...]) -> tuple[int, int]:
    return _matrix(shape, reader.byte(max(len(shape), 2)))


# --- gaps ---------------------------------------------------------------------------------------


def _gaps(mask: np.ndarray, shape: tuple[int, ...], split: int, coders: Sequence[Coder]) -> bytes:
    table = mask.reshape(_matrix(shape, split))
    rows, columns = table.max(1), table.max(0)
    places = np.flatnonzero(table[rows.astype(bool)][:, columns.astype(bool)])
    gaps = np.diff(places, prepend=-1) - 1
    plans = [
        (_gap_size(gaps, w, coders), w) for w in range(2, 13) if 2 ** (w - 2) <= gaps.max() + 1
    ]
    wide = min(plans)[1]
    skip = (1 << wide) - 1
    ends = np.cumsum(gaps // skip + 1)
    out = np.full(int(ends[-1]), skip, np.uint16)
    out[ends - 1] = gaps % skip
    head = (
        bytes([split, wide]) + symbols.encode(rows, 2, coders) + symbols.encode(columns, 2, coders)
    )
    return head + varint(len(out)) + symbols.encode(out, skip + 1, coders)


def _gap_size(gaps: np.ndarray, wide: int, coders: Sequence[Coder]) -> int:
    skip = (1 << wide) - 1
    counts = np.bincount(gaps % skip, minlength=skip + 1)
    counts[skip] = (gaps // skip).sum()
    return symbols.size(counts, coders)


def _read_gaps(reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = _split(reader, shape)
    wide = reader.byte(13)
    row = symbols.decode(reader, rows, 2).astype(bool)
    column = symbols.decode(reader, columns, 2).astype(bool)
    live = int(row.sum()) * int(column.sum())
    skip = (1 << wide) - 1
    gaps = symbols.decode(reader, reader.varint(live), skip + 1)
    ends = np.cumsum(gaps.astype(np.int64) + (gaps != skip))
    if len(ends) and ends[-1] > live:
        raise damaged("non-zeros outside their tensor")
    part = np.zeros(live, bool)
    part[ends[gaps != skip] - 1] = True
    out = np.zeros((rows, columns), bool)
    out[np.ix_(row, column)] = part.reshape(int(row.sum()), int(column.sum()))
    return out.reshape(-1)


# --- grid ---------------------------------------------------------------------------------------


def _levels(counts: np.ndarray, longest: int) -> np.ndarray:
    """Return the class of each row by its count: 0 for none, else 1..16, even steps of √density."""
    root = np.sqrt(counts / longest)
    live = counts > 0
    low, high = root[live].min(), root[live].max()
    step = (root - low) / max(high - low, 1e-12) * _FINEST
    return np.where(live, 1 + np.clip(step.astype(np.int64), 0, _FINEST - 1), 0)


def _block_counts(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the non-zeros in each block of the finest classes, (17, 17)."""
    classes = np.arange(_FINEST + 1)
    of_row = (classes[:, None] == rows).astype(np.float32)
    out = np.zeros((_FINEST + 1, table.shape[1]))
    step = max(1, (1 << 22) // table.shape[1])
    for start in range(0, len(table), step):
        out += of_row[:, start : start + step] @ table[start : start + step].astype(np.float32)
    return out @ (columns[:, None] == classes)


def _merge(levels: np.ndarray, into: int) -> np.ndarray:
    """Return 16 classes merged into fewer; class 0 stays apart."""
    return np.where(levels > 0, 1 + (levels - 1) * into // _FINEST, 0)


def _entropy(counts: np.ndarray, sizes: np.ndarray) -> float:
    """Return the bits of blocks with these non-zeros and sizes, each at its own density."""
    p = counts / np.maximum(sizes, 1)
    inside = (p > 0) & (p < 1)
    p, n = p[inside], sizes[inside]
    return float((n * -(p * np.log2(p) + (1 - p) * np.log2(1 - p))).sum())


def _grid(mask: np.ndarray, shape: tuple[int, ...], coders: Sequence[Coder]) -> bytes:
    plans = []
    for split in range(1, max(len(shape), 2)):
        table = mask.reshape(_matrix(shape, split))
        rows = _levels(table.sum(1, dtype=np.int64), table.shape[1])
        columns = _levels(table.sum(0, dtype=np.int64), table.shape[0])
        finest = _block_counts(table, rows, columns)
        for r in (1, 2, 4, 8, 16):
            for c in (1, 2, 4, 8, 16):
                cost = _grid_cost(finest, _merge(rows, r), _merge(columns, c), r, c, coders)
                plans.append((cost, split, r, c))
    _, split, r, c = min(plans)
    table = mask.reshape(_matrix(shape, split))
    rows = _merge(_levels(table.sum(1, dtype=np.int64), table.shape[1]), r)
    columns = _merge(_levels(table.sum(0, dtype=np.int64), table.shape[0]), c)
    blocks = [
        table[np.ix_(rows == i + 1, columns == j + 1)].reshape(-1)
        for i in range(r)
        for j in range(c)
    ]
    density = bytes(_density(block) for block in blocks)
    head = bytes([split, r, c])
    head += symbols.encode(rows, r + 1, coders) + symbols.encode(columns, c + 1, coders)
    return head + density + ans.encode_groups(blocks, [_bernoulli(d) for d in density])


def _grid_cost(
    finest: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    r: int,
    c: int,
    coders: Sequence[Coder],
) -> float:
    """Return about how many bytes a grid of r by c classes takes."""
    ranks = np.arange(_FINEST + 1)
    to_r = (_merge(ranks, r)[:, None] == np.arange(r + 1)).astype(float)
    to_c = (_merge(ranks, c)[:, None] == np.arange(c + 1)).astype(float)
    n_rows, n_columns = symbols.histogram(rows, r + 1), symbols.histogram(columns, c + 1)
    bits = _entropy(to_r.T @ finest @ to_c, np.outer(n_rows, n_columns))
    return bits / 8 + r * c + symbols.size(n_rows, coders) + symbols.size(n_columns, coders)


def _density(block: np.ndarray) -> int:
    """Return the place on the ladder of a block's density; its ends only for all or none."""
    ones, count = int(np.count_nonzero(block)), len(block)
    if ones in (0, count):
        return 0 if ones == 0 else len(_LADDER) - 1
    return 1 + int(np.abs(_LADDER[1:-1] - ones * ans.TOTAL / count).argmin())


def _bernoulli(density: int) -> np.ndarray:
    return np.array([ans.TOTAL - _LADDER[density], _LADDER[density]])


def _read_grid(reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
    n_rows, n_columns = _split(reader, shape)
    r, c = reader.byte(_FINEST + 1), reader.byte(_FINEST + 1)
    rows = symbols.decode(reader, n_rows, r + 1)
    columns = symbols.decode(reader, n_columns, c + 1)
    reader.coders.append("ans")
    density = reader.take(r * c)
    if any(d >= len(_LADDER) for d in density):
        raise damaged("a density off the scale")
    sizes = np.outer(symbols.histogram(rows, r + 1)[1:], symbols.histogram(columns, c + 1)[1:])
    blocks = ans.decode_groups(reader, sizes.reshape(-1).tolist(), [_bernoulli(d) for d in density])
    out = np.zeros((n_rows, n_columns), bool)
    for place, block in enumerate(blocks):
        i, j = np.flatnonzero(rows == place // c + 1), np.flatnonzero(columns == place % c + 1)
        out[np.ix_(i, j)] = block.reshape(len(i), len(j))
    return out.reshape(-1)
