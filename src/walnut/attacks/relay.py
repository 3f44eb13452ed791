"""One attack after another: the second begins where the first ended, on what the first did not break."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from walnut.core.constraints import measured
from walnut.core.types import Adversarial, Attack, Constraint, Model

Search = Callable[[Model, Tensor, Tensor, Tensor | None], Adversarial]
"""(model, x, y, begin) -> record: a search that begins at ``begin`` (at ``x`` where that is None)."""


def relay(
    first: Attack, search: Search, constraint: Constraint, model: Model, x: Tensor, y: Tensor
) -> Adversarial:
    """Run ``first``, then ``search`` from its best points where it failed or left the constraint.

    Steps and passes of the second are counted on from the first's.
    """
    found = first(model, x, y)  # type: ignore[arg-type]
    begin = constraint.project(found.x, x)
    inside = measured(begin, found.x, float("inf")) <= 1e-6  # ``first`` may know no radius
    rows = (~(found.success & inside)).nonzero()[:, 0]
    if len(rows) == 0:
        return found
    return _joined(found, rows, search(model, x[rows], y[rows], begin[rows]))


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
