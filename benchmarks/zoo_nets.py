"""What the masked zoo is made of: changes of the input, of the answer and of the activations."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


class Around(nn.Module):
    """A network between a change of its input and a change of its answer."""

    def __init__(
        self, net: nn.Module, before: Change | None = None, after: Change | None = None
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        """Return after(net(before(x)))."""
        answer = self.net(x if self.before is None else self.before(x))
        return answer if self.after is None else self.after(answer)


class Mean(nn.Module):
    """The mean logits of several networks, or of several passes of one that is random."""

    def __init__(self, nets: list[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of their answers."""
        return torch.stack([net(x) for net in self.nets]).mean(0)


# -- changes of the input ---------------------------------------------------------------------------
def rounded(levels: int) -> Change:
    """Round to so many levels: its slope is zero everywhere."""
    return lambda x: (x * (levels - 1)).round() / (levels - 1)


def soft_threshold(slope: float) -> Change:
    """A threshold at one half with a slope."""
    return lambda x: torch.sigmoid(slope * (x - 0.5))


def thermometer(levels: int) -> Change:
    """One channel per level, 1 where the pixel is above it (Buckman et al. 2018)."""

    def change(x: Tensor) -> Tensor:
        return torch.cat([(x > (k + 0.5) / levels).to(x.dtype) for k in range(levels)], 1)

    return change


def soft_thermometer(levels: int) -> Change:
    """The same with a slope: each step becomes a sigmoid of a level's width."""

    def change(x: Tensor) -> Tensor:
        return torch.cat([torch.sigmoid(8 * (x * levels - k - 0.5)) for k in range(levels)], 1)

    return change


def jpeg_like(step: float) -> Change:
    """8 x 8 cosine transform, coefficients rounded to multiples of ``step`` that grow with frequency."""
    n, k = torch.arange(8.0), torch.arange(8.0)[:, None]
    basis = torch.cos(math.pi * (2 * n + 1) * k / 16) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)
    table = step * (1 + torch.arange(8.0)[:, None] + torch.arange(8.0)) / 2

    def change(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        full = F.pad(x, (0, -width % 8, 0, -height % 8))
        blocks = full.unfold(2, 8, 8).unfold(3, 8, 8)
        d, q = basis.to(x), table.to(x)
        found = d.T @ ((d @ blocks @ d.T / q).round() * q) @ d
        rows = found.transpose(3, 4).reshape(full.shape)
        return rows[..., :height, :width].clamp(0, 1)

    return change


def median(x: Tensor) -> Tensor:
    """Return the median of each 3 x 3 neighbourhood."""
    around = F.pad(x, (1, 1, 1, 1), mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1)
    return around.flatten(4).median(4).values


def gaussian(x: Tensor) -> Tensor:
    """Return images blurred with weights 1 2 1 in both directions."""
    line = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=x.device) / 4
    kernel = (line[:, None] * line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])


def resized_and_padded(x: Tensor) -> Tensor:
    """Shrink by up to an eighth and put at a random place, another for each call (Xie et al. 2018)."""
    side = x.shape[-1]
    small = int(torch.randint(side - max(side // 8, 1), side + 1, ()))
    left, top = (int(torch.randint(0, side - small + 1, ())) for _ in range(2))
    shrunk = F.interpolate(x, size=(small, small), mode="bilinear", align_corners=False)
    return F.pad(shrunk, (left, side - small - left, top, side - small - top))


def dropped(share: float) -> Change:
    """Put random pixels to zero, others for each call."""
    return lambda x: x * (torch.rand_like(x[:, :1]) >= share)


def upper_half(x: Tensor) -> Tensor:
    """Put the lower half of each image to zero."""
    half = torch.arange(x.shape[-2], device=x.device) < x.shape[-2] // 2
    return x * half[:, None]


# -- networks -----------------------------------------------------------------------------------------
class Detached(nn.Module):
    """Answers with the network; the slope is that of a decoy which adds nothing."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's logits, with a gradient that leads nowhere."""
        logits = self.net(x.detach())
        decoy = torch.linspace(-1, 1, logits.shape[1], dtype=x.dtype, device=x.device)
        waves = torch.sin(1e3 * x.flatten(1)).mean(1, keepdim=True) * decoy
        return logits + waves - waves.detach()


class ThroughNumpy(nn.Module):
    """Answers by way of numpy: no gradient comes out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's logits, without a graph."""
        with torch.no_grad():
            return torch.from_numpy(self.net(x.detach()).cpu().numpy().copy()).to(x.device)


class Vote(nn.Module):
    """Each member has one vote: a one-hot answer."""

    def __init__(self, nets: list[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        """Return the number of votes of each class; the first member decides a draw."""
        answers = [net(x) for net in self.nets]
        votes = [F.one_hot(z.argmax(1), z.shape[1]).to(x.dtype) for z in answers]
        return torch.stack(votes).sum(0) + 0.5 * votes[0]


class AnyOf(nn.Module):
    """Another member answers at each call."""

    def __init__(self, nets: list[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        """Return the answer of a member drawn at random."""
        return self.nets[int(torch.randint(len(self.nets), ()))](x)


class WinnersTakeAll(nn.Module):
    """Keep the largest ``share`` of an example's activations, put the others to 0 (Xiao et al. 2020)."""

    def __init__(self, share: float = 0.1) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Return the winners."""
        flat = x.flatten(1)
        least = flat.topk(max(1, round(self.share * flat.shape[1])), dim=1).values[:, -1:]
        return (flat * (flat >= least)).reshape(x.shape)


class Soft(nn.Module):
    """A smooth stand-in for the winners: a sigmoid round the threshold."""

    def __init__(self, hard: WinnersTakeAll) -> None:
        super().__init__()
        self.share = hard.share

    def forward(self, x: Tensor) -> Tensor:
        """Return activations, those below the threshold faded."""
        flat = x.flatten(1)
        least = flat.topk(max(1, round(self.share * flat.shape[1])), dim=1).values[:, -1:]
        width = flat.std(1, keepdim=True).detach() / 4 + 1e-6
        return (flat * torch.sigmoid((flat - least) / width)).reshape(x.shape)


class Sign(nn.Module):
    """sign(x); its slope is zero in eval mode, and that of a clipped line in training."""

    def forward(self, x: Tensor) -> Tensor:
        """Return −1 or 1."""
        hard = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
        if not self.training:
            return hard + 0 * x
        soft = x.clamp(-1, 1)
        return soft + (hard - soft).detach()


class Slope(nn.Module):
    """sign(x) with the slope of a clipped line, in any mode."""

    def forward(self, x: Tensor) -> Tensor:
        """Return −1 or 1."""
        soft = x.tanh()
        return soft + (torch.where(x >= 0, 1.0, -1.0).to(x.dtype) - soft).detach()


def swapped(net: nn.Module, kind: type[nn.Module], make: Callable[..., nn.Module]) -> nn.Module:
    """Return a copy of a network with every module of one kind replaced by ``make(module)``."""
    twin = copy.deepcopy(net)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child))
    return twin.eval()


def batch_statistics(net: nn.Module) -> nn.Module:
    """Return a copy whose batch norm uses the batch's own statistics, whatever mode it is put in."""
    twin = copy.deepcopy(net)
    for module in twin.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return twin.eval()


def int8_dynamic(net: nn.Module) -> nn.Module:
    """Return a copy with linear layers in int8, activations quantised as they come."""
    from torch.ao import quantization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantization.quantize_dynamic(copy.deepcopy(net).cpu(), {nn.Linear}, torch.qint8)


def int8_static(net: nn.Module, x: Tensor) -> nn.Module:
    """Return a copy with every convolution and linear layer in int8, scales taken from ``x``.

    ``net`` is a Sequential whose first layer normalises; that one stays in float.
    """
    from torch.ao import quantization as q

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, *rest = copy.deepcopy(net).cpu().children()
        whole = nn.Sequential(first, q.QuantStub(), *rest, q.DeQuantStub()).eval()
        whole.qconfig = q.get_default_qconfig("fbgemm")
        q.prepare(whole, inplace=True)
        whole(x)
        return q.convert(whole, inplace=True)
