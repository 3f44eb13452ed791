"""How a value is written on the command line or in a file, and how it is checked: once, by pydantic.

A flag hands its text on as it stands, so that a flag and a line of a YAML file are checked by the
same validator and refused in the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import AfterValidator, BeforeValidator, Field
from tyro.constructors import PrimitiveConstructorSpec


def number(value: Any) -> Any:
    """Return a number from its text; a fraction is one too.

    >>> number("8/255") == 8 / 255, number(0.1), number("1e-2")
    (True, 0.1, 0.01)
    """
    if not isinstance(value, str):
        return value
    try:
        top, slash, bottom = value.partition("/")
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{value!r} is not a number; write 0.1, 8/255 or 1e-2") from None


def shown(value: Any) -> str:
    """Return a number as a person would write it: 8/255 rather than 0.03137254901960784."""
    if isinstance(value, float) and 0 < abs(value) < 1 and len(repr(value)) > 8:
        fraction = Fraction(value).limit_denominator(1000)
        if float(fraction) == value:
            return str(fraction)
    return f"{value:g}" if isinstance(value, float) else str(value)


def one(metavar: str, unset: str = "none") -> PrimitiveConstructorSpec[Any]:
    """Return a flag that takes one value and passes its text on to pydantic."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda texts: texts[0],
        is_instance=lambda value: True,
        str_from_instance=lambda value: [unset if value in (None, "") else shown(value)],
    )


def many(metavar: str) -> PrimitiveConstructorSpec[Any]:
    """Return a flag that takes any number of values and passes their texts on to pydantic."""
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=metavar,
        instance_from_str=tuple,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [shown(item) for item in value],
    )


def listed(value: Any) -> Any:
    """Return a list of one from a single value, so that a file may say ``eps: 8/255``."""
    if isinstance(value, str):
        return value.split()
    return value if isinstance(value, Iterable) else (value,)


def _pairs(value: Any) -> Any:
    """Return ``("name=value", ...)`` from a mapping, a list of texts, or one value."""
    if isinstance(value, Mapping):
        return tuple(f"{key}={item}" for key, item in value.items())
    return tuple(str(item) for item in listed(value))


def _check_patterns(items: tuple[str, ...]) -> tuple[str, ...]:
    for item in items:
        number(item.rpartition("=")[2])
    return items


def _check_named(items: tuple[str, ...]) -> tuple[str, ...]:
    for item in items:
        if not item.partition("=")[0].isidentifier() or "=" not in item:
            raise ValueError(f"{item!r} is not of the form key=value, such as width=32")
    return items


def patterns(items: tuple[str, ...]) -> dict[str, float]:
    """Return what ``--density 0.1 --density "conv1.*=0.66"`` means: a number per pattern.

    >>> patterns(("0.1", "conv1.*=2/3"))["*"]
    0.1
    """
    return {name or "*": number(text) for name, _, text in (i.rpartition("=") for i in items)}


def arguments(items: tuple[str, ...]) -> dict[str, Any]:
    """Return the keyword arguments of ``--net-arg width=32``: numbers and true/false as such.

    >>> arguments(("width=32", "bias=false", "name=wide", "mean=0.1,0.2"))
    {'width': 32, 'bias': False, 'name': 'wide', 'mean': [0.1, 0.2]}
    """
    import yaml

    pairs = [item.partition("=")[::2] for item in items]
    return {
        key: yaml.safe_load(f"[{text}]" if "," in text and text[0] not in "[{\"'" else text)
        for key, text in pairs
    }


Count = Annotated[int, Field(ge=1), one("N")]
Whole = Annotated[int, Field(ge=0, lt=2**63), one("N")]
OptionalText = Annotated[str | None, one("NAME")]
OptionalPath = Annotated[Path | None, one("FILE")]
OptionalCount = Annotated[Annotated[int, Field(ge=1)] | None, one("N", "recipe")]
_Positive = Annotated[float, BeforeValidator(number), Field(gt=0, allow_inf_nan=False)]
_Radius = Annotated[float, BeforeValidator(number), Field(ge=0, allow_inf_nan=False)]
OptionalNumber = Annotated[_Positive | None, BeforeValidator(number), one("X", "recipe")]
_Share = Annotated[float, BeforeValidator(number), Field(ge=0, le=1)]
OptionalShare = Annotated[_Share | None, BeforeValidator(number), one("SHARE")]
OptionalMost = Annotated[Annotated[int, Field(ge=1)] | None, one("N")]
OptionalTime = Annotated[_Positive | None, BeforeValidator(number), one("MS")]
RobustEps = Annotated[_Positive | None, BeforeValidator(number), one("EPS")]
OptionalEps = Annotated[_Radius | None, BeforeValidator(number), one("EPS", "0.1")]
OptionalRadius = Annotated[_Radius | None, BeforeValidator(number), one("EPS", "by-norm")]
EpsList = Annotated[tuple[_Radius, ...], BeforeValidator(listed), Field(min_length=1), many("EPS")]
Names = Annotated[tuple[str, ...], BeforeValidator(listed), many("NAME")]
Patterns = tyro.conf.UseAppendAction[
    Annotated[
        tuple[str, ...],
        BeforeValidator(_pairs),
        AfterValidator(_check_patterns),
        tyro.conf.arg(metavar="X|PATTERN=X"),
    ]
]
KeyValues = tyro.conf.UseAppendAction[
    Annotated[
        tuple[str, ...],
        BeforeValidator(_pairs),
        AfterValidator(_check_named),
        tyro.conf.arg(metavar="KEY=VALUE"),
    ]
]
Flag = tyro.conf.FlagCreatePairsOff[bool]


def choice(*names: str) -> PrimitiveConstructorSpec[Any]:
    """Return a flag that shows its choices; pydantic's Literal refuses the others."""
    return one("{" + ",".join(names) + "}")
