"""The flags that say how a network is attacked, and the attack they mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from walnut.core.errors import WalnutError

from .options import flag
from .values import OptionalCount, OptionalNumber, choice

ATTACKS = ("noise", "fgsm", "bim", "pgd", "mi-fgsm", "di-fgsm")
Method = Annotated[Literal["noise", "fgsm", "bim", "pgd", "mi-fgsm", "di-fgsm"], choice(*ATTACKS)]
Norm = Annotated[Literal["linf", "l2", "l1"], choice("linf", "l2", "l1")]


class AttackOptions(BaseModel):
    """How to attack."""

    norm: Norm = "linf"
    """The norm that eps is measured in."""
    steps: OptionalCount = None
    """Gradient steps per restart."""
    step_size: OptionalNumber = None
    """Length of a step in input units."""
    restarts: OptionalCount = None
    """Runs per example from other starts, the later ones only where the earlier failed."""


def attack_of(
    name: str, options: AttackOptions, *, seed: int = 0, targeted: bool = False
) -> Callable[[float], Any]:
    """Return what makes the attack ``name`` of a given radius, with the flags filled in.

    Raises:
        WalnutError: the method is not known, or a flag means nothing to it.
    """
    from inspect import signature

    from walnut import attacks
    from walnut.core import constraints

    if name not in ATTACKS:
        raise WalnutError(f"--attack {name} is not known; choose from {', '.join(ATTACKS)}")
    preset = getattr(attacks, name.replace("-", "_"))
    takes = signature(preset).parameters
    asked = {key: getattr(options, key) for key in AttackOptions.model_fields}
    if options.norm == "linf" and "norm" not in takes:
        del asked["norm"]
    else:
        asked["norm"] = getattr(constraints, options.norm)
    asked |= {"targeted": True} if targeted else {}
    given = {key: value for key, value in asked.items() if value is not None}
    for key in given:
        if key not in takes:
            able = [n for n in ATTACKS if key in signature(_preset(n)).parameters]
            raise WalnutError(
                f"--{flag(key)} means nothing to {name}; it does to {', '.join(able)}"
            )
    given |= {"seed": seed} if "seed" in takes else {}
    return partial(preset, **given)


def _preset(name: str) -> Any:
    from walnut import attacks

    return getattr(attacks, name.replace("-", "_"))
