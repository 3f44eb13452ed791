"""Small layers without their weights: as a file's description asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from walnut.core.errors import WalnutError

from .lowrank_forms import FORMS
from .lowrank_parts import Form


def within(name: str, form: Form, ranks: Sequence[Any], limits: Sequence[int]) -> tuple[int, ...]:
    """Return ranks that are whole numbers within their limits, or raise."""
    for rank, most in zip(ranks, limits, strict=True):
        if type(rank) is not int or not 1 <= rank <= most:
            raise WalnutError(
                f"{name}: the rank of {form.name} is a whole number from 1 to {most} here, "
                f"not {rank!r:.40}"
            )
    return tuple(ranks)


def skeleton(form: Form, layer: Any, ranks: Sequence[int], bias: bool) -> nn.Sequential:
    """Return the small layers without memory for their weights."""
    shapes = form.shapes(layer, ranks)
    last = len(shapes) - 1
    return nn.Sequential(
        *(
            kind(**told, bias=bias and k == last, device="meta", dtype=layer.weight.dtype)
            for k, (kind, told) in enumerate(shapes)
        )
    )


def rebuild(model: nn.Module, edit: Mapping[str, Any]) -> None:
    """Make a "factorise" edit again on a network whose weights may be on the meta device.

    Raises:
        WalnutError: an edit that does not fit the network.
    """
    name, form, ranks, bias = (edit.get(key) for key in ("layer", "form", "ranks", "bias"))
    modules = dict(model.named_modules())
    shape = FORMS.get(form) if isinstance(form, str) else None
    layer: Any = modules.get(name) if isinstance(name, str) and name else None
    if shape is None or layer is None or type(layer) is not shape.layer or type(bias) is not bool:
        raise WalnutError(f"a factorised layer does not fit the network ({name!r:.60})")
    if not isinstance(ranks, list) or len(ranks) != shape.modes:
        raise WalnutError(f"{name!r:.60}: {form} takes {shape.modes} ranks")
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise WalnutError(f"{name!r:.60} has groups, and is not factorised")
    numbers = within(str(name), shape, ranks, shape.limits(layer))
    small = skeleton(shape, layer, numbers, bias)
    weight: Any = layer.weight
    if not weight.is_meta:
        small = small.to_empty(device=weight.device)
    model.set_submodule(str(name), small)
