"""Small networks of every build that structured removal must follow, with batch norms that matter."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from walnut import nets

Made = tuple[nn.Module, Tensor]


def lively(model: nn.Module) -> nn.Module:
    """Give every batch norm statistics, scale and shift of its own; return it in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def registered(name: str, shape: tuple[int, ...] = (3, 16, 16), **arguments: int) -> Made:
    torch.manual_seed(0)
    model = lively(nets.build(name, shape=shape, classes=5, **arguments))
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):  # logits of order one
            nn.init.kaiming_normal_(module.weight)
    return model, torch.rand(2, *shape)


class Attended(nn.Module):
    """torch's own encoder layer: attention that cannot shrink, a feed-forward part that can."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class Squeezed(nn.Module):
    """Squeeze-and-excitation: channels times a gate made of their own averages."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.down, self.up = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.conv(x)))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.fc((x * gate).flatten(2).mean(2))


class Gated(nn.Module):
    """A convolution cut into halves that meet again (chunk), then a GRU over the columns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.gru = nn.GRU(8 * 8, 10, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(x).chunk(2, 1)
        x = (a * torch.sigmoid(b)).permute(0, 3, 1, 2).flatten(2)
        return self.fc(self.gru(x)[0].amax(1))


class Unet(nn.Module):
    """Down, up by a transposed convolution, joined with the skip; group norm on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm = nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.GroupNorm(4, 12)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.skip, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(10, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.norm(self.down(x)))
        return self.last(torch.cat([self.up(y), self.skip(x)], 1)).mean((2, 3))


class Published(nn.Module):
    """Option-A blocks as they are published: a lambda with the number of channels written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1, self.norm1 = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.shortcut = lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return self.fc(F.relu(y + self.shortcut(x)).mean((2, 3)))


class Viewed(nn.Module):
    """A grouped convolution and a channel shuffle by view and transpose, sizes taken from x."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv1, self.norm1 = nn.Conv2d(16, 16, 1, groups=2), nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.conv3 = nn.Conv2d(16, 16, 1, groups=2)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.norm1(self.conv1(x)))
        b, c, h, w = y.shape
        y = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.fc(F.relu(x + self.conv3(self.conv2(y))).mean((2, 3)))


def _with(model: nn.Module, *shape: int) -> Callable[[], Made]:
    def make() -> Made:
        torch.manual_seed(0)
        return lively(model), torch.rand(2, *shape)

    return make


ZOO: dict[str, Callable[[], Made]] = {
    "lenet-300-100": lambda: registered("lenet-300-100", (1, 8, 8)),
    "lenet-5": lambda: registered("lenet-5", (1, 16, 16)),
    "vgg-11": lambda: registered("vgg-11", width=8),
    "resnet option A": lambda: registered("resnet-20", width=6, blocks=2),
    "resnet option B": lambda: registered("resnet-20-b", width=6, blocks=2),
    "resnet-18": lambda: registered("resnet-18", width=6),
    "densenet": lambda: registered("densenet-40", width=4, blocks=3),
    "squeezenet": lambda: registered("squeezenet", width=16),
    "mobilenet": lambda: registered("mobilenet", width=4),
    "mobilenet-v2": lambda: registered("mobilenet-v2", width=4),
    "shufflenet": lambda: registered("shufflenet", width=64, groups=2),
    "shufflenet-v2": lambda: registered("shufflenet-v2", width=16),
    "lstm": lambda: registered("lstm", (1, 8, 8), width=12),
    "vit": lambda: registered("vit", (3, 8, 8), width=16, blocks=2),
    "encoder layer": lambda: _with(Attended(), 6, 16)(),
    "squeeze and excite": lambda: _with(Squeezed(), 3, 8, 8)(),
    "chunk and gru": lambda: _with(Gated(), 3, 8, 8)(),
    "published option A": lambda: _with(Published(), 3, 8, 8)(),
    "shuffle by view": lambda: _with(Viewed(), 3, 8, 8)(),
    "u-net": lambda: _with(Unet(), 3, 8, 8)(),
}
"""Networks by name, each with an example to run it on."""
