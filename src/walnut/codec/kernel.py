"""The compiled loop of the mixing coder. Integers only: every machine must decode alike.

One decision is predicted by an additive logistic model: the log-odds are a sum of weights, one for
each context it stands in, and after the decision each weight moves against the error by a step that
shrinks as its context is told more (the diagonal of Newton's method on the log-likelihood). Adding
log-odds is too sure where contexts repeat each other: so the mean is taken with what did happen at
predictions like this one (secondary estimation), worth about one per cent. An arithmetic coder
writes the decision at that price. The same loop measures, writes and reads, so that they cannot
disagree; it is also plain Python, for the few numbers that are not worth a compilation.

A slot holds a weight in 1/65536 in its upper 32 bits, and Σ p(1 − p) in 1/65536 below; a slot of the
secondary estimation holds a probability in 1/2^32.
"""

from __future__ import annotations

import math
from typing import Any

from ..core.compiled import compiled

_FAST: dict[str, Any] = {"inline": "always", "_nrt": False}
"""All become one function, since a call takes as long as a decision; arrays are not counted in it."""

MEASURE, ENCODE, DECODE = 0, 1, 2
LOW, HIGH, CODE, PLACE, MODE, COST = range(6)
"""Places in the memory of a coder: the arithmetic coder's interval, what it reads or writes, its cost."""

NEAR, PERIOD, PAD, WIDTH = range(6, 10)
NEGATIVE, DEPTH, NODES = range(10, 13)
ROW, COLUMN, PICTURE, GROUP, FULL, VALUE, STAGE, SEEN = range(13, 21)
"""Then the shape and the plan of a matrix, and where the slots of each context begin."""

MEMORY, INPUTS = 21, 7
MASK, NUMBER, SIGN, TREE, BITS, DONE, ZERO = range(7)
"""What is asked of a number: is it zero, its sign, its magnitude or octave, the bits in the octave."""

STRETCH = 3071  # log-odds are in 1/256, within ±12
RATES, TOLD = 4096, 13  # steps of the learning rates, each 2^13 / 65536 of Σ p(1 − p)
FIRST = 2 * STRETCH + 1
LATER = FIRST + RATES
LEVEL = LATER + RATES
AVERAGE = LEVEL + 4096
KIND = AVERAGE + 64
"""Where in the fixed tables each one begins."""

PLACES, INERTIA = 25, 5
PREDICTIONS = 12 * PLACES
"""Of the secondary estimation: log-odds in places of 256, by 8 neighbourhoods of a zero or by the stage."""

DIRECT = 6  # bits of a magnitude up to which it is coded bit by bit, and not its octave first
ROOM = 32  # slots of the octaves' tree, and of the leading bits within each octave
LEVELS, KINDS, SMALL = 24, 9, 5
VALUES = 1 + 2 * LEVELS + KINDS * KINDS + SMALL * SMALL
"""Contexts of a number: none, two mean magnitudes, and the neighbours' signs and magnitudes."""


@compiled(**_FAST)
def _code(y, p, mode, low, high, code, place, cost, buffer):
    """Code the bit ``y``, whose probability of being 1 is p / 65536; return it, and the coder."""
    middle = low + (((high - low) * p) >> 16)
    if mode == DECODE:
        y = 1 if code <= middle else 0
    if mode == MEASURE:
        cost -= math.log2((p if y else 65536 - p) / 65536.0)
    elif y:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) >> 24 == 0:
        if mode == DECODE:
            byte = 0
            if place < len(buffer):
                byte = int(buffer[place])
            code = ((code << 8) & 0xFFFFFFFF) | byte
        elif place < len(buffer):
            buffer[place] = high >> 24
        place += 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 255
    return y, low, high, code, place, cost


@compiled(**_FAST)
def _odds(n, at, slots):
    """Return the log-odds of a 1 by the first ``n`` slots of ``at`` (7, 5, 2 or 0), from 0 on."""
    total = 0
    if n:
        total = slots[at[0]] + slots[at[1]]
        if n > 2:
            total += slots[at[2]] + slots[at[3]] + slots[at[4]]
            if n > 5:
                total += slots[at[5]] + slots[at[6]]
    return int(min(max(total >> 40, -STRETCH), STRETCH) + STRETCH)


@compiled(**_FAST)
def _seen(stage, near, odds):
    """Return where what happened at such log-odds is kept; the place after it is the next one."""
    return PLACES * (near if stage == MASK else 8 + min(stage, 3)) + (odds >> 8)


@compiled(**_FAST)
def _predict(odds, where, slots, fixed):
    """Return the probability of a 1 by the contexts, and its mean with what happened, in 1/65536."""
    told, share = int(fixed[odds]), odds & 255
    alike = (slots[where] * (256 - share) + slots[where + 1] * share) >> 24
    return told, min(max((told + int(alike)) >> 1, 1), 65535)


@compiled(**_FAST)
def _learn(y, p, n, at, slots, fixed):
    """Move the weights in the first ``n`` slots of ``at`` towards the bit that came."""
    error, told = (y << 16) - p, (p * (65536 - p)) >> 16
    table = FIRST
    for i in range(n):
        slot = slots[at[i]]
        rate = (slot >> TOLD) & (RATES - 1)
        slot += (error * int(fixed[table + rate])) >> 16 << 32
        slots[at[i]] = slot + (told if rate < RATES - 2 else 0)
        table = LATER


@compiled(**_FAST)
def _happened(y, nearest, slots):
    """Move the probability nearest to a prediction towards the bit that came."""
    slots[nearest] += ((0xFFFF if y else 0) - (slots[nearest] >> 16)) << (16 - INERTIA)


@compiled(**_FAST)
def _mask_contexts(r, c, x, group, full, left, over, line, at, memory, slots):
    """Fill in the contexts of "is it zero?"."""
    picture = 8 * (left > 0) + 4 * (line[x - 2] > 0)
    near = memory[NEAR]
    if near:
        picture += 32 * (line[x - near + 1] > 0) + 16 * (over > 0) + 2 * (line[x - near - 1] > 0)
    if memory[PERIOD] <= memory[PAD]:
        picture += line[x - memory[PERIOD]] > 0
    at[0] = 0
    at[1] = memory[ROW] + r
    at[2] = memory[COLUMN] + 3 * c
    at[3] = memory[PICTURE] + picture
    at[4] = memory[GROUP] + group
    many = min(max((slots[at[4]] >> 47) + 8, 0), 15)
    at[5] = memory[FULL] + 16 * min(full, 7) + many
    at[6] = memory[COLUMN] + 3 * (c - group * memory[PERIOD]) + 1 + (left > 0)


@compiled(**_FAST)
def _number_contexts(mean, high, left, over, memory, fixed):
    """Return where the slots of each context of "which number?" begin."""
    none, width = memory[VALUE], memory[NODES]
    level = 1 + int(fixed[LEVEL + min(mean >> 8, 4095)])
    high_level = 1 + LEVELS + int(fixed[LEVEL + min(high >> 8, 4095)])
    pair = 1 + 2 * LEVELS + KINDS * (left & 15) + (over & 15)
    small = 1 + 2 * LEVELS + KINDS * KINDS + SMALL * (left >> 4) + (over >> 4)
    return (
        none,
        none + width * level,
        none + width * high_level,
        none + width * pair,
        none + width * small,
    )


@compiled(**_FAST)
def _slots_of(stage, found, octave, a, b, d, e, f, at):
    """Fill in the slots of a decision about a number in these contexts; return how many there are."""
    if stage == SIGN:
        at[0], at[1] = a, e
        return 2
    if stage == BITS and found >= ROOM:
        return 0
    spot = found if stage == TREE else ROOM * (1 + octave) + found
    at[0], at[1], at[2], at[3], at[4] = a + spot, b + spot, d + spot, e + spot, f + spot
    return 5


@compiled(**_FAST)
def _wanted(v, stage, i, direct):
    """Return the next bit of a number that is to be written."""
    size = abs(v)
    if stage == MASK:
        return 1 if v else 0
    if stage == SIGN:
        return 1 if v < 0 else 0
    if stage == TREE:
        whole = size - 1
        if not direct:
            whole = 0
            while size >> whole > 1:
                whole += 1
        return (whole >> i) & 1
    return (size >> i) & 1


@compiled(**_FAST)
def _after(stage, y, i, found, octave, tree, memory):
    """Return what comes after the bit ``y``: the stage, the bits left, those found, the octave."""
    if stage == MASK:
        stage = NUMBER if y else ZERO
    elif stage == SIGN:
        stage = TREE
    else:
        i, found = i - 1, 2 * found + y
    if i < 0 and stage == TREE:
        stage = DONE
        if memory[DEPTH] > DIRECT:
            octave = min(found - (1 << tree), memory[DEPTH], 30)
            stage, i, found = BITS, octave - 1, 1
    if i < 0 and stage == BITS:
        stage = DONE
    return stage, i, found, octave


@compiled(**_FAST)
def _mean(mean, size, count, fixed):
    """Return the mean of magnitudes in 1/4096 with one more; of the last 64, or so, in the end."""
    return mean + ((((min(size, 4095) << 12) - mean) * int(fixed[AVERAGE + min(count, 63)])) >> 16)


@compiled(_nrt=False)
def matrix(k, rows, columns, groups, line, sums, at, memory, slots, fixed, buffer):
    """Code the integers of ``k``, flat, in its rows and columns that hold anything.

    ``groups``: which period each of the columns is in. ``line``: a row of kinds with room to its
    left. ``sums``: of each column the mean magnitude and the count. ``at``: the slots of a decision.
    """
    pad, near, depth, mode = memory[PAD], memory[NEAR], memory[DEPTH], memory[MODE]
    low, high, code, place = memory[LOW], memory[HIGH], memory[CODE], memory[PLACE]
    first, direct, cost = memory[STAGE], depth <= DIRECT, 0.0
    tree = depth if direct else 3 if depth < 8 else 4 if depth < 16 else 5
    for r in rows:
        for j in range(pad, len(line)):
            line[j] = 0
        mean, count, group, full = 0, 0, -1, 0
        for j, c in enumerate(columns):
            if place > len(buffer) + 4:
                break
            x, here = pad + c, r * memory[WIDTH] + c
            stage, i, found, octave, sign = first, tree - 1, 1, 0, 0
            left, over = int(line[x - 1]), int(line[x - near]) if near else 0
            if groups[j] != group:
                group, full = groups[j], 0
            a = b = d = e = f = 0
            while stage < DONE:
                if stage == NUMBER:
                    stage = SIGN if memory[NEGATIVE] else TREE if tree else DONE
                    a, b, d, e, f = _number_contexts(mean, sums[2 * c], left, over, memory, fixed)
                    continue
                bit = 0 if mode == DECODE else _wanted(int(k[here]), stage, i, direct)
                if stage == MASK:
                    n = INPUTS
                    _mask_contexts(r, c, x, group, full, left, over, line, at, memory, slots)
                else:
                    n = _slots_of(stage, found, octave, a, b, d, e, f, at)
                odds = _odds(n, at, slots)
                near_by = 4 * (left > 0) + 2 * (over > 0) + (full > 0)
                where = memory[SEEN] + _seen(stage, near_by, odds)
                told, p = _predict(odds, where, slots, fixed)
                y, low, high, code, place, cost = _code(
                    bit, p, mode, low, high, code, place, cost, buffer
                )
                _learn(y, told, n, at, slots, fixed)
                _happened(y, where + ((odds & 255) >> 7), slots)
                if stage == SIGN:
                    sign = y
                stage, i, found, octave = _after(stage, y, i, found, octave, tree, memory)
            if stage == DONE:
                size = found - (1 << tree) + 1 if direct else found
                k[here] = -size if sign else size
                line[x] = int(fixed[KIND + min(size, 8)]) + (4 if sign else 0)
                mean = _mean(mean, size, count, fixed)
                sums[2 * c] = _mean(sums[2 * c], size, sums[2 * c + 1], fixed)
                count, full, sums[2 * c + 1] = count + 1, full + 1, sums[2 * c + 1] + 1
    memory[LOW], memory[HIGH], memory[CODE], memory[PLACE] = low, high, code, place
    memory[COST] += int(cost)
