"""Matrices of integers by mixed contexts: the smallest form, and the slowest.

Every decision (does a row hold anything, is a number zero, its sign, its size) is predicted from
what has been decoded already: how full the row and the column are, what stands to the left and
above, in the pixel above, at the same place of the last kernel. No table is stored; the encoder
writes which strides and how many contexts it found best. The design is that of lossless data
compressors (Mahoney 2005, "Adaptive weighing of context models for lossless data compression"),
with counters that begin where the least specific one stands, so that a kilobyte is enough to learn.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from . import kernel as at
from .stream import Reader, damaged

Array = np.ndarray

FULL, QUICK = (10, 8), (4, 1)
"""How many contexts are mixed: of "is it zero?" and of "which number?"."""

_NUMBER_CONTEXTS = 1 + 9 + 9 + 24 + 24 + 32 + 81 + 9
WIDEST = 1 << 16  # columns for which the contexts' memory is nothing beside the matrix
_PICTURE, _GROUP, _SMALL = 64, 128, 64  # slots of the contexts that do not grow with the matrix

# First guesses, tried on pruned LeNets and a ResNet-20 of 4 bits: small changes move nothing there.
_LIMIT_FIRST, _LIMIT_LATER = 1000, 500  # how many decisions a counter remembers
_SLOW, _FAST, _HALF = 24, 300, 200  # learning of the weights: in the end, at first, how long
_ROW, _MASK, _NUMBER = 30000, 12000, 14000  # first weights, in 1/65536


@dataclass(frozen=True)
class Plan:
    """How a matrix is coded.

    ``near``: the distance of the pixel above, in columns (0: there is none); ``period``: of one
    kernel, or picture row, to the next. ``zeros``, ``negative``: whether there are any.
    ``octaves``: ⌊log2⌋ of the largest magnitude. ``full``: all contexts, or the quick few.
    """

    near: int
    period: int
    zeros: bool
    negative: bool
    octaves: int
    full: bool = True


@functools.cache
def tables() -> Array:
    """Return log-odds of a probability and back, and the speeds of learning; from integers alone."""
    one = term = step = 1 << 96
    for i in range(1, 30):  # e^(1/256) by its series
        term //= 256 * i
        step += term
    power, squash = one, [32768]
    for _ in range(at.STRETCH):
        power = power * step >> 96
        squash.append((65536 * power + ((one + power) >> 1)) // (one + power))
    half = np.minimum(np.array(squash), 65535)
    both = np.concatenate([65536 - half[:0:-1], half])
    stretch = np.searchsorted(both, np.arange(65536)).clip(0, 2 * at.STRETCH) - at.STRETCH
    k = np.arange(1024)
    first = np.maximum(65536 * 2 // (2 * k + 4), 65536 // _LIMIT_FIRST)
    later = np.maximum(65536 * 2 // (2 * k + 6), 65536 // _LIMIT_LATER)
    trust = 256 * k // (k + 1)
    speed = _SLOW + _FAST * _HALF // (_HALF + np.arange(at.SLOWEST + 1))
    return np.concatenate([stretch, both, first, later, trust, speed]).astype(np.int32)


def fits(rows: int, columns: int) -> bool:
    """Say whether a matrix may be coded: the contexts' memory must be small beside it."""
    return columns > 0 and 64 * (rows + columns) <= 8 * rows * columns + (64 * WIDEST)


@dataclass
class _Coder:
    """The arithmetic coder between two calls of the kernel: it writes to, or reads, ``buffer``."""

    memory: Array
    buffer: Array

    @classmethod
    def of(cls, mode: int, buffer: Array) -> _Coder:
        """Return a coder at the start of ``buffer``."""
        memory = np.zeros(at.MEMORY, np.int64)
        memory[at.HIGH], memory[at.MODE] = 0xFFFFFFFF, mode
        if mode == at.DECODE:
            memory[at.CODE] = int.from_bytes(bytes(buffer[:4]).ljust(4, b"\0"), "big")
            memory[at.PLACE] = 4
        return cls(memory, buffer)

    def ending(self) -> bytes:
        """Return the fewest bytes that say where the code ended, whatever follows them."""
        low, high = int(self.memory[at.LOW]), int(self.memory[at.HIGH])
        for count in range(4):
            rest = 32 - 8 * count
            lead = -(-low >> rest)
            if ((lead + 1) << rest) - 1 <= high:
                return lead.to_bytes(count, "big")
        return low.to_bytes(4, "big")

    def learn(self, weights: list[list[int]]) -> None:
        """Begin with these mixing weights, a row for each set; its last one is repeated."""
        self.memory[at.SEEN : at.SEEN + 16] = 0
        for i, row in enumerate(weights):
            start = at.WEIGHT + 16 * i
            self.memory[start : start + 16] = row + [row[-1]] * (16 - len(row))


def _flags(alive: Array, near: int, coder: _Coder) -> Array:
    """Code which rows, or columns, hold anything; return their places."""
    coder.learn([[65536, 20000, 40000]])
    slots = np.zeros(1 + 4 + 32, np.uint32)
    slots[0] = 1 << 31
    at.flags(alive, near, coder.memory, slots, tables(), coder.buffer)
    return np.flatnonzero(alive)


def _run(k: Array, plan: Plan, coder: _Coder) -> None:
    """Measure, write or read a matrix (int32), in place."""
    rows, columns = k.shape
    live = np.arange(rows), np.arange(columns)
    if plan.zeros and rows > 1:
        alive = np.zeros(rows, np.uint8), np.zeros(columns, np.uint8)
        if coder.memory[at.MODE] != at.DECODE:
            alive[0][:], alive[1][:] = k.any(1), k.any(0)
        live = _flags(alive[0], 0, coder), _flags(alive[1], plan.near, coder)
    mask, number = FULL if plan.full else QUICK
    pad = max(16, plan.near + 1, min(plan.period, 4096))
    places = rows + 2 * columns + 2 * plan.period
    free = 1 + places + _PICTURE + 2 * 256 + _GROUP + _SMALL if plan.zeros else 0
    nodes = 1 + plan.octaves + at.NODES * (plan.octaves + 1)
    slots = np.zeros(free + nodes * (_NUMBER_CONTEXTS if plan.full else 1), np.uint32)
    slots[0] = slots[free : free + nodes] = 1 << 31
    coder.learn([[65536, _ROW, _ROW, _MASK], *[[65536, _NUMBER]] * 3])
    memory = coder.memory
    memory[at.NEAR : at.COLUMNS + 1] = plan.near, plan.period, pad, rows, columns
    memory[at.ZEROS : at.FREE + 1] = plan.zeros, plan.negative, plan.octaves, mask, number, free
    memory[at.CONTEXT : at.CONTEXT + 16] = 0
    groups = columns // plan.period + 1
    lines = np.zeros(3 * (pad + columns + 1) + 3 * columns + groups, np.int64)
    at.matrix(k, *live, lines, memory, slots, tables(), coder.buffer)


def measure(k: Array, plan: Plan) -> float:
    """Return the ideal code length of a matrix in bytes: Σ −log2 of each decision's probability."""
    coder = _Coder.of(at.MEASURE, np.zeros(0, np.uint8))
    _run(k, plan, coder)
    return float(coder.memory[at.COST]) / (8 * 65536)


def encode(k: Array, plan: Plan) -> bytes:
    """Return a matrix (rows, columns) int32 as bytes; its shape and plan are for the reader to know."""
    room = k.size * 4 + 1024  # reserved, and not touched where it is not needed
    while True:
        coder = _Coder.of(at.ENCODE, np.empty(room, np.uint8))
        _run(k, plan, coder)
        if not coder.memory[at.BAD]:
            return coder.buffer[: coder.memory[at.PLACE]].tobytes() + coder.ending()
        room *= 4


def decode(reader: Reader, shape: tuple[int, int], plan: Plan) -> Array:
    """Return the matrix that :func:`encode` wrote; it knows itself where it ends."""
    rows, columns = shape
    if not fits(rows, columns) or not 0 <= plan.near <= columns or plan.octaves > 30:
        raise damaged("numbers in a form that cannot be")
    if not 1 <= plan.period <= columns:
        raise damaged("a kernel larger than its row")
    coder = _Coder.of(at.DECODE, reader.rest())
    k = np.zeros(shape, np.int32)
    _run(k, plan, coder)
    if coder.memory[at.BAD]:
        raise damaged("an entropy-coded part is cut off")
    reader.take(int(coder.memory[at.PLACE]) - 4 + len(coder.ending()))
    return k
