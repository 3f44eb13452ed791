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

    def keep(
        self, better: Tensor, x: Tensor, value: Tensor, at: Tensor, success: Tensor, logits: Tensor,
        fresh: bool,
    ) -> None:  # fmt: skip
        """Let what was just seen be the best of the rows where ``better`` (b,) holds.

        ``fresh``: by a pass without gradients, which is a fresh check of the very point.
        """
        value, checked = value.to(self.best_value), torch.full_like(success, fresh)
        if bool(better.all()):
            self.best_x, self.best_value, self.best_at = x, value, at
            self.best_success, self.best_logits, self.checked = success, logits, checked
        elif bool(better.any()):
            wide = better.reshape(-1, *[1] * (x.ndim - 1))
            self.best_x = torch.where(wide, x, self.best_x)
            self.best_value = torch.where(better, value, self.best_value)
            self.best_at = torch.where(better, at, self.best_at)
            self.best_success = torch.where(better, success, self.best_success)
            self.best_logits = torch.where(better[:, None], logits, self.best_logits)
            self.checked = torch.where(better, checked, self.checked)

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
