"""Fooling in feature space: how far the last layer's input must move along a class's own weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.queried import Queried, label_error

from .lines import along, crossing


@dataclass(frozen=True)
class FeatureFooling:
    """How far features must move along a class's weights: ``coefficient`` (n,), inf where none does.

    ``relative`` is the coefficient over the length of the features themselves. ``success`` was
    recomputed by the last layer on the moved features; no input is made that has them.
    """

    coefficient: Float[Tensor, " n"]
    relative: Float[Tensor, " n"]
    success: Bool[Tensor, " n"]
    layer: str


def feature_fooling(
    model: nn.Module, x: Float[Tensor, " n *d"], target: Int[Tensor, " n"]
) -> FeatureFooling:
    """Move the last layer's input along the target's row: φ + a · w_c / ‖w_c‖₂, smallest a in closed form.

    Raises:
        WalnutError: the network does not end in a linear layer.
    """
    seen: list[tuple[str, Tensor, Tensor]] = []

    def recorder(name: str) -> Any:
        return lambda _m, inputs, output: seen.append((name, inputs[0], output))

    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    net = Queried(model)
    handles = [m.register_forward_hook(recorder(name)) for name, m in layers.items()]
    try:
        with torch.inference_mode(False), torch.no_grad(), frozen(model):
            logits = net(x)
    finally:
        for handle in handles:
            handle.remove()
    if wrong := label_error(target, net.classes):
        raise wrong
    last = [entry for entry in seen if entry[2].shape == logits.shape]
    if not last or not torch.equal(last[-1][2], logits):
        raise WalnutError("the network does not end in a linear layer, whose rows are its classes")
    name, features, _ = last[-1]
    with torch.no_grad():
        weight = layers[name].weight
        line = along(weight, weight[target])
        a = crossing(logits, line.slopes, target, True)  # type: ignore[arg-type]
        step = torch.where(a.isfinite(), a * (1 + 1e-6), 0.0).to(features.dtype)
        moved = layers[name](features + step[:, None] * line.direction)
    length = features.norm(dim=1).double()
    success = (moved.argmax(1) == target) & a.isfinite()
    return FeatureFooling(a, a / length.clamp_min(1e-30), success, name)
