"""Arrays of small whole numbers as bytes: fixed bits, Huffman, ANS or mixing, the smallest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import WalnutError
from . import ans, huffman, mixing
from .stream import Reader, damaged, varint

MOST = 4096
"""The largest alphabet."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Coder:
    """A way to write symbols: how long it would be, how to write, how to read."""

    name: str
    size: Callable[[np.ndarray], int]
    encode: Callable[[np.ndarray, np.ndarray], bytes]
    decode: Callable[[Reader, int, int], np.ndarray]


def _bits(alphabet: int) -> int:
    return max(alphabet - 1, 1).bit_length()


def _fixed_size(counts: np.ndarray) -> int:
    return (int(counts.sum()) * _bits(len(counts)) + 7) // 8


def _fixed_encode(symbols: np.ndarray, counts: np.ndarray) -> bytes:
    places = np.arange(_bits(len(counts)) - 1, -1, -1, dtype=np.uint16)
    parts = []
    for start in range(0, len(symbols), _CHUNK):
        part = symbols[start : start + _CHUNK].astype(np.uint16)
        parts.append(np.packbits((part[:, None] >> places) & 1).tobytes())
    return b"".join(parts)


def _fixed_decode(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    bits = _bits(alphabet)
    data = np.frombuffer(reader.take((count * bits + 7) // 8), np.uint8)
    places = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
    out = np.empty(count, np.uint16)
    for start in range(0, count, _CHUNK):  # a chunk of 2^20 symbols starts on a whole byte
        end = min(start + _CHUNK, count)
        part = np.unpackbits(data[start * bits // 8 :], count=(end - start) * bits)
        out[start:end] = part.reshape(-1, bits) @ places
    if int(out.max(initial=0)) >= alphabet:
        raise damaged("a symbol outside its alphabet")
    return out


FIXED = Coder("fixed", _fixed_size, _fixed_encode, _fixed_decode)
"""⌈log2 alphabet⌉ bits a symbol."""

HUFFMAN = Coder("huffman", huffman.size, huffman.encode, huffman.decode)
"""Canonical Huffman, the code of Han et al. 2016."""

ANS = Coder("ans", ans.size, ans.encode, ans.decode)
"""Asymmetric numeral systems: within about 0.01 % of the entropy."""

_MIXED_MOST = 1 << 16  # symbols; beyond, a stored histogram costs nothing and ANS is faster


def _mixed_plan(count: int, alphabet: int) -> mixing.Plan:
    return mixing.Plan(0, max(count, 1), False, False, (alphabet - 1).bit_length())


def _mixed_size(counts: np.ndarray) -> int:
    total, used = int(counts.sum()), counts[counts > 0]
    if total > _MIXED_MOST:
        return 1 << 62
    bits = float((used * np.log2(total / used)).sum())
    return int((bits + len(used) * (1 + math.log2(total + 1) / 2)) / 8) + 1


def _mixed_encode(symbols: np.ndarray, counts: np.ndarray) -> bytes:
    k = symbols.astype(np.int32).reshape(1, -1) + 1
    return mixing.encode(k, _mixed_plan(len(symbols), len(counts)))


def _mixed_decode(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    k = mixing.decode(reader, (1, count), _mixed_plan(count, alphabet)).reshape(-1)
    if int(k.max(initial=0)) > alphabet:
        raise damaged("a symbol outside its alphabet")
    return (k - 1).astype(np.uint16)


MIXED = Coder("mixed", _mixed_size, _mixed_encode, _mixed_decode)
"""Adaptive arithmetic coding: no table. Whole tensors are then coded by mixed contexts too."""

ALL = (FIXED, HUFFMAN, ANS, MIXED)
"""Every coder; their order is their number in the file."""

_CONSTANT = len(ALL)


def histogram(symbols: np.ndarray, alphabet: int) -> np.ndarray:
    """Return how often each symbol occurs, (alphabet,) int64, in little memory."""
    counts = np.zeros(alphabet, np.int64)
    for start in range(0, len(symbols), _CHUNK):
        counts += np.bincount(symbols[start : start + _CHUNK], minlength=alphabet)
    return counts


def size(counts: np.ndarray, coders: Sequence[Coder] = ALL) -> int:
    """Return how many bytes :func:`encode` makes of symbols with these counts, nearly."""
    if int(counts.sum()) == 0:
        return 0
    if int((counts > 0).sum()) == 1:
        return 1 + len(varint(int(counts.argmax())))
    return 1 + min(coder.size(counts) for coder in coders)


def encode(symbols: np.ndarray, alphabet: int, coders: Sequence[Coder] = ALL) -> bytes:
    """Return symbols (n,) below ``alphabet`` (at most 4096) as bytes, by the smallest coder.

    The number of symbols and the alphabet are not written: the reader knows them.

    >>> len(encode(np.zeros(1000, np.uint8), 16))
    2
    """
    if not 1 <= alphabet <= MOST or (len(symbols) and int(symbols.max()) >= alphabet):
        raise WalnutError(f"symbols must be below the alphabet, and that at most {MOST}")
    if len(symbols) == 0:
        return b""
    counts = histogram(symbols, alphabet)
    if int(counts.max()) == len(symbols):
        return bytes([_CONSTANT]) + varint(int(symbols[0]))
    sizes = {coder: coder.size(counts) for coder in coders}
    near = [coder for coder in coders if sizes[coder] <= 1.02 * min(sizes.values())]
    written = [bytes([ALL.index(coder)]) + coder.encode(symbols, counts) for coder in near]
    return min(written, key=len)


def decode(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    """Return the ``count`` symbols (uint16) that :func:`encode` wrote."""
    if count == 0:
        return np.zeros(0, np.uint16)
    code = reader.byte(_CONSTANT + 1)
    if code == _CONSTANT:
        reader.coders.append("constant")
        return np.full(count, reader.varint(alphabet - 1), np.uint16)
    reader.coders.append(ALL[code].name)
    return ALL[code].decode(reader, count, alphabet)
