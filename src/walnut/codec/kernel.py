"""The compiled loops of the mixing coder. Integers only: every machine must decode alike.

One decision is predicted by several adaptive counters, each kept for one context. Their log-odds are
added with weights that are learned as the decisions come in (logistic mixing, Mahoney 2005; a
counter that has seen nothing says what the first one says), and an arithmetic coder writes the
decision at that price. The same loops measure, write and read, so that they cannot disagree.
All of them are in this one file: numba's cache of machine code looks at no other.
"""

from __future__ import annotations

import math

from ..core.compiled import compiled

MEASURE, ENCODE, DECODE = 0, 1, 2
LOW, HIGH, CODE, PLACE, MODE, BAD, COST = range(7)
"""Places in the memory of a coder: the arithmetic coder's interval, what it reads or writes, its cost."""

AT, INPUT, CONTEXT, SEEN, WEIGHT = 16, 32, 48, 64, 80
"""Where in that memory the slots of a decision begin, their inputs, contexts, and mixing weights."""

NEAR, PERIOD, PAD, ROWS, COLUMNS = range(96 + 64, 96 + 69)
ZEROS, NEGATIVE, OCTAVES, MASK, VALUE, FREE = range(96 + 69, 96 + 75)
SUM, COUNT, LAST = range(96 + 75, 96 + 78)
MEMORY = 192
"""Then the shape and the plan of a matrix, and the sums of its row."""

NODES = 32  # slots that the leading bits of a number in one octave take
STRETCH = 3071  # log-odds are in 1/256, within ±12
SQUASH = 65536
FIRST = SQUASH + 2 * STRETCH + 1
LATER, TRUST, SPEED = FIRST + 1024, FIRST + 2048, FIRST + 3072
SLOWEST = 4095
"""Where in the fixed tables each one begins."""


@compiled()
def _bit(y, p, memory, buffer):
    """Code the bit ``y``, whose probability of being 1 is p / 65536; return it."""
    mode = memory[MODE]
    if mode == MEASURE:
        memory[COST] -= int(math.log2((p if y else 65536 - p) / 65536.0) * 65536.0)
        return y
    low, high = memory[LOW], memory[HIGH]
    middle = low + (((high - low) * p) >> 16)
    if mode == DECODE:
        y = 1 if memory[CODE] <= middle else 0
    if y:
        high = middle
    else:
        low = middle + 1
    while ((low ^ high) & 0xFF000000) == 0:
        place = memory[PLACE]
        if mode == DECODE:
            byte = int(buffer[place]) if place < len(buffer) else 0
            memory[CODE] = ((memory[CODE] << 8) & 0xFFFFFFFF) | byte
            if place >= len(buffer) + 4:
                memory[BAD] = 1
        elif place < len(buffer):
            buffer[place] = high >> 24
        else:
            memory[BAD] = 1
        memory[PLACE] = place + 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 255
    memory[LOW], memory[HIGH] = low, high
    return y


@compiled()
def _decide(y, n, which, memory, slots, fixed, buffer):
    """Code a decision by the first ``n`` contexts, mixed by the set ``which`` of weights; learn."""
    v = int(slots[memory[AT]])
    base = v >> 10
    s0 = int(fixed[v >> 16])
    w = WEIGHT + 16 * which
    memory[INPUT] = s0
    dot = memory[w] * s0
    for i in range(1, n):
        v = int(slots[memory[AT + i]])
        s = 0
        if v & 1023 == 0:
            slots[memory[AT + i]] = base << 10
        else:
            s = ((int(fixed[v >> 16]) - s0) * int(fixed[TRUST + (v & 1023)])) >> 8
            dot += memory[w + i] * s
        memory[INPUT + i] = s
    p = int(fixed[SQUASH + min(max(dot >> 16, -STRETCH), STRETCH) + STRETCH])
    y = _bit(y, p, memory, buffer)
    t = memory[SEEN + which]
    memory[SEEN + which] = min(t + 1, SLOWEST)
    error = ((y << 16) - p) * int(fixed[SPEED + t])
    goal = (y << 22) - y
    table = FIRST
    for i in range(n):
        memory[w + i] += (memory[INPUT + i] * error + (1 << 21)) >> 22
        v = int(slots[memory[AT + i]])
        k = v & 1023
        p22 = v >> 10
        p22 += ((goal - p22) * int(fixed[table + k])) >> 16
        slots[memory[AT + i]] = (p22 << 10) | min(k + 1, 1022)
        table = LATER
    return y


@compiled()
def flags(alive, near, memory, slots, fixed, buffer):
    """Code which rows, or columns, hold anything; neighbours, also at a stride, are the contexts."""
    for i in range(len(alive)):
        c = 0
        for j in (1, 2, near - 1, near, near + 1):
            c = 2 * c + (int(alive[i - j]) if 0 < j <= i else 0)
        memory[AT], memory[AT + 1], memory[AT + 2] = 0, 1 + (c >> 3), 5 + c
        alive[i] = _decide(int(alive[i]), 3, 0, memory, slots, fixed, buffer)


@compiled()
def _level(value):
    """Return 2·log2 of an integer, roughly, from 0 to 23."""
    if value < 1:
        return 0
    bits = 0
    while value >> bits > 1:
        bits += 1
    half = (value >> (bits - 1)) & 1 if bits else 0
    return min(2 * bits + half, 23)


@compiled()
def _kind(value):
    """Return the sign of a number and its octave up to the third: 0 for none, 1..8."""
    size = abs(value)
    octave = 0 if size < 2 else 1 if size < 4 else 2 if size < 8 else 3
    return 0 if value == 0 else (5 if value < 0 else 1) + octave


@compiled()
def _density(v):
    """Return the probability in a slot's content as one of 16 classes."""
    return min(max(_level(int(v) >> 16) * 2 - 14, 0), 15)


@compiled()
def _mask_contexts(row, column, here, above, higher, lines, groups, memory, slots):
    """Fill in the slots of the contexts of "is it zero?"; lines begin at ``here``, ``above``..."""
    near, period, pad = memory[NEAR], memory[PERIOD], memory[PAD]
    columns = memory[COLUMNS]
    x = here + pad + column
    first = 1 + memory[ROWS] + column
    memory[AT], memory[AT + 1], memory[AT + 2] = 0, 1 + row, first
    left = 1 if lines[x - 1] else 0
    picture = 0
    for d in (near - 1, near, near + 1, period):
        picture = 2 * picture + (1 if 0 < d <= pad and lines[x - d] else 0)
    free = 1 + memory[ROWS] + columns
    memory[AT + 3] = free + 4 * picture + 2 * left + (1 if lines[x - 2] else 0)
    if memory[MASK] < 5:
        return
    free += 64
    total = 0
    for d in (-1, 1, -near, near):
        if 0 <= column + d < columns:
            total += _density(slots[first + d])
    density = _density(slots[first])
    memory[AT + 4] = free + 16 * density + (total >> 2)
    memory[AT + 5] = free + 256 + 16 * density + _density(slots[1 + row])
    group = column // period
    last = free + 512 + 128 + 64
    memory[AT + 8] = last + group
    memory[AT + 6] = free + 512 + 16 * min(lines[groups + group], 7) + _density(slots[last + group])
    recent = 0
    for d in range(1, 9):
        recent += 1 if lines[x - d] else 0
    up = above + pad + column
    vertical = (2 if lines[up] else 0) + (1 if lines[higher + pad + column] else 0)
    memory[AT + 7] = free + 640 + 16 * vertical + 8 * (1 if lines[up + 1] else 0) + min(recent, 7)
    memory[AT + 9] = last + columns + 2 * (column - group * period) + left


@compiled()
def _value_contexts(column, here, above, last, sums, lines, memory):
    """Fill in the contexts of "which number?" at a place."""
    near, period, pad = memory[NEAR], memory[PERIOD], memory[PAD]
    x, own = here + pad + column, sums + 2 * column
    count, total = memory[COUNT], memory[SUM]
    memory[CONTEXT] = 0
    memory[CONTEXT + 1] = 1 + _kind(memory[LAST])
    memory[CONTEXT + 2] = 10 + _kind(lines[last + column])
    memory[CONTEXT + 3] = 19 + _level((total << 4) // count if count else 0)
    count = lines[own + 1]
    memory[CONTEXT + 4] = 43 + _level((lines[own] << 4) // count if count else 0)
    memory[CONTEXT + 5] = 67 + min(column % period, 31)
    over = lines[x - near] if near <= pad else 0
    memory[CONTEXT + 6] = 99 + 9 * _kind(lines[x - 1]) + _kind(over)
    memory[CONTEXT + 7] = 180 + _kind(lines[above + pad + column])


@compiled()
def _number(k, memory, slots, fixed, buffer):
    """Code a number that is not zero: sign, octave, then the bits below the leading one."""
    octaves, n = memory[OCTAVES], memory[VALUE]
    nodes = 1 + octaves + NODES * (octaves + 1)
    size, sign, octave, found, i = abs(k), 0, 0, 1, 0
    stage = 0 if memory[NEGATIVE] else 1
    while True:
        if stage == 1 and octave == octaves:
            stage, i = 2, octave - 1
        if stage == 0:
            bit, node = (1 if k < 0 else 0), 0
        elif stage == 1:
            bit, node = (1 if size >> (octave + 1) else 0), 1 + octave
        elif i < 0:
            break
        else:
            bit, node = (size >> i) & 1, 1 + octaves + NODES * octave + found
        if stage == 2 and found >= NODES:
            bit = _bit(bit, 32768, memory, buffer)
        else:
            for j in range(n):
                memory[AT + j] = memory[FREE] + memory[CONTEXT + j] * nodes + node
            bit = _decide(bit, n, 1 + stage, memory, slots, fixed, buffer)
        if stage == 0:
            sign, stage = bit, 1
        elif stage == 1:
            octave += bit
            if not bit:
                stage, i = 2, octave - 1
        else:
            found, i = 2 * found + bit, i - 1
    return -found if sign else found


@compiled()
def matrix(k, rows, columns, lines, memory, slots, fixed, buffer):
    """Code the integers of ``k`` in its rows and columns that hold anything.

    ``lines``: three rows of numbers with room to their left, the last number of each column, its
    sum and count, and how many of each group there are.
    """
    wide = memory[PAD] + memory[COLUMNS] + 1
    here, above, higher, last = 0, wide, 2 * wide, 3 * wide
    sums = last + memory[COLUMNS]
    groups = sums + 2 * memory[COLUMNS]
    pad, period, n, many = memory[PAD], memory[PERIOD], memory[MASK], memory[VALUE] > 1
    for r in rows:
        memory[SUM], memory[COUNT], memory[LAST] = 0, 0, 0
        lines[groups:] = 0
        for c in columns:
            if memory[BAD]:
                break
            if memory[ZEROS]:
                _mask_contexts(r, c, here, above, higher, lines, groups, memory, slots)
                if not _decide(1 if k[r, c] else 0, n, 0, memory, slots, fixed, buffer):
                    continue
            if many:
                _value_contexts(c, here, above, last, sums, lines, memory)
            v = _number(int(k[r, c]), memory, slots, fixed, buffer)
            k[r, c] = v
            lines[here + pad + c] = v
            memory[SUM] += abs(v)
            memory[COUNT] += 1
            memory[LAST] = v
            lines[last + c] = v
            lines[sums + 2 * c] += abs(v)
            lines[sums + 2 * c + 1] += 1
            lines[groups + c // period] += 1
        here, above, higher = higher, here, above
        lines[here : here + wide] = 0
