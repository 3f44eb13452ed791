"""Fooling pictures: nothing to a person, a class beyond doubt to the network; here by its gradient.

The record, the judge and the control (plain noise) are shared with :mod:`walnut.attacks.evolve`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from walnut.core.ascend import ascend
from walnut.core.constraints import box, unconstrained
from walnut.core.directions import normalized
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.images import fourier, pixels
from walnut.core.objectives import cross_entropy, targeted, weighted
from walnut.core.queried import Queried, label_error
from walnut.core.types import Constraint, Direction, Image, Model, Objective

from .common import check_box

Classes = int | Sequence[int]
"""How many classes there are (all are wanted), or the labels that are wanted."""


@dataclass(frozen=True)
class Fooling:
    """Pictures of nothing, one row each, as ``(model, shape, classes, seed)`` makes them.

    ``confidence`` is the softmax probability of the wanted class and ``prediction`` the largest
    logit, both by a fresh forward pass in eval mode. ``reached`` is the step or generation at which
    a picture first came to the level asked for, −1 where it did not. ``forward`` and ``backward``
    count the passes of all pictures together, the fresh one included.
    """

    x: Float[Tensor, " n *d"]
    wanted: Int[Tensor, " n"]
    confidence: Float[Tensor, " n"]
    prediction: Int[Tensor, " n"]
    reached: Int[Tensor, " n"]
    forward: int
    backward: int
    seconds: float
    attack: str
    seed: int

    @property
    def median_confidence(self) -> float:
        """Return the median over all pictures, those that failed among them."""
        return float(self.confidence.quantile(0.5))


def log_odds(logits: Float[Tensor, " b k"]) -> Float[Tensor, " b k"]:
    """Return log p_c / (1 − p_c) = z_c − log Σ_{k≠c} exp z_k for every class c, in float64.

    It rises with the probability p_c, and unlike p_c it does not round to 1.

    >>> log_odds(torch.tensor([[0.0, 0.0, 50.0]])).numpy().round(2)
    array([[-50.  , -50.  ,  49.31]])
    """
    z = logits.double()
    classes = z.shape[1]
    own = torch.eye(classes, dtype=torch.bool, device=z.device)
    rest = z[:, None, :].expand(-1, classes, -1).masked_fill(own, float("-inf"))
    return z - rest.logsumexp(2)


def judged(
    model: Model, x: Float[Tensor, " n *d"], wanted: Int[Tensor, " n"], batch_size: int = 256
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Return what a network calls each picture, and its confidence in the wanted class.

    Ask a second network about pictures made on a first one to see whether they transfer.

    Raises:
        WalnutError: a wanted class is none of the network's, or an answer is not a number.
    """
    net, predictions, confidences = Queried(model), [], []
    with torch.inference_mode(False), torch.no_grad(), frozen(model):
        for rows, labels in zip(x.split(batch_size), wanted.split(batch_size), strict=True):
            logits = net(rows)
            if wrong := label_error(labels, net.classes):
                raise wrong
            if not bool(logits.isfinite().all()):
                raise WalnutError("the network's answer is not a number: check its weights")
            predictions.append(logits.argmax(1))
            confidences.append(log_odds(logits).gather(1, labels[:, None])[:, 0].sigmoid())
    return torch.cat(predictions), torch.cat(confidences)


def home(model: Model) -> Tensor:
    """Return an empty tensor of the kind a network computes with: its device and its precision."""
    weights = model.parameters() if isinstance(model, nn.Module) else iter(())
    found = next((p for p in weights if p.is_floating_point()), torch.empty(0))
    return torch.empty(0, dtype=found.dtype, device=found.device)


def labels_of(classes: Classes) -> list[int]:
    """Return the labels that are wanted.

    >>> labels_of(3), labels_of([7, 1])
    ([0, 1, 2], [7, 1])
    """
    labels = list(range(classes)) if isinstance(classes, int) else [int(c) for c in classes]
    if not labels or min(labels) < 0:
        raise WalnutError("say which classes are wanted: how many there are, or a list of labels")
    return labels


def noise_pictures(
    shape: tuple[int, ...], count: int, seed: int = 0, bounds: tuple[float, float] = (0.0, 1.0)
) -> Float[Tensor, " n *d"]:
    """Return plain noise, uniform in the box: the control that every fooling picture is held against."""
    draws = Draws.keyed(torch.arange(count)).fold(seed)
    return bounds[0] + (bounds[1] - bounds[0]) * draws.uniform(*shape, dtype=torch.float32)


@dataclass(frozen=True)
class squashed:
    """x = lower + (upper − lower) · σ(image(z)): any image part, kept inside the box."""

    image: Image
    lower: float = 0.0
    upper: float = 1.0

    def start(self, x: Tensor) -> Tensor:
        """Return the variable that paints ``x``; what touches the box's edge is moved in by 10⁻⁴."""
        unit = ((x - self.lower) / (self.upper - self.lower)).clamp(1e-4, 1 - 1e-4)
        if len(x) == 0:  # the loop's last batch; an FFT takes no empty one
            return self.image.start(unit.new_zeros(1, *x.shape[1:]))[:0]
        return self.image.start(unit.logit())

    def paint(self, z: Tensor) -> Tensor:
        """Return a picture inside the box."""
        return self.lower + (self.upper - self.lower) * self.image.paint(z).sigmoid()


@dataclass(frozen=True)
class confident:
    """Criterion: the softmax probability of ``y`` is ``level`` or more."""

    level: float

    def __call__(self, logits: Float[Tensor, " b k"], y: Tensor) -> Bool[Tensor, " b"]:
        own = log_odds(logits).gather(1, y[:, None])[:, 0]
        return own >= torch.tensor(self.level, dtype=torch.float64).logit().to(own.device)


@dataclass(frozen=True)
class emptiness:
    """−mean((x − grey)²): how near a picture is to plain grey, one value per example."""

    grey: float = 0.5

    def __call__(self, model: Model, x: Tensor, y: Tensor | None) -> Float[Tensor, " b"]:
        return -(x - self.grey).flatten(1).square().mean(1)


@dataclass(frozen=True)
class GradientFooling:
    """See :func:`fooling` and :func:`smooth_fooling`."""

    objective: Objective
    steps: int
    step_size: float | None
    constraint: Constraint
    image: Image
    level: float
    contrast: float
    runs: int
    bounds: tuple[float, float]
    direction: Direction = normalized()
    batch_size: int = field(default=256, repr=False, compare=False)

    def start(self, shape: tuple[int, ...], labels: Tensor, seed: int, like: Tensor) -> Tensor:
        """Return noise of each (class, run): grey, with ``contrast`` of the box's width about it."""
        turn = torch.arange(self.runs, device=like.device).repeat(len(labels) // self.runs)
        draws = Draws.keyed(labels.to(like.device) * 1_000_003 + turn).fold(seed)
        low, high = self.bounds
        noise = draws.uniform(*shape, dtype=like.dtype) - 0.5
        return (low + high) / 2 + (high - low) * self.contrast * noise

    def __call__(
        self, model: Model, shape: tuple[int, ...], classes: Classes, seed: int = 0
    ) -> Fooling:
        """Make ``runs`` pictures of ``shape`` for each class, those of a class side by side.

        Args:
            model: network from the box to logits; nothing of it changes.
            shape: of one input: (1, 28, 28), (3, 32, 32), (20,).
            classes: how many there are, or the labels that are wanted.
            seed: of the noise that the pictures start from.
        """
        began, like = time.perf_counter(), home(model)
        labels = torch.tensor(labels_of(classes), device=like.device).repeat_interleave(self.runs)
        x = self.start(shape, labels, seed, like)
        size = self.step_size or 0.01 * (self.bounds[1] - self.bounds[0]) * x[0].numel() ** 0.5
        found = ascend(
            model, x, labels, objective=self.objective, steps=self.steps, step_size=size,
            constraint=self.constraint, direction=self.direction, image=self.image,
            criterion=confident(self.level), random_start=False, seed=seed,
            batch_size=self.batch_size, name=repr(self),
        )  # fmt: skip
        prediction, confidence = judged(model, found.x, labels, self.batch_size)
        return Fooling(
            found.x, labels, confidence, prediction, found.first_success,
            int(found.forward.sum()) + len(labels), int(found.backward.sum()),
            time.perf_counter() - began, repr(self), seed,
        )  # fmt: skip


def _objective(penalty: float, bounds: tuple[float, float]) -> Objective:
    towards = targeted(cross_entropy())
    if penalty == 0:
        return towards
    return weighted(((1.0, towards), (penalty, emptiness((bounds[0] + bounds[1]) / 2))))


def fooling(
    *,
    level: float = 0.9999,
    steps: int = 200,
    step_size: float | None = None,
    penalty: float = 0.0,
    contrast: float = 1.0,
    runs: int = 1,
    bounds: tuple[float, float] = (0.0, 1.0),
    batch_size: int = 256,
) -> GradientFooling:
    """Climb the log-probability of a class from noise, until the network is sure of it.

        z ← clip(z + step_size · g / ‖g‖₂),  g = ∇_x [log p_c(x) − penalty · mean((x − grey)²)]

    Nguyen, Yosinski & Clune 2015 (CVPR, "Deep neural networks are easily fooled"), §3.4; the
    penalty is that of Simonyan et al. 2014, Eq. 1. Where we differ: a picture is finished when its
    confidence comes to ``level``, and steps have a fixed length.

    Args:
        level: confidence at which a picture is finished, in (0, 1].
        steps: gradient steps at most.
        step_size: length of a step in L2, in input units; 1 % of the box's diagonal unless given.
        penalty: weight of the distance from plain grey.
        contrast: of the noise to start from; 1 fills the box.
        runs: pictures per class, each from noise of its own.
        bounds: the box inputs live in.

    >>> net = torch.nn.Linear(4, 3).eval()
    >>> found = fooling(level=0.5)(net, (4,), 3)
    >>> found.wanted, tuple(found.x.shape)
    (tensor([0, 1, 2]), (3, 4))
    """
    check_level(level)
    check_box(bounds)
    return GradientFooling(
        _objective(penalty, bounds), steps, step_size, box(*bounds), pixels(), level, contrast, runs,
        bounds, batch_size=batch_size,
    )  # fmt: skip


def smooth_fooling(
    width: int,
    *,
    level: float = 0.9999,
    steps: int = 200,
    step_size: float = 1.0,
    penalty: float = 0.0,
    contrast: float = 0.1,
    runs: int = 1,
    bounds: tuple[float, float] = (0.0, 1.0),
    batch_size: int = 256,
) -> GradientFooling:
    """The same in Fourier coefficients scaled by 1/frequency, so that low frequencies come first.

        x = σ(Re F⁻¹(z / f)),  squeezed into the box

    Olah et al. 2017 ("Feature visualization"). Images (c, h, w) only.

    Args:
        width: of the image, in pixels.
        step_size: length of a step in L2, in scaled coefficients of the logit of the picture.
    """
    check_level(level)
    check_box(bounds)
    return GradientFooling(
        _objective(penalty, bounds), steps, step_size, unconstrained(),
        squashed(fourier(width), *bounds), level, contrast, runs, bounds, batch_size=batch_size,
    )  # fmt: skip


def check_level(level: float) -> None:
    """Refuse a confidence that is none."""
    if not 0 < level <= 1:
        raise WalnutError(f"level is a confidence above 0, and 1 at most, not {level}")
