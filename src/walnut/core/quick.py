"""Gradient passes at less cost: a frozen batch norm is one multiply-add, a first convolution one product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

_COLUMNS = 1 << 19  # entries of a product at a time: 2 MB, about a core's own cache


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


class _Product(torch.autograd.Function):
    """A convolution whose input gradient is one matrix product, folded back to an image."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any
    ) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.stride, ctx.padding = inputs
        ctx.size = x.shape[2:]
        ctx.save_for_backward(weight)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:  # a layer above gives none: no gradient is not a gradient of zero
            return None, None, None, None, None
        (weight,), grad = ctx.saved_tensors, grads[0].flatten(2)
        back = weight.flatten(1).T
        some = max(1, _COLUMNS // max(1, back.shape[0] * grad.shape[2]))
        parts = [
            F.fold(back @ rows, ctx.size, weight.shape[2:], 1, ctx.padding, ctx.stride)
            for rows in grad.split(some)
        ]
        return torch.cat(parts), None, None, None, None


def _by_product(conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    """Return a forward that is differentiated by one product, else the layer's own."""
    own = conv.forward

    def forward(x: Tensor) -> Tensor:
        weight, bias = conv.weight, conv.bias
        held = not weight.requires_grad and (bias is None or not bias.requires_grad)
        plain = x.ndim == 4 and x.dtype == weight.dtype and not torch.is_autocast_enabled("cpu")
        if not (x.requires_grad and held and plain):
            return own(x)
        return _Product.apply(x, weight, bias, conv.stride, conv.padding)

    return forward


def _usual(weight: Any) -> bool:
    return weight is not None and weight.device.type == "cpu" and weight.dtype is torch.float32


def _thin(conv: nn.Conv2d) -> bool:
    """Say whether a product is the cheaper way back: few channels in, many out.

    The library's gradient works on eight channels at once and leaves most of them empty where an image
    has one or three; the product does not, but folding it takes one thread only.
    """
    wide = conv.out_channels * min(conv.stride) >= 8 * conv.in_channels * torch.get_num_threads()
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return wide and plain and not isinstance(conv.padding, str)


def _replaced(layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return the quicker forward of a layer, if there is one."""
    if "forward" in vars(layer) or parametrize.is_parametrized(layer):
        return None
    if type(layer) is nn.BatchNorm2d and _usual(layer.running_mean):
        return _quick(layer)
    if type(layer) is nn.Conv2d and _usual(layer.weight) and _thin(layer):
        return _by_product(layer)
    return None


@contextmanager
def quick(model: Any) -> Iterator[None]:
    """Let a held network's gradients cost less for the block, on a CPU in float32.

    A 2-D batch norm is a multiply-add, pixels before channels: γ (x − μ)/√(σ² + ε) + β = s x + t with s
    and t computed once, in double. The input gradient of a convolution with few channels in and many
    out, as a network's first, is fold(Wᵀ g), the transpose of its product of patches (what both save, and
    the machine's limit: benchmarks/gradient_pass.py). Only passes that take a gradient are changed, by
    rounding (1e-5 of the logits of a ResNet-20): what is asked without one, the last word on every
    example among it, is answered by the layers themselves. Layers that are subclassed, patched or
    parametrised, batch norms without statistics, convolutions that are dilated, grouped or padded
    otherwise than by zeros are left as they are. Use it inside :func:`walnut.core.frozen.frozen`. On
    exit, also after an exception, all is as it was.

    >>> net = nn.Sequential(nn.BatchNorm2d(2)).eval()
    >>> with quick(net):
    ...     y = net(torch.ones(1, 2, 3, 3, requires_grad=True))
    >>> "forward" in vars(net[0]), torch.allclose(y, torch.ones(1), atol=1e-4)
    (False, True)
    """
    layers = model.modules() if isinstance(model, nn.Module) else ()
    found = [(layer, quicker) for layer in layers if (quicker := _replaced(layer)) is not None]
    try:
        for layer, quicker in found:
            layer.forward = quicker
        yield
    finally:
        for layer, _ in found:
            vars(layer).pop("forward", None)
