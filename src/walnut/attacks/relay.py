"""One attack after another: the second begins where the first ended, on what the first did not break."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from walnut.core.constraints import measured
from walnut.core.types import Adversarial, Attack, Constraint, Model

Search = Callable[[Model, Tensor, Tensor, Tensor | None], Adversarial]
"""(model, x, y, begin) -> record: a search that begins at ``begin`` (at ``x`` where that is None)."""


@runtime_checkable
class Relayed(Protocol):
    """An attack that may begin where another ended."""

    @property
    def first(self) -> Attack | None:
        """The attack to run before."""
        ...

    @property
    def constraint(self) -> Constraint:
        """Where its points lie."""
        ...

    @property
    def seed(self) -> int:
        """Of its draws."""
        ...


def relay(attack: Relayed, search: Search, model: Model, x: Tensor, y: Tensor) -> Adversarial:
    """Run ``attack.first``, if any, then ``search`` from its best points where it failed or left the set.

    Steps and passes of the second are counted on from the first's.
    """
    if attack.first is None:
        return search(model, x, y, None)
    found = attack.first(model, x, y)  # type: ignore[arg-type]
    begin = attack.constraint.project(found.x, x)
    inside = measured(begin, found.x, float("inf")) <= 1e-6  # ``first`` may know no radius
    rows = (~(found.success & inside)).nonzero()[:, 0]
    if len(rows):
        found = _joined(found, rows, search(model, x[rows], y[rows], begin[rows]))
    return replace(found, attack=repr(attack), seed=attack.seed)


def _joined(found: Adversarial, rows: Tensor, more: Adversarial) -> Adversarial:
    """Put the outcome of some rows in their places."""
    at = torch.where(more.success, found.backward[rows] + more.first_success, -1)
    changed = {
        "x": more.x, "success": more.success, "prediction": more.prediction, "first_success": at,
        "forward": found.forward[rows] + more.forward,
        "backward": found.backward[rows] + more.backward,
    }  # fmt: skip
    if found.logits is not None and more.logits is not None:
        changed["logits"] = more.logits
    whole: dict[str, Any] = {name: getattr(found, name).clone() for name in changed}
    for name, values in changed.items():
        whole[name][rows] = values.to(whole[name])
    whole.setdefault("logits", more.logits if len(rows) == len(found.x) else None)
    norms = {name: values.clone() for name, values in found.norms.items()}
    for name, values in norms.items():
        values[rows] = more.norms[name]
    return replace(more, **whole, norms=norms, seconds=found.seconds + more.seconds)
