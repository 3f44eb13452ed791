"""Training a network whose weights are few whole numbers times a step, at a given rate.

w = s·k, k whole, s a step for each weight tensor that is trained too; the network descends
distillation + λ · (bits a weight), where the bits are those of the empirical distribution of k in
its tensor, and λ is steered so that the rate follows a plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from walnut.weights import represent, weights
from walnut.weights.curvature import squared_gradients
from walnut.weights.representation import Representation

MOST = 31
"""|k| is at most this."""


class Gridded(Representation):
    """w = s·k with k = round(u), u (the latent) in units of the step s = exp(t)."""

    source: ClassVar[bool] = True

    def __init__(self, step: float) -> None:
        super().__init__()
        self.first = step

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the weight; the gradient of k in u is 1 (straight through) inside of the range."""
        u, t = latents
        k = u + (u.round().clamp(-MOST, MOST) - u).detach()
        return k * t.exp()

    def right_inverse(self, w: Tensor) -> tuple[Tensor, ...]:
        """Return (u, t)."""
        w = w.detach()
        return w / self.first, w.new_tensor(math.log(self.first))


@dataclass(frozen=True)
class Grid:
    """A grid with this first step."""

    step: float
    source: ClassVar[bool] = True

    def build(self, w: Tensor) -> Gridded:
        """Return the source for ``w``."""
        return Gridded(self.step)


def latents(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Return {weight: (u, t)} of every gridded weight."""
    out = {}
    for name, module in model.named_modules():
        if name.endswith("parametrizations.weight") and isinstance(module[0], Gridded):
            out[name.removesuffix("parametrizations.weight") + "weight"] = (
                module.original0,
                module.original1,
            )
    return out


def lengths(u: Tensor) -> tuple[Tensor, float]:
    """Return −log2 p(k) for k = −MOST..MOST, and the bits of the tensor at that code."""
    k = u.detach().round().clamp(-MOST, MOST).long().reshape(-1) + MOST
    counts = torch.bincount(k, minlength=2 * MOST + 1).double()
    p = (counts + 0.02) / (counts.sum() + 0.02 * len(counts))
    code = -p.log2()
    return code.float(), float((counts * code).sum())


def interpolated(u: Tensor, code: Tensor) -> Tensor:
    """Return Σ of the code length between whole numbers, linearly interpolated."""
    v = u.clamp(-MOST, MOST - 1e-3) + MOST
    low = v.detach().floor()
    index = low.reshape(-1).int()
    a = code.index_select(0, index).reshape(u.shape)
    b = code.index_select(0, index + 1).reshape(u.shape)
    return (a + (v - low) * (b - a)).sum()


class Rated(nn.Module):
    """(1 − a)·cross-entropy + a·T²·KL(teacher ‖ network) + λ · bits a weight.

    The plan: ``rate(progress)`` falls geometrically from ``first`` to ``last`` at ``arrives``.
    """

    def __init__(
        self, model: nn.Module, teacher: Any, *, total: int, first: float, last: float,
        arrives: float, price: float, share: float = 0.7, temperature: float = 3.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.own = [latents(model)]  # in a list: not this module's parameters
        self.teacher = [teacher]
        self.total, self.first, self.last, self.arrives = total, first, last, arrives
        self.share, self.temperature = share, temperature
        self.weights = sum(u.numel() for u, _ in self.own[0].values())
        self.register_buffer("price", torch.tensor(price, dtype=torch.float64))
        self.register_buffer("rate", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("codes", torch.zeros(len(self.own[0]), 2 * MOST + 1))
        self.measure()

    def measure(self) -> None:
        bits = 0.0
        for row, (u, _) in enumerate(self.own[0].values()):
            self.codes[row], more = lengths(u)
            bits += more
        self.rate.fill_(bits / self.weights)

    def planned(self, done: int) -> float:
        part = min(1.0, done / (self.arrives * self.total))
        return self.first ** (1 - part) * self.last**part

    def after_step(self, done: int) -> None:
        """Measure the distribution, and steer the price."""
        if done % 8 == 0:
            self.measure()
            over = float(self.rate) / self.planned(done) - 1
            self.price *= math.exp(0.5 * max(-0.5, min(0.5, over)))

    def forward(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        z = model(x)
        with torch.no_grad():
            wanted = (self.teacher[0](x) / self.temperature).log_softmax(1)
        found = (z / self.temperature).log_softmax(1)
        kl = self.temperature**2 * (wanted.exp() * (wanted - found)).sum(1)
        loss = (1 - self.share) * F.cross_entropy(z, y, reduction="none") + self.share * kl
        bits = torch.stack(
            [
                interpolated(u, code)
                for (u, _), code in zip(self.own[0].values(), self.codes, strict=False)
            ]
        ).sum()
        return loss + float(self.price) * bits / self.weights


def balanced(model: nn.Module) -> None:
    """Scale each filter by γ/σ of the normalisation after it, which takes the scale back.

    An error of a weight then counts alike in every filter. For a ResNet of ours, where bn1 follows
    conv1 and so on.
    """
    modules = dict(model.named_modules())
    for name, conv in modules.items():
        if not isinstance(conv, nn.Conv2d):
            continue
        norm: Any = modules[name.replace("conv", "bn")]
        with torch.no_grad():
            sigma = (norm.running_var + norm.eps).sqrt()
            factor = norm.weight.abs().clamp_min(0.05) / sigma
            conv.weight.mul_(factor.reshape(-1, 1, 1, 1))
            norm.running_mean.mul_(factor)
            norm.running_var.copy_((factor * sigma).square() - norm.eps)


def first_steps(model: nn.Module, x: Tensor, wanted: float, seed: int) -> dict[str, float]:
    """Return a step for each weight tensor: in proportion to 1/√sensitivity, at a rate in bits.

    The sensitivity is the mean squared gradient, of labels that the network itself draws.
    """
    felt = {n: float(h.mean()) for n, h in squared_gradients(model, x.split(64), seed=seed).items()}
    held = {n: w.detach() for n, w in weights(model).items() if n in felt}
    total = sum(w.numel() for w in held.values())

    def steps(scale: float) -> dict[str, float]:
        return {
            n: min(scale / math.sqrt(felt[n] + 1e-12), 1.5 * float(w.std()))
            for n, w in held.items()
        }

    low, high = 1e-8, 1.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        bits = sum(lengths(held[n] / s)[1] for n, s in steps(middle).items())
        low, high = (middle, high) if bits / total > wanted else (low, middle)
    return steps(low)


def on_grids(model: nn.Module, steps: Mapping[str, float]) -> None:
    """Put weights on grids with these first steps."""
    represent(model, {name: Grid(step) for name, step in steps.items()})


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return {name: s·k} of every gridded weight, each the one product of a whole number and s."""
    return {
        name: u.detach().round().clamp(-MOST, MOST).add(0.0) * t.detach().exp()
        for name, (u, t) in latents(model).items()
    }
