"""Fool a network that answers with a class only, through a substitute trained on its answers.

Papernot et al. 2017 ("Practical black-box attacks against machine learning"), Alg. 1 and Eq. 4.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from walnut import nets
from walnut.attacks import noise, pgd
from walnut.core.errors import WalnutError
from walnut.core.gradients import NO_PATH
from walnut.core.objectives import cross_entropy
from walnut.core.types import Attack, Model, Progress
from walnut.data import Dataset
from walnut.evaluate import Share, predict
from walnut.training import Batches, adam, fit
from walnut.training.optimizers import Optimizer

from .jacobian import Selection, augmented, everything, turning
from .record import Json, drawn_examples, finish, header


class LabelOracle:
    """A model that gives away the class only, and counts every example it is asked about."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.queries = 0

    def __call__(self, x: Float[Tensor, " n *d"]) -> Int[Tensor, " n"]:
        """Return the classes (n,); ``queries`` grows by n."""
        self.queries += len(x)
        return predict(self._model, x).argmax(1)


@dataclass(frozen=True)
class Substitute:
    """A substitute, what it was trained on, and what that cost.

    ``rounds`` has a row per training: examples, queries so far, agreement on them.
    """

    model: nn.Module = field(repr=False)
    x: Float[Tensor, " n *d"] = field(repr=False)
    labels: Int[Tensor, " n"] = field(repr=False)
    queries: int
    rounds: list[Json]


def train_substitute(
    oracle: LabelOracle,
    model: nn.Module,
    seeds: Float[Tensor, " n *d"],
    *,
    rounds: int = 6,
    step: Callable[[int], float] = turning(),
    select: Selection = everything(),
    epochs: int = 10,
    optimizer: Optimizer = adam(1e-3),
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Substitute:
    """Train a network on an oracle's answers to examples that it makes itself.

        S ← seeds;  rounds times:  train on S;  S ← S ∪ {x + λ · sign(∂z_{O(x)}/∂x) : x ∈ selected};
        train on S

    Costs n · 2^rounds queries where everything is selected.

    Args:
        oracle: what answers.
        model: fresh network, trained in place; it goes on from round to round.
        seeds: first examples (n, ...), not those the oracle was trained on.
        rounds: ρ ≥ 0.
        step: round to λ in input units: :class:`turning`.
        select: which examples are augmented: :class:`everything` or
            :class:`walnut.recipes.jacobian.reservoir`.
        epochs, optimizer, batch_size: of each training.
        seed: of training and selection.
    """
    if rounds < 0 or len(seeds) == 0:
        raise WalnutError("a substitute needs seeds and rounds >= 0")
    before = oracle.queries
    x, labels = seeds, oracle(seeds)
    told = []
    for at in range(rounds + 1):
        if progress is not None:
            progress(f"substitute, {len(x)} answers", at, rounds + 1)
        batches = Batches(x, labels, batch_size, seed + at)
        fit(model, cross_entropy(), batches, epochs=epochs, optimizer=optimizer, seed=seed + at)
        agrees = float((predict(model, x).argmax(1) == labels).double().mean())
        queries = oracle.queries - before
        told.append({"round": at, "examples": len(x), "queries": queries, "fitted": agrees})
        if at < rounds:
            rows = torch.from_numpy(select(len(x), at, np.random.default_rng([seed, at])))
            fresh = augmented(model, x[rows], labels[rows], step(at))
            x, labels = torch.cat([x, fresh]), torch.cat([labels, oracle(fresh)])
    return Substitute(model, x, labels, oracle.queries - before, told)


def substitute(
    oracle: Any,
    dataset: Dataset,
    *,
    out: Path,
    name: str = "oracle",
    net: str = "lenet-300-100",
    arguments: dict[str, Any] | None = None,
    attack: Callable[[float], Attack] = lambda eps: pgd(eps, early_stop=False),
    eps: float = 0.2,
    seeds: int = 100,
    rounds: int = 6,
    step: Callable[[int], float] = turning(),
    select: Selection = everything(),
    epochs: int = 10,
    optimizer: Optimizer = adam(1e-3),
    examples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Attack a network that gives labels only, through a substitute, and record how far it gets.

    Args:
        oracle: any callable from [0, 1] to scores, a scikit-learn model in
            :class:`walnut.nets.classical.Classical` too. The attacker sees its classes only.
        dataset: seeds are the first of its validation split; its test split is attacked.
        out: folder for result.json, report.html and substitute.safetensors.
        name: how the oracle is called on the page.
        net: registered name of the substitute, ``arguments`` its own.
        attack: eps to the attack on the substitute; one that goes on after success carries further.
        eps: radius.
        seeds, rounds, step, select, epochs, optimizer: as in :func:`train_substitute`.
        examples: how many test examples.
        seed: of weights, training, examples.
        progress: called as work goes on.

    Returns:
        the result. ``rows[0]["attacks"]`` has what is left of the oracle under the substitute's
        examples, noise of the same size, and the same attack on the oracle itself, the bound (not
        there where the oracle has no gradient). ``substitute`` has queries and agreement; what is asked
        to measure is not among its queries.
    """
    began = time.perf_counter()
    asked = LabelOracle(oracle)
    fresh = _fresh(net, arguments or {}, dataset, seed)
    made = train_substitute(
        asked, fresh, dataset.validation.x[:seeds], rounds=rounds, step=step, select=select,
        epochs=epochs, optimizer=optimizer, seed=seed, progress=progress,
    )  # fmt: skip
    x, y = drawn_examples(dataset, examples, seed)
    clean = predict(oracle, x).argmax(1)
    through = attack(eps)(made.model, x, y)
    attacks = {"substitute": _left(oracle, x, y, clean, through, eps)}
    attacks["noise"] = _left(oracle, x, y, clean, noise(eps, seed=seed)(oracle, x, y), eps)
    bound = _white_box(attack(eps), oracle, x, y)
    if bound is not None:
        attacks["white box"] = _left(oracle, x, y, clean, bound, eps)
    nets.save(made.model, out / "substitute.safetensors")
    result = header("substitute", seed, dataset, len(y))
    result["rows"] = [{"form": name, "clean": Share.of(clean == y).json(), "attacks": attacks}]
    result["substitute"] = {
        "net": net, "seeds": min(seeds, len(dataset.validation)), "select": repr(select),
        "step": repr(step), **_made(made, x, y, clean),
        "fooled_itself": Share.of(through.success).json(),
    }  # fmt: skip
    if bound is None:
        result["notes"].append("The oracle has no gradient, so there is no white-box bound.")
    result["seconds"] = round(time.perf_counter() - began, 3)
    return finish(result, None, out)


def _made(made: Substitute, x: Tensor, y: Tensor, clean: Tensor) -> Json:
    """Return what the substitute cost and how it answers, beside the oracle's answers and the truth."""
    answers = predict(made.model, x).argmax(1)
    return {
        "parameters": sum(p.numel() for p in made.model.parameters()),
        "queries": made.queries, "rounds": made.rounds,
        "agreement": Share.of(answers == clean).json(), "accuracy": Share.of(answers == y).json(),
    }  # fmt: skip


def _fresh(net: str, arguments: dict[str, Any], dataset: Dataset, seed: int) -> nn.Module:
    """Build the substitute for the data, its weights drawn by ``seed``."""
    fitting = {"shape": dataset.shape, "classes": len(dataset.classes)}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nets.build(net, **{**fitting, **arguments})


def _left(oracle: Model, x: Tensor, y: Tensor, clean: Tensor, found: Any, eps: float) -> Json:
    """Return what examples leave of the oracle, as a robustness figure is written."""
    right, after = clean == y, predict(oracle, found.x).argmax(1) == y
    return {
        "robust": Share.of(right & after).json(),
        "fooled_of_correct": Share.of((~after)[right]).json(),
        "clean": Share.of(right).json(),
        "attack": found.attack,
        "forward_per_example": float(found.forward.double().mean()),
        "backward_per_example": float(found.backward.double().mean()),
        "seconds": found.seconds,
        "eps": eps,
    }


def _white_box(attack: Attack, oracle: Any, x: Tensor, y: Tensor) -> Any:
    """Return the same attack on the oracle itself, or None where it has no gradient."""
    try:
        return attack(oracle, x, y)
    except WalnutError as error:
        if str(error) != NO_PATH:
            raise
        return None
