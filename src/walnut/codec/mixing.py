"""Matrices of integers by mixed contexts: the smallest form.

Every decision (does a row hold anything, is a number zero, its sign, its size) is predicted from
what has been decoded already: how full the row, the column and the kernel are, what stands to the
left and above in the picture, how large the numbers of the row and the column were. No table is
stored; the encoder writes which strides it found best. The model is logistic regression, learned as
the decisions come in (:mod:`.kernel`); that contexts' log-odds should be added is from lossless data
compressors (Mahoney 2005, "Adaptive weighing of context models for lossless data compression"). A
context that has seen nothing adds nothing, so that a kilobyte is enough to learn.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

import numpy as np

from ..core.compiled import Lazy
from . import kernel as at
from .stream import Reader, damaged

Array = np.ndarray

WIDEST = 1 << 16  # columns for which the contexts' memory is nothing beside the matrix
_PICTURES, _FULLNESS = 64, 8 * 16  # slots of the contexts that do not grow with the matrix

# Steps of learning: s / (λ + Σ p(1 − p)), s and λ in quarters, for the context of everything and for
# the others. From a search on pruned LeNets and a ResNet-20, of 1.4 to 114 kB: half these cost 1 %.
_FIRST, _LATER = (6, 5), (4, 20)


@dataclass(frozen=True)
class Plan:
    """How a matrix is coded.

    ``near``: the distance of the pixel above, in columns (0: there is none); ``period``: of one
    kernel, or picture row, to the next. ``zeros``, ``negative``: whether there are any.
    ``depth``: bits of the largest magnitude less one.
    """

    near: int
    period: int
    zeros: bool
    negative: bool
    depth: int


@functools.cache
def tables() -> Array:
    """Return probabilities of log-odds, rates of learning, and small functions of magnitudes."""
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
    told = np.arange(at.RATES) << at.TOLD  # in 1/65536
    rates = [(s << 30) // ((start << 14) + told) for s, start in (_FIRST, _LATER)]
    levels = [
        min(2 * (v.bit_length() - 1) + (v > 1 and v >> (v.bit_length() - 2) & 1), 23)
        for v in range(1, 4096)
    ]
    average = 65536 // (1 + np.arange(64))
    # of a magnitude up to 8: its octave up to the third from 1, and 16 times one of five classes
    kinds = [0, 1, 2 + 16, 2 + 32, 3 + 48, 3 + 48, 3 + 64, 3 + 64, 4 + 64]
    return np.concatenate([both, *rates, [0, *levels], average, kinds]).astype(np.int32)


@functools.cache
def _predictions() -> Array:
    """Return what the secondary estimation begins with: the predictions as they are."""
    centres = np.minimum(np.arange(at.PLACES) << 8, at.FIRST - 1)
    return np.tile(tables()[centres].astype(np.int64) << 16, at.PREDICTIONS // at.PLACES)


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


def _live(alive: Array, near: int, coder: _Coder) -> Array:
    """Code which rows, or columns, hold anything, as a matrix of one row; return their places."""
    k = alive.astype(np.int32)
    _matrix(
        k.reshape(1, -1), Plan(near, len(k), True, False, 0), coder, np.arange(1), np.arange(len(k))
    )
    return np.flatnonzero(k)


def _run(k: Array, plan: Plan, coder: _Coder) -> None:
    """Measure, write or read a matrix (int32), in place."""
    rows, columns = k.shape
    live = np.arange(rows), np.arange(columns)
    if plan.zeros and rows > 1:
        live = (
            _live(np.asarray(k.any(1)), 0, coder),
            _live(np.asarray(k.any(0)), plan.near, coder),
        )
    _matrix(k, plan, coder, *live)


def _matrix(k: Array, plan: Plan, coder: _Coder, rows: Array, columns: Array) -> None:
    """Measure, write or read these rows and columns of a matrix."""
    width, memory = k.shape[1], coder.memory
    groups = columns // plan.period
    nodes = 1 << plan.depth if plan.depth <= at.DIRECT else at.ROOM * (plan.depth + 2)
    sizes = [1, k.shape[0], 3 * width, _PICTURES, width // plan.period + 1, _FULLNESS]
    starts = np.cumsum(sizes if plan.zeros else [0] * len(sizes))
    pad = max(16, plan.near + 2, min(plan.period, 4096) + 1)
    memory[at.NEAR : at.NODES + 1] = (
        plan.near,
        plan.period,
        pad,
        width,
        plan.negative,
        plan.depth,
        nodes,
    )
    memory[at.ROW : at.VALUE + 1] = starts
    memory[at.STAGE] = at.MASK if plan.zeros else at.NUMBER
    memory[at.SEEN] = starts[-1] + nodes * at.VALUES
    line, sums = np.zeros(pad + width + 1, np.int64), np.zeros(2 * width, np.int64)
    contexts = np.zeros(memory[at.SEEN], np.int64)
    slots, slot = np.concatenate([contexts, _predictions()]), np.zeros(at.INPUTS, np.uint64)
    flat = k.reshape(-1)
    arrays = [flat, rows, columns, groups, line, sums, slot, memory, slots, tables(), coder.buffer]
    loop = cast(Lazy, at.matrix)
    if loop.pays(len(rows) * len(columns) * (1 if plan.zeros else plan.depth + 1)):
        loop(*arrays)
        return
    lists = [array.tolist() for array in arrays]
    loop.plain(*lists)
    flat[:], memory[:] = lists[0], lists[7]
    coder.buffer[: memory[at.PLACE]] = lists[-1][: memory[at.PLACE]]


def measure(k: Array, plan: Plan) -> float:
    """Return the ideal code length of a matrix in bytes: Σ −log2 of each decision's probability."""
    coder = _Coder.of(at.MEASURE, np.zeros(0, np.uint8))
    _run(k, plan, coder)
    return float(coder.memory[at.COST]) / 8


def encode(k: Array, plan: Plan) -> bytes:
    """Return a matrix (rows, columns) int32 as bytes; its shape and plan are for the reader to know."""
    room = k.size * 4 + 1024  # reserved, and not touched where it is not needed
    while True:
        coder = _Coder.of(at.ENCODE, np.empty(room, np.uint8))
        _run(k, plan, coder)
        if coder.memory[at.PLACE] <= room:
            return coder.buffer[: coder.memory[at.PLACE]].tobytes() + coder.ending()
        room *= 4


def decode(reader: Reader, shape: tuple[int, int], plan: Plan) -> Array:
    """Return the matrix that :func:`encode` wrote; it knows itself where it ends."""
    rows, columns = shape
    if not fits(rows, columns) or not 0 <= plan.near <= columns or not 0 <= plan.depth <= 31:
        raise damaged("numbers in a form that cannot be")
    if not 1 <= plan.period <= columns:
        raise damaged("a kernel larger than its row")
    coder = _Coder.of(at.DECODE, reader.rest())
    k = np.zeros(shape, np.int32)
    _run(k, plan, coder)
    if coder.memory[at.PLACE] > len(coder.buffer) + 4:
        raise damaged("an entropy-coded part is cut off")
    reader.take(int(coder.memory[at.PLACE]) - 4 + len(coder.ending()))
    return k
