"""The flags that say how a network is compressed, shared by ``compress`` and ``audit``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from .values import OptionalCount, OptionalNumber, Patterns, patterns


class RecipeOptions(BaseModel):
    """How to compress."""

    density: Patterns = ()
    """Share of the weights that stays, for all or for a pattern: 0.1, or 'conv1.*=0.66'."""
    bits: Patterns = ()
    """Bits of a shared weight, for all or for a pattern: 5, or 'fc*=4'."""
    rounds: OptionalCount = None
    """Rounds of pruning and retraining."""
    epochs: OptionalCount = None
    """Epochs of retraining in each round."""
    finetune_epochs: OptionalCount = None
    """Epochs of fine-tuning the shared weights."""
    lr: OptionalNumber = None
    """Learning rate of the retraining."""
    batch_size: OptionalCount = None
    """Examples per step."""


def recipe(options: RecipeOptions) -> Any:
    """Return the recipe that the flags ask for; None where they leave all to the default."""
    raise NotImplementedError(patterns)
