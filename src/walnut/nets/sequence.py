"""Networks for rows: an LSTM that reads an image line by line, and a small vision transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .normalize import Normalize, Shape, Statistics, image_sides


class Lstm(nn.Module):
    """A two-layer LSTM (Hochreiter & Schmidhuber 1997) over the rows of an image, then linear."""

    def __init__(
        self,
        *,
        shape: Shape = (1, 28, 28),
        classes: int = 10,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 64,
    ) -> None:
        super().__init__()
        channels, _, columns = image_sides(shape, "lstm", smallest=1)
        self.normalize = Normalize(shape, mean, std)
        self.lstm = nn.LSTM(channels * columns, width, num_layers=2, batch_first=True)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W): what the last row leaves behind."""
        rows = self.normalize(x).transpose(1, 2).flatten(2)
        return self.linear(self.lstm(rows)[0][:, -1])


class Attention(nn.Module):
    """Multi-head self-attention: softmax(q·kᵀ·scale)·v (Vaswani et al. 2017, section 3.2).

    ``scale`` is a number of its own, 1/√(channels a head) when built, so that it stays what it was
    when channels are removed.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width // heads)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, t, width) of x (b, t, width)."""
        q, k, v = (
            part(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A transformer layer, norms first: x + attention, then x + two linear layers round a GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.fc1 = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, t, width) of x (b, t, width)."""
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    """A small vision transformer (Dosovitskiy et al. 2021): 4x4 patches, tokens averaged at the end.

    Where we differ: no class token, and positions are learned for the shape it is built for.
    """

    def __init__(
        self,
        *,
        shape: Shape = (3, 32, 32),
        classes: int = 10,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 64,
        blocks: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        channels, height, columns = image_sides(shape, "vit", smallest=4)
        width = max(heads, width // heads * heads)
        self.normalize = Normalize(shape, mean, std)
        self.embed = nn.Conv2d(channels, width, 4, stride=4)
        self.position = nn.Parameter(torch.randn(1, (height // 4) * (columns // 4), width) * 0.02)
        self.blocks = nn.Sequential(*(Layer(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        tokens = self.embed(self.normalize(x)).flatten(2).transpose(1, 2) + self.position
        return self.linear(self.norm(self.blocks(tokens)).mean(1))


def infer_lstm(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of an LSTM's state dict show."""
    classes, width = shapes["linear.weight"]
    return {"classes": classes, "width": width}


def infer_vit(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a vision transformer's state dict show."""
    width, channels = shapes["embed.weight"][:2]
    blocks = sum(name.startswith("blocks.") and name.endswith("fc1.weight") for name in shapes)
    return {
        "channels": channels,
        "classes": shapes["linear.weight"][0],
        "width": width,
        "blocks": blocks,
    }
