"""Across techniques: the same examples on linear models, templates, neighbours, trees, SVMs and nets.

One transfer table: every technique makes examples, by gradient where it has one and by asking for
classes only where it has none, and every technique is shown them all.
Papernot et al. 2016 ("Transferability in machine learning"), §3; Goodfellow et al. 2015, §7.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from walnut.attacks import hop_skip_jump, noise, pgd
from walnut.core.constraints import box, linf
from walnut.core.errors import WalnutError
from walnut.core.types import Adversarial, Attack, Model, Progress, perturbation_norms
from walnut.data import Dataset
from walnut.evaluate import Share, predict, transfer_table
from walnut.evaluate.accuracy import correct
from walnut.evaluate.transfer import TransferTable

from .learners import Technique, starts, techniques_for
from .record import Cells, Json, drawn_examples, finish, header


@dataclass(frozen=True)
class within:
    """What an attack without a radius found, projected into the ball and asked about afresh."""

    found: Adversarial = field(repr=False)
    eps: float
    attack: str

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> Adversarial:
        point = box().project(linf(self.eps).project(self.found.x, x), x)
        answer = predict(model, point).argmax(1)
        return dataclasses.replace(
            self.found,
            x=point,
            success=answer != y,
            prediction=answer,
            logits=None,
            forward=self.found.forward + 1,
            norms=perturbation_norms(point, x),
            attack=f"within(eps={self.eps:g}, attack={self.attack})",
        )


@dataclass(frozen=True)
class _Sources:
    """The techniques, and what their own examples are; queries are asked once, for every eps."""

    models: dict[str, Model]
    x: Tensor
    y: Tensor
    direct: Callable[[float], Attack]
    queried: Attack
    seen: dict[str, Adversarial] = field(default_factory=dict)

    def attack(self, name: str) -> Callable[[float], Attack]:
        """Return eps to the attack on a technique."""
        if isinstance(self.models[name], nn.Module):
            return self.direct
        return lambda eps: within(self.nearest(name), eps, repr(self.queried))

    def nearest(self, name: str) -> Adversarial:
        """Return the nearest examples found on a technique by asking for classes."""
        if name not in self.seen:
            self.seen[name] = self.queried(self.models[name], self.x, self.y)  # type: ignore[arg-type]
        return self.seen[name]

    def distances(self, name: str) -> Json:
        """Return how far the nearest examples of a technique without a gradient lie."""
        found = self.nearest(name)
        right = found.first_success != 0  # an example that is wrong already is its own
        far = found.norms["linf"][right & found.success]
        return {
            "found": int((right & found.success).sum()),
            "of": int(right.sum()),
            "median_linf": None if len(far) == 0 else round(float(far.median()), 5),
            "queries_per_example": round(float(found.forward[right].double().mean()), 1)
            if bool(right.any())
            else None,
        }


def techniques(
    dataset: Dataset,
    *,
    out: Path,
    kinds: dict[str, Technique] | None = None,
    direct: Callable[[float], Attack] | None = None,
    queried: Attack | None = None,
    eps: tuple[float, ...] = (0.05, 0.1, 0.2),
    train_examples: int = 2000,
    examples: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Train every technique, make examples on each, and try them on all: one table an eps.

    Args:
        dataset: the first ``train_examples`` of its train split, and its test split.
        out: folder for result.json and report.html; tables that are done stay there.
        kinds: techniques by name; those of :func:`techniques_for` unless given.
        direct: eps (L∞) to the attack on techniques that are networks; PGD that goes on after
            success unless given.
        queried: the attack on others, by classes alone; HopSkipJump in L∞ (about 1,300 queries an
            example) unless given. What it finds is projected into each ball.
        eps: radii (L∞).
        train_examples: how many examples every technique is trained on.
        examples: how many test examples.
        seed: of training, examples and attacks.
        progress: called as work goes on.

    Returns:
        the result: ``transfer`` has the tables (``worst``: right under every row), ``rows`` every
        technique with its accuracy, and for those without a gradient the distance of their nearest
        adversarial examples.
    """
    if not eps or train_examples < len(dataset.classes):
        raise WalnutError("give at least one eps, and at least one training example a class")
    began = time.perf_counter()
    small = dataclasses.replace(dataset, train=dataset.train.first(train_examples))
    kinds = techniques_for(small) if kinds is None else kinds
    models: dict[str, Model] = {}
    for at, (name, make) in enumerate(kinds.items()):
        _tell(progress, f"training {name}", at, len(kinds))
        models[name] = make(small, seed)
    x, y = drawn_examples(dataset, examples, seed)
    direct = direct or (lambda radius: pgd(radius, early_stop=False, seed=seed))
    queried = queried or hop_skip_jump(norm=linf, steps=10, samples=50, starts=starts(small.train),
                                       tries=30, seed=seed, batch_size=2048)  # fmt: skip
    sources = _Sources(models, x, y, direct, queried)
    settings = {
        "kinds": {name: repr(kind) for name, kind in kinds.items()},
        "direct": [repr(direct(radius)) for radius in eps],
        "queried": repr(queried),
        "train_examples": len(small.train),
    }
    known = {"data": dataset.digest(), "examples": len(y), "seed": seed}
    cells = Cells(out / "cells", settings | known)
    tables = [_table(sources, cells, radius, seed, progress) for radius in sorted(set(eps))]
    rows = [_row(sources, cells, name, repr(kinds[name]), tables) for name in models]
    result = header("techniques", seed, dataset, len(y)) | {
        "config": settings,
        "rows": rows,
        "transfer": tables,
        "seconds": round(time.perf_counter() - began, 3),
    }
    return finish(result, None, out)


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)


def _table(
    sources: _Sources, cells: Cells, eps: float, seed: int, progress: Progress | None
) -> Json:
    """Return the transfer table of one radius."""

    def measure() -> Json:
        table = transfer_table(
            sources.models,
            sources.x,
            sources.y,
            attack={name: sources.attack(name) for name in sources.models},
            eps=(eps,),
            control=lambda radius: noise(radius, seed=seed),
            progress=progress,
        )[0]
        return table.json() | {"worst": _worst(sources, table)}

    return cells(f"techniques-{eps:.6g}", measure)


def _worst(sources: _Sources, table: TransferTable) -> list[float]:
    """Return what each technique keeps of the examples under the worst of all rows, its own too."""
    kept = []
    for model in sources.models.values():
        right = correct(model, sources.x, sources.y)
        for made in table.examples.values():
            right = right & correct(model, made.x, sources.y)
        kept.append(Share.of(right).value)
    return kept


def _row(sources: _Sources, cells: Cells, name: str, kind: str, tables: list[Json]) -> Json:
    """Return what is known of one technique: its accuracy, and what fools it at the middle eps."""
    table = tables[len(tables) // 2]
    at, total = table["names"].index(name), len(sources.y)
    column = {other: table["accuracy"][i][at] for i, other in enumerate(table["names"])}
    others = {other: left for other, left in column.items() if other != name}
    worst = min(others, key=others.__getitem__) if others else None
    model = sources.models[name]
    row: Json = {
        "form": name,
        "technique": kind,
        "differentiable": isinstance(model, nn.Module),
        "clean": _share(table["clean"][at], total),
        "own": column[name],
        "worst": table["worst"][at],
        "noise": table["noise"][at],
        "best_transfer": None if worst is None else {"from": worst, "accuracy": others[worst]},
        "eps": table["eps"],
    }
    if isinstance(model, nn.Module):
        return row | {"parameters": sum(p.numel() for p in model.parameters())}
    return row | {"nearest": cells(f"nearest-{name}", lambda: sources.distances(name))}


def _share(value: float, total: int) -> Json:
    return Share.count(round(value * total), total).json()
