"""What stands in a weight's place: latent tensors, and a module that makes the weight of them.

One *source* makes a weight of its latents (dense, a codebook, later low rank), then *filters* change
it (a mask). Both are modules that ``torch.nn.utils.parametrize`` calls on every use of the weight;
both come from *parts*, frozen records of hyper-parameters that ``represent`` is given.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

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


def decode(packed: Packed) -> Tensor:
    """Return the weight that a record of a file stands for.

    Raises:
        WalnutError: a kind of record this version does not know.
    """
    if packed.kind != "tensor" or "w" not in packed.tensors:
        raise WalnutError(f"the file holds a record of kind {packed.kind!r}: update walnut")
    return packed.tensors["w"]
