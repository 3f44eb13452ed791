"""What attacks share that see only the predicted class: the question, the start, the way back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from walnut.core.constraints import box, linf
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.objectives import margin, misclassified
from walnut.core.queried import Queried, check_data, label_error, whole
from walnut.core.rows import Run
from walnut.core.types import Adversarial, Criterion, Model, perturbation_norms

from .common import Norm, check_bounds, check_mask, prepare


def wide(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (b,) so that it broadcasts over an example."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def choose(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Return ``yes`` in the rows named, ``no`` in the others."""
    return torch.where(wide(rows, no), yes, no)


class Oracle:
    """A network that answers yes or no, and counts what each example asked.

    With a ``mask`` points are vectors of the entries under it; the others are those of their example.
    """

    def __init__(
        self, model: Model, criterion: Criterion, x: Tensor, y: Tensor, batch_size: int,
        mask: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.model, self.criterion, self.x, self.y = Queried(model), criterion, x, y
        self.batch_size = batch_size
        self.free = None if mask is None else mask.to(x.device).expand(x.shape[1:]).flatten()
        self.forward = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.prediction = torch.zeros_like(self.forward)

    def part(self, x: Tensor) -> Tensor:
        """Return the points of examples: the entries that may change."""
        return x if self.free is None else x.flatten(1)[:, self.free]

    def whole(self, points: Tensor, rows: Tensor) -> Tensor:
        """Return the examples that points stand for."""
        if self.free is None:
            return points
        full = self.x[rows].flatten(1)
        full[:, self.free] = points
        return full.reshape(len(rows), *self.x.shape[1:])

    def __call__(self, points: Tensor, rows: Tensor) -> Bool[Tensor, " r"]:
        """Say which points fool the network; ``rows`` are the examples that they belong to."""
        fooled = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for part in torch.arange(len(rows), device=rows.device).split(self.batch_size):
            logits = self.model(self.whole(points[part], rows[part]))
            self.model.forget()
            error = label_error(self.y[rows[part]], self.model.classes)
            if error:
                raise error
            if not bool(logits.isfinite().all()):
                row = int(rows[part][(~logits.isfinite().all(1)).nonzero()[0, 0]])
                raise WalnutError(
                    f"the network's answer for example {row} is not a number (NaN or infinite): "
                    "check its weights and the input range"
                )
            fooled[part] = self.criterion(logits, self.y[rows[part]])
            self.prediction[rows[part]] = logits.argmax(1)
        self.forward += torch.bincount(rows, minlength=len(self.x))
        return fooled


def blend(x0: Tensor, x: Tensor, share: Tensor, norm: Norm) -> Tensor:
    """Return the point of size share · ‖x − x0‖ on the way to ``x``: on the line, or clipped (L∞)."""
    delta = x - x0
    if norm is linf:
        limit = wide(share * delta.flatten(1).abs().amax(1), x)
        return x0 + delta.clamp(-limit, limit)
    return x0 + wide(share, x) * delta


def bisect(
    oracle: Oracle, x0: Tensor, x: Tensor, rows: Tensor, halvings: int, norm: Norm
) -> Tensor:
    """Return adversarial points next to the boundary, between the examples and adversarial ``x``."""
    low = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    high = torch.ones_like(low)
    for _ in range(halvings):
        middle = (low + high) / 2
        fooled = oracle(blend(x0, x, middle, norm), rows)
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    return choose(high < 1, blend(x0, x, high, norm), x)


def distance(x: Tensor, x0: Tensor, norm: Norm) -> Float[Tensor, " b"]:
    """Return the distance of each row in the norm."""
    delta = (x - x0).flatten(1)
    return delta.abs().amax(1) if norm is linf else delta.norm(dim=1)


@runtime_checkable
class Walk(Protocol):
    """How adversarial points come nearer."""

    @property
    def norm(self) -> Norm:
        """Return the norm that is made small."""
        ...

    def halvings(self, d: int) -> int:
        """Return how often the way from the first adversarial point is halved; ``d`` entries."""
        ...

    def __call__(
        self, oracle: Oracle, x0: Tensor, x: Tensor, rows: Tensor, draws: Draws, limit: box
    ) -> Tensor:
        """Return nearer adversarial points."""
        ...


@dataclass(frozen=True)
class DecisionAttack:
    """A start and a walk put together: call it with ``(model, x, y)``.

    ``first_success`` is the query that first fooled the network, 0 for the example itself.
    """

    walk: Walk
    criterion: Criterion = misclassified()
    tries: int = 100
    bounds: tuple[float, float] = (0.0, 1.0)
    starts: Tensor | None = field(default=None, repr=False, compare=False)
    mask: Tensor | None = field(default=None, repr=False, compare=False)
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)

    @property
    def constraint(self) -> box:
        """The set that examples stay in."""
        return box(*self.bounds)

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Attack every example of ``x`` (n, ...) with true labels (or targets) ``y`` (n,)."""
        check_mask(self.mask)
        check_bounds(self.bounds)
        prepare(model, x, self.constraint)
        y = whole(y)
        check_data(
            x, y, Run(margin(), self.criterion, 1, seed=self.seed, batch_size=self.batch_size)
        )
        began = time.perf_counter()
        with torch.inference_mode(False), torch.no_grad(), frozen(model):
            x, y = x.clone(), y.clone()
            oracle = Oracle(model, self.criterion, x, y, self.batch_size, self.mask)
            draws, x0 = Draws.of(x, self.seed), oracle.part(x)
            out = x0.clone()
            first = torch.full_like(oracle.forward, -1)
            for rows in torch.arange(len(x), device=x.device).split(self.batch_size):
                out[rows], first[rows] = self._start(oracle, rows, draws.rows(rows))
                rows = rows[first[rows] > 0]
                if len(rows):
                    args = x0[rows], out[rows], rows
                    near = bisect(oracle, *args, self.walk.halvings(x0[0].numel()), self.walk.norm)
                    stream = draws.rows(rows).fold(1)
                    out[rows] = self.walk(oracle, x0[rows], near, rows, stream, self.constraint)
            every = torch.arange(len(x), device=x.device)
            success, out = oracle(out, every), oracle.whole(out, every)
            return Adversarial(
                out, success, oracle.prediction, first, oracle.forward,
                torch.zeros_like(oracle.forward), perturbation_norms(out, x),
                time.perf_counter() - began, repr(self), self.seed,
            )  # fmt: skip

    def _start(self, oracle: Oracle, rows: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return the first adversarial point of each row, and which query found it (-1: none did)."""
        x0 = oracle.part(oracle.x[rows])
        out = x0.clone()
        first = torch.where(oracle(x0, rows), 0, -1)
        for i in range(self.tries):
            left = (first < 0).nonzero()[:, 0]
            if len(left) == 0:
                break
            tried = self._candidate(oracle, i, x0[left], draws.rows(left).fold(i).fold(0))
            first[left] = torch.where(oracle(tried, rows[left]), i + 1, -1)
            out[left] = tried
        return out, first

    def _candidate(self, oracle: Oracle, i: int, x0: Tensor, draws: Draws) -> Tensor:
        """Return the i-th nearest of ``starts``, then images of uniform noise."""
        pool = self.starts
        if pool is None or i >= len(pool):
            return self.constraint.sample(x0, draws)
        pool = oracle.part(pool.to(x0))
        gap = torch.cdist(x0.flatten(1), pool.flatten(1))
        return pool[gap.argsort(dim=1, stable=True)[:, i]]
