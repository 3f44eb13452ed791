"""The flags that say how a network is compressed, shared by ``compress`` and ``audit``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from walnut.core.errors import WalnutError

from .values import OptionalCount, OptionalNumber, OptionalShare, Patterns, patterns


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
    finetune_lr: OptionalNumber = None
    """Learning rate of the shared weights."""
    batch_size: OptionalCount = None
    """Examples per step."""
    drop: OptionalShare = None
    """Scan the layers on validation data and prune each until it alone costs this: 0.02, in place of
    --density."""


def recipe(options: RecipeOptions, model: Any) -> Any:
    """Return the network's documented recipe, with what the flags say in its place.

    Raises:
        WalnutError: bits that are not a whole number.
    """
    from dataclasses import replace

    from walnut.recipes.recipe import recipe_for

    given: dict[str, Any] = {
        name: getattr(options, name)
        for name in RecipeOptions.model_fields
        if getattr(options, name) not in (None, ())
    }
    if options.density:
        given["density"] = _one_or_more(patterns(options.density))
    if options.bits:
        given["bits"] = _one_or_more({k: _whole(v) for k, v in patterns(options.bits).items()})
    return replace(recipe_for(model), **given)


def _one_or_more(values: dict[str, Any]) -> Any:
    """Return the number alone where it is for all weights."""
    return values["*"] if set(values) == {"*"} else values


def _whole(bits: float) -> int:
    if bits != int(bits):
        raise WalnutError(f"--bits: {bits:g} is not a whole number")
    return int(bits)
