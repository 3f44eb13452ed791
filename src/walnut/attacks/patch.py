"""Adversarial patches: something to print and to lay anywhere in a picture, one for all pictures."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from walnut.core.constraints import box, intersection, region
from walnut.core.directions import chain, momentum, sign
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.gradients import NO_PATH
from walnut.core.images import pixels
from walnut.core.objectives import classified_as, cross_entropy, misclassified
from walnut.core.objectives import targeted as towards
from walnut.core.placement import Placement, Shape, circle
from walnut.core.queried import Queried, label_error, whole
from walnut.core.steps import cosine
from walnut.core.transforms import check_image
from walnut.core.types import (
    Adversarial,
    Constraint,
    Direction,
    Image,
    Model,
    Objective,
    Progress,
    perturbation_norms,
)

from .common import prepare
from .expectation import held_out
from .gradient import GradientAttack


@dataclass(frozen=True, eq=False)
class Patch:
    """A patch, ready to be stuck on: itself an attack ``(model, x, y) -> Adversarial`` on any network.

    Attributes:
        pattern: (c, h, w) in [0, 1].
        mask: (h, w) in [0, 1].
        placement: where it is stuck unless told otherwise.
        target: the class that it shall be read as; None where any wrong one will do.
        seed: of where it is stuck, with each picture's own content.
        made_by: the repr of what made it.
        history: mean objective of each training step.
        forward, backward: pictures passed through the network to make it.
    """

    pattern: Float[Tensor, " c h w"] = field(repr=False)
    mask: Float[Tensor, " h w"] = field(repr=False)
    placement: Placement = Placement()
    target: int | None = None
    seed: int = 0
    made_by: str = ""
    history: tuple[float, ...] = field(default=(), repr=False)
    forward: int = field(default=0, repr=False)
    backward: int = field(default=0, repr=False)

    def paste(self, x: Float[Tensor, " n c v u"]) -> tuple[Tensor, Tensor]:
        """Return the pictures with the patch on them, and the cover (n, 1, H, W).

        Places are drawn by each picture's content and ``seed``, from a stream that no training step uses.
        """
        pattern, mask = self.pattern.to(x), self.mask.to(x)
        painted, cover = self.placement(x, pattern, mask, held_out(x, self.seed))
        return painted.clamp(0, 1), cover

    def succeeds(self, prediction: Int[Tensor, " n"], y: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Say where a prediction is what the patch wants; ``y`` are true labels."""
        return prediction != y if self.target is None else prediction == self.target

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Stick it onto pictures (n, c, H, W) of true labels ``y`` and ask the network once each."""
        began, asked = time.perf_counter(), Queried(model)
        y = whole(y)
        _check(model, x, y)
        with torch.inference_mode(False), torch.no_grad(), frozen(model):
            painted = self.paste(x)[0]
            read = torch.cat([asked(rows) for rows in painted.split(256)]).argmax(1)
        wrong = label_error(y, asked.classes)
        if wrong is not None:
            raise wrong
        success = self.succeeds(read, y)
        one = torch.ones_like(read)
        return Adversarial(
            painted, success, read, torch.where(success, 0, -1), one, 0 * one,
            perturbation_norms(painted, x), time.perf_counter() - began, repr(self), self.seed,
        )  # fmt: skip


def _check(model: Model, x: Tensor, y: Tensor) -> None:
    prepare(model, x, box())
    check_image(x)
    if len(x) == 0 or len(x) != len(y):
        raise WalnutError(f"a patch needs pictures, each with a label: not {len(x)} and {len(y)}")


@dataclass(frozen=True)
class PatchAttack:
    """How a patch is made: call it with ``(model, x, y)`` of training pictures and get a :class:`Patch`.

    Fields: see :func:`patch`.
    """

    target: int | None
    shape: Shape
    size: int | None
    placement: Placement
    steps: int
    pictures: int
    step_size: float
    objective: Objective
    direction: Direction = chain((momentum(0.9), sign()))
    image: Image = pixels()
    constraint: Constraint = box()
    decay: Any = cosine()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.pictures < 1 or (self.size is not None and self.size < 1):
            raise WalnutError("steps, pictures and size must be 1 or more")

    def __call__(
        self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor, progress: Progress | None = None
    ) -> Patch:
        """Make a patch on pictures ``x`` (n, c, H, W) in [0, 1] with true labels ``y`` (n,).

        Raises:
            WalnutError: something does not fit; the message says what and how to mend it.
        """
        y = whole(y)
        _check(model, x, y)
        with torch.inference_mode(False), torch.enable_grad(), frozen(model):
            if x.is_inference():
                x, y = x.clone(), y.clone()
            return self._make(Queried(model), x.detach(), y, progress)

    def _make(self, asked: Queried, x: Tensor, y: Tensor, progress: Progress | None) -> Patch:
        self._fits(asked, x, y)
        if self.target is not None:
            x, y = x[y != self.target], torch.full_like(y[y != self.target], self.target)
            if len(x) == 0:
                raise WalnutError(
                    "every picture is of the target class: give some of other classes"
                )
        size = self.size or max(4, round(self.placement.scale[1] * min(x.shape[-2:])))
        mask = self.shape(size).to(x)
        own = Draws.keyed(torch.zeros(1, dtype=torch.int64, device=x.device)).fold(self.seed)
        z = self.image.start(own.uniform(x.shape[1], *mask.shape, dtype=x.dtype))
        memory, draws, history = self.direction.init(z), Draws.of(x, self.seed), []
        for step in range(self.steps):
            value, grad = self._slope(asked, z, mask, x, y, draws.fold(step))
            history.append(value)
            move, memory = self.direction.update(grad, memory)
            share = float(self.decay(torch.tensor([step / self.steps]))[0])
            z = self.constraint.project(z + self.step_size * share * move, z)
            if progress is not None:
                progress("making the patch", step + 1, self.steps)
        pattern = self.image.paint(z)[0].detach().clamp(0, 1)
        return Patch(
            pattern, mask, self.placement, self.target, self.seed, repr(self), tuple(history),
            asked.forward, asked.backward,
        )  # fmt: skip

    def _fits(self, asked: Queried, x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            asked(x[:1])
        aims = [] if self.target is None else [y.new_tensor([self.target])]
        for labels in (y, *aims):
            wrong = label_error(labels, asked.classes)
            if wrong is not None:
                raise wrong

    def _slope(
        self, asked: Queried, z: Tensor, mask: Tensor, x: Tensor, y: Tensor, draws: Draws
    ) -> tuple[float, Tensor]:
        """Return the mean objective of the pictures that this step draws, and its gradient in z."""
        # the pictures whose numbers are the smallest: their order in the data does not matter
        lot = draws.uniform(1)[:, 0].topk(min(self.pictures, len(x)), largest=False).indices
        z = z.detach().requires_grad_()
        painted, _ = self.placement(x[lot], self.image.paint(z)[0], mask, draws.rows(lot))
        value = self.objective(asked, painted, y[lot]).mean()
        if not value.requires_grad:
            raise WalnutError(NO_PATH)
        (grad,) = torch.autograd.grad(value, z, allow_unused=True)
        asked.forget()
        if grad is None:
            raise WalnutError(NO_PATH)
        if not bool(value.isfinite()) or not bool(grad.isfinite().all()):
            raise WalnutError(
                "the network's answer is not a number (NaN or infinite): check its weights and the "
                "input range"
            )
        return float(value.detach()), grad


def patch(
    target: int | None = None,
    *,
    shape: Shape = circle(),
    size: int | None = None,
    placement: Placement = Placement(),
    steps: int = 300,
    pictures: int = 64,
    step_size: float = 0.05,
    objective: Objective = cross_entropy(),
    image: Image = pixels(),
    constraint: Constraint = box(),
    seed: int = 0,
) -> PatchAttack:
    """Universal patch: one pattern that is read as ``target`` wherever it lies in whatever picture.

        p ← clip(p + step_size · sign(m)),   m momentum of ∇_p E_{x, place}[log P(target | A(p, x, place))]

    with other pictures and other places in every step (Brown et al. 2017, Eq. 1). Any number of
    channels, any size of picture. One place and size is a sticker:
    ``Placement((0.3, 0.3), 0.0, at(0.8, 0.2))``.

    Where we differ: pictures of the target class are left out; one network, not an ensemble (an
    ensemble is a module that returns the mean of its members' log-probabilities). They keep the patch
    near a starting picture in one experiment (Eq. 2); for that give ``constraint``.

    Args:
        target: a class; None to move away from the true label.
        shape: ``circle()``, ``square()`` or ``sticker(mask)``.
        size: texels of the longer side; as many as the largest placement has pixels unless given.
        placement: the distribution of places, sizes and angles.
        steps: gradient steps.
        pictures: per step, each a forward and a backward pass.
        step_size: of the first step, in input units; falls along a cosine.
        objective: what to climb (untargeted) or descend (targeted).
        image: the pattern's variable; with ``tanh_box()`` also give ``constraint=unconstrained()``.
        constraint: on the variable.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    >>> x, y = torch.rand(8, 1, 8, 8), torch.arange(8) % 3
    >>> made = patch(2, steps=3, size=5)(net, x, y)
    >>> tuple(made.pattern.shape), tuple(made(net, x, y).x.shape)
    ((1, 5, 5), (8, 1, 8, 8))
    """
    goal = objective if target is None else towards(objective)
    return PatchAttack(
        target, shape, size, placement, steps, pictures, step_size, goal, image=image,
        constraint=constraint, seed=seed,
    )  # fmt: skip


def local_patch(
    mask: Bool[Tensor, " *d"],
    *,
    steps: int = 50,
    step_size: float = 0.05,
    restarts: int = 1,
    targeted: bool = False,
    objective: Objective = cross_entropy(),
    seed: int = 0,
    batch_size: int = 256,
) -> GradientAttack:
    """A patch of its own for each picture, at one place: only pixels under ``mask`` change, freely.

    (Karmon et al. 2018, "LaVAN", with the loss of the last layer as it is.)

    Args:
        mask: bool, (H, W) or shaped like one example; vectors work as well.
        steps: gradient steps per restart, from random values under the mask.
        step_size: in input units.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> mask = torch.zeros(4, 4, dtype=torch.bool)
    >>> mask[:2, :2] = True
    >>> int(local_patch(mask)(net, torch.rand(1, 1, 4, 4), torch.tensor([0])).norms["l0"]) <= 4
    True
    """
    if not bool(mask.any()):
        raise WalnutError("the mask is false everywhere: no pixel may change")
    return GradientAttack(
        towards(objective) if targeted else objective, intersection((region(mask), box())),
        steps, step_size, chain((momentum(0.9), sign())),
        criterion=classified_as() if targeted else misclassified(), random_start=True,
        restarts=restarts, seed=seed, batch_size=batch_size,
    )  # fmt: skip
