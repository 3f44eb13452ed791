"""What the convolutional reference networks share: strides by image size, and channel plumbing.

``PadChannels`` and ``Select`` are plumbing that can be told, when channels are removed, what is left
of them (the protocol of ``weights.trace.Plumbing``); plain slicing and padding by numbers cannot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .normalize import Shape

_MOST_CHANNELS = 1 << 20


def strides(shape: Shape, halvings: int, smallest: int = 4) -> list[int]:
    """Return the strides, 1 or 2, of a network's ``halvings`` places to halve an image.

    Halvings that would leave fewer than ``smallest`` pixels a side are left out, the earliest first:
    a network for 224x224 looks at 32x32 without its first strides, as is usual for CIFAR-10.

    >>> strides((3, 224, 224), 5), strides((3, 32, 32), 5)
    ([2, 2, 2, 2, 2], [1, 1, 2, 2, 2])
    """
    side = min(shape[1:])
    taken = min(halvings, max(0, int(math.log2(max(1.0, side / smallest)))))
    return [1] * (halvings - taken) + [2] * taken


def conv_bn(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return a convolution without bias that keeps the sides at stride 1, and its batch norm."""
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return conv, nn.BatchNorm2d(outputs)


def he_init(model: nn.Module) -> None:
    """Draw convolutions and linear layers as He et al. 2015 do (fan-out), biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


class PadChannels(nn.Module):
    """Option-A shortcut: every ``stride``-th pixel, zero channels before and after.

    >>> PadChannels(1, 2, stride=2)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 6, 2, 2])
    """

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.before, self.after, self.stride = before, after, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return x (b, C, H, W) as (b, before + C + after, H / stride, W / stride)."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))

    def recount(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> dict[str, Any]:
        """Return what the numbers become when only the channels marked true stay."""
        end = self.before + len(inputs)
        return {"before": sum(outputs[: self.before]), "after": sum(outputs[end:])}

    def resize(self, numbers: dict[str, Any]) -> None:
        """Take over numbers of :meth:`recount`, which may come from a hostile file."""
        before: Any = numbers.get("before")
        after: Any = numbers.get("after")
        if set(numbers) != {"before", "after"} or not (
            _is_count(before, self.before) and _is_count(after, self.after)
        ):
            raise WalnutError(f"a shortcut cannot be padded by {numbers!r:.80}")
        self.before, self.after = before, after


class Select(nn.Module):
    """Channels by position, in any order: a shuffle, or a part of them.

    >>> Select([2, 0])(torch.arange(3.0).reshape(1, 3, 1, 1)).flatten()
    tensor([2., 0.])
    """

    order: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        # an explicit device: positions are no weights, and real even while a network is built on "meta"
        self._place(order, torch.device("cpu"))

    def _place(self, order: Sequence[int], device: torch.device) -> None:
        positions = torch.tensor(list(order), dtype=torch.int64, device=device)
        self.register_buffer("order", positions, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the selected channels of x (b, C, ...)."""
        return x.index_select(1, self.order)

    def recount(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> dict[str, Any]:
        """Return the positions that are left when only the channels marked true stay."""
        place, left = {}, 0
        for i, stays in enumerate(inputs):
            place[i], left = left, left + stays
        kept = [i for i, stays in zip(self.order.tolist(), outputs, strict=True) if stays]
        return {"order": [place[i] for i in kept], "inputs": left}

    def resize(self, numbers: dict[str, Any]) -> None:
        """Take over numbers of :meth:`recount`, which may come from a hostile file."""
        order: Any = numbers.get("order")
        inputs: Any = numbers.get("inputs")
        good = set(numbers) == {"order", "inputs"} and _is_count(inputs, _MOST_CHANNELS)
        if not (good and isinstance(order, list) and 0 < len(order) <= len(self.order)) or not all(
            _is_count(i, inputs - 1) for i in order
        ):
            raise WalnutError(f"channels cannot be selected by {numbers!r:.80}")
        self._place(order, self.order.device)


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def shuffle(channels: int, groups: int) -> Select:
    """Return the channel shuffle: position m·groups + k takes channel k·(channels/groups) + m.

    Zhang et al. 2018, section 3.1.

    >>> shuffle(6, 2).order.tolist()
    [0, 3, 1, 4, 2, 5]
    """
    each = channels // groups
    return Select([k * each + m for m in range(each) for k in range(groups)])
