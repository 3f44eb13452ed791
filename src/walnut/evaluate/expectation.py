"""How often an example fools under random transforms, next to the example it was made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from walnut.attacks.expectation import held_out
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.transforms import readings
from walnut.core.types import Model, Transform


@dataclass(frozen=True)
class Adversariality:
    """Shares of random transforms under which the network reads what the attacker wants.

    Attributes:
        mean: over the examples.
        deviation: standard deviation over the examples.
        clean_mean: the same transforms on the clean examples. Untargeted, this is the error that the
            transforms alone make.
        clean_accuracy: share of transforms under which a clean example is read as its label.
        draws: transforms per example.
        shares: per example (n,).
        clean_shares: per clean example (n,).
    """

    mean: float
    deviation: float
    clean_mean: float
    clean_accuracy: float
    draws: int
    shares: Float[Tensor, " n"] = field(repr=False)
    clean_shares: Float[Tensor, " n"] = field(repr=False)

    def json(self) -> dict[str, Any]:
        """Return plain numbers for a result file."""
        plain = asdict(self)
        return {key: value for key, value in plain.items() if not isinstance(value, Tensor)}


def adversariality(
    model: Model,
    x: Float[Tensor, " n *d"],
    y: Int[Tensor, " n"],
    transform: Transform,
    draws: int = 100,
    *,
    clean: Tensor,
    target: Int[Tensor, " n"] | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> Adversariality:
    """Return the share of random transforms under which each example is read as wanted.

        a(x̂) = P_t[C(t(x̂)) = target];   untargeted: P_t[C(t(x̂)) ≠ y]

    (Athalye et al. 2018, §3.1, Table 2; there targeted.) An example and the clean one it was made from
    meet the same transforms, which no attack with the same seed has seen.

    Args:
        model: network from [0, 1] to logits; run in eval mode and left as it was.
        x: examples made by an attack.
        y: true labels.
        transform: the distribution.
        draws: transforms per example; each costs two forward passes.
        clean: the examples that ``x`` was made from, in the same order.
        target: what a targeted attack wants.
        seed: with each clean example's content, the source of the draws.
    """
    if x.shape != clean.shape:
        raise WalnutError(
            f"x is {tuple(x.shape)} but clean is {tuple(clean.shape)}: give the originals in order"
        )
    judges = held_out(clean, seed)
    with torch.inference_mode(False), torch.no_grad(), frozen(model):
        made = readings(model, x, transform, judges, draws, batch_size)
        before = readings(model, clean, transform, judges, draws, batch_size)
    right = (before == y[:, None]).double()

    def wanted(read: Tensor) -> Tensor:
        hit = read != y[:, None] if target is None else read == target[:, None]
        return hit.double().mean(1)

    shares, clean_shares = wanted(made), wanted(before)
    return Adversariality(
        mean=float(shares.mean()),
        deviation=float(shares.std(correction=0)),
        clean_mean=float(clean_shares.mean()),
        clean_accuracy=float(right.mean()),
        draws=draws,
        shares=shares,
        clean_shares=clean_shares,
    )
