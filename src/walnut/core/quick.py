"""Gradient passes through batch norm at less cost: a frozen batch norm is one multiply-add."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the scale and the shift that a batch norm with fixed statistics applies, (1, c, 1, 1)."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    shape, dtype = (1, -1, 1, 1), mean.dtype
    return scale.to(dtype).reshape(shape), shift.to(dtype).reshape(shape)


def _quick(norm: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
    """Return a forward that is one multiply-add where a gradient is taken, else the layer's own."""
    own, (scale, shift) = norm.forward, _affine(norm)

    def forward(x: Tensor) -> Tensor:
        if norm.training or not x.requires_grad or x.dtype != scale.dtype or x.ndim != 4:
            return own(x)
        return torch.addcmul(shift, x.contiguous(memory_format=torch.channels_last), scale)

    return forward


def _fits(layer: nn.Module) -> bool:
    return (
        type(layer) is nn.BatchNorm2d
        and "forward" not in vars(layer)
        and layer.running_mean is not None
        and layer.running_mean.device.type == "cpu"
        and layer.running_mean.dtype is torch.float32
        and not parametrize.is_parametrized(layer)
    )


@contextmanager
def quick(model: Any) -> Iterator[None]:
    """Let a held network's 2-D batch norms be a multiply-add, pixels before channels, for the block.

    γ (x − μ)/√(σ² + ε) + β = s x + t with s and t computed once, in double. Only passes that take a
    gradient are changed, by rounding (1e-5 of the logits of a ResNet-20): what is asked without one,
    the last word on every example among it, is answered by the layers themselves. Batch norms that are
    not in float32 on a CPU, subclassed, patched, parametrised or without statistics are left as they
    are. Use it inside :func:`walnut.core.frozen.frozen`. On exit, also after an exception, all is as it
    was.

    >>> net = nn.Sequential(nn.BatchNorm2d(2)).eval()
    >>> with quick(net):
    ...     y = net(torch.ones(1, 2, 3, 3, requires_grad=True))
    >>> "forward" in vars(net[0]), torch.allclose(y, torch.ones(1), atol=1e-4)
    (False, True)
    """
    layers = model.modules() if isinstance(model, nn.Module) else ()
    norms: list[Any] = [layer for layer in layers if _fits(layer)]
    try:
        for norm in norms:
            norm.forward = _quick(norm)
        yield
    finally:
        for norm in norms:
            vars(norm).pop("forward", None)
