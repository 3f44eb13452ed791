"""The grid that what enters a layer is rounded to: a module of the layer, so that files have it too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .lsq import gradient_scale, step_round

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""The layers whose inputs are rounded: those with the products."""

NAME = "input_grid"
"""What the module is called in its layer."""


class InputGrid(nn.Module):
    """x ↦ (clip(round(x / s) + z, 0, 2^bits − 1) − z) · s, before a layer.

    The scale s is a buffer, or a parameter where it is learned; z is the integer that stands for 0.
    """

    def __init__(self, bits: int, zero: int, *, learned: bool, scale: float = 1.0) -> None:
        super().__init__()
        self.bits, self.zero, self.top = bits, zero, (1 << bits) - 1
        start = torch.tensor(scale)
        if learned:
            self.scale: Tensor = nn.Parameter(start)
        else:
            self.register_buffer("scale", start)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` on the grid."""
        low, high = -self.zero, self.top - self.zero
        by = gradient_scale(x[0].numel() if len(x) else 1, max(1, high))
        return step_round(x, self.scale.abs().clamp_min(1e-12), low, high, by)

    def extra_repr(self) -> str:
        """Say how many bits."""
        return f"bits={self.bits}"


def attach(layer: nn.Module, grid: InputGrid) -> None:
    """Give a layer a grid, in place of the one that it may have."""
    if not hasattr(layer, NAME):
        layer.register_forward_pre_hook(_round_input)
    layer.add_module(NAME, grid.to(next(layer.parameters()).device))


def _round_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Round a layer's first input: a hook that finds its grid on the layer, so copies have their own."""
    return (layer.get_submodule(NAME)(inputs[0]), *inputs[1:])


def without_grids(model: nn.Module) -> nn.Module:
    """Take all grids out of a network, in place, and return it."""
    for module in model.modules():
        if isinstance(module, LAYERS) and NAME in module._modules:
            del module._modules[NAME]
            hooks = module._forward_pre_hooks
            for key in [key for key, hook in hooks.items() if hook is _round_input]:
                del hooks[key]
    return model


def again(model: nn.Module, edit: Mapping[str, Any]) -> None:
    """Give an empty network the grids that a file tells of; the state dict fills them."""
    layers = edit.get("layers")
    modules = {n: m for n, m in model.named_modules() if isinstance(m, LAYERS)}
    if not isinstance(layers, Mapping) or not set(layers) <= set(modules):
        raise WalnutError("the file rounds what enters layers that its network has not")
    for name, said in layers.items():
        if not _is_grid(said):
            raise WalnutError(f"the file rounds what enters {name!r:.60} in a way unknown here")
        bits, zero, trained = said
        with torch.device(next(modules[name].parameters()).device):
            attach(modules[name], InputGrid(bits, zero, learned=trained))


def _is_grid(said: Any) -> bool:
    """Say whether a file's description of a grid is [bits, zero, learned]."""
    if not isinstance(said, list) or [type(item) for item in said] != [int, int, bool]:
        return False
    return 2 <= said[0] <= 8 and 0 <= said[1] < 1 << said[0]
