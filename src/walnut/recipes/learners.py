"""Techniques that learn: reference networks, templates, and scikit-learn's classifiers, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from walnut import nets
from walnut.core.objectives import cross_entropy
from walnut.core.types import Model
from walnut.data import Dataset, Split
from walnut.nets.classical import Classical
from walnut.nets.rbf import centred
from walnut.training import Batches, adam, fit

from .train import chosen

Technique = Callable[[Dataset, int], Model]
"""``(dataset, seed) -> model``, trained on the dataset's train split."""


@dataclass(frozen=True)
class network:
    """A registered network, trained by its documented recipe without augmentation."""

    name: str

    def __call__(self, dataset: Dataset, seed: int) -> nn.Module:
        split, mean_std = dataset.train, dataset.statistics()
        recipe = chosen(self.name, len(split))
        fitting = {"shape": dataset.shape, "classes": len(dataset.classes)}
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            model = nets.build(self.name, mean=mean_std[0], std=mean_std[1], **fitting)
        batches = Batches(split.x, split.y, recipe.batch_size, seed)
        optimizer, schedule = recipe.optimizer, recipe.schedule
        fit(model, cross_entropy(), batches, epochs=recipe.epochs, optimizer=optimizer,
            schedule=schedule, seed=seed)  # fmt: skip
        return model


@dataclass(frozen=True)
class templates:
    """The shallow network of Gaussian units: centres by k-means, then trained with Adam."""

    units: int = 100
    epochs: int = 20

    def __call__(self, dataset: Dataset, seed: int) -> nn.Module:
        split = dataset.train
        model = centred(split.x, split.y, classes=len(dataset.classes), units=self.units, seed=seed)
        batches = Batches(split.x, split.y, 64, seed)
        fit(model, cross_entropy(), batches, epochs=self.epochs, optimizer=adam(1e-2), seed=seed)
        return model


@dataclass(frozen=True)
class learner:
    """A scikit-learn classifier: a class that is called with ``settings`` (and a seed, if it has one).

    >>> from sklearn.tree import DecisionTreeClassifier
    >>> learner(DecisionTreeClassifier, (("max_depth", 3),))
    learner(DecisionTreeClassifier, max_depth=3)
    """

    kind: Callable[..., Any]
    settings: tuple[tuple[str, Any], ...] = ()

    def __repr__(self) -> str:
        said = [f"{name}={value!r}" for name, value in self.settings]
        return f"learner({', '.join([getattr(self.kind, '__name__', '?'), *said])})"

    def __call__(self, dataset: Dataset, seed: int) -> Model:
        classifier = self.kind(**dict(self.settings))
        if "random_state" in classifier.get_params():
            classifier.set_params(random_state=seed)
        split = dataset.train
        fitted = classifier.fit(split.x.flatten(1).numpy(), split.y.numpy())
        return Classical(fitted, len(dataset.classes))


def techniques_for(dataset: Dataset) -> dict[str, Technique]:
    """Return the ten techniques of the table (nine where the data is no picture)."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC, LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    units = min(100, len(dataset.train) // 4)
    found: dict[str, Technique] = {
        "softmax": network("softmax"),
        "rbf": templates(units),
        "lenet-300-100": network("lenet-300-100"),
        "small-cnn": network("small-cnn"),
        "k-nn": learner(KNeighborsClassifier, (("n_neighbors", 5),)),
        "tree": learner(DecisionTreeClassifier),
        "forest": learner(RandomForestClassifier, (("n_estimators", 100),)),
        "boosting": learner(
            HistGradientBoostingClassifier, (("max_iter", 30), ("max_features", 0.2))
        ),
        "svm-linear": learner(LinearSVC, (("C", 0.01),)),
        "svm-rbf": learner(SVC, (("C", 10.0), ("gamma", "scale"))),
    }
    if len(dataset.shape) != 3 or min(dataset.shape[1:]) < 4:
        del found["small-cnn"]
    return found


def starts(split: Split, count: int = 20) -> Tensor:
    """Return a few training examples of every class, for walks along the boundary to start from."""
    rows = [(split.y == label).nonzero()[:count, 0] for label in split.y.unique()]
    return split.x[torch.cat(rows)]
