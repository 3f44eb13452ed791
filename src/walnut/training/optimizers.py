"""Optimisers as parts: hyper-parameters, and ``build(parameters)`` when the weights are known.

The optimiser is built by ``fit``, after ``represent`` has put latents in a weight's place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Optimizer(Protocol):
    """What turns gradients into steps."""

    @property
    def lr(self) -> float:
        """Return the learning rate that the schedule scales."""
        ...

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's optimiser over ``parameters``."""
        ...


@dataclass(frozen=True)
class sgd:
    """Stochastic gradient descent with (Nesterov) momentum; weight decay is an L2 penalty."""

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's SGD."""
        return torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class adam:
    """Adam (Kingma & Ba 2015); weight decay is an L2 penalty."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's Adam."""
        return torch.optim.Adam(
            parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
        )


@dataclass(frozen=True)
class adamw:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's AdamW."""
        return torch.optim.AdamW(
            parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
        )
