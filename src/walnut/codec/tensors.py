"""One tensor as bytes and back, bit for bit, in the smallest of four layouts.

- *raw*: the bytes.
- *planes*: the first bytes of all numbers, then the second, ..., each plane entropy coded. Floats
  are rotated by one bit first, so that the exponent is one byte.
- *codebook*: the distinct values, and for each number which one it is.
- *sparse*: where the tensor is not zero, and the non-zeros in one of the layouts above.

Only the values are looked at: a pruned tensor has zeros, a shared one has few distinct values.
``-0.0`` is not zero here, and a NaN keeps its payload.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..core.errors import WalnutError
from . import positions, symbols
from .stream import Reader, damaged, varint
from .symbols import ALL, MOST, Coder

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
    words, rotate = _to_words(tensor), tensor.dtype in _EXPONENT_ACROSS_BYTES
    options = [_dense(words, rotate, coders)]
    mask = words != 0
    if len(words) >= 64 and 0 < mask.sum() < 0.95 * len(words):
        where = positions.encode(mask, tuple(tensor.shape), coders)
        options.append(bytes([3]) + where + _dense(words[mask], rotate, coders))
    return min(options, key=len)


def decode(reader: Reader, dtype: torch.dtype, shape: tuple[int, ...]) -> tuple[Tensor, str]:
    """Return the tensor that :func:`encode` wrote, and its layout in words ("sparse, codebook")."""
    count = math.prod(shape)
    width = torch.empty((), dtype=dtype).element_size()
    rotate = dtype in _EXPONENT_ACROSS_BYTES
    code = reader.byte(len(LAYOUTS))
    if code < 3:
        words = _read_dense(reader, code, count, width, rotate)
        return _to_tensor(words, dtype, shape), LAYOUTS[code]
    if count == 0:
        raise damaged("an empty tensor with non-zeros")
    mask = positions.decode(reader, shape)
    inner = reader.byte(3)
    words = np.zeros(count, f"<u{width}")
    words[mask] = _read_dense(reader, inner, int(mask.sum()), width, rotate)
    return _to_tensor(words, dtype, shape), f"sparse, {LAYOUTS[inner]}"


def _dense(words: np.ndarray, rotate: bool, coders: Sequence[Coder]) -> bytes:
    """Return words (n,) as the smallest of raw, planes and codebook."""
    options = _plain(words, rotate, coders)
    distinct = _few_distinct(words)
    if distinct is not None:
        index = np.searchsorted(distinct, words).astype(np.uint16)
        book = min(_plain(distinct, rotate, coders), key=len)
        body = symbols.encode(index, len(distinct), coders)
        options.append(bytes([2]) + varint(len(distinct)) + book + body)
    return min(options, key=len)


def _plain(words: np.ndarray, rotate: bool, coders: Sequence[Coder]) -> list[bytes]:
    """Return words (n,) raw and as planes, each with its code in front."""
    return [bytes([0]) + words.tobytes(), bytes([1]) + _planes(words, rotate, coders)]


def _few_distinct(words: np.ndarray) -> np.ndarray | None:
    """Return the distinct words, in order, where a codebook of them can pay."""
    if len(words) < 2 or len(np.unique(words[: 4 * MOST])) > MOST:
        return None
    distinct = np.unique(words)
    return distinct if len(distinct) <= min(MOST, len(words) // 2) else None


def _planes(words: np.ndarray, rotate: bool, coders: Sequence[Coder]) -> bytes:
    width = words.itemsize
    if rotate:
        words = (words << 1) | (words >> (8 * width - 1))
    planes = words.view(np.uint8).reshape(-1, width)
    return b"".join(symbols.encode(planes[:, i], 256, coders) for i in range(width))


def _read_dense(reader: Reader, code: int, count: int, width: int, rotate: bool) -> np.ndarray:
    if code == 0:
        return np.frombuffer(bytearray(reader.take(count * width)), f"<u{width}")
    if code == 1:
        return _read_planes(reader, count, width, rotate)
    distinct = reader.varint(min(MOST, count))
    book = _read_dense(reader, reader.byte(2), distinct, width, rotate)
    if count and not distinct:
        raise damaged("a codebook without values")
    return book[symbols.decode(reader, count, distinct)] if count else book


def _read_planes(reader: Reader, count: int, width: int, rotate: bool) -> np.ndarray:
    planes = np.empty((count, width), np.uint8)
    for i in range(width):
        planes[:, i] = symbols.decode(reader, count, 256)
    words = planes.reshape(-1).view(f"<u{width}")
    return (words >> 1) | (words << (8 * width - 1)) if rotate else words
