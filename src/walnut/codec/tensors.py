"""One tensor as bytes and back, bit for bit, in the smallest of five layouts.

- *raw*: the bytes.
- *planes*: the first bytes of all numbers, then the second, ..., each plane entropy coded. Floats
  are rotated by one bit first, so that the exponent is one byte.
- *codebook*: the distinct values, and for each number which one it is.
- *sparse*: where the tensor is not zero, and the non-zeros in one of the layouts above.
- *mixed*: integers that stand for the values (:mod:`.integers`), by mixed contexts.

Only the values are looked at: a pruned tensor has zeros, a shared one has few distinct values.
``-0.0`` is not zero here, and a NaN keeps its payload.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..core.errors import WalnutError
from . import integers, positions, symbols
from .stream import Reader, damaged, varint
from .symbols import ALL, MIXED, MOST, Coder

DTYPES: dict[str, torch.dtype] = {
    str(t).removeprefix("torch."): t
    for t in (
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
        *(torch.float8_e4m3fn, torch.float8_e5m2),
    )
}
"""The dtypes a file may hold, by name."""

LAYOUTS = ("raw", "planes", "codebook", "sparse")
_LARGE, _CHUNK = 1 << 20, 1 << 18
_HUGE = 1 << 22  # numbers from which on nothing is tried beside mixed contexts: time and memory
_EXPONENT_ACROSS_BYTES = (torch.float32, torch.bfloat16)  # one sign bit, eight bits of exponent


def dtype_name(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype, ``"float32"`` say; raise for one a file cannot hold."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in DTYPES or tensor.layout != torch.strided or tensor.is_quantized:
        known = ", ".join(DTYPES)
        raise WalnutError(f"a .walnut file holds dense tensors of {known}, not {name}; convert it")
    return name


def _to_words(tensor: Tensor) -> np.ndarray:
    """Return the numbers as unsigned integers of the same size, (n,)."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel() == 0:
        return np.zeros(0, f"<u{tensor.element_size()}")
    return flat.view(torch.uint8).numpy().view(f"<u{tensor.element_size()}")


def _to_tensor(words: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if words.size == 0:
        return torch.empty(shape, dtype=dtype)
    if dtype == torch.bool and int(words.max()) > 1:
        raise damaged("a truth value that is neither 0 nor 1")
    return torch.from_numpy(words.view(np.uint8)).view(dtype).reshape(shape)


def encode(tensor: Tensor, coders: Sequence[Coder] = ALL) -> bytes:
    """Return a tensor of any shape as bytes; its dtype and shape are for the container to keep.

    >>> w = torch.zeros(100, 100)
    >>> w[3, 7] = -0.5
    >>> len(encode(w)) < 30
    True
    """
    dtype_name(tensor)
    words, dtype, shape = _to_words(tensor), tensor.dtype, tuple(tensor.shape)
    few = _few_distinct(words)
    book = partial(_book, dtype=dtype, coders=coders)
    if MIXED in coders and len(words) > _HUGE:
        mixed = integers.encode(words, dtype, shape, few, book)
        if mixed:
            return min(mixed, key=len)
    mask = words != 0
    density = np.count_nonzero(mask) / max(len(words), 1)
    options = []
    if len(words) >= 64 and 0 < density < 0.95:
        live, index = words[mask], None
        if len(words) > _LARGE and few is not None and int(few[0][0]) == 0:
            index = few[0][1:], few[1][mask] - np.uint16(1)
        inner = _dense(live, dtype, coders, index or _few_distinct(live))
        options.append(bytes([3]) + positions.encode(mask, shape, coders) + inner)
    if not options or len(words) <= _LARGE or density > 0.5:
        options.append(_dense(words, dtype, coders, few))
    if MIXED in coders:
        options += integers.encode(words, dtype, shape, few, book)
    return min(options, key=len)


def decode(reader: Reader, dtype: torch.dtype, shape: tuple[int, ...]) -> tuple[Tensor, str]:
    """Return the tensor that :func:`encode` wrote, and its layout in words ("sparse, codebook")."""
    count = math.prod(shape)
    code = reader.byte()
    if code & integers.MARK:
        words, form = integers.decode(
            reader, code, dtype, shape, partial(_read_book, reader, dtype)
        )
        return _to_tensor(words, dtype, shape), f"mixed, {form}"
    if code > 3:
        raise damaged("a layout that walnut does not know")
    if code < 3:
        words = _read_dense(reader, code, count, dtype)
        return _to_tensor(words, dtype, shape), LAYOUTS[code]
    if count == 0:
        raise damaged("an empty tensor with non-zeros")
    mask = positions.decode(reader, shape)
    inner = reader.byte(3)
    words = np.zeros(count, f"<u{_width(dtype)}")
    words[mask] = _read_dense(reader, inner, int(mask.sum()), dtype)
    return _to_tensor(words, dtype, shape), f"sparse, {LAYOUTS[inner]}"


def _width(dtype: torch.dtype) -> int:
    return torch.empty((), dtype=dtype).element_size()


def _dense(
    words: np.ndarray, dtype: torch.dtype, coders: Sequence[Coder], few: integers.Few | None
) -> bytes:
    """Return words (n,) as the smallest of raw, planes and codebook."""
    options = []
    if few is None or len(words) <= _LARGE:
        options += _plain(words, dtype, coders)
    if few is not None:
        distinct, index = few
        book = _book(distinct, dtype, coders)
        body = symbols.encode(index, len(distinct), coders)
        options.append(bytes([2]) + varint(len(distinct)) + book + body)
    return min(options, key=len)


def _plain(words: np.ndarray, dtype: torch.dtype, coders: Sequence[Coder]) -> list[bytes]:
    """Return words (n,) raw and as planes, each with its code in front."""
    return [bytes([0]) + words.tobytes(), bytes([1]) + _planes(words, dtype, coders)]


def _book(words: np.ndarray, dtype: torch.dtype, coders: Sequence[Coder]) -> bytes:
    """Return the few values of a codebook, (n,), in the smallest form."""
    options = _plain(words, dtype, coders)
    if MIXED in coders:
        options += integers.encode(words, dtype, (len(words),), None, bytes)
    return min(options, key=len)


def _few_distinct(words: np.ndarray) -> integers.Few | None:
    """Return the distinct words, in order, and which one each is, where a codebook can pay."""
    most = min(MOST, len(words) // 2)
    if len(words) < 2 or len(np.unique(words[: 4 * MOST])) > most:
        return None
    found = np.unique(words[: 4 * MOST])
    for start in range(0, len(words), _CHUNK):  # sorting all of a large tensor takes longer
        part = words[start : start + _CHUNK]
        place = np.searchsorted(found, part)
        fresh = part[found[np.minimum(place, len(found) - 1)] != part]
        if len(fresh):
            found = np.union1d(found, fresh)
            if len(found) > most:
                return None
    index = np.empty(len(words), np.uint16)
    for start in range(0, len(words), _CHUNK):
        index[start : start + _CHUNK] = np.searchsorted(found, words[start : start + _CHUNK])
    return found, index


def _planes(words: np.ndarray, dtype: torch.dtype, coders: Sequence[Coder]) -> bytes:
    width = words.itemsize
    if dtype in _EXPONENT_ACROSS_BYTES:
        words = (words << 1) | (words >> (8 * width - 1))
    planes = words.view(np.uint8).reshape(-1, width)
    return b"".join(symbols.encode(planes[:, i], 256, coders) for i in range(width))


def _read_dense(reader: Reader, code: int, count: int, dtype: torch.dtype) -> np.ndarray:
    width = _width(dtype)
    if code == 0:
        return np.frombuffer(bytearray(reader.take(count * width)), f"<u{width}")
    if code == 1:
        return _read_planes(reader, count, dtype)
    distinct = reader.varint(min(MOST, count))
    book = _read_book(reader, dtype, distinct)
    if count and not distinct:
        raise damaged("a codebook without values")
    return book[symbols.decode(reader, count, distinct)] if count else book


def _read_book(reader: Reader, dtype: torch.dtype, count: int) -> np.ndarray:
    code = reader.byte()
    if code & integers.MARK:
        return integers.decode(reader, code, dtype, (count,), _no_book)[0]
    if code > 1:
        raise damaged("a codebook in a layout that walnut does not know")
    return _read_dense(reader, code, count, dtype)


def _no_book(count: int) -> np.ndarray:
    raise damaged("a codebook of a codebook")


def _read_planes(reader: Reader, count: int, dtype: torch.dtype) -> np.ndarray:
    width = _width(dtype)
    planes = np.empty((count, width), np.uint8)
    for i in range(width):
        planes[:, i] = symbols.decode(reader, count, 256)
    words = planes.reshape(-1).view(f"<u{width}")
    if dtype in _EXPONENT_ACROSS_BYTES:
        return (words >> 1) | (words << (8 * width - 1))
    return words
