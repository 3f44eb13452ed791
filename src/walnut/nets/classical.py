"""A fitted scikit-learn classifier as a network: (b, ...) to scores, one per class, no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from walnut.core.errors import WalnutError


class Classical:
    """Call a fitted classifier as a walnut model: flattened inputs in, logit-like scores out.

    Scores are a classifier's ``decision_function`` where it has one per class, else log-probabilities
    (floored at the smallest positive number), else ±1 by the answer to ``predict``. A two-class
    decision f becomes (−f/2, f/2). The largest score is what ``predict`` answers; where scores tie,
    or disagree with ``predict`` (an SVM whose votes and decisions differ), ``predict`` decides.

    Args:
        classifier: fitted, with ``predict``.
        classes: how many classes there are; labels are 0, ..., classes − 1. A class that the
            classifier never saw gets the lowest score.

    >>> from sklearn.tree import DecisionTreeClassifier
    >>> tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    >>> Classical(tree, 2)(torch.tensor([[0.2], [0.9]])).argmax(1)
    tensor([0, 1])
    """

    def __init__(self, classifier: Any, classes: int) -> None:
        found = getattr(classifier, "classes_", None)
        if found is None or not hasattr(classifier, "predict"):
            raise WalnutError(
                f"{type(classifier).__name__} is no fitted classifier: call its fit(x, y) first"
            )
        if classes < 2 or not all(
            float(c).is_integer() and 0 <= c < classes for c in _plain(found)
        ):
            raise WalnutError(
                f"the classifier was fitted to labels {list(found)[:10]}, not to 0, ..., {classes - 1}"
            )
        self.classifier, self.classes = classifier, classes
        self.labels = np.asarray(found).astype(np.int64)
        self.features = getattr(classifier, "n_features_in_", None)

    def __repr__(self) -> str:
        return f"Classical({self.classifier!r}, {self.classes})"

    def __call__(self, x: Float[Tensor, " b *d"]) -> Float[Tensor, " b k"]:
        """Return scores (b, classes) on the device of ``x``; no gradient reaches ``x``."""
        flat = x.detach().cpu().flatten(1).numpy()
        if self.features is not None and flat.shape[1] != self.features:
            raise ValueError(f"the classifier takes {self.features} numbers, not {flat.shape[1]}")
        if len(flat) == 0:  # scikit-learn refuses to answer nothing
            return x.new_zeros(0, self.classes)
        scores = torch.full((len(flat), self.classes), float("-inf"), dtype=torch.float64)
        seen = torch.from_numpy(np.array(_scores(self.classifier, flat, self.labels)))
        scores[:, torch.from_numpy(self.labels)] = seen
        lowest = torch.where(scores.isfinite(), scores, torch.inf).amin(1, keepdim=True)
        scores = torch.where(scores.isfinite(), scores, lowest - 1)
        answer = torch.from_numpy(np.array(self.classifier.predict(flat)).astype(np.int64))
        return _agreeing(scores, answer).to(device=x.device, dtype=x.dtype)


def _plain(labels: Any) -> Sequence[float]:
    try:
        return [float(c) for c in labels]
    except (TypeError, ValueError):
        return [-1.0]


def _scores(classifier: Any, flat: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return one score per class that the classifier knows (b, len(labels))."""
    if hasattr(classifier, "decision_function"):
        decision = np.asarray(classifier.decision_function(flat), dtype=np.float64)
        if decision.ndim == 1 and len(labels) == 2:
            return np.stack([-decision / 2, decision / 2], axis=1)
        if decision.ndim == 2 and decision.shape[1] == len(labels):
            return decision
    if hasattr(classifier, "predict_proba"):
        share = np.asarray(classifier.predict_proba(flat), dtype=np.float64)
        return np.log(np.maximum(share, np.finfo(np.float32).tiny))
    answer = np.asarray(classifier.predict(flat)).astype(np.int64)
    return 2.0 * (answer[:, None] == labels[None]) - 1.0


def _agreeing(scores: Float[Tensor, " b k"], answer: Int[Tensor, " b"]) -> Float[Tensor, " b k"]:
    """Raise the score of the class that was answered to above the others, where it is not there."""
    rest = scores.scatter(1, answer[:, None], float("-inf")).amax(1)
    own = scores.gather(1, answer[:, None])[:, 0]
    enough = rest + 1e-3 * (1 + rest.abs())  # more than float32 rounds away
    raised = torch.where(own > rest + 1e-6 * (1 + rest.abs()), own, enough)
    return scores.scatter(1, answer[:, None], raised[:, None])
