"""Which way of convolving is the fastest: asked of the clock, on the shapes the network really sees."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .lowrank_moments import run
from .winograd_transforms import tiles


@dataclass(frozen=True, eq=False)
class fastest:
    """Time each layer directly, with F(2×2,3×3) and with F(4×4,3×3), alternating; take the fastest.

    Args:
        x: a batch as the network will see it: the answer depends on its size.
        rounds: counted rounds; the least time of each way counts.
        margin: how much faster than torch a way must be, to be taken.
    """

    x: Tensor = field(repr=False)
    rounds: int = 5
    margin: float = 1.05

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.margin >= 1:
            raise WalnutError("fastest needs at least one round and a margin of at least 1")

    def choose(
        self, model: nn.Module, name: str, layer: nn.Conv2d, swap: Callable[[tiles], nn.Module]
    ) -> tuple[tiles | None, dict[str, float]]:
        """Return the best tile (None: torch's own way) and the milliseconds of each way."""
        seen: list[Tensor] = []
        run(model, self.x, {name: layer}, lambda _, __, x, ___: seen.append(x), len(self.x))
        if not seen:
            return None, {}
        ways: dict[tiles | None, nn.Module] = {None: layer}
        ways |= {tile: swap(tile) for tile in (tiles(2), tiles(4))}
        least = dict.fromkeys(ways, float("inf"))
        with torch.no_grad():
            for turn in range(self.rounds + 2):
                for way, module in ways.items():
                    began = time.perf_counter()
                    module(seen[0])
                    if turn >= 2:
                        least[way] = min(least[way], 1e3 * (time.perf_counter() - began))
        best = min(least, key=lambda way: least[way])
        if best is not None and least[None] < self.margin * least[best]:
            best = None
        said = {"direct" if way is None else f"F{way.outputs}": ms for way, ms in least.items()}
        return best, said
