"""The transforms of Winograd convolution as machine code: sixteen channels an instruction.

The matrices are constants of the code, and what a pair of rows p ± q shares is computed once. A
loop over channels with 36 streams is not vectorised by the compiler, which cannot know that they do
not overlap; so the vectors are written out, as LLVM's 16 x float (one register of AVX-512, two of
AVX2, four of SSE or NEON).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from .winograd_transforms import Matrix, cook_toom

LANES = 16


def plan(matrix: Matrix) -> list[tuple[list[tuple[int, Fraction]], ...]]:
    """Return, for each row, the sums that make it: one, or two that it shares with another row.

    A row is a list of (column, coefficient). Rows i < j with i = e + o and j = e − o, where e and o
    have no column in common, are given as (e, o) and (e, −o).
    """
    rows = [[(k, v) for k, v in enumerate(row) if v] for row in matrix]
    found: list[Any] = [(row,) for row in rows]
    for i, first in enumerate(rows):
        for j in range(i + 1, len(rows)):
            a, b = dict(first), dict(rows[j])
            opposite = {k for k in a if a[k] == -b.get(k, 0)}
            same = {k for k in a if a[k] == b.get(k)}
            if a.keys() == b.keys() == opposite | same and opposite and same and len(a) > 2:
                even = [(k, v) for k, v in first if k in same]
                odd = [(k, v) for k, v in first if k in opposite]
                found[i], found[j] = (even, odd), (even, [(k, -v) for k, v in odd])
    return found


def _product(builder: Any, kind: Any, matrix: Matrix, values: Sequence[Any]) -> list[Any]:
    """Write the product of a constant matrix with a column of vector registers."""
    from llvmlite import ir  # type: ignore[import-untyped]

    fast = ("fast",)
    known: dict[Any, Any] = {}

    def constant(value: Fraction) -> Any:
        return ir.Constant(kind, [float(value)] * LANES)

    def total(terms: list[tuple[int, Fraction]]) -> Any:
        # a common factor first: −4a − 4b + c is one multiplication
        key = tuple(terms)
        if key not in known:
            result = None
            for k, v in sorted(terms, key=lambda term: (abs(term[1]), term[0])):
                size = abs(v)
                term = values[k]
                if size != 1:
                    term = builder.fmul(term, constant(size), flags=fast)
                if result is None:
                    result = term if v > 0 else builder.fneg(term, flags=fast)
                else:
                    add = builder.fadd if v > 0 else builder.fsub
                    result = add(result, term, flags=fast)
            known[key] = result
        return known[key]

    made = []
    for parts in plan(matrix):
        if len(parts) == 1:
            made.append(total(parts[0]))
            continue
        even, odd = parts
        opposite = tuple((k, -v) for k, v in odd)
        if opposite in known:
            made.append(builder.fsub(total(even), known[opposite], flags=fast))
        else:
            made.append(builder.fadd(total(even), total(odd), flags=fast))
    return made


def _both_sides(builder: Any, kind: Any, matrix: Matrix, tile: list[Any]) -> list[Any]:
    """Write M X Mᵀ for a square tile of vector registers, row by row."""
    n = len(matrix[0])
    columns = [_product(builder, kind, matrix, tile[j::n]) for j in range(n)]
    rows = [[column[i] for column in columns] for i in range(len(matrix))]
    return [value for row in rows for value in _product(builder, kind, matrix, row)]


def _loader(
    builder: Any, context: Any, array_type: Any, array: Any, byte: Any
) -> Callable[..., Any]:
    """Return what reads the k-th address of an array, ``byte`` bytes on."""
    from llvmlite import ir

    data = context.make_array(array_type)(context, builder, array).data

    def address(k: int) -> Any:
        where = builder.gep(data, [ir.Constant(ir.IntType(64), k)])
        return builder.add(builder.load(where), byte)

    return address


@functools.cache
def intrinsics(outputs: int) -> tuple[Any, Any]:
    """Return two functions for numba's compiled code: a tile in, a tile out, for sixteen channels.

    ``take(addresses, byte, out, step)`` reads the n·n pixels at ``addresses`` + byte and writes
    Bᵀ d B to out, out + step, ...; ``give(source, step, bias, addresses, byte)`` reads n·n products
    and writes Aᵀ M A + bias to the m·m pixels at ``addresses`` + byte. Addresses are integers.
    """
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    matrices = cook_toom(outputs, 3)
    n = outputs + 2
    vector = ir.VectorType(ir.FloatType(), LANES)

    def at(builder: Any, address: Any) -> Any:
        return builder.inttoptr(address, vector.as_pointer())

    def step(builder: Any, base: Any, stride: Any, k: int) -> Any:
        return builder.add(base, builder.mul(stride, ir.Constant(ir.IntType(64), k)))

    def take_code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, byte, out, stride = arguments
        address = _loader(builder, context, signature.args[0], array, byte)
        tile = [builder.load(at(builder, address(k)), align=4) for k in range(n * n)]
        for k, value in enumerate(_both_sides(builder, vector, matrices.b, tile)):
            builder.store(value, at(builder, step(builder, out, stride, k)), align=4)
        return context.get_dummy_value()

    def give_code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, stride, bias, array, byte = arguments
        address = _loader(builder, context, signature.args[3], array, byte)
        tile = [
            builder.load(at(builder, step(builder, source, stride, k)), align=4)
            for k in range(n * n)
        ]
        extra = builder.load(at(builder, bias), align=4)
        for k, value in enumerate(_both_sides(builder, vector, matrices.a, tile)):
            whole = builder.fadd(value, extra, flags=("fast",))
            builder.store(whole, at(builder, address(k)), align=4)
        return context.get_dummy_value()

    def take(typing: Any, addresses: Any, byte: Any, out: Any, stride: Any) -> Any:
        return types.void(addresses, byte, out, stride), take_code

    def give(typing: Any, source: Any, stride: Any, bias: Any, addresses: Any, byte: Any) -> Any:
        return types.void(source, stride, bias, addresses, byte), give_code

    return intrinsic(inspect.unwrap(take)), intrinsic(inspect.unwrap(give))


@functools.cache
def kernels(outputs: int) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return the compiled loops over the tiles of channels-last float32 images.

    ``inward(x, v, first, count, height, width, channels, pad, down, across, zeros)`` writes the
    transformed tiles first, ..., first + count − 1 to v (n·n, count, channels);
    ``outward(m, y, bias, first, count, height, width, channels, down, across, spare)`` turns products
    m (n·n, count, channels) into the outputs y. All are addresses or counts; ``zeros`` is what a
    pixel outside the image reads, ``spare`` takes what an output outside of it would write.
    """
    import numpy as np
    from numba import njit

    take, give = intrinsics(outputs)
    m, n, lanes = outputs, outputs + 2, LANES

    def inward(x, v, first, count, height, width, channels, pad, down, across, zeros):
        addresses = np.empty(n * n, np.int64)
        row = 4 * channels
        for t in range(count):
            image, place = divmod(first + t, down * across)
            top, left = divmod(place, across)
            top, left = top * m - pad, left * m - pad
            for i in range(n):
                for j in range(n):
                    a, b = top + i, left + j
                    inside = 0 <= a < height and 0 <= b < width
                    pixel = x + row * ((image * height + a) * width + b)
                    addresses[i * n + j] = pixel if inside else zeros
            for c in range(0, channels, lanes):
                byte = 4 * min(c, channels - lanes)
                take(addresses, byte, v + row * t + byte, row * count)

    def outward(p, y, bias, first, count, height, width, channels, down, across, spare):
        addresses = np.empty(m * m, np.int64)
        row = 4 * channels
        for t in range(count):
            image, place = divmod(first + t, down * across)
            top, left = divmod(place, across)
            for i in range(m):
                for j in range(m):
                    a, b = top * m + i, left * m + j
                    pixel = y + row * ((image * height + a) * width + b)
                    addresses[i * m + j] = pixel if a < height and b < width else spare
            for c in range(0, channels, lanes):
                byte = 4 * min(c, channels - lanes)
                give(p + row * t + byte, row * count, bias + byte, addresses, byte)

    # whatever was put round the loops (a checker of types, in tests) is no business of the compiler
    machine = njit(nogil=True)
    return machine(inspect.unwrap(inward)), machine(inspect.unwrap(outward))
