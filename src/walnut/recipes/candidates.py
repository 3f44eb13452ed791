"""Candidates of a search: each a real file, measured on validation data after it was loaded again."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from walnut.attacks import pgd
from walnut.core.constraints import linf
from walnut.core.errors import WalnutError
from walnut.core.types import Progress
from walnut.data import Dataset, Split
from walnut.evaluate import accuracy, latency, robust_accuracy, robustness
from walnut.weights import pack

from .compress import loaded
from .forms import description_of
from .job import Job, some
from .recipe import Recipe
from .record import Cells, Json
from .search_steps import Given, Step


@dataclass(frozen=True)
class Goal:
    """What is asked for.

    Args:
        accuracy, robust: the least clean and robust accuracy, shares in [0, 1]; None asks nothing.
        bytes: the longest file; latency_ms: the slowest forward pass of one example.
        eps: radius (L∞) of robust accuracy; needed with ``robust``, else measured where given.

    What is left open is made small: bytes, or the latency where that is bounded.
    """

    accuracy: float | None = None
    robust: float | None = None
    bytes: int | None = None
    latency_ms: float | None = None
    eps: float | None = None

    def __post_init__(self) -> None:
        for name in ("accuracy", "robust"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise WalnutError(f"the least {name} is a share from 0 to 1, not {value:g}")
        if self.robust is not None and self.eps is None:
            raise WalnutError("robust accuracy is at a radius: say which (--robust 8/255)")
        for name in ("bytes", "latency_ms", "eps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise WalnutError(f"{name} must be above 0, not {value:g}")

    @property
    def cost(self) -> str:
        """The name of what is made small."""
        return "bytes" if self.latency_ms is None else "latency_ms"

    def shortfall(self, found: Json) -> float:
        """Return how far a candidate is from the goal, 0 where it is met: the sum of shares."""
        total = 0.0
        for name in ("accuracy", "robust"):
            least = getattr(self, name)
            if least:
                total += max(0.0, least - found[name]) / least
        for name in ("bytes", "latency_ms"):
            most = getattr(self, name)
            if most:
                total += max(0.0, found[name] / most - 1)
        return total

    def rank(self, found: Json) -> tuple[float, float, float]:
        """Return what orders candidates, the best first: what is missing, cost, accuracy."""
        return self.shortfall(found), found[self.cost], -found["accuracy"]


@dataclass(frozen=True)
class Effort:
    """How much one candidate gets.

    Args:
        name: "trial" (cheap, post-training figures) or "finished".
        train: training examples, None for all. held: validation examples.
        attacked: validation examples that are attacked.
        cascade: whether robust accuracy is defended by the whole cascade; else PGD, an upper bound.
        recipe: changes of the recipe, ``{"epochs": 1}``.
    """

    name: str
    train: int | None
    held: int | None
    attacked: int
    cascade: bool
    recipe: tuple[tuple[str, int], ...] = ()


TRIAL = Effort(
    "trial", 5000, 2000, 100, False,
    (("rounds", 1), ("epochs", 1), ("finetune_epochs", 1), ("least_steps", 40)),
)  # fmt: skip
FINISHED = Effort("finished", None, None, 500, True)
_PGD_STEPS = 10


@dataclass
class Bench:
    """Makes candidates of one network and measures them."""

    dense: nn.Module
    dataset: Dataset
    recipe: Recipe
    steps: tuple[Step, ...]
    goal: Goal
    seed: int
    out: Path
    cells: Cells
    progress: Progress | None = None

    def candidate(self, given: Given, effort: Effort) -> Json:
        """Return the figures of a candidate, made and measured once for each choice of numbers."""
        text = json.dumps([given, dataclasses.asdict(effort)], sort_keys=True)
        key = f"{effort.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
        folder = self.out / "candidates" / key
        found = self.cells(key, lambda: self._measured(self._made(given, effort, folder), effort))
        path = folder / "packed.walnut"
        if not path.is_file() or path.stat().st_size != found["bytes"]:  # gone, or another's
            self._made(given, effort, folder)
        shutil.rmtree(folder / "steps", ignore_errors=True)
        return {
            "name": key, "stage": effort.name, "file": str(path.relative_to(self.out)),
            "choice": given, **found,
        }  # fmt: skip

    def network(self, found: Json) -> nn.Module:
        """Return a candidate's network, out of its file."""
        return self.load(self.out / found["file"])

    def load(self, path: Path) -> nn.Module:
        """Return the network in a file."""
        return loaded(path, self.dense).eval()

    def _made(self, given: Given, effort: Effort, folder: Path) -> Path:
        """Carry out the steps, and write the file."""
        data = self.dataset
        small = dataclasses.replace(
            data, train=some(data.train, effort.train, self.seed), validation=self._held(effort)
        )
        recipe = dataclasses.replace(self.recipe, **dict(effort.recipe))  # type: ignore[arg-type]
        model = copy.deepcopy(self.dense)
        job = Job(model, self.dense, small, recipe, self.seed, folder, self.progress)
        for step in self.steps:
            step.do(job, given)
        path = folder / "packed.walnut"
        pack(job.model, path, description_of(job.model))
        return path

    def _held(self, effort: Effort) -> Split:
        return some(self.dataset.validation, effort.held, self.seed)

    def _measured(self, path: Path, effort: Effort) -> Json:
        """Measure what the file holds, on validation data."""
        model, held = self.load(path), self._held(effort)
        times = latency({"dense": self.dense, "candidate": model}, held.x[:1])
        found: Json = {
            "bytes": path.stat().st_size,
            "accuracy": accuracy(model, held.x, held.y).value,
            "latency_ms": times["candidate"].median_ms,
            "latency_to_dense": times["candidate"].ratio_to_dense,
        }
        if self.goal.eps is not None:
            found["robust"] = self._robust(model, some(held, effort.attacked, self.seed), effort)
        return found

    def _robust(self, model: nn.Module, held: Split, effort: Effort) -> float:
        """Return robust accuracy: by the cascade, or by a short PGD, which flatters."""
        eps = self.goal.eps or 0.0
        if effort.cascade:
            judged = robustness(
                model, (held.x, held.y), linf, eps, with_curve=False, seed=self.seed
            )
            return judged.robust.value
        attack = pgd(eps, steps=_PGD_STEPS, seed=self.seed)
        return robust_accuracy(model, held.x, held.y, attack).robust.value


def front(candidates: Iterable[Json], goal: Goal) -> list[Json]:
    """Return the candidates that no other beats in cost, accuracy and robust accuracy at once.

    Figures of another stage are no match: those of trials flatter. Sorted by cost.

    >>> some = [{"bytes": b, "accuracy": a} for b, a in ((10, 0.8), (20, 0.9), (30, 0.85))]
    >>> [c["bytes"] for c in front(some, Goal())]
    [10, 20]
    """
    every = list(candidates)

    def figures(c: Json) -> tuple[float, float, float]:
        return -c[goal.cost], c["accuracy"], c.get("robust", 0.0)

    def beaten(c: Json) -> bool:
        mine = figures(c)
        return any(
            all(t >= m for t, m in zip(figures(o), mine, strict=True)) and figures(o) != mine
            for o in every
            if o.get("stage") == c.get("stage")
        )

    kept = {figures(c): c for c in every if not beaten(c) and not math.isnan(c["accuracy"])}
    return sorted(kept.values(), key=lambda c: c[goal.cost])
