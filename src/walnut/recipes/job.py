"""A network under compression: what its retraining needs, and what each step does to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.objectives import cross_entropy, kl_divergence, weighted
from walnut.core.transforms import compose
from walnut.core.types import Attack, Model, Objective, Progress, Transform
from walnut.data import Dataset, Split
from walnut.evaluate import accuracy
from walnut.evaluate.sensitivity import Sensitivity, sensitivity
from walnut.training import Batches, adam, crop, fit, flip, one_cycle, sgd
from walnut.training.optimizers import Optimizer
from walnut.weights import (
    densities,
    density_schedule,
    matrices,
    prune,
    select,
    share,
    shorten,
    weights,
)

from .recipe import Recipe
from .record import Json

_Value = TypeVar("_Value")
SCANNED = 2000
"""The most validation examples a sensitivity scan looks at."""


@dataclass(frozen=True)
class attacked:
    """An objective on adversarial examples, made afresh at every step (Madry et al. 2018, Eq. 2.1)."""

    objective: Objective
    attack: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor | None) -> Tensor:
        if y is None:
            raise WalnutError("adversarial examples are made against labels")
        return self.objective(model, self._made(model, x, y), y)

    def _made(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return examples against the network in eval mode; its mode is as before afterwards."""
        network: object = model
        modules = list(network.modules()) if isinstance(network, nn.Module) else []
        modes = [(module, module.training) for module in modules]
        for module, _ in modes:
            module.training = False
        try:
            made: Tensor = self.attack(model, x, y).x.detach()  # type: ignore[arg-type]
            return made
        finally:
            for module, mode in modes:
                module.training = mode


def some(split: Split, count: int | None, seed: int) -> Split:
    """Return ``count`` examples drawn without order, in their order; all where it is None."""
    if count is None or count >= len(split):
        return split
    rows = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    rows = rows[:count].sort().values
    return Split(split.x[rows], split.y[rows])


@dataclass
class Job:
    """A network under compression, and what its training needs."""

    model: nn.Module
    teacher: nn.Module
    dataset: Dataset
    recipe: Recipe
    seed: int
    out: Path
    progress: Progress | None
    attack: Attack | None = None
    history: list[Json] = field(default_factory=list)
    scan: Sensitivity | None = None
    step: int = 0

    def train(self, what: str, optimizer: Optimizer, epochs: int, **told: Any) -> None:
        """Train the network as it is represented now; keep the best epoch by validation."""
        split, held = self.dataset.train, self.dataset.validation
        recipe, self.step = self.recipe, self.step + 1
        steps = math.ceil(len(split) / recipe.batch_size)
        history = fit(
            self.model,
            self._objective(),
            Batches(
                split.x,
                split.y,
                recipe.batch_size,
                self.seed + self.step,
                _augment(recipe, split.x),
            ),
            epochs=max(epochs, math.ceil(recipe.least_steps / steps)),
            optimizer=optimizer,
            schedule=one_cycle(),
            validate=lambda m: accuracy(m, held.x, held.y).value,
            keep_best=True,
            checkpoint=self.out / "steps" / f"{self.step}.safetensors",
            seed=self.seed,
            progress=self._renamed(what),
        )
        for row in history.rows:
            row = {k: v for k, v in row.items() if k != "epoch"}
            row["validation_accuracy"] = row.pop("validation")
            self.history.append({"epoch": len(self.history) + 1, "step": what, **told, **row})

    def _objective(self) -> Objective:
        """Return what training descends."""
        share = self.recipe.distil
        taught = kl_divergence(self.teacher, self.recipe.temperature)
        terms = ((1 - share, cross_entropy()), (share, taught))
        plain = weighted(tuple(term for term in terms if term[0] > 0))
        return plain if self.attack is None else attacked(cross_entropy(), self.attack)

    def _renamed(self, what: str) -> Progress | None:
        tell = self.progress
        return None if tell is None else lambda _, done, total: tell(what, done, total)

    def prune(self) -> None:
        """Prune and retrain, round by round."""
        recipe, density = self.recipe, self._density()
        for i in range(1, recipe.rounds + 1):
            chosen = layer_densities(self.model, density, i, recipe.rounds)
            prune(self.model, chosen)
            sizes = {n: w.numel() for n, w in weights(self.model).items() if n in chosen}
            kept = sum(chosen[n] * count for n, count in sizes.items()) / sum(sizes.values())
            optimizer = sgd(recipe.lr, weight_decay=recipe.weight_decay)
            self.train(f"prune {i} of {recipe.rounds}", optimizer, recipe.epochs, density=kept)

    def _density(self) -> float | Mapping[str, float]:
        """Return the densities to reach: the recipe's, or those that a scan of the layers picks."""
        if self.recipe.drop is None:
            return self.recipe.density
        held = some(self.dataset.validation, SCANNED, self.seed)
        self.scan = sensitivity(self.model, held.x, held.y, progress=self.progress)
        return self.scan.for_drop(self.recipe.drop)

    def share(self) -> None:
        """Share the weights that are left, and train the shared values."""
        share(self.model, assigned(self.model, self.recipe.bits))
        self.train(
            "fine-tune shared weights", adam(self.recipe.finetune_lr), self.recipe.finetune_epochs
        )
        self.shorten()

    def shorten(self) -> None:
        """Round biases and codebooks to float16, if less than 1 validation example in 2,000 is lost."""
        held, exact = self.dataset.validation, copy.deepcopy(self.model)
        shorten(self.model)
        lost = accuracy(exact, held.x, held.y).value - accuracy(self.model, held.x, held.y).value
        if lost >= 1 / 2000:
            self.model = exact


def assigned(model: nn.Module, value: _Value | Mapping[str, _Value]) -> dict[str, _Value]:
    """Return a value for each weight it is meant for; ``"*"`` is for matrices named by no other."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(matrices(model), value)
    named = select(weights(model), {k: v for k, v in value.items() if k != "*"})
    rest = {n: value["*"] for n in matrices(model) if n not in named} if "*" in value else {}
    return named | rest


def layer_densities(
    model: nn.Module, density: float | Mapping[str, float], i: int, rounds: int
) -> dict[str, float]:
    """Return the density of each weight in round i (from 1)."""
    if not isinstance(density, Mapping):
        density = {"*": density}
    now = {k: density_schedule(d, rounds)[i - 1] for k, d in density.items()}
    named = select(weights(model), {k: d for k, d in now.items() if k != "*"})
    rest = [name for name in matrices(model) if name not in named]
    if "*" not in now or not rest:
        return named
    return named | densities(model, now["*"], names=rest)


def _augment(recipe: Recipe, x: Any) -> Transform | None:
    """Return what is done to training images; nothing to rows of a table."""
    if x.ndim != 4:
        return None
    parts: list[Transform] = []
    if pixels := int(recipe.shift * min(x.shape[2:])):
        parts.append(crop(pixels))
    if recipe.mirror and x.shape[1] == 3:
        parts.append(flip())
    return compose(tuple(parts)) if parts else None
