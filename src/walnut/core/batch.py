"""The rows at work at once: what the continuous batch (:mod:`.rows`) knows of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only


@dataclass
class Batch:
    """The rows at work: where each stands, and the best it has seen."""

    index: Tensor  # (b,) lane · n + position in the data set
    step: Tensor  # (b,)
    restart: Tensor  # (b,)
    decided: Tensor  # (b,) bool
    x0: Tensor
    y: Tensor
    state: Any
    best_x: Tensor
    best_value: Tensor  # (b,) of best_x; -inf before any candidate
    best_at: Tensor  # (b,) when: restart · steps + step
    best_success: Tensor  # (b,) bool
    best_logits: Tensor  # (b, classes); (b, 0) before any answer
    checked: Tensor  # (b,) bool, whether best_x was last seen by a pass without gradients
    first: Tensor  # (b,) step of the first success, -1 before any
    forward: Tensor  # (b,) passes
    backward: Tensor  # (b,) passes

    def take(self, rows: Tensor) -> Batch:
        """Return some of the rows."""
        return Batch(**tree_map_only(Tensor, lambda t: t[rows], dict(vars(self))))

    def split(self, chosen: Tensor) -> tuple[Batch, Batch]:
        """Return the rows where ``chosen`` (b,) holds, and the others; where all are one, as they are."""
        some, none = int(chosen.sum()), chosen.new_zeros(0, dtype=torch.int64)
        if some in (0, len(chosen)):
            return (self, self.take(none)) if some else (self.take(none), self)
        return self.take(chosen.nonzero()[:, 0]), self.take((~chosen).nonzero()[:, 0])

    def join(self, other: Batch) -> Batch:
        """Return the rows of both."""
        mine, theirs = dict(vars(self)), dict(vars(other))
        return Batch(**tree_map(lambda a, b: torch.cat([a, b]), mine, theirs))
