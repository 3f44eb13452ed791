"""How far two forms of a network are apart in what they answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.core.errors import WalnutError
from walnut.core.types import Model


@dataclass(frozen=True)
class Gap:
    """The distance of a network's answers from a reference's, on the same examples.

    Attributes:
        largest: max |a − b| over all logits.
        relative: ‖a − b‖ / ‖b‖ over all logits, b the reference's.
        agreement: share of the examples that both give the same label.
        examples: how many were asked.
    """

    largest: float
    relative: float
    agreement: float
    examples: int

    def json(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"logits up to {self.largest:.3g} apart ({self.relative:.2%} of their size), the same "
            f"label on {self.agreement:.2%} of {self.examples} examples"
        )


def between(found: Float[Tensor, "n k"], reference: Float[Tensor, "n k"]) -> Gap:
    """Return how far logits are from a reference's.

    >>> print(between(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])))
    logits up to 2 apart (111.80% of their size), the same label on 0.00% of 1 examples
    """
    if found.shape != reference.shape or len(found) == 0:
        raise WalnutError(
            f"answers of shapes {tuple(found.shape)} and {tuple(reference.shape)} cannot be compared"
        )
    a, b = found.double(), reference.double()
    size = float(b.norm())
    off = float((a - b).norm())
    return Gap(
        largest=float((a - b).abs().max()),
        relative=off / size if size else (0.0 if off == 0 else float("inf")),
        agreement=float((a.argmax(1) == b.argmax(1)).double().mean()),
        examples=len(a),
    )


def gap(model: Model, reference: Model, x: Tensor, *, batch_size: int = 50) -> Gap:
    """Ask two forms of a network the same examples and return how far apart they are.

    Args:
        model: the form that is used: a runtime's kernel.
        reference: the form that it stands for: the simulation, or the network in torch.
        x: examples (n, ...).
    """
    with torch.no_grad():
        pairs = [(model(rows), reference(rows)) for rows in x.split(batch_size)]
    return between(torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs]))
