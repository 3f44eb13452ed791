"""Winograd convolution over a whole network: fewer multiplications, the same numbers to rounding.

Lavin & Gray 2016, Eq. 12. Per tile of m×m outputs: Bᵀ d B of every input channel, (m + 2)² products
of matrices over the channels, Aᵀ M A of every output channel. The weights G g Gᵀ are made once. Where
we differ: tiles are worked on in blocks that stay in the cache, and a network's file never changes,
since the weights are kept as they were.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from walnut.core.errors import WalnutError

from .represent import select
from .winograd_choose import fastest
from .winograd_kernel import LANES, kernels
from .winograd_transforms import Matrix, cook_toom, tiles

_BLOCK = 1 << 20  # bytes of tiles, in and out, that are worked on at a time
_LEAST = 64  # tiles in a block: below, the matrix products wait for the weights
_scratch = threading.local()


@functools.cache
def _tensor(matrix: Matrix, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor([[float(v) for v in row] for row in matrix], dtype=dtype, device=device)


def transformed(weight: Float[Tensor, "o i 3 3"], tile: tiles) -> Float[Tensor, "n i o"]:
    """Return G g Gᵀ of every pair of channels, by position in the tile; made in float64."""
    g = _tensor(cook_toom(tile.outputs, 3).g, torch.float64, weight.device)
    w = weight.transpose(0, 1).double()  # i, o, 3, 3
    # sums and no products of matrices: a counter of multiply-adds is shown those of the inputs only
    places = [(w * (a[:, None] * b)).sum((-2, -1)) for a in g for b in g]
    return torch.stack(places).to(weight.dtype).contiguous()


def winograd_conv2d(
    x: Float[Tensor, "b i h w"],
    weight: Float[Tensor, "o i 3 3"],
    bias: Float[Tensor, " o"] | None = None,
    *,
    padding: int = 1,
    tile: tiles = tiles(4),
) -> Float[Tensor, "b o _h _w"]:
    """Return the convolution by plain tensor operations: differentiable, on any device.

    It shows the method; it is slower than torch's own convolution. :class:`WinogradConv2d` is not.

    >>> x, w = torch.randn(1, 2, 7, 9), torch.randn(3, 2, 3, 3)
    >>> near = winograd_conv2d(x.double(), w.double()) - F.conv2d(x.double(), w.double(), padding=1)
    >>> bool(near.abs().max() < 1e-12)
    True
    """
    m, n = tile.outputs, tile.side
    matrices = cook_toom(m, 3)
    b, a = (_tensor(k, x.dtype, x.device) for k in (matrices.b, matrices.a))
    height, width = x.shape[2] + 2 * padding - 2, x.shape[3] + 2 * padding - 2
    down, across = -(-height // m), -(-width // m)
    extra = (down * m + 2 - x.shape[2] - padding, across * m + 2 - x.shape[3] - padding)
    d = F.pad(x, (padding, extra[1], padding, extra[0])).unfold(2, n, m).unfold(3, n, m)
    v = torch.einsum("ku,bcyxuv,lv->klbyxc", b, d, b).reshape(n * n, -1, x.shape[1])
    products = torch.bmm(v, transformed(weight, tile)).reshape(n, n, len(x), down, across, -1)
    y = torch.einsum("ku,uvbyxo,lv->boykxl", a, products, a)
    y = y.reshape(len(x), -1, down * m, across * m)[:, :, :height, :width]
    return y if bias is None else y + bias[:, None, None]


def _room(count: int) -> Tensor:
    """Return memory of this thread for ``count`` numbers, kept from call to call."""
    held: Tensor | None = getattr(_scratch, "held", None)
    if held is None or held.numel() < count:
        held = _scratch.held = torch.empty(count)
    return held


def _run(x: Tensor, u: Tensor, bias: Tensor, padding: int, tile: tiles) -> Tensor:
    """Return the convolution of float32 images by compiled transforms and batched products."""
    m, squares = tile.outputs, tile.side**2
    inward, outward = kernels(m)
    x = x.contiguous(memory_format=torch.channels_last)
    count, inputs, height, width = x.shape
    outputs, high, wide = u.shape[2], height + 2 * padding - 2, width + 2 * padding - 2
    y = torch.empty(count, outputs, high, wide, memory_format=torch.channels_last)
    down, across = -(-high // m), -(-wide // m)
    total = count * down * across
    block = min(total, max(_LEAST, _BLOCK // (4 * squares * (inputs + outputs))))
    parts = (inputs, outputs, squares * block * inputs, squares * block * outputs)
    zeros, spare, v, p = _room(sum(parts))[: sum(parts)].split(parts)
    zeros.zero_()
    for first in range(0, total, block):
        k = min(block, total - first)
        data = v[: squares * k * inputs].view(squares, k, inputs)
        products = p[: squares * k * outputs].view(squares, k, outputs)
        inward(
            x.data_ptr(), data.data_ptr(), first, k, height, width, inputs, padding, down, across,
            zeros.data_ptr(),
        )  # fmt: skip
        torch.bmm(data, u, out=products)
        outward(
            products.data_ptr(), y.data_ptr(), bias.data_ptr(), first, k, high, wide, outputs, down,
            across, spare.data_ptr(),
        )  # fmt: skip
    return y


class WinogradConv2d(nn.Conv2d):
    """A 3×3 convolution of stride 1 that multiplies less, for inference in float32 on a CPU.

    Its weight and bias are those of the Conv2d it stands for, under the same names. Where a gradient is
    wanted, under autocast, in another precision or on another device it *is* that Conv2d.
    """

    tile: tiles

    def __init__(self, layer: nn.Conv2d, tile: tiles) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({k: v for k, v in vars(layer).items() if not k.startswith("_")})
        self._reversed_padding_repeated_twice = layer._reversed_padding_repeated_twice
        self.weight, self.bias = layer.weight, layer.bias
        self.train(layer.training)
        self.tile = tile
        self._made: tuple[Any, ...] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution (b, o, h, w) of x (b, i, h, w), channels last in memory."""
        if not self._can(x):
            return super().forward(x)
        bias = self.bias if self.bias is not None else torch.zeros(self.out_channels)
        padding = int(self.padding[0])
        return _run(x, self._transformed(), bias.contiguous(), padding, self.tile)

    def _can(self, x: Tensor) -> bool:
        tensors = [t for t in (x, self.weight, self.bias) if t is not None]
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        return (
            not wanted
            and type(x) is Tensor
            and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
            and x.ndim == 4
            and x.shape[1] == self.in_channels
            and min(x.shape) > 0
            and min(x.shape[2:]) + 2 * int(self.padding[0]) >= 3
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and torch._C._functorch.maybe_current_level() is None
        )

    def _transformed(self) -> Tensor:
        w = self.weight
        mark = (id(w), w.data_ptr(), 0 if w.is_inference() else w._version, self.tile)
        if self._made is None or self._made[0] != mark:
            with torch.no_grad():
                self._made = (mark, transformed(w.detach(), self.tile))
        return self._made[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the transformed weights out of copies and pickles: they are made again."""
        return {**self.__dict__, "_made": None}

    def extra_repr(self) -> str:
        """Return what a print of the network says of this layer."""
        return f"{super().extra_repr()}, {self.tile!r}"


@dataclass(frozen=True)
class Accelerated:
    """The network, changed in place; each changed layer's tile; why the others were left.

    ``milliseconds``: of each layer that was timed, the best of each way ("direct", "F2", "F4").
    """

    model: nn.Module
    layers: dict[str, tiles]
    left: dict[str, str]
    milliseconds: dict[str, dict[str, float]] = field(default_factory=dict)


def winograd(
    model: nn.Module, tile: tiles | fastest | Mapping[str, tiles | fastest] = tiles(4)
) -> Accelerated:
    """Let the 3×3 convolutions of stride 1 multiply less, in place.

    Args:
        model: any network; layers of torch's own class Conv2d can change.
        tile: of all of them, or of each that matches a pattern; ``fastest(x)`` lets the clock choose
            on data x, and leaves a layer alone where torch's own convolution wins.

    Raises:
        WalnutError: weights that are not finite, a pattern that matches nothing.

    >>> net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)).eval()
    >>> winograd(net).left
    {'1': 'its window is 1×1, not 3×3'}
    """
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    if not isinstance(tile, Mapping):
        tile = dict.fromkeys(convolutions, tile)
    chosen, left, layers = select(convolutions, tile), {}, {}
    milliseconds: dict[str, dict[str, float]] = {}
    for name in chosen:
        reason = _refusal(convolutions[name])
        if reason is not None:
            left[name] = reason
        elif not bool(torch.isfinite(convolutions[name].weight).all()):
            raise WalnutError(f"{name} holds values that are not finite: it cannot be transformed")
    for name, how in chosen.items():
        if name in left:
            continue
        if isinstance(how, fastest):
            swap = functools.partial(WinogradConv2d, convolutions[name])
            found, milliseconds[name] = how.choose(model, name, convolutions[name], swap)
            if found is None:
                left[name] = "torch's own convolution is as fast"
                continue
            how = found
        layers[name] = how
    for name, how in layers.items():
        model.set_submodule(name, WinogradConv2d(convolutions[name], how))
    return Accelerated(model, layers, left, milliseconds)


def _refusal(layer: nn.Conv2d) -> str | None:
    """Return why a convolution is left alone."""
    if type(layer) is not nn.Conv2d:
        parametrized = parametrize.is_parametrized(layer)
        return "its weight is represented: bake the network first" if parametrized else (
            f"it is a {type(layer).__name__}"
        )  # fmt: skip
    if layer.kernel_size != (3, 3):
        return f"its window is {layer.kernel_size[0]}×{layer.kernel_size[1]}, not 3×3"
    if layer.stride != (1, 1) or layer.dilation != (1, 1) or layer.groups != 1:
        return "it has a stride, a dilation or groups"
    if layer.padding_mode != "zeros" or layer.padding not in ((0, 0), (1, 1), (2, 2)):
        return f"its padding is {layer.padding} of {layer.padding_mode}"
    if min(layer.in_channels, layer.out_channels) < LANES:
        return f"it has fewer than {LANES} channels on one side: there is nothing to win"
    if layer.weight.dtype != torch.float32:
        return f"its weight is {str(layer.weight.dtype).removeprefix('torch.')}"
    return None
