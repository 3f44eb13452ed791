"""Asymmetric numeral systems (Duda 2009), by the `constriction` package, with stored histograms.

A histogram is one byte a symbol: its count on a logarithmic scale of 16 steps an octave, which
costs about 0.0002 bits a symbol. Frequencies are made of it by integers only, so that every
machine decodes with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import constriction
import numpy as np

from ..core.errors import WalnutError
from .stream import Reader, damaged, short, varint

TOTAL = 1 << 16
_CHUNK = 1 << 20  # symbols a call, so that the 32-bit copies the coder wants stay small


def histogram_codes(counts: np.ndarray) -> np.ndarray:
    """Return the counts on the one-byte scale: 0 for none, else 1 + 16·octave + sixteenth."""
    largest = max(int(counts.max(initial=0)), 1)
    scaled = counts.astype(np.float64) * ((31 << 15) / largest)
    octave = np.floor(np.log2(np.maximum(scaled, 16.0) / 16.0)).astype(np.int64)
    mantissa = np.rint(np.maximum(scaled, 16.0) / 2.0**octave).astype(np.int64) - 16
    codes = np.minimum(16 * octave + mantissa + 1, 255)
    return np.where(counts > 0, codes, 0).astype(np.uint8)


def frequencies(codes: np.ndarray) -> np.ndarray:
    """Return integer frequencies that sum to 65536, at least 1 where the code is not 0.

    >>> frequencies(np.array([0, 17, 1], np.uint8)).tolist()
    [0, 43691, 21845]
    """
    place = np.maximum(codes.astype(np.int64) - 1, 0)
    weights = np.where(codes > 0, (16 + place % 16) << (place // 16), 0)
    used = int((codes > 0).sum())
    out = np.where(codes > 0, 1 + weights * (TOTAL - used) // max(int(weights.sum()), 1), 0)
    if used:
        out[np.argmax(out)] += TOTAL - out.sum()
    return out


def _model(frequency: np.ndarray) -> Any:
    # perfect=False: constriction's fast rounding; with frequencies in 1/65536 nothing is rounded.
    return constriction.stream.model.Categorical(frequency / TOTAL, perfect=False)


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))


def encode_groups(groups: Sequence[np.ndarray], tables: Sequence[np.ndarray]) -> bytes:
    """Return groups of symbols, each coded under its own frequencies, as one stream.

    ``tables[i]``: frequencies of the symbols of ``groups[i]`` that sum to 65536. A group with one
    possible symbol costs nothing.
    """
    coder = constriction.stream.stack.AnsCoder()
    for group, table in zip(reversed(groups), reversed(tables), strict=True):
        used = np.flatnonzero(table)
        if len(used) < 2:
            continue
        model, rank = _model(table[used]), np.cumsum(table > 0, dtype=np.int32) - np.int32(1)
        for start, end in reversed(list(_chunks(len(group)))):
            coder.encode_reverse(rank[group[start:end]], model)
    words = np.asarray(coder.get_compressed(), "<u4")
    return varint(len(words)) + words.tobytes()


def decode_groups(
    reader: Reader, counts: Sequence[int], tables: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return the groups (uint16) that :func:`encode_groups` wrote, ``counts[i]`` symbols each."""
    # 16 bits a symbol is the most a frequency of 1 / 65536 can cost.
    words = reader.take(4 * reader.varint(sum(counts) // 2 + 2))
    try:
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(words, "<u4").astype(np.uint32))
        groups = [_group(coder, n, t) for n, t in zip(counts, tables, strict=True)]
        empty = coder.is_empty()
    except (WalnutError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic in the extension is a BaseException
        raise damaged("an entropy-coded part does not decode") from error
    if not empty:
        raise damaged("an entropy-coded part with bytes left over")
    return groups


def _group(coder: Any, count: int, table: np.ndarray) -> np.ndarray:
    used = np.flatnonzero(table).astype(np.uint16)
    if count and not len(used):
        raise damaged("symbols to decode, and a histogram without symbols")
    if len(used) < 2:
        return np.full(count, used[0] if count else 0, np.uint16)
    model, out = _model(table[used]), np.empty(count, np.uint16)
    for start, end in _chunks(count):
        out[start:end] = used[coder.decode(model, end - start)]
    return out


def size(counts: np.ndarray) -> int:
    """Return how many bytes :func:`encode` makes of symbols with these counts, to a word."""
    codes = histogram_codes(counts)
    used = counts > 0
    bits = float((counts[used] * (16.0 - np.log2(frequencies(codes)[used]))).sum())
    words = int(bits / 32.0) + 1
    return len(short(codes.tobytes())) + len(varint(words)) + 4 * words


def encode(symbols: np.ndarray, counts: np.ndarray) -> bytes:
    """Return the symbols as a histogram and one ANS stream."""
    codes = histogram_codes(counts)
    return short(codes.tobytes()) + encode_groups([symbols], [frequencies(codes)])


def decode(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    """Return ``count`` symbols (uint16) below ``alphabet``."""
    codes = np.frombuffer(reader.short(alphabet), np.uint8)
    return decode_groups(reader, [count], [frequencies(codes)])[0]
