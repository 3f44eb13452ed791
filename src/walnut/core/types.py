"""The types every lever shares.

Everything composes from one of them: an :class:`Objective` scores a network on an example.
Training descends it in the weights, an attack ascends it in the input.

Shapes are written in annotations (jaxtyping): ``"b *d"`` is a batch of ``b`` examples of any shape.
Inputs live in [0, 1] unless a constraint says otherwise; ``eps`` is a radius in input units
(8/255 for 8-bit images).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .draws import Draws

Model = Callable[[Tensor], Tensor]
"""Anything that maps a batch (b, ...) to logits (b, classes); an ``nn.Module`` most of the time."""

Objective = Callable[[Model, Tensor, Any], Tensor]
"""``(model, x, y) -> (b,)``: one value per example; lower is better for training. ``y`` may be None."""

ValueFn = Callable[[Tensor], Tensor]
"""``x -> (b,)``: an objective with its network and labels filled in."""


@runtime_checkable
class GradientEstimator(Protocol):
    """How a gradient is had from a value: plainly, averaged, by finite differences."""

    def __call__(
        self, value: ValueFn, x: Tensor, draws: Draws
    ) -> tuple[Float[Tensor, " b"], Tensor]:
        """Return the values (b,) and the gradient, shaped like ``x``, of each example's value."""
        ...


@runtime_checkable
class Direction(Protocol):
    """Which way to step, given a gradient. All state has a leading batch dimension."""

    def init(self, x: Tensor) -> Any:
        """Return the state before the first step: a tensor, a tuple of states, or ``()``."""
        ...

    def update(self, grad: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return the step (like ``grad``, of unit size) and the new state."""
        ...


@runtime_checkable
class Constraint(Protocol):
    """A set around each clean example ``x0``."""

    def project(self, x: Tensor, x0: Tensor) -> Tensor:
        """Return the point of the set for ``x``."""
        ...

    def sample(self, x0: Tensor, draws: Draws) -> Tensor:
        """Return a random point of the set."""
        ...

    def contains(self, x: Tensor, x0: Tensor) -> Bool[Tensor, " b"]:
        """Say which rows of ``x`` are in the set, to rounding."""
        ...


@runtime_checkable
class Image(Protocol):
    """A variable ``z`` and the picture it paints: the variable need not be the input."""

    def start(self, x: Tensor) -> Tensor:
        """Return the variable that paints (nearly) ``x``."""
        ...

    def paint(self, z: Tensor) -> Tensor:
        """Return the input, differentiable in ``z``."""
        ...


@runtime_checkable
class Transform(Protocol):
    """A random, differentiable change of the input."""

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        """Return a changed batch of the same batch size."""
        ...


Criterion = Callable[[Tensor, Tensor], Tensor]
"""``(logits, y) -> (b,) bool``: whether an example is decided (the network is fooled)."""


@dataclass(frozen=True)
class Adversarial:
    """What an attack returns: one row per example, in the order they were given.

    ``success`` was recomputed by a fresh forward pass on ``x``; a row without success holds the
    strongest attempt. ``first_success`` is the step that first fooled the network (0: the start),
    -1 where none did. ``forward`` and ``backward`` count passes per example, the check included.
    ``logits`` are what that pass said of ``x``; None where an attack does not keep them.
    """

    x: Float[Tensor, " b *d"]
    success: Bool[Tensor, " b"]
    prediction: Int[Tensor, " b"]
    first_success: Int[Tensor, " b"]
    forward: Int[Tensor, " b"]
    backward: Int[Tensor, " b"]
    norms: dict[str, Float[Tensor, " b"]]
    seconds: float
    attack: str
    seed: int
    logits: Float[Tensor, " b classes"] | None = field(default=None, kw_only=True)


Attack = Callable[[nn.Module, Tensor, Tensor], Adversarial]
"""``(model, x, y) -> Adversarial``; ``y`` are true labels, or targets of a targeted attack."""

Progress = Callable[[str, int, int], None]
"""``(what, done, total)``: long work calls it as it goes; the command line draws it."""

Explainer = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""``(model, x, y) -> scores`` shaped like ``x``."""


@dataclass(frozen=True)
class Packed:
    """A weight tensor as it goes into a file: named tensors, and what turns them back into one.

    ``kind`` names the decoder; ``"tensor"`` holds the weight itself under ``"w"``.
    """

    kind: str
    tensors: dict[str, Tensor]
    arguments: dict[str, Any] = field(default_factory=dict)


def perturbation_norms(x: Tensor, x0: Tensor) -> dict[str, Tensor]:
    """Return the L∞, L2, L1 and L0 size of ``x - x0`` per example, each (b,), in float64.

    L0 counts changed entries (not pixels).
    """
    delta = (x.detach() - x0.detach()).flatten(1)
    if delta.shape[1] == 0 or delta.shape[0] == 0:
        zero = torch.zeros(len(delta), dtype=torch.float64, device=delta.device)
        return {"linf": zero, "l2": zero, "l1": zero, "l0": zero}
    size = delta.abs()
    return {
        "linf": size.amax(1).double(),
        "l2": delta.square().sum(1, dtype=torch.float64).sqrt(),
        "l1": size.sum(1, dtype=torch.float64),
        "l0": delta.count_nonzero(1).double(),
    }
