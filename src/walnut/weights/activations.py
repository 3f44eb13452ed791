"""Activations on few bits: what enters a layer is rounded, on a grid found from data or trained."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError, WalnutWarning
from walnut.core.frozen import frozen

from . import edits
from .calibrate import Reach, min_max
from .input_grid import LAYERS, NAME, InputGrid, attach
from .lsq import first_step

_KEPT = 1 << 18  # values of a layer's input that a range is found from


Start = Callable[[Tensor, int], InputGrid]
"""``(values (n,), bits) -> grid``: see :func:`fixed` and :func:`learned`."""


def fixed(reach: Reach = min_max()) -> Start:
    """Return the rule for grids that stay: from the smallest to the largest value within ``reach``.

    Values that are never negative get z = 0, all steps above; others s = (high − low) / (2^bits − 1)
    with 0 among the steps. Jacob et al. 2018, section 2.1.
    """

    def start(values: Tensor, bits: int) -> InputGrid:
        low, high = _limits(values, reach, bits)
        top = (1 << bits) - 1
        scale = max((high - low) / top, 1e-12)
        return InputGrid(bits, round(-low / scale), learned=False, scale=scale)

    return start


def learned() -> Start:
    """Return the rule for trained grids (LSQ): s starts at 2 · mean |x| / √Q_P.

    Values that are never negative get z = 0; others z = 2^(bits−1). Esser et al. 2020, section 2.1.
    """

    def start(values: Tensor, bits: int) -> InputGrid:
        signed = bool((values < 0).any())
        zero = 1 << (bits - 1) if signed else 0
        scale = float(first_step(values[None], (1 << bits) - 1 - zero)[0])
        return InputGrid(bits, zero, learned=True, scale=scale)

    return start


def _limits(values: Tensor, reach: Reach, bits: int) -> tuple[float, float]:
    """Return the smallest and the largest value of a grid, 0 between them."""
    signed = bool((values < 0).any())
    levels = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    most = float(reach(values.abs()[None], levels)[0])
    low = max(min(0.0, float(values.min())), -most) if signed else 0.0
    high = min(max(0.0, float(values.max())), most)
    return (low, high) if high > low else (0.0, 1.0)


def quantise_activations(
    model: nn.Module,
    x: Tensor,
    bits: int | Mapping[str, int] = 8,
    *,
    start: Start = fixed(),
) -> nn.Module:
    """Round what enters each dense and convolutional layer, in place, and return the network.

    Args:
        model: any network. Layers of other kinds that have weights are left alone, and named in a
            warning.
        x: examples to find the grids from (n, ...), as the network takes them.
        bits: from 2 to 8; for all layers, or of the layers named.
        start: ``fixed(min_max())`` and the like (after training), or ``learned()`` (trained on).

    The grids are modules of the layers (``conv1.input_grid``): state dicts, files, copies and
    optimisers have them. It is a simulation in floating point, for training and for choosing bits;
    what a kernel of integers answers is measured after ``walnut.export.qdq``.

    Raises:
        WalnutError: examples of a shape the network does not take, or not finite; no such layer.

    >>> net = quantise_activations(nn.Sequential(nn.Linear(4, 2)), torch.rand(16, 4), bits=4)
    >>> net[0].input_grid
    InputGrid(bits=4)
    """
    layers = layers_of(model)
    wanted = dict.fromkeys(layers, bits) if isinstance(bits, int) else dict(bits)
    _check(wanted, layers)
    seen = observe(model, x, wanted)
    silent = [name for name in wanted if name not in seen]
    if silent:
        warnings.warn(
            f"{', '.join(silent)} did not run on these examples and stay as they are",
            WalnutWarning,
            stacklevel=2,
        )
    for name, values in seen.items():
        attach(layers[name], start(values, wanted[name]))
    record(model)
    return model


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that have products, by name; warn of other modules with such weights."""
    found: dict[str, nn.Module] = {n: m for n, m in model.named_modules() if isinstance(m, LAYERS)}
    others = sorted(
        f"{name or 'the network'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if not isinstance(module, LAYERS)
        and "parametrizations" not in name.split(".")
        and any(p is not None and p.ndim >= 2 for p in module._parameters.values())
    )
    if others:
        warnings.warn(
            f"left alone, for only dense and convolutional layers are known: {', '.join(others)}",
            WalnutWarning,
            stacklevel=3,
        )
    return found


def _check(wanted: Mapping[str, int], layers: Mapping[str, nn.Module]) -> None:
    if not wanted:
        raise WalnutError("this network has no dense or convolutional layer to quantise")
    for name, bits in wanted.items():
        if name not in layers:
            raise WalnutError(f"there is no layer {name!r}; there are {', '.join(layers)}")
        if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
            raise WalnutError(f"activations take 2 to 8 bits, not {bits!r:.40} ({name})")


def observe(
    model: nn.Module, x: Tensor, names: Iterable[str], batch_size: int = 100
) -> dict[str, Tensor]:
    """Return what enters the layers called ``names``: up to 2^18 values each, evenly spaced.

    The extremes are always among them. Raises WalnutError as :func:`quantise_activations` does.
    """
    values: dict[str, list[Tensor]] = {}
    share = max(1, math.ceil(len(x) / batch_size))

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            flat = inputs[0].detach().reshape(-1)
            thin = flat[:: max(1, flat.numel() * share // _KEPT)]
            ends = torch.stack(list(flat.aminmax()))
            values.setdefault(name, []).append(torch.cat([thin, ends]))

        return hook

    modules = dict(model.named_modules())
    hooks = [modules[name].register_forward_pre_hook(note(name)) for name in names]
    try:
        with torch.no_grad(), frozen(model):
            run(model, x, batch_size)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(values[name]) for name in names if name in values}


def run(model: nn.Module, x: Tensor, batch_size: int = 100) -> Tensor:
    """Return the network's answers to calibration data, or say why it cannot take them."""
    if x.ndim < 2 or len(x) == 0:
        raise WalnutError(f"calibration data is a batch of examples (n, ...), not {tuple(x.shape)}")
    if not x.is_floating_point() or not bool(x.isfinite().all()):
        raise WalnutError("calibration data must be finite floating-point numbers: it holds others")
    with shapes_said(model, x):
        return torch.cat([model(rows) for rows in x.split(batch_size)])


@contextmanager
def shapes_said(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Turn torch's complaint about a shape into one that names what is expected and what is given."""
    expected = expected_shape(model)
    if expected is not None and "…" not in expected and expected != f"(n, {_sides(x)})":
        raise WalnutError(_mismatch(expected, x))
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, WalnutError):
            raise
        said = _mismatch(expected or "another shape", x)
        raise WalnutError(f"{said} ({str(error).splitlines()[0]:.120})") from error


def _mismatch(expected: str, x: Tensor) -> str:
    return f"calibration data: the network expects {expected}, given {tuple(x.shape)}"


def _sides(x: Tensor) -> str:
    return ", ".join(str(side) for side in x.shape[1:])


def expected_shape(model: nn.Module) -> str | None:
    """Say what a network takes: by its description, else by its first layer."""
    description = getattr(model, "description", None)
    arguments = description.get("arguments") if isinstance(description, Mapping) else None
    shape = arguments.get("shape") if isinstance(arguments, Mapping) else None
    if shape:
        return f"(n, {', '.join(str(side) for side in shape)})"
    for module in model.modules():
        if isinstance(module, nn.Linear):
            return f"(n, …, {module.in_features})"
        if isinstance(module, LAYERS):
            axes = len(module.kernel_size)  # type: ignore[arg-type]
            return f"(n, {module.in_channels}{', …' * axes})"
    return None


def record(model: nn.Module) -> None:
    """Note the grids in the network's description, so that a file builds them again."""
    grids = {n: getattr(m, NAME) for n, m in model.named_modules() if hasattr(m, NAME)}
    said = {n: [g.bits, g.zero, isinstance(g.scale, nn.Parameter)] for n, g in grids.items()}
    edits.record(model, {"kind": "input-grids", "layers": said})
