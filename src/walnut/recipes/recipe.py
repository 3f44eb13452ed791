"""How a network is compressed: the numbers of a recipe, and those that are known to work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from walnut import nets
from walnut.core.errors import WalnutError


@dataclass(frozen=True)
class Recipe:
    """How a network is compressed.

    Args:
        density: share of the weights that stays, in (0, 1]. One number is for all weights of two
            axes or more together, each layer's share by LAMP; ``{pattern: number}`` sets weights by
            themselves, and the pattern ``"*"`` all others together. Biases and norms stay dense.
        rounds: of pruning and retraining; the density falls by the same factor in each.
        epochs: of retraining a round.
        bits: of a shared weight, one number or ``{pattern: number}``.
        finetune_epochs: of training the shared values.
        lr: of retraining (SGD, momentum 0.9, up and down again in each round).
        finetune_lr: of the shared values (Adam).
        batch_size: examples a step.
        weight_decay: L2 penalty while retraining.
        shift: share of an image's side by which training images are moved at random, in whole
            pixels (none where it is less than one).
        mirror: whether colour images are mirrored at random.
        distil: weight λ in [0, 1] of the dense network as a teacher: every step descends
            (1 − λ) · cross-entropy + λ · T² · KL(teacher ‖ network) (Hinton et al. 2015, §2).
        temperature: T > 0 of the teacher.
        least_steps: a small data set gets more epochs, until a round has this many steps.
        drop: where given, a scan of the layers on validation data takes ``density``'s place: each
            layer falls to the smallest density that, alone and without retraining, costs at most
            this share of accuracy (0.02 is two points).
    """

    density: float | Mapping[str, float] = 0.1
    rounds: int = 3
    epochs: int = 4
    bits: int | Mapping[str, int] = 4
    finetune_epochs: int = 2
    lr: float = 0.05
    finetune_lr: float = 5e-4
    batch_size: int = 128
    weight_decay: float = 1e-4
    shift: float = 0.08
    mirror: bool = True
    distil: float = 0.9
    temperature: float = 3.0
    least_steps: int = 300
    drop: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.distil <= 1 or not self.temperature > 0:
            raise WalnutError("distil is a weight from 0 to 1, and the temperature is above 0")
        if self.drop is not None and not 0 <= self.drop <= 1:
            raise WalnutError(f"drop is a share of accuracy from 0 to 1: {self.drop}")
        counts = (self.rounds, self.epochs, self.finetune_epochs, self.batch_size)
        if min(counts) < 1 or not 0 < self.lr < 1e3 or not 0 < self.finetune_lr < 1e3:
            raise WalnutError("rounds, epochs, batch_size and learning rates must be positive")


RECIPES = {
    "lenet-300-100": Recipe(
        density=0.08, rounds=4, epochs=5, bits=4, finetune_epochs=3, distil=0.0
    ),
    "lenet-5": Recipe(
        density=0.06, rounds=3, epochs=3, bits=4, finetune_epochs=2, weight_decay=5e-4, distil=0.0
    ),
    "resnet-20": Recipe(
        density=0.38, rounds=1, epochs=4, bits=4, finetune_epochs=1, lr=0.01, shift=0.125
    ),
}
"""The recipes of reference networks; any other gets ``Recipe()``."""


def recipe_for(model: nn.Module) -> Recipe:
    """Return the documented recipe of a network, by its description."""
    name = getattr(model, "description", {}).get("net", "")
    return RECIPES.get(nets.canonical(name) if nets.is_name(name) else "", Recipe())
