"""What a search may do to a network: a list of steps, each with what it asks for and what it does.

A step is a part: it asks a trial for its numbers and carries them out on a job. Another way to make
a network small joins the search by being put into the list.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from walnut.attacks import pgd
from walnut.core.errors import WalnutError
from walnut.training import sgd
from walnut.weights.shrink import budget, shrink

from .job import Job

Given = dict[str, Any]
"""What a trial chose: plain JSON data, by name."""


@runtime_checkable
class Trial(Protocol):
    """What asks for numbers; an ``optuna.Trial`` does."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number."""
        ...

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """Return one of some values."""
        ...


@runtime_checkable
class Step(Protocol):
    """One step of a recipe under search."""

    def ask(self, trial: Trial) -> Given:
        """Return this step's numbers, chosen by a trial."""
        ...

    def do(self, job: Job, given: Given) -> None:
        """Carry the step out, in place: change ``job.model``, or how it trains."""
        ...


@dataclass(frozen=True)
class harden:
    """Retrain on the examples themselves, or on adversarial ones (PGD, a few steps) at each batch.

    Adversarial retraining costs ``steps`` + 2 times as much, and is what keeps robust accuracy when
    most weights go.
    """

    eps: float
    steps: int = 5

    def ask(self, trial: Trial) -> Given:
        """Ask which."""
        return {"adversarial": trial.suggest_categorical("adversarial", [False, True])}

    def do(self, job: Job, given: Given) -> None:
        """Let later steps train so."""
        if given["adversarial"]:
            job.attack = pgd(self.eps, steps=self.steps, early_stop=False)


@dataclass(frozen=True)
class prune_weights:
    """Prune to a density, by LAMP, and retrain."""

    low: float = 0.02
    high: float = 0.9

    def ask(self, trial: Trial) -> Given:
        """Ask for the density, evenly in its logarithm."""
        return {"density": trial.suggest_float("density", self.low, self.high, log=True)}

    def do(self, job: Job, given: Given) -> None:
        """Prune and retrain in the job's rounds."""
        job.recipe = dataclasses.replace(job.recipe, density=given["density"], drop=None)
        job.prune()


@dataclass(frozen=True)
class share_weights:
    """Share the weights that are left, and fine-tune the shared values."""

    bits: tuple[int, ...] = (2, 3, 4, 5, 6, 8)

    def ask(self, trial: Trial) -> Given:
        """Ask for the bits of an index."""
        return {"bits": trial.suggest_categorical("bits", list(self.bits))}

    def do(self, job: Job, given: Given) -> None:
        """Share and train."""
        job.recipe = dataclasses.replace(job.recipe, bits=given["bits"])
        job.share()


@dataclass(frozen=True)
class applied:
    """Any change of a network that needs no training, at one of some strengths.

    Args:
        name: of its number in the table, "keep" say.
        values: what may be chosen.
        change: ``(network, value) -> network``, really changed; a value of None leaves it alone.
        epochs: of retraining afterwards (none where the value is None).
    """

    name: str
    values: tuple[Any, ...]
    change: Callable[[Any, Any], Any] = field(repr=False)
    epochs: int = 1

    def ask(self, trial: Trial) -> Given:
        """Ask for one of the values."""
        return {self.name: trial.suggest_categorical(self.name, [None, *self.values])}

    def do(self, job: Job, given: Given) -> None:
        """Change the network and retrain it."""
        value = given[self.name]
        if value is None:
            return
        job.model = self.change(job.model, value)
        recipe = job.recipe
        optimizer = sgd(recipe.lr, weight_decay=recipe.weight_decay)
        job.train(f"retrain after {self.name} {value}", optimizer, self.epochs)


def shrinking(shape: tuple[int, ...]) -> tuple[Step, ...]:
    """Return the step that removes whole units until a share of the multiply-adds is left.

    A network that cannot be brought to the share stays as it is, which its row then shows.
    """

    def change(model: nn.Module, value: float) -> nn.Module:
        with contextlib.suppress(WalnutError):
            shrink(model, torch.zeros(2, *shape), budget(value))
        return model

    return (applied("multiply_adds", (0.7, 0.5, 0.35), change),)


def default_steps(eps: float | None, shape: tuple[int, ...] | None = None) -> tuple[Step, ...]:
    """Return the steps of a search: with a radius, hardening; with an input's shape, shrinking."""
    first: tuple[Step, ...] = () if eps is None else (harden(eps),)
    smaller = () if shape is None else shrinking(shape)
    return (*first, *smaller, prune_weights(), share_weights())
