"""Modules that the papers of classics.py train and walnut does not register."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Maxout(nn.Module):
    """Two layers of max over ``pieces`` linear maps, dropout before each, then softmax.

    Goodfellow et al. 2013 ("Maxout networks").
    """

    def __init__(self, units: int = 120, pieces: int = 4, features: int = 784) -> None:
        super().__init__()
        self.pieces = pieces
        self.first = nn.Linear(features, units * pieces)
        self.second = nn.Linear(units, units * pieces)
        self.last = nn.Linear(units, 10)
        self.drops = nn.ModuleList(nn.Dropout(p) for p in (0.2, 0.5, 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, 10) of x (b, ...)."""
        x = x.flatten(1)
        for drop, layer in zip(self.drops, (self.first, self.second), strict=False):
            x = layer(drop(x)).unflatten(1, (-1, self.pieces)).amax(2)
        return self.last(self.drops[2](x))


def perceptron(*sizes: int, between: Callable[[], nn.Module] = nn.Sigmoid) -> nn.Module:
    """Return a fully connected network: ``perceptron(784, 100, 100, 10)`` is FC100-100-10."""
    parts: list[nn.Module] = [nn.Flatten()]
    for at, (low, high) in enumerate(itertools.pairwise(sizes)):
        parts += [between()] if at else []
        parts += [nn.Linear(low, high)]
    return nn.Sequential(*parts)


class Autoencoder(nn.Module):
    """h = sigmoid(W x + b), x̂ = sigmoid(V h + c); called, it gives the logits of h alone.

    AE400-10 of Szegedy et al. 2014: the first layer is trained to reconstruct and then kept.
    """

    def __init__(self, units: int = 400, features: int = 784) -> None:
        super().__init__()
        self.encoder = nn.Linear(features, units)
        self.decoder = nn.Linear(units, features)
        self.last = nn.Linear(units, 10)

    def hidden(self, x: Tensor) -> Tensor:
        """Return h (b, units)."""
        return self.encoder(x.flatten(1)).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, 10) of x (b, ...)."""
        return self.last(self.hidden(x))


@dataclass(frozen=True)
class sparse:
    """½ ‖x − x̂‖² + decay/2 · ‖W‖² + weight · Σ_j KL(target ‖ mean_i h_ij): a sparse autoencoder.

    With the constants of the tutorial of the time (Ng 2011), which the paper does not give.
    """

    target: float = 0.1
    weight: float = 3.0
    decay: float = 3e-3

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return one value per example."""
        h = model.hidden(x)
        wrong = (model.decoder(h).sigmoid() - x.flatten(1)).square().sum(1) / 2
        large = sum(layer.weight.square().sum() for layer in (model.encoder, model.decoder))
        mean, p = h.mean(0).clamp(1e-6, 1 - 1e-6), self.target
        apart = p * (p / mean).log() + (1 - p) * ((1 - p) / (1 - mean)).log()
        return wrong + self.decay / 2 * large + self.weight * apart.sum()


class GaussianUnits(nn.Module):
    """p(y = k | x) = exp(−(x − μ_k)ᵀ β_k (x − μ_k)), one unit a class and nothing below or above it.

    The shallow RBF network of Goodfellow et al. 2015, §7, whose probabilities need not add up to one.
    Where we differ: β_k is a diagonal plus a matrix of rank ``rank``. Called, it gives log p.
    """

    def __init__(self, middle: Tensor, rank: int = 16) -> None:
        super().__init__()
        classes, features = middle.shape
        self.middle = nn.Parameter(middle.clone())
        self.log_diagonal = nn.Parameter(torch.full((classes, features), -4.5))
        self.factor = nn.Parameter(0.01 * torch.randn(classes, rank, features))

    def forward(self, x: Tensor) -> Tensor:
        """Return log p (b, classes) of x (b, ...)."""
        apart = x.flatten(1)[:, None] - self.middle
        straight = (apart.square() * self.log_diagonal.exp()).sum(2)
        slanted = torch.einsum("bkd,krd->bkr", apart, self.factor).square().sum(2)
        return -(straight + slanted)


@dataclass(frozen=True)
class bernoulli:
    """−log p_y − Σ_{k≠y} log(1 − p_k) of a network that gives log p."""

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return one value per example."""
        log_p = model(x)
        rest = torch.log(-torch.expm1(log_p.clamp_max(-1e-6)))
        own = torch.zeros_like(log_p).scatter(1, y[:, None], 1.0)
        return -(own * log_p + (1 - own) * rest).sum(1)


class Quadratic(nn.Module):
    """Logits (0, xᵀ Q x + w · x + b): the quadratic model of Tramèr et al. 2017, Q of some rank."""

    def __init__(self, features: int = 784, rank: int = 8) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.left = nn.Parameter(0.05 * torch.randn(rank, features))
        self.right = nn.Parameter(0.05 * torch.randn(rank, features))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, 2) of x (b, ...)."""
        flat = x.flatten(1)
        score = self.linear(flat)[:, 0] + ((flat @ self.left.T) * (flat @ self.right.T)).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)
