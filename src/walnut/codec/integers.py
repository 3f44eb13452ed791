"""Numbers as integers, and the integers as bytes by mixed contexts.

What the coder of :mod:`.mixing` sees are integers; a tensor gives them in one of these forms:

- *integers*: of an integer dtype, the numbers themselves.
- *codebook*: the rank of a value among the distinct ones of its sign, by magnitude.
- *grid*: k of w = k · scale, one float32 scale; *row grid*: one scale for each row.
- *bits*: the bits of a float below its sign; *half*, *brain*: those of the float16, or bfloat16,
  that a float32 exactly is.

Zero is zero in every form, and the sign is the sign. Of few floats (biases, and the values of a
codebook, which are sorted) also the differences from one to the next are tried, which cost less
where neighbours are near each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from . import grid, mixing
from .mixing import Array, Plan
from .stream import Reader, damaged, varint

FORMS = ("integers", "codebook", "grid", "row grid", "bits", "half", "brain")
MARK = 128
"""The bit that tells this layout's first byte from the others'."""

_SEARCH = 1 << 19  # numbers up to which all strides are tried
_BITS = (4, 5, 6)  # forms whose differences are tried,
_FEW = 1 << 12  # of so many numbers
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
Book = Callable[[Array], bytes]
Few = tuple[Array, Array]
"""The distinct words of a tensor, ascending, and which of them each word is (uint16)."""


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns of a tensor seen as a matrix: its first axis, and the rest."""
    if len(shape) < 2:
        return 1, math.prod(shape)
    return shape[0], math.prod(shape[1:])


def _strides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the strides a shape suggests: of a row of a kernel, and of a kernel."""
    columns = matrix_shape(shape)[1]
    if len(shape) > 2:
        return min(shape[-1], columns), max(math.prod(shape[2:]), 1)
    return 0, columns


def _candidates(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return strides worth trying: pictures that a dense layer's inputs may be."""
    rows, columns = matrix_shape(shape)
    found = [_strides(shape)]
    if len(shape) != 2 or rows * columns > _SEARCH:
        return found
    for channels in (1, 2, 3):
        side = math.isqrt(columns // channels)
        if side > 2 and channels * side * side == columns:
            found.append((side, side if channels == 1 else side * side))
    for side in (2, 3, 4, 5, 6, 7, 8):
        if columns % (side * side) == 0 and columns >= 2 * side * side:
            found.append((side, side * side))
    return list(dict.fromkeys(found))


# --- forms of words as integers -----------------------------------------------------------------


def _signed(words: Array, dtype: torch.dtype) -> tuple[Array, Array]:
    """Return the magnitude (unsigned) and whether it is negative, of each word."""
    bits = 8 * words.itemsize
    if dtype.is_floating_point:
        return words & words.dtype.type((1 << (bits - 1)) - 1), words >> (bits - 1) != 0
    if dtype in (torch.uint8, torch.bool):
        return words, np.zeros(words.shape, bool)
    values = words.view(f"<i{words.itemsize}")
    negative = values < 0
    return np.where(negative, (~words + 1).astype(words.dtype), words), negative


def _from_signed(size: Array, negative: Array, dtype: torch.dtype) -> Array:
    """Return the words of magnitudes and signs: the inverse of :func:`_signed`."""
    bits = 8 * size.itemsize
    if dtype.is_floating_point:
        return size | (negative.astype(size.dtype) << size.dtype.type(bits - 1))
    return np.where(negative, (~size + 1).astype(size.dtype), size)


def _as_bits(words: Array, dtype: torch.dtype) -> Array | None:
    """Return words as integers with the word's sign; None where they are too large, or −0."""
    size, negative = _signed(words, dtype)
    if len(size) and (int(size.max()) >= 1 << 31 or bool((negative & (size == 0)).any())):
        return None
    whole = size.astype(np.int32)
    return np.where(negative, -whole, whole)


def _from_bits(k: Array, dtype: torch.dtype) -> Array:
    """Return the words of integers: the inverse of :func:`_as_bits`."""
    width = torch.empty((), dtype=dtype).element_size()
    size = np.abs(k.astype(np.int64))
    unsigned = dtype in (torch.uint8, torch.bool)
    most = (1 << min(8 * width - (not unsigned), 40)) - 1  # 40: beyond any k
    if not dtype.is_floating_point:
        size = size - (k < 0)  # −128 is an int8
    if int(size.max(initial=0)) > most or (unsigned and bool((k < 0).any())):
        raise damaged("a number too large for its type")
    return _from_signed(np.abs(k.astype(np.int64)).astype(f"<u{width}"), k < 0, dtype)


def _as_half(words: Array, dtype: torch.dtype) -> Array | None:
    """Return float32 words as float16 or bfloat16 words, where each of them is one exactly."""
    if dtype == torch.bfloat16:
        return (words >> 16).astype("<u2") if not (words & 0xFFFF).any() else None
    values = words.view("<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        half = values.astype("<f2")
        same = np.array_equal(half.astype("<f4").view("<u4"), words)
    return half.view("<u2") if same else None


def _from_half(words: Array, dtype: torch.dtype) -> Array:
    if dtype == torch.bfloat16:
        return words.astype("<u4") << 16
    return words.view("<f2").astype("<f4").view("<u4")


def _book(dtype: torch.dtype, few: Few, plain: Book) -> tuple[bytes, Array]:
    """Return a codebook as bytes, and the rank of each word in it, signed."""
    distinct, index = few
    size, negative = _signed(distinct, dtype)
    order = np.lexsort((size, negative))
    live = order[distinct[order] != 0]
    ups = int((~negative[live]).sum())
    ranks = np.zeros(len(distinct), np.int32)
    ranks[live] = np.concatenate([np.arange(1, ups + 1), -np.arange(1, len(live) - ups + 1)])
    return varint(ups) + varint(len(live) - ups) + plain(distinct[live]), ranks[index]


def forms(
    words: Array, dtype: torch.dtype, rows: int, few: Few | None, plain: Book
) -> list[tuple[int, bytes, Array]]:
    """Return what a tensor can be written as: number of the form, what it needs, integers (n,)."""
    found: list[tuple[int, bytes, Array]] = []
    if not dtype.is_floating_point and not dtype.is_complex:
        k = _as_bits(words, dtype)
        found += [(0, b"", k)] if k is not None else []
    if dtype == torch.float32:
        scaled = grid.find(words.view("<f4"), rows, few)
        if scaled is not None:
            scale, k = scaled
            found.append((2 if len(scale) == 1 else 3, scale.tobytes(), k))
            if len(words) > _SEARCH:
                return found
    if few is not None:
        found.append((1, *_book(dtype, few, plain)))
    elif len(words) <= mixing.WIDEST and dtype in _FLOATS:
        found += _float_forms(words, dtype)
    return found


def _float_forms(words: Array, dtype: torch.dtype) -> list[tuple[int, bytes, Array]]:
    if dtype == torch.float32:
        for form, short in ((5, torch.float16), (6, torch.bfloat16)):
            half = _as_half(words, short)
            k = None if half is None else _as_bits(half, short)
            if k is not None:
                return [(form, b"", k)]
    k = _as_bits(words, dtype)
    return [] if k is None else [(4, b"", k)]


# --- bytes --------------------------------------------------------------------------------------


def plan_of(k: Array, strides: tuple[int, int]) -> Plan:
    """Return the plan for integers (n,) with these strides."""
    largest = max(int(k.max(initial=1)), -int(k.min(initial=0)))
    zeros, negative = not bool(k.all()), bool((k < 0).any())
    return Plan(*strides, zeros, negative, (largest - 1).bit_length())


def best_plan(table: Array, shape: tuple[int, ...]) -> Plan:
    """Return the cheapest plan for a matrix (int32) of a tensor of this shape."""
    first = plan_of(table.reshape(-1), _strides(shape))
    if table.size > _SEARCH:
        return first
    options = [replace(first, near=n, period=p) for n, p in _candidates(shape)]
    return min(options, key=lambda plan: mixing.measure(table, plan))


def encode(
    words: Array, dtype: torch.dtype, shape: tuple[int, ...], few: Few | None, plain: Book
) -> list[bytes]:
    """Return words (n,) as bytes in each form that they can have; none where none fits."""
    rows, columns = matrix_shape(shape)
    if len(words) < 2 or not mixing.fits(rows, columns):
        return []
    out = []
    for form, head, k in forms(words, dtype, rows, few, plain):
        out.append(_written(form, head, k, shape, 0))
        if form in _BITS and len(k) <= _FEW:
            steps = np.diff(k.astype(np.int64), prepend=0)
            if np.abs(steps).max() < 1 << 31:
                out.append(_written(form, head, steps.astype(np.int32), shape, 2))
    return out


def _written(form: int, head: bytes, k: Array, shape: tuple[int, ...], steps: int) -> bytes:
    """Return integers (n,) in a form, as bytes. ``steps``: 2 where they are differences, or 0."""
    table = k.reshape(matrix_shape(shape))
    plan = best_plan(table, shape)
    given = (plan.near, plan.period) != _strides(shape)
    bits = plan.zeros << 3 | plan.negative << 2 | steps | given
    start = bytes([MARK | form << 4 | bits, plan.depth])
    if given:
        start += varint(plan.near) + varint(plan.period)
    return start + head + mixing.encode(table, plan)


def decode(
    reader: Reader,
    code: int,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    plain: Callable[[int], Array],
) -> tuple[Array, str]:
    """Return the words (n,) that :func:`encode` wrote, and their form. ``code``: the first byte."""
    form = code >> 4 & 7
    steps = bool(code & 2)
    if form >= len(FORMS) or (steps and form not in _BITS) or not math.prod(shape):
        raise damaged("a form of numbers that walnut does not know")
    depth = reader.byte(32)
    strides = _strides(shape)
    rows, columns = matrix_shape(shape)
    if code & 1:
        strides = reader.varint(columns), reader.varint(columns)
    plan = Plan(*strides, bool(code & 8), bool(code & 4), depth)
    _check_form(form, dtype)
    scale = b""
    if form in (2, 3):
        scale = bytes(reader.take(4 * (1 if form == 2 else rows)))
    counts, book = (0, 0), np.zeros(0, np.uint8)
    if form == 1:
        counts = reader.varint(1 << 16), reader.varint(1 << 16)
        book = plain(sum(counts))
    k = mixing.decode(reader, (rows, columns), plan).reshape(-1)
    if steps:
        k = np.cumsum(k, dtype=np.int64)
        if np.abs(k).max() >= 1 << 31:
            raise damaged("numbers too large for their type")
        k = k.astype(np.int32)
    reader.coders.append("mixed")
    return _words(form, k, dtype, scale, counts, book), FORMS[form]


def _check_form(form: int, dtype: torch.dtype) -> None:
    whole = not dtype.is_floating_point and not dtype.is_complex
    allowed = (whole, True, *[dtype == torch.float32] * 2, dtype in _FLOATS)
    if not (*allowed, dtype == torch.float32, dtype == torch.float32)[form]:
        raise damaged("a form of numbers that does not suit their type")


def _words(
    form: int, k: Array, dtype: torch.dtype, scale: bytes, counts: Sequence[int], book: Array
) -> Array:
    """Return the words that integers stand for."""
    if form == 1:
        ups, downs = counts
        if int(k.max(initial=0)) > ups or -int(k.min(initial=0)) > downs:
            raise damaged("a value that its codebook lacks")
        table = np.concatenate([book[ups:][::-1], np.zeros(1, book.dtype), book[:ups]])
        k += downs
        return table[k]
    if form in (2, 3):
        return grid.values(k, np.frombuffer(scale, "<f4")).view("<u4")
    if form in (5, 6):
        short = torch.float16 if form == 5 else torch.bfloat16
        return _from_half(_from_bits(k, short), short)
    return _from_bits(k, dtype)
