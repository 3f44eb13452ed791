"""Random numbers that belong to an example, not to a batch.

Every example carries a 64-bit key made from its own content; a draw is a hash of
(seed, key, restart, step, call, position). So what an example draws does not depend on which other
examples share its batch, on their order, or on how many were drawn before: the counter-based idea of
Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3") with the splitmix64 finaliser of
Steele et al. 2014 as the hash.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_WORD = 1 << 64
_LOW_33, _LOW_34, _LOW_37, _LOW_53 = ((1 << bits) - 1 for bits in (33, 34, 37, 53))
_WORD_1, _WORD_2 = np.uint64(_MIX_1 % _WORD), np.uint64(_MIX_2 % _WORD)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)
_CACHED = 1 << 14  # entries hashed at a time: 128 kB, which a core's own cache holds


def _mix(z: Tensor) -> Tensor:
    """Return the splitmix64 finaliser of each entry of ``z``, one axis or more."""
    if (
        z.device.type == "cpu"
    ):  # numpy's words have no sign: fewer operations, and less cost for each
        return torch.from_numpy(_mix_words(z.numpy().view(np.uint64)).view(np.int64))
    return _mix_signed(z)


def _mix_words(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> _30)) * _WORD_1  # what was given is left as it is
    z ^= z >> _27
    z *= _WORD_2
    z ^= z >> _31
    return z


def _mix_signed(z: Tensor) -> Tensor:
    """Return the same: torch's right shift is arithmetic, so the bits that come in are cleared."""
    z = (z ^ (z >> 30).bitwise_and_(_LOW_34)).mul_(_MIX_1)
    z = z.bitwise_xor_((z >> 27).bitwise_and_(_LOW_37)).mul_(_MIX_2)
    return z.bitwise_xor_((z >> 31).bitwise_and_(_LOW_33))


def _mixed(number: int) -> int:
    """Return ``_mix`` of one number, without the cost of a tensor; signed, as torch's int64 is.

    >>> [_mixed(5), _mixed(-5)] == _mix(torch.tensor([5, -5])).tolist()
    True
    """
    z = number % _WORD
    z = (z ^ (z >> 30)) * _MIX_1 % _WORD
    z = (z ^ (z >> 27)) * _MIX_2 % _WORD
    z ^= z >> 31
    return z - _WORD if z >= _WORD // 2 else z


def content_keys(x: Tensor) -> Int[Tensor, " b"]:
    """Return a 64-bit key per example from its content, rounded to 2⁻¹⁶.

    The rounding makes float32, float64 and every device agree on the key.
    """
    flat = (x.detach().flatten(1).double() * 65536.0).round().nan_to_num().long()
    place = torch.arange(1, flat.shape[1] + 1, device=x.device, dtype=torch.int64)
    return _mix(_mix(flat * _GOLDEN + _mix(place * _GOLDEN)).sum(1))


class Draws:
    """A source of random numbers for a batch of examples, one independent stream per row.

    Successive calls give fresh numbers; an object made again from the same keys repeats them.

    >>> import torch
    >>> d = Draws.of(torch.rand(4, 3), seed=0)
    >>> tuple(d.uniform(2).shape)
    (4, 2)
    """

    def __init__(self, keys: Callable[[], Int[Tensor, " b"]]) -> None:
        self._make = keys
        self._call = 0

    @cached_property
    def keys(self) -> Int[Tensor, " b"]:
        """The rows' keys, made when they are first needed: many an attack draws nothing."""
        return self._make()

    @classmethod
    def of(cls, x: Tensor, seed: int) -> Draws:
        """Return the streams of the examples ``x`` (b, ...) under ``seed``."""
        return cls(lambda: content_keys(x)).fold(seed)

    @classmethod
    def keyed(cls, keys: Int[Tensor, " b"]) -> Draws:
        """Return the streams of rows that carry numbers of their own."""
        return cls(lambda: keys)

    def fold(self, number: int | Tensor) -> Draws:
        """Return new, independent streams for a number: a step, a restart (int, or one per row)."""
        return Draws(partial(self._folded, number))

    def _folded(self, number: int | Tensor) -> Int[Tensor, " b"]:
        if isinstance(number, Tensor):
            return _mix(self.keys ^ _mix((number.to(self.keys) + 1) * _GOLDEN))
        return _mix(self.keys ^ _mixed((number + 1) * _GOLDEN))

    def rows(self, index: Tensor) -> Draws:
        """Return the streams of some of the rows, at the same call."""
        some = Draws(lambda: self.keys[index])
        some._call = self._call
        return some

    def bits(self, *shape: int) -> Tensor:
        """Return random int64 of shape (b, *shape)."""
        self._call += 1
        count = math.prod(shape)
        place = torch.arange(count, device=self.keys.device, dtype=torch.int64)
        start = _mix(self.keys ^ _mixed(self._call * _GOLDEN))
        stride, some = place * _GOLDEN, max(1, _CACHED // max(count, 1))
        if len(start) <= some:
            return _mix(start[:, None] + stride).reshape(len(start), *shape)
        parts = [_mix(rows[:, None] + stride) for rows in start.split(some)]
        return torch.cat(parts).reshape(len(start), *shape)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return numbers in [0, 1) of shape (b, *shape), with 53 random bits before rounding."""
        top = (self.bits(*shape) >> 11).bitwise_and_(_LOW_53)
        return top.double().mul_(2.0**-53).to(dtype)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return standard normal numbers of shape (b, *shape) (Box-Muller)."""
        radius = self.uniform(*shape).neg_().log1p_().mul_(-2.0).sqrt_()
        return self.uniform(*shape).mul_(2.0 * math.pi).cos_().mul_(radius).to(dtype)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return integers in {0, ..., high-1} of shape (b, *shape)."""
        return (self.uniform(*shape) * high).long().clamp(max=high - 1)
