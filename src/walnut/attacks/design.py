"""Model-based optimisation: ask a network for the best input, and an oracle whether it is one.

A network that predicts a property is asked for the input that maximises it. The answer may be an
improvement, or an adversarial example of the network: predicted up, in truth down. Only an oracle that had
no part in the search can tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from walnut.core.ascend import ascend
from walnut.core.constraints import box, l2, unconstrained
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.types import Constraint, Model

from .common import Norm, ball, check_bounds, prepare, steepest

Oracle = Callable[[Tensor], Tensor]
"""``x -> (b,)``: the true value of a design: an experiment, a simulator, or networks trained apart."""

IMPROVEMENT, ADVERSARIAL, NOTHING = "improvement", "adversarial example", "no gain"


def combined(model: Model, x: Tensor, weights: tuple[float, ...]) -> Float[Tensor, " b"]:
    """Return Σ_j weights_j · f_j(x) for a network with outputs (b, k), or (b,) where k is 1."""
    answers = model(x)
    if not isinstance(answers, Tensor) or len(answers) != len(x) or answers.ndim > 2:
        raise WalnutError("the network must return (batch, outputs) or (batch,) numbers")
    values = answers[:, None] if answers.ndim == 1 else answers
    if values.shape[1] != len(weights):
        raise WalnutError(
            f"the network has {values.shape[1]} outputs: give one weight for each, not {len(weights)}"
        )
    return (values * values.new_tensor(weights)).sum(1)


@dataclass(frozen=True)
class ensemble:
    """The mean of networks trained apart, as an oracle: evidence where there is no experiment.

    It can share the mistake of the network that was asked, above all far from the data, where nothing
    corrects either: on the problem of tests/test_attacks_design.py it calls an improvement what in truth
    is none. Trust it near the data, and an experiment everywhere else.

    Args:
        models: networks as for :func:`design`.
        weights: of their outputs.
    """

    models: tuple[Model, ...] = field(repr=False)
    weights: tuple[float, ...] = (1.0,)

    def __call__(self, x: Tensor) -> Float[Tensor, " b"]:
        values = []
        for model in self.models:
            with torch.no_grad(), frozen(model):
                values.append(combined(model, x, self.weights))
        return torch.stack(values).mean(0)


class _TwoSided(nn.Module):
    """A property as the loops ask for it: (v, −v) in place of logits."""

    def __init__(self, model: Model, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.model, self.weights = model, weights

    def forward(self, x: Tensor) -> Tensor:
        value = combined(self.model, x, self.weights)
        return torch.stack([value, -value], 1)


@dataclass(frozen=True)
class predicted:
    """The first column of a network's answer: what it predicts."""

    def __call__(self, model: Model, x: Tensor, y: Tensor | None) -> Float[Tensor, " b"]:
        return model(x)[:, 0]


@dataclass(frozen=True)
class never:
    """Criterion of a search that has no end but its last step."""

    def __call__(self, logits: Tensor, y: Tensor) -> Bool[Tensor, " b"]:
        return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)


@dataclass(frozen=True)
class Design:
    """Designs, one row per start, with what was promised and what is true.

    ``predicted`` and ``true`` are values at the designs, ``predicted_start`` and ``true_start`` at what
    they started from. ``best`` is the row that the network predicts to be highest: the one that anybody
    without an oracle would build.
    """

    x: Float[Tensor, " n *d"]
    predicted: Float[Tensor, " n"]
    true: Float[Tensor, " n"]
    predicted_start: Float[Tensor, " n"]
    true_start: Float[Tensor, " n"]
    radius: float
    tolerance: float
    forward: int
    backward: int
    attack: str

    @property
    def predicted_gain(self) -> Float[Tensor, " n"]:
        """Return what was promised."""
        return self.predicted - self.predicted_start

    @property
    def true_gain(self) -> Float[Tensor, " n"]:
        """Return what came of it."""
        return self.true - self.true_start

    @property
    def best(self) -> int:
        """Return the row of the highest prediction."""
        return int(self.predicted.argmax())

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Say of each design what it is.

        "improvement": the true value rose by more than the tolerance; "adversarial example": only the
        predicted one did; "no gain": neither.
        """
        pairs = zip(self.predicted_gain.tolist(), self.true_gain.tolist(), strict=True)
        return tuple(verdict(p, t, self.tolerance) for p, t in pairs)

    @property
    def verdict(self) -> str:
        """Return the verdict on the best design."""
        return self.verdicts[self.best]

    def json(self) -> dict[str, Any]:
        """Return plain numbers for a result file: the best row, and the means over all."""
        row, names = self.best, ("predicted", "true", "predicted_gain", "true_gain")
        return {
            "radius": self.radius if math.isfinite(self.radius) else None,
            "verdict": self.verdict,
            "improvements": self.verdicts.count(IMPROVEMENT),
            "adversarial_examples": self.verdicts.count(ADVERSARIAL),
            "designs": len(self.x),
            **{name: float(getattr(self, name)[row]) for name in names},
            **{f"mean_{name}": float(getattr(self, name).mean()) for name in names},
        }


def verdict(predicted_gain: float, true_gain: float, tolerance: float = 0.0) -> str:
    """Say what a design is, by what was promised and what is true.

    >>> verdict(2.0, 1.0), verdict(2.0, -1.0), verdict(0.0, 0.0)
    ('improvement', 'adversarial example', 'no gain')
    """
    if true_gain > tolerance:
        return IMPROVEMENT
    return ADVERSARIAL if predicted_gain > tolerance else NOTHING


@dataclass(frozen=True)
class Designer:
    """See :func:`design`."""

    radius: float
    norm: Norm
    steps: int
    step_size: float | None
    weights: tuple[float, ...]
    bounds: tuple[float, float] | None
    tolerance: float
    batch_size: int = field(default=256, repr=False, compare=False)

    def region(self) -> Constraint:
        """Return the trust region: a ball about the start, cut by the box; without a radius the box."""
        if math.isfinite(self.radius):
            return ball(self.norm, self.radius, self.bounds)
        return unconstrained() if self.bounds is None else box(*self.bounds)

    def length(self, x: Tensor) -> float:
        """Return the length of a step."""
        if self.step_size is not None:
            return self.step_size
        width = 1.0 if self.bounds is None else self.bounds[1] - self.bounds[0]
        diagonal = float(width * x[0].numel() ** 0.5) if self.norm is l2 else float(width)
        return 2.5 * min(self.radius, diagonal) / self.steps

    def __call__(self, model: Model, x: Float[Tensor, " n *d"], oracle: Oracle) -> Design:
        """Climb from every row of ``x`` and ask the oracle about where it ends.

        Args:
            model: network to (b,), (b, 1) or (b, outputs) numbers; nothing of it changes.
            x: what to start from (n, ...): known designs, the best of the data for example.
            oracle: the true value of a batch, (b,); asked twice, before and after, and never climbed.
        """
        prepare(model, x, self.region())
        net = _TwoSided(model, self.weights)
        label = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        found = ascend(
            net, x, label, objective=predicted(), steps=self.steps, step_size=self.length(x),
            constraint=self.region(), direction=steepest(self.norm), criterion=never(),
            early_stop=False, batch_size=self.batch_size, name=repr(self),
        )  # fmt: skip
        values = []
        with torch.inference_mode(False), torch.no_grad(), frozen(net):
            for points in (found.x, x):
                values += [torch.cat([net(p)[:, 0] for p in points.split(self.batch_size)])]
            values += [self._asked(oracle, points) for points in (found.x, x)]
        made, before, true, true_before = (v.double() for v in values)
        return Design(
            found.x, made, true, before, true_before, self.radius, self.tolerance,
            int(found.forward.sum()) + 2 * len(x), int(found.backward.sum()), repr(self),
        )  # fmt: skip

    def _asked(self, oracle: Oracle, x: Tensor) -> Tensor:
        values = oracle(x).detach()
        if values.shape != (len(x),) or not bool(values.isfinite().all()):
            raise WalnutError(
                f"the oracle must give one finite number per design, ({len(x)},); it gave "
                f"{tuple(values.shape)}"
            )
        return values


def design(
    radius: float = math.inf,
    *,
    norm: Norm = l2,
    steps: int = 100,
    step_size: float | None = None,
    weights: tuple[float, ...] = (1.0,),
    bounds: tuple[float, float] | None = (0.0, 1.0),
    tolerance: float = 0.0,
    batch_size: int = 256,
) -> Designer:
    """Maximise a predicted property within a trust region about what is known, and check the answer.

        x* = argmax Σ_j weights_j · f_j(x)  subject to ‖x − x_start‖ ≤ radius, lower ≤ x ≤ upper

    Goodfellow 2017 (CS231n lecture 16, "model-based optimization"); Trabucco et al. 2021 (ICML,
    "Conservative objective models") measure the same failure. The tolerance is how much of a gain is
    more than the oracle's noise.

    Args:
        radius: of the trust region in ``norm``, in input units; without one, the whole box.
        norm: ``l2``, ``linf`` or ``l1``.
        steps: gradient steps; the point of the highest prediction is returned.
        step_size: 2.5 · radius / steps unless given.
        weights: one per output; (−1.0,) minimises.
        bounds: the box inputs live in; None for none.
        tolerance: gain of the true value that counts as one.

    >>> net = torch.nn.Linear(3, 1).eval()
    >>> found = design(0.1)(net, torch.full((2, 3), 0.5), lambda x: -net(x)[:, 0])
    >>> found.verdicts
    ('adversarial example', 'adversarial example')
    """
    if not radius > 0 or steps < 1 or tolerance < 0:
        raise WalnutError(
            "design() needs a radius above 0, steps >= 1 and a tolerance of 0 or more"
        )
    check_bounds(bounds)
    return Designer(radius, norm, steps, step_size, tuple(weights), bounds, tolerance, batch_size)


def trust_curve(
    designer: Callable[[float], Designer],
    model: Model,
    x: Float[Tensor, " n *d"],
    oracle: Oracle,
    radii: tuple[float, ...],
) -> list[Design]:
    """Return the designs of every radius: where promise and truth part company.

    Args:
        designer: from a radius to a designer: ``design``, or ``lambda r: design(r, norm=linf)``.
        radii: rising, in input units.
    """
    return [designer(radius)(model, x, oracle) for radius in radii]
