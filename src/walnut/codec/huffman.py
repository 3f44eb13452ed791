"""Canonical Huffman codes in plain numpy: the table is the code lengths, decoding is vectorised.

Reference: Huffman 1952; Schwartz and Kallick 1964 for the canonical order (by length, then by
symbol), by which the lengths alone give the code back. Codes are at most 16 bits long.
"""

from __future__ import annotations

import heapq

import numpy as np

from .stream import Reader, damaged, short, varint

LONGEST = 16
_BLOCK = 1 << 15  # bit positions decoded at once: its jump table stays in the second-level cache
_CHUNK = 1 << 18  # symbols encoded at once


def lengths(counts: np.ndarray) -> np.ndarray:
    """Return the code length of each symbol (0: never occurs), an optimal prefix code.

    Where an optimal code would exceed 16 bits (a symbol rarer than 1 in some thousands), counts are
    flattened first: a loss below 0.1 %. ``counts``: how often each symbol occurs; at least two do.

    >>> lengths(np.array([5, 1, 0, 2]))
    array([1, 2, 0, 2], dtype=uint8)
    """
    out = np.zeros(len(counts), np.uint8)
    used = np.flatnonzero(counts)
    weights = counts[used].astype(np.int64)
    while True:
        depths = _depths(weights.tolist())
        if depths.max() <= LONGEST:
            break
        weights = weights // 2 + 1
    out[used] = depths
    return out


def _depths(weights: list[int]) -> np.ndarray:
    """Return the depth of each leaf of the Huffman tree."""
    leaves = len(weights)
    heap = [(w, i) for i, w in enumerate(weights)]
    heapq.heapify(heap)
    parent = [0] * (2 * leaves - 1)
    for node in range(leaves, 2 * leaves - 1):
        (a, i), (b, j) = heapq.heappop(heap), heapq.heappop(heap)
        parent[i] = parent[j] = node
        heapq.heappush(heap, (a + b, node))
    depth = [0] * (2 * leaves - 1)
    for node in range(2 * leaves - 3, -1, -1):
        depth[node] = depth[parent[node]] + 1
    return np.array(depth[:leaves])


def _codes(size: np.ndarray) -> np.ndarray:
    """Return the canonical code of each symbol, given the code lengths."""
    order = np.lexsort((np.arange(len(size)), size))
    order = order[size[order] > 0]
    steps = 1 << (LONGEST - size[order].astype(np.int64))
    codes = np.zeros(len(size), np.int64)
    codes[order] = (np.cumsum(steps) - steps) >> (LONGEST - size[order].astype(np.int64))
    return codes


def size(counts: np.ndarray) -> int:
    """Return how many bytes :func:`encode` makes of symbols with these counts."""
    code = lengths(counts)
    bits = int((counts * code.astype(np.int64)).sum())
    payload = (bits + 7) // 8
    return len(short(code.tobytes())) + len(varint(payload)) + payload


def encode(symbols: np.ndarray, counts: np.ndarray) -> bytes:
    """Return the symbols as code lengths and a bit stream, the first symbol in the highest bits."""
    code_size = lengths(counts)
    codes = _codes(code_size)
    out, left = [], np.zeros(0, np.uint8)
    for start in range(0, len(symbols), _CHUNK):
        part = symbols[start : start + _CHUNK]
        length, code = code_size[part].astype(np.int64), codes[part]
        ends = np.cumsum(length)
        bits = np.zeros(int(ends[-1]), np.uint8)
        for place in range(int(length.max())):
            long = length > place
            bits[(ends - 1 - place)[long]] = (code[long] >> place) & 1
        bits = np.concatenate([left, bits])
        whole = len(bits) // 8 * 8
        out.append(np.packbits(bits[:whole]).tobytes())
        left = bits[whole:]
    payload = b"".join(out) + np.packbits(left).tobytes()
    return short(code_size.tobytes()) + varint(len(payload)) + payload


def _table(code_size: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return, for every window of bits, the symbol it starts with and its code length."""
    longest = int(code_size.max(initial=0))
    if not 1 <= longest <= LONGEST:
        raise damaged("a Huffman code without symbols, or longer than 16 bits")
    order = np.lexsort((np.arange(len(code_size)), code_size))
    order = order[code_size[order] > 0]
    spans = 1 << (longest - code_size[order].astype(np.int64))
    if int(spans.sum()) != 1 << longest:
        raise damaged("Huffman code lengths that make no complete code")
    return np.repeat(order.astype(np.uint16), spans), np.repeat(code_size[order], spans), longest


def _chain(jump: np.ndarray, block: int) -> np.ndarray:
    """Return 0, jump[0], jump[jump[0]], ... below ``block``, by pointer doubling.

    The positions of the first 2^i symbols and the jump over 2^i symbols give the next 2^i.
    """
    places = np.zeros(1, np.int32)
    while True:
        more = jump[places]
        places = np.concatenate([places, more[more < block]])
        if more[-1] >= block:
            return places
        jump = jump[jump]


def decode(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    """Return ``count`` symbols (uint16) below ``alphabet``.

    For every bit position of a block, the code that would start there is looked up at once; the
    positions where codes really start are then found by pointer doubling.
    """
    symbol, length, longest = _table(np.frombuffer(reader.short(alphabet), np.uint8))
    payload = reader.take(reader.varint(count * LONGEST // 8 + 1))
    data = np.frombuffer(bytes(payload) + bytes(8 + _BLOCK // 8), np.uint8)
    out, done, at = np.empty(count, np.uint16), 0, 0
    here = np.arange(_BLOCK, dtype=np.int32)
    while done < count:
        if at >= 8 * len(payload):
            raise damaged("a Huffman stream that ends early")
        raw = data[at // 8 : at // 8 + _BLOCK // 8 + 4].astype(np.uint32)
        words = raw[:-4] << 24 | raw[1:-3] << 16 | raw[2:-2] << 8 | raw[3:-1]
        window = (words[:, None] << np.arange(8, dtype=np.uint32)) >> np.uint32(32 - longest)
        window, shift = window.reshape(-1), at % 8
        block = _BLOCK - shift
        reach = here[:block] + length[window[shift:]]
        jump = np.append(np.minimum(reach, block), np.int32(block))
        places = _chain(jump, block)[: count - done]
        out[done : done + len(places)] = symbol[window[shift:][places]]
        done += len(places)
        at += int(reach[places[-1]])
    if (at + 7) // 8 != len(payload):
        raise damaged("a Huffman stream with bytes left over")
    return out
