"""A layer becomes small layers: their weights, the share that is lost, and the record of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from . import edits
from .lowrank_edit import skeleton
from .lowrank_moments import Moments
from .lowrank_parts import Form


def replace(
    model: nn.Module, name: str, form: Form, ranks: tuple[int, ...], moments: Moments | None
) -> float:
    """Put the small layers in a layer's place, with their weights, and record it.

    Returns:
        the share that is lost: of the responses' variance, or of the weight's energy.
    """
    layer: Any = model.get_submodule(name)
    w = layer.weight.detach()
    factors = form.factors(w.double().cpu(), ranks, moments)
    whole, bias = form.whole(factors, w.shape[1]), layer.bias
    if moments is None:
        rest = (w.double().cpu() - whole).square().sum()
        lost = float(rest) / max(float(w.double().square().sum()), 1e-300)
    else:
        bias = moments.y_mean - whole.flatten(1) @ moments.x_mean
        lost = moments.error(whole.flatten(1))
    edit = {
        "kind": "factorise",
        "layer": name,
        "form": form.name,
        "ranks": list(ranks),
        "bias": bias is not None,
    }
    small = skeleton(form, layer, ranks, bias is not None).to_empty(device=w.device)
    with torch.no_grad():
        for part, factor in zip(small, factors, strict=True):
            part.get_parameter("weight").copy_(factor)
        if bias is not None:
            small[-1].get_parameter("bias").copy_(bias)
    for p in small.parameters():
        p.requires_grad_(layer.weight.requires_grad)
    model.set_submodule(name, small.train(layer.training))
    edits.record(model, edit)
    return lost
