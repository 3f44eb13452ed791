"""Mini-batches: a shuffle by (seed, epoch), and changes of the examples by (seed, epoch, example)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.types import Transform


@dataclass(frozen=True, eq=False)
class Batches:
    """The examples of a training run, one whole tensor each, cut anew every epoch.

    Neither the order nor an example's augmentation depends on anything but ``seed``, the epoch and
    the example, so a run goes on from any step as if it had not stopped.

    Args:
        x: examples (n, ...), floats in [0, 1].
        y: labels (n,), or one row of targets per example.
        batch_size: examples a step; the last step of an epoch takes what is left.
        seed: of shuffles and augmentation.
        augment: a transform ``(x, draws) -> x`` of each batch, or None.

    >>> import torch
    >>> batches = Batches(torch.rand(10, 2), torch.arange(10), batch_size=4)
    >>> [len(y) for _, y in batches.epoch(0)]
    [4, 4, 2]
    """

    x: Float[Tensor, " n *d"]
    y: Tensor
    batch_size: int = 128
    seed: int = 0
    augment: Transform | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.x) == 0:
            raise WalnutError(f"{len(self.x)} examples but {len(self.y)} labels to train on")
        if self.batch_size < 1:
            raise WalnutError(f"batch_size must be at least 1, not {self.batch_size}")

    @property
    def steps(self) -> int:
        """Return the number of steps an epoch has."""
        return math.ceil(len(self.x) / self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) of each step of an epoch, from step ``start`` on."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.x))
        rows = torch.from_numpy(order).to(self.x.device)
        for index in rows.split(self.batch_size)[start:]:
            x = self.x[index]
            if self.augment is not None:
                x = self.augment(x, Draws.keyed(index).fold(self.seed).fold(epoch))
            yield x, self.y[index]

    def identity(self) -> dict[str, Any]:
        """Return what tells these batches from others, as JSON data."""
        sums = [zlib.crc32(t.detach().cpu().contiguous().numpy().data) for t in (self.x, self.y)]
        return {
            "examples": [list(self.x.shape), list(self.y.shape), *sums],
            "batch_size": self.batch_size,
            "seed": self.seed,
            "augment": repr(self.augment),
        }
