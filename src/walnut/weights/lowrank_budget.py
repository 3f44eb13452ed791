"""Ranks for a whole network from one budget: the energy that is lost, weighed against the work saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .lowrank_moments import Shapes
from .lowrank_parts import Form

_STEPS = 128  # a mode's rank falls in steps of at least this share of its largest


@dataclass(frozen=True)
class budget:
    """Ranks such that the network keeps a share of its multiply-adds, or of its parameters.

    Greedy: maximise Π_l E_l, the product of the layers' energies, by lowering again and again the
    rank whose loss (ΔE/E)/ΔC is the smallest (Zhang et al. 2016, §2.4). Where we differ: a layer
    begins as it was, and leaves that state only where its small layers are cheaper.

    Args:
        multiply_adds: the share that stays, of those of all dense and convolutional layers.
        parameters: the same of their weights; one of the two is given.
        shape: of one example; not needed where the responses to data are fitted, nor for parameters.
    """

    multiply_adds: float | None = None
    parameters: float | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        shares = [s for s in (self.multiply_adds, self.parameters) if s is not None]
        if len(shares) != 1 or not 0 < shares[0] < 1:
            raise WalnutError(
                "a budget is one share between 0 and 1: budget(multiply_adds=0.5), or parameters="
            )

    @property
    def share(self) -> float:
        """Return the share that stays."""
        return self.multiply_adds or self.parameters or 0.0


def sizes(form: Form, layer: nn.Module, ranks: Sequence[int]) -> list[int]:
    """Return the number of weights of each small layer, biases left out."""
    found = []
    for _, a in form.shapes(layer, ranks):
        if "in_features" in a:
            found.append(a["in_features"] * a["out_features"])
        else:
            per_group = a["in_channels"] // a["groups"]
            found.append(per_group * a["out_channels"] * math.prod(a["kernel_size"]))
    return found


def places(form: Form, layer: nn.Module, shape: tuple[int, ...]) -> list[int]:
    """Return how many outputs each weight of each small layer serves, for one example."""
    found = []
    x = torch.empty(1, *shape, device="meta", dtype=torch.float32)
    for kind, arguments in form.shapes(layer, (1,) * form.modes):
        x = kind(**arguments, bias=False, device="meta")(x)
        found.append(_served(x, kind))
    return found


def _served(out: Tensor, kind: type[nn.Module]) -> int:
    return out[0].numel() // (out.shape[-1] if issubclass(kind, nn.Linear) else out.shape[1])


@dataclass
class _State:
    """One layer: its ranks (None: as it was), what they cost, and what each mode keeps."""

    form: Form
    layer: nn.Module
    kept: tuple[Tensor, ...]
    whole: int
    served: list[int]
    ranks: tuple[int, ...] | None = None
    best: tuple[float, int, tuple[int, ...]] | None = field(default=None)

    def cost(self, ranks: tuple[int, ...] | None) -> int:
        if ranks is None:
            return self.whole
        counts = sizes(self.form, self.layer, ranks)
        return sum(n * s for n, s in zip(counts, self.served, strict=True))

    def energy(self, ranks: tuple[int, ...] | None) -> float:
        """Return the logarithm of the share that is kept."""
        if ranks is None:
            return 0.0
        shares = [float(k[r - 1]) for k, r in zip(self.kept, ranks, strict=True)]
        return sum(math.log(max(s, 1e-300)) for s in shares)

    def moves(self) -> list[tuple[int, ...]]:
        if self.ranks is None:
            return self._entrances()
        found = []
        for mode, rank in enumerate(self.ranks):
            step = max(1, len(self.kept[mode]) // _STEPS)
            lower = max(1, rank - step)
            if lower < rank:
                found.append((*self.ranks[:mode], lower, *self.ranks[mode + 1 :]))
        return found

    def _entrances(self) -> list[tuple[int, ...]]:
        """Return the largest ranks that are cheaper than the layer as it was."""
        top = tuple(len(k) for k in self.kept)
        for part in range(_STEPS, 0, -1):
            ranks = tuple(max(1, t * part // _STEPS) for t in top)
            if self.cost(ranks) < self.whole:
                return [ranks]
        return []

    def look(self) -> None:
        """Find this layer's cheapest loss."""
        now, energy = self.cost(self.ranks), self.energy(self.ranks)
        options = []
        for ranks in self.moves():
            saved = now - self.cost(ranks)
            if saved > 0:
                options.append(((energy - self.energy(ranks)) / saved, saved, ranks))
        self.best = min(options, default=None)


def spend(
    aim: budget,
    model: nn.Module,
    forms: Mapping[str, Form],
    spectra: Mapping[str, tuple[Tensor, ...]],
    shapes: Mapping[str, Shapes],
) -> dict[str, tuple[int, ...]]:
    """Return the ranks of the layers that change; the others stay as they were.

    Raises:
        WalnutError: a budget that cannot be met; the message says what can be.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, COUNTED)}
    counting = aim.multiply_adds is not None
    whole = {name: _whole(name, m, shapes if counting else None) for name, m in layers.items()}
    states = {}
    for name, form in forms.items():
        if not spectra[name]:
            raise WalnutError(f"{name}: {form.name} has no spectrum: give its rank as a number")
        kept = tuple(_kept(s) for s in spectra[name])
        served = places(form, layers[name], shapes[name][0]) if counting else [1] * 9
        served = served[: len(form.shapes(layers[name], (1,) * form.modes))]
        states[name] = _State(form, layers[name], kept, whole[name], served)
        states[name].look()
    total = sum(whole.values())
    now, limit = total, aim.share * total
    while now > limit:
        open_ = [s for s in states.values() if s.best is not None]
        if not open_:
            raise WalnutError(
                f"these layers cannot give a network of {aim.share:.3g} of its cost: at rank 1 it is "
                f"{now / total:.3g}; name more layers, or allow more"
            )
        state = min(open_, key=lambda s: s.best[0] if s.best else math.inf)
        assert state.best is not None
        _, saved, state.ranks = state.best
        now -= saved
        state.look()
    return {name: s.ranks for name, s in states.items() if s.ranks is not None}


COUNTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""The layers whose cost a budget counts."""


def _kept(spectrum: Tensor) -> Tensor:
    whole = spectrum.sum().clamp_min(1e-300)
    return spectrum.cumsum(0) / whole


def _whole(name: str, layer: Any, shapes: Mapping[str, Shapes] | None) -> int:
    if shapes is None:
        return int(layer.weight.numel())
    if name not in shapes:
        return 0  # it does not run
    out = torch.empty(1, *shapes[name][1], device="meta")
    return int(layer.weight.numel()) * _served(out, type(layer))
