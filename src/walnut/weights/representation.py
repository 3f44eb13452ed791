"""What stands in a weight's place: latent tensors, and a module that makes the weight of them.

One *source* makes a weight of its latents (dense, a codebook, later low rank), then *filters* change
it (a mask). Both are modules that ``torch.nn.utils.parametrize`` calls on every use of the weight;
both come from *parts*, frozen records of hyper-parameters that ``represent`` is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.types import Packed


class Representation(nn.Module):
    """A module in a weight's place. Sub-classes define ``forward`` and ``right_inverse``."""

    source: ClassVar[bool] = False
    """Whether it makes the weight (and may have any latents) or changes one (a filter)."""

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the weight."""
        raise NotImplementedError

    def right_inverse(self, w: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return latents that make the weight nearest to ``w`` that can be represented."""
        raise NotImplementedError

    def encode(self, w: Tensor) -> Packed:
        """Return what a file holds of the finished weight ``w``; the last representation is asked.

        The codec sees zeros and repeated values by itself, so that the weight will do.
        """
        return Packed("tensor", {"w": w.detach()})


@runtime_checkable
class Part(Protocol):
    """The hyper-parameters of a representation."""

    @property
    def source(self) -> bool:
        """Say whether it builds a source or a filter."""
        ...

    def build(self, w: Tensor) -> Representation:
        """Return the representation of a weight."""
        ...


def _plain(packed: Packed) -> Tensor:
    return packed.tensors["w"]


def _grid(packed: Packed) -> Tensor:
    """Return k · scale: one scale, or one for each row of k, broadcast over what follows."""
    k, scale = packed.tensors["k"], packed.tensors["scale"]
    if k.is_floating_point() or k.is_complex() or scale.dtype != torch.float32:
        raise WalnutError("the file holds a grid that is not whole numbers times a float32 scale")
    if scale.numel() not in (1, len(k) if k.ndim else 1):
        raise WalnutError(
            f"the file holds a grid of shape {tuple(k.shape)} with {scale.numel()} scales"
        )
    shape = (-1, *[1] * (k.ndim - 1)) if scale.numel() > 1 else ()
    return k.float() * scale.reshape(shape)


DECODERS: dict[str, tuple[frozenset[str], Callable[[Packed], Tensor]]] = {
    "tensor": (frozenset({"w"}), _plain),
    "grid": (frozenset({"k", "scale"}), _grid),
}
"""Of each kind of record: the tensors it has, and what makes the weight of them."""


def decode(packed: Packed) -> Tensor:
    """Return the weight that a record of a file stands for.

    Raises:
        WalnutError: a kind of record this version does not know, or one that does not fit together.

    >>> grid = {"k": torch.tensor([[1, -2]], dtype=torch.int8), "scale": torch.tensor(0.5)}
    >>> decode(Packed("grid", grid))
    tensor([[ 0.5000, -1.0000]])
    """
    needs, make = DECODERS.get(packed.kind, (frozenset(), None))
    if make is None or set(packed.tensors) != needs:
        raise WalnutError(f"the file holds a record of kind {packed.kind!r}: update walnut")
    return make(packed)


def as_grid(w: Tensor, scale: float | Tensor) -> Packed | None:
    """Return the record of a weight that is k · scale to the bit, or None where it is not.

    scale: one number, or one for each row (len(w),). A plain float32 tensor of such values is found
    by the codec itself; a record saves it the search, and says what the weight is.

    >>> as_grid(torch.tensor([0.5, -1.0]), 0.5).tensors["k"]
    tensor([ 1, -2], dtype=torch.int8)
    """
    s = torch.as_tensor(scale, dtype=torch.float32)
    if w.dtype != torch.float32 or not bool((s > 0).all()):
        return None
    wide = s.reshape(-1, *[1] * (w.ndim - 1)) if s.ndim else s
    k = (w.detach() / wide).round()
    if not bool((k.abs() < 1 << 15).all()):
        return None
    dtype = torch.int8 if bool((k.abs() < 128).all()) else torch.int16
    packed = Packed("grid", {"k": k.to(dtype), "scale": s})
    return packed if _same_bits(decode(packed), w.detach()) else None


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.contiguous().view(torch.int32))
