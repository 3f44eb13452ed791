"""The adversarially trained networks of classics.py: FGSM, PGD and TRADES on one small network."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from classics_nets import Course, fresh, loaded, mixed, trained
from walnut import nets
from walnut.attacks import fgsm, pgd
from walnut.core.objectives import cross_entropy, kl_divergence
from walnut.core.types import Attack

EPS = 0.3
RISE = {"fgsm": (0.1, 0.2)}
"""Radii of the epochs before: at .3 from the first step these networks stay at one answer for all."""


@dataclass(frozen=True)
class trades:
    """J(x, y) + β · KL(p(x) ‖ p(x̂)), x̂ the largest KL of the ball (Zhang et al. 2019, Eq. 5)."""

    eps: float
    beta: float
    steps: int = 3

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return one value per example."""
        model.eval()
        with torch.no_grad():
            clean = model(x)
        found = climbed(self.eps, self.steps, kl_divergence(lambda _: clean))(model, x, y).x
        model.train()
        logits = model(torch.cat([x, found]))
        near, far = (part.log_softmax(1) for part in logits.chunk(2))
        apart = (near.exp() * (near - far)).sum(1)
        return cross_entropy()(lambda _: logits[: len(x)], x, y) + self.beta * apart


def climbed(eps: float, steps: int, objective: Any = cross_entropy()) -> Attack:
    """Return the PGD that is trained on: from a random point, the last point of ``steps``."""
    return pgd(
        eps, steps=steps, step_size=2.5 * eps / steps, early_stop=False, keep_best=False,
        objective=objective, batch_size=4096,
    )  # fmt: skip


def goal(kind: str, eps: float) -> Any:
    """Return what is descended at one radius: on FGSM, on PGD, or TRADES with its β."""
    if kind.startswith("trades"):
        return trades(eps, float(kind[6:]))
    return mixed(fgsm(eps, batch_size=4096) if kind == "fgsm" else climbed(eps, 3), 0.0)


@functools.cache
def defended(dataset: str, kind: str) -> nn.Module:
    """Return the small network trained at eps .3 against ``kind``, the radius rising before."""
    found = loaded(dataset)
    count, epochs, batch = (40_000, 5, 64) if kind == "fgsm" else (20_000, 4, 64)
    plain: Any = cross_entropy()
    before = (plain, *(goal(kind, eps) for eps in RISE.get(kind, (0.15,))))
    course = Course(goal(kind, EPS), epochs, before=before, batch_size=batch)
    model = fresh(lambda: nets.build("small-cnn", shape=found.shape))
    return trained(f"{kind} {dataset}", model, found.train.x[:count], found.train.y[:count], course)
