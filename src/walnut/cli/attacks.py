"""The flags that say how a network is attacked, and the attack they mean.

A new attack is a name in ``WITHIN`` or ``SEEKING``: its flags are read from its signature. One that
cannot be called with numbers alone has a builder of its own in ``BUILDERS``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel

from walnut.core.errors import WalnutError

from .options import flag
from .values import KeyValues, OptionalCount, OptionalNumber, arguments, one

WITHIN = (
    "noise", "fgsm", "bim", "pgd", "odi-pgd", "basin-hopping", "apgd", "apgd-t", "mi-fgsm", "ni-fgsm",
    "di-fgsm", "ti-fgsm", "si-fgsm", "vmi-fgsm", "nes", "spsa", "square",
)  # fmt: skip
"""Attacks within a radius."""
SEEKING = (
    "bracket", "deepfool", "fab", "ddn", "fmn", "carlini-wagner", "lbfgs", "jsma", "smallest", "boundary",
    "hop-skip-jump",
)  # fmt: skip
"""Attacks that seek the smallest change: they take no radius and say how far they had to go."""
ATTACKS = (*WITHIN, *SEEKING)
OWN_NORM = {"lbfgs": "l2", "ddn": "l2", "boundary": "l2", "jsma": "l0"}
"""The norm of an attack that has one only; of all others it is linf."""
UPPER = {"linf": 1.0, "l2": 20.0, "l1": 400.0}
"""The largest radius that ``smallest`` tries."""
FROM_PYTHON = {
    "bpda": "a twin of the network", "transferable": "a chain of parts",
    "eot": "a distribution of transforms", "patch": "a target and placements",
    "local_patch": "a mask", "fooling": "no examples", "smooth_fooling": "no examples",
    "universal": "many examples at once", "universal_sgd": "many examples at once",
    "evolve": "no examples", "design": "an oracle", "linear_fooling": "a direction",
    "feature_fooling": "a target class",
}  # fmt: skip
"""Attacks that need a part no flag can give."""


def _known(name: str) -> str:
    if name in ATTACKS:
        return name
    if name.replace("-", "_") in FROM_PYTHON:
        part = FROM_PYTHON[name.replace("-", "_")]
        raise ValueError(f"{name} needs {part}: use walnut.attacks.{name.replace('-', '_')}")
    near = difflib.get_close_matches(name, ATTACKS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(ATTACKS)}"
    raise ValueError(f"{name} is not known; {hint}")


Method = Annotated[str, AfterValidator(_known), one("NAME")]
Norm = Annotated[
    Literal["linf", "l2", "l1", "l0"] | None,
    one("{linf,l2,l1,l0}", "own"),
]


class AttackOptions(BaseModel):
    """How to attack."""

    norm: Norm = None
    """The norm of eps, or of the change that is sought; mostly linf unless given."""
    steps: OptionalCount = None
    """Steps per restart."""
    step_size: OptionalNumber = None
    """Length of a step in input units."""
    restarts: OptionalCount = None
    """Runs per example from other starts, the later ones only where the earlier failed."""
    attack_arg: KeyValues = ()
    """Any other number that the attack takes, such as queries=1000."""


@dataclass(frozen=True)
class Chosen:
    """An attack that the flags name.

    ``make`` takes the radius where the attack ``seeks`` none; ``norm`` is what it is measured in.
    """

    make: Callable[..., Any]
    seeks: bool
    norm: str


def attack_of(
    name: str, options: AttackOptions, *, seed: int = 0, targeted: bool = False
) -> Chosen:
    """Return the attack ``name`` with the flags filled in.

    Raises:
        WalnutError: the method is not known, or a flag means nothing to it.
    """
    from walnut.core import constraints

    preset, takes = preset_of(name), taken(name)
    norm = options.norm or own_norm(name, takes)
    asked = {key: getattr(options, key) for key in ("steps", "step_size", "restarts")}
    if "norm" in takes or norm != own_norm(name, takes):
        asked["norm"] = getattr(constraints, norm)
    asked |= {"targeted": True} if targeted else {}
    given = {key: value for key, value in asked.items() if value is not None}
    for key in given:
        if key not in takes:
            able = [other for other in ATTACKS if key in taken(other)]
            raise WalnutError(
                f"--{flag(key)} means nothing to {name}; it does to {', '.join(able)}"
            )
    given |= extras(name, options.attack_arg, takes)
    given |= {"seed": seed} if "seed" in takes else {}
    return Chosen(partial(preset, **given), name in SEEKING, norm)


def preset_of(name: str) -> Callable[..., Any]:
    """Return what makes the attack ``name``: its builder here, or the attack of that name."""
    if name not in ATTACKS:
        raise WalnutError(f"--attack {name} is not known; choose from {', '.join(ATTACKS)}")
    if name in BUILDERS:
        return BUILDERS[name]
    from walnut import attacks

    found: Callable[..., Any] = getattr(attacks, name.replace("-", "_"))
    return found


def taken(name: str) -> Mapping[str, Parameter]:
    """Return the parameters of an attack."""
    return signature(preset_of(name)).parameters


def own_norm(name: str, takes: Mapping[str, Parameter]) -> str:
    """Return the norm an attack has unless it is asked for another."""
    default = takes["norm"].default if "norm" in takes else None
    if default is not None:
        return str(default.__name__)
    return OWN_NORM.get(name, "linf")


FLAGS = ("norm", "steps", "step_size", "restarts", "targeted", "seed")
NUMBERS = {"int": int, "float": float, "bool": bool}


def extras(name: str, pairs: tuple[str, ...], takes: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return what ``--attack-arg`` adds, each checked against what the attack takes.

    Raises:
        WalnutError: the attack has no such number, or it has a flag of its own.
    """
    given: dict[str, Any] = {}
    able = [key for key in takes if kind_of(takes[key]) and key not in FLAGS]
    able = [key for key in able if takes[key].default is not Parameter.empty]
    for key, value in arguments(pairs).items():
        if key in FLAGS or (key == "eps" and name in WITHIN):
            raise WalnutError(f"--attack-arg {key}: it has a flag of its own, --{flag(key)}")
        if key not in able:
            has = f"it takes {', '.join(able)}" if able else "it takes no other number"
            raise WalnutError(f"--attack-arg {key} means nothing to {name}; {has}")
        given[key] = numeric(key, value, kind_of(takes[key]))
    return given


def kind_of(parameter: Parameter) -> str:
    """Return "int", "float" or "bool" where a parameter is one, else nothing."""
    words = str(getattr(parameter.annotation, "__name__", parameter.annotation))
    first = words.split(" |")[0]
    return first if first in NUMBERS else ""


def numeric(key: str, value: Any, kind: str) -> Any:
    """Return a value as the number an attack takes, or say what it should be."""
    if isinstance(value, str) and kind == "float":
        from .values import number

        try:
            value = number(value)
        except ValueError as error:
            raise WalnutError(f"--attack-arg {key}: {error}") from None
    good = isinstance(value, bool) == (kind == "bool") and isinstance(value, bool | int | float)
    if not good or (kind == "int" and not isinstance(value, int)):
        kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        raise WalnutError(f"--attack-arg {key}: {value} is not {kinds[kind]}")
    return NUMBERS[kind](value)


def _smallest(
    *, norm: Any = None, steps: int = 20, step_size: float | None = None, restarts: int = 1,
    searches: int = 8, targeted: bool = False, seed: int = 0,
) -> Any:  # fmt: skip
    """Return the search for the smallest eps of PGD."""
    from walnut.attacks import pgd, smallest

    upper = UPPER.get(norm.__name__)
    if upper is None:
        raise WalnutError(f"--norm {norm.__name__}: smallest searches {', '.join(UPPER)}; take fmn")

    def within(eps: float) -> Any:
        return pgd(
            eps, norm=norm, steps=steps, step_size=step_size, restarts=restarts, targeted=targeted,
            seed=seed,
        )  # fmt: skip

    return smallest(
        within, norm=norm, upper=upper, lower=upper / 1000, searches=searches, targeted=targeted
    )


BUILDERS: dict[str, Callable[..., Any]] = {"smallest": _smallest}
