"""Universal perturbations: one pattern that, added to a picture, fools the network on most of them.

A pattern belongs to the set it was made from, not to an example. It does not depend on the order in which
the set is given, nor on ``batch_size``, beyond the rounding of the network itself: pictures are visited
in an order that is drawn from their own content and the seed. It does depend on which pictures are in the
set; leave one out, and all visits after its own see another pattern.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from walnut.core.constraints import box, l2, linf, unconstrained
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.queried import Queried, label_error, whole
from walnut.core.types import (
    Adversarial,
    Attack,
    Constraint,
    Model,
    Progress,
    perturbation_norms,
)

from .common import Norm, ball, check_bounds, prepare
from .ddn import ddn
from .deepfool import deepfool
from .minimal import held

Bounds = tuple[float, float] | None


def apply(pattern: Float[Tensor, " *d"], x: Float[Tensor, " n *d"], bounds: Bounds) -> Tensor:
    """Return clip(x + v): the pattern on each of the pictures (n, ...), cut to the box (None: not cut).

    >>> apply(torch.tensor([0.5, -0.5]), torch.tensor([[0.25, 0.25]]), (0.0, 1.0))
    tensor([[0.7500, 0.0000]])
    """
    if pattern.shape != x.shape[1:]:
        raise WalnutError(
            f"the pattern is {tuple(pattern.shape)}, the pictures are {tuple(x.shape[1:])} each"
        )
    added = x + pattern.to(x)
    return added if bounds is None else added.clamp(*bounds)


@dataclass(frozen=True)
class Universal(Adversarial):
    """A pattern, and what it does to the pictures that it was made from.

    ``first_success`` is the round (:func:`universal`) or the step (``universal_sgd``) whose pattern was
    first seen to fool the network on this picture; 0 where it is fooled without any.

    Attributes:
        pattern: v, shaped like one picture, inside the ball of radius eps.
        bounds: the box that x + v is cut to.
        target: the class it shall be read as; None where any wrong one will do.
        history: share of the set that is fooled after each round; mean loss of each epoch.
    """

    pattern: Float[Tensor, " *d"] = field(repr=False)
    bounds: Bounds
    target: int | None
    history: tuple[float, ...] = field(repr=False)

    def on(self, x: Float[Tensor, " n *d"]) -> Float[Tensor, " n *d"]:
        """Return the pattern on other pictures (n, ...)."""
        return apply(self.pattern, x, self.bounds)


class Pictures:
    """The pictures a pattern is made from, the passes each has cost, and what the network says."""

    def __init__(self, model: Model, x: Tensor, y: Tensor, target: int | None, size: int) -> None:
        self.asked, self.x, self.y, self.target, self.size = Queried(model), x, y, target, size
        self.forward = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.backward = torch.zeros_like(self.forward)
        self.clean = self.read(x)
        wanted = y if target is None else torch.cat([y, y.new_tensor([target])])
        if wrong := label_error(wanted, self.asked.classes):
            raise wrong
        self.first = torch.where(self.succeeds(self.clean), 0, -1)
        every = torch.arange(len(x), device=x.device)
        self.rows = every if target is None else every[self.clean != target]
        if len(self.rows) == 0:
            raise WalnutError(
                "every picture is read as the target class already: give some of other classes"
            )

    def read(self, x: Tensor) -> Tensor:
        """Return the network's answer to every row of ``x``, one forward pass each."""
        with torch.no_grad():
            logits = torch.cat([self.asked(rows) for rows in x.split(self.size)])
        self.asked.forget()
        if not bool(logits.isfinite().all()):
            raise WalnutError(
                "the network's answer is not a number (NaN or infinite): check its weights and the "
                "input range"
            )
        self.forward += 1
        return logits.argmax(1)

    def fooled(self, prediction: Tensor, rows: Tensor) -> Tensor:
        """Say which answers count as fooled: another than without the pattern, or the target."""
        return prediction != self.clean[rows] if self.target is None else prediction == self.target

    def succeeds(self, prediction: Tensor, rows: Tensor | None = None) -> Tensor:
        """Say which answers (of some rows) are wrong, or the target."""
        y = self.y if rows is None else self.y[rows]
        return prediction != y if self.target is None else prediction == self.target

    def close(
        self, pattern: Tensor, bounds: Bounds, began: float, name: str, seed: int,
        history: list[float], step: int,
    ) -> Universal:  # fmt: skip
        """Ask the network afresh about every picture with the pattern and return the record."""
        x = apply(pattern, self.x, bounds)
        prediction = self.read(x)
        success = self.succeeds(prediction)
        first = torch.where(success & (self.first < 0), step, self.first)
        return Universal(
            x, success, prediction, first, self.forward, self.backward,
            perturbation_norms(x, self.x), time.perf_counter() - began, name, seed,
            pattern, bounds, self.target, tuple(history),
        )  # fmt: skip


def _check(model: Model, x: Tensor, y: Tensor, bounds: Bounds) -> None:
    check_bounds(bounds)
    prepare(model, x, unconstrained() if bounds is None else box(*bounds))
    if len(x) == 0 or len(x) != len(y):
        raise WalnutError(f"a pattern needs pictures, each with a label: not {len(x)} and {len(y)}")


@dataclass(frozen=True, kw_only=True)
class UniversalAttack:
    """What both ways of making a pattern are told; call one with ``(model, x, y)``.

    Args:
        ball: the set the pattern stays in, around zero.
        target: a class, or None.
        bounds: the box of the pictures; None for none.
    """

    ball: Constraint
    target: int | None = None
    bounds: Bounds = (0.0, 1.0)
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)

    def make(self, data: Pictures, progress: Progress | None) -> tuple[Tensor, list[float], int]:
        """Return the pattern, its history, and the number of the last step."""
        raise NotImplementedError

    def project(self, pattern: Tensor) -> Tensor:
        """Return the nearest pattern of the ball."""
        return self.ball.project(pattern[None], torch.zeros_like(pattern)[None])[0]

    def __call__(
        self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor, progress: Progress | None = None
    ) -> Universal:
        """Make a pattern from pictures ``x`` (n, ...) with true labels ``y`` (n,), and put it on them.

        Raises:
            WalnutError: something does not fit; the message says what and how to mend it.
        """
        y = whole(y)
        _check(model, x, y, self.bounds)
        began, outer = time.perf_counter(), torch.is_inference_mode_enabled()
        with held(model):
            x, y = (x.clone(), y.clone()) if outer else (x.detach(), y)
            data = Pictures(model, x, y, self.target, self.batch_size)
            pattern, history, step = self.make(data, progress)
            return data.close(pattern, self.bounds, began, repr(self), self.seed, history, step)


@dataclass(frozen=True, kw_only=True)
class Rounds(UniversalAttack):
    """A pattern put together from the steps that single pictures ask for. Fields: see :func:`universal`."""

    inner: Attack
    rounds: int
    rate: float

    def __post_init__(self) -> None:
        if self.rounds < 1 or not 0 < self.rate <= 1:
            raise WalnutError("universal() needs rounds >= 1 and a rate above 0, at most 1")
        if getattr(self.inner, "bounds", None) is not None:
            raise WalnutError(
                "the inner attack moves the pattern, which is no picture: give it bounds=None"
            )
        if getattr(self.inner, "targeted", self.target is not None) != (self.target is not None):
            raise WalnutError("the inner attack must be targeted just where target is given")

    def make(self, data: Pictures, progress: Progress | None) -> tuple[Tensor, list[float], int]:
        """Go round the set until the pattern fools ``rate`` of it."""
        pattern = best = torch.zeros_like(data.x[0])
        draws, history = Draws.of(data.x, self.seed), list[float]()
        for turn in range(self.rounds):
            order = draws.fold(turn).uniform(1)[data.rows, 0].argsort(stable=True)
            for row in data.rows[order].tolist():
                pattern = self._visit(data, row, pattern)
            prediction = data.read(apply(pattern, data.x, self.bounds))
            share = float(data.fooled(prediction[data.rows], data.rows).double().mean())
            data.first[data.succeeds(prediction) & (data.first < 0)] = turn + 1
            best = pattern if share >= max(history, default=0.0) else best
            history.append(share)
            if progress is not None:
                progress("making the universal pattern", turn + 1, self.rounds)
            if share >= self.rate:
                break
        return best, history, len(history)

    def _visit(self, data: Pictures, row: int, pattern: Tensor) -> Tensor:
        """Return the pattern after one picture has had its say."""
        at = slice(row, row + 1)
        x = data.x[at]

        def shown(v: Tensor) -> Tensor:  # the network as a function of the pattern
            moved = x + v
            return data.asked.module(moved if self.bounds is None else moved.clamp(*self.bounds))

        with torch.no_grad():
            read = shown(pattern[None]).argmax(1)
        data.forward[at] += 1
        if bool(data.fooled(read, data.rows.new_tensor([row]))):
            return pattern
        label = data.clean[at] if self.target is None else data.clean.new_tensor([self.target])
        found = self.inner(shown, pattern[None], label)  # type: ignore[arg-type]
        data.forward[at] += found.forward
        data.backward[at] += found.backward
        return self.project(found.x[0].detach())


def universal(
    eps: float,
    *,
    norm: Norm = linf,
    inner: Attack | None = None,
    rounds: int = 5,
    rate: float = 0.8,
    target: int | None = None,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    batch_size: int = 256,
) -> Rounds:
    """Universal adversarial perturbation: picture after picture pushes one pattern over its boundary.

        Δv = argmin_r ‖r‖ such that k(clip(x_i + v + r)) ≠ k(x_i),   v ← P(v + Δv)

    for each x_i that v does not fool yet, until ``rate`` of the set is fooled (Moosavi-Dezfooli et al. 2017,
    Alg. 1; their 1 − δ with δ = 0.2). k is the network's answer and P the projection onto the ball;
    ``y`` only decides ``success`` in the record.

    Where we differ: the inner attack sees the picture cut to the box, as it will be shown; of the patterns
    after each round the best on the set is returned; where the inner attack fails, its strongest attempt
    is taken as it is (the authors' code skips the picture); with ``target`` Δv leads to that class, and
    pictures that are read as it already are not visited (there is no such form in the paper).

    Args:
        eps: radius of the ball, in input units.
        norm: ``linf``, ``l2`` or ``l1``.
        inner: a minimal attack with ``bounds=None``, targeted where ``target`` is given. Unless given, as
            in the authors' code, DeepFool in L2 with 10 steps; DDN with 30 with a target.
        rounds: times round the set, at most.
        rate: share of the set to fool.
        target: a class to be read as.
        bounds: the box pictures live in; None for none.

    >>> net = torch.nn.Linear(4, 3, bias=False).eval()
    >>> made = universal(0.3)(net, torch.rand(8, 4), torch.zeros(8, dtype=torch.int64))
    >>> bool(made.pattern.abs().max() <= 0.3 + 1e-6), made.on(torch.rand(5, 4)).shape
    (True, torch.Size([5, 4]))
    """
    ball(norm, eps, bounds)
    if inner is None and target is None:
        inner = deepfool(norm=l2, steps=10, refine=0, bounds=None)
    elif inner is None:
        inner = ddn(steps=30, targeted=True, refine=0, bounds=None)
    return Rounds(
        ball=norm(eps), inner=inner, rounds=rounds, rate=rate, target=target, bounds=bounds,
        seed=seed, batch_size=batch_size,
    )  # fmt: skip
