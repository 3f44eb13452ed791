"""Gradient attacks: presets of core parts. Each returns a record of its parts that can be called."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Shaped
from torch import Tensor

from walnut.core.ascend import ascend
from walnut.core.constraints import l0, linf
from walnut.core.directions import chain, momentum, sign
from walnut.core.gradients import averaged, plain
from walnut.core.images import pixels
from walnut.core.objectives import classified_as, cross_entropy, misclassified
from walnut.core.objectives import targeted as towards
from walnut.core.queried import whole
from walnut.core.steps import constant
from walnut.core.transforms import resize_pad
from walnut.core.types import (
    Adversarial,
    Constraint,
    Criterion,
    Direction,
    GradientEstimator,
    Image,
    Model,
    Objective,
)

from .common import Norm, ball, few, into, prepare, steepest

Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class GradientAttack:
    """Parts put together: call it with ``(model, x, y)``. Its repr is the record in every result.

    The fields are the arguments of :func:`walnut.core.ascend.ascend`. ``batch_size`` and ``drop``
    change the speed and nothing else, so they are no part of the record.
    """

    objective: Objective
    constraint: Constraint
    steps: int
    step_size: float
    direction: Direction = sign()
    gradient: GradientEstimator = plain()
    image: Image = pixels()
    criterion: Criterion = misclassified()
    decay: object = constant()
    random_start: bool = False
    restarts: int = 1
    early_stop: bool = True
    keep_best: bool = True
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)
    drop: bool = field(default=True, repr=False, compare=False)

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Attack every example of ``x``.

        Args:
            model: network from [0, 1] to logits; nothing of it changes.
            x: examples (n, ...).
            y: true labels (n,), or target labels for a targeted attack.

        Raises:
            WalnutError: something does not fit; the message says what and how to mend it.
        """
        prepare(model, x, self.constraint)
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return ascend(model, x, whole(y), name=repr(self), **parts)


def _labels(objective: Objective, targeted: bool) -> tuple[Objective, Criterion]:
    return (towards(objective), classified_as()) if targeted else (objective, misclassified())


def _width(bounds: Bounds) -> float:
    return 1.0 if bounds is None else bounds[1] - bounds[0]


def fgsm(
    eps: float,
    *,
    norm: Norm = linf,
    targeted: bool = False,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    batch_size: int = 256,
) -> GradientAttack:
    """Fast gradient sign method: x̂ = x + eps · sign(∇ₓJ(x, y)), clipped to the box.

    The maximiser of the linearised loss under ‖x̂ − x‖∞ ≤ eps (Goodfellow et al. 2015, §4); with another
    norm, its steepest-ascent step. Every example is moved, also one that is wrong already.

    Args:
        eps: radius in input units, so 8/255 for 8-bit images.
        norm: ``linf``, ``l2`` or ``l1``.
        targeted: ``y`` are targets to move towards.
        objective: what to climb.
        bounds: the box inputs live in; None for none.
        mask: bool, shaped like one example: the entries that may change; None for all.

    >>> import torch
    >>> net = torch.nn.Linear(2, 2, bias=False).eval()
    >>> _ = net.weight.data.copy_(torch.eye(2))
    >>> fgsm(0.25)(net, torch.tensor([[0.5, 0.4]]), torch.tensor([0])).x
    tensor([[0.2500, 0.6500]])
    """
    goal, criterion = _labels(objective, targeted)
    return GradientAttack(
        goal, ball(norm, eps, bounds, mask), 1, eps, steepest(norm, mask), criterion=criterion,
        early_stop=False, keep_best=False, batch_size=batch_size,
    )  # fmt: skip


def bim(
    eps: float,
    *,
    norm: Norm = linf,
    steps: int = 10,
    step_size: float | None = None,
    targeted: bool = False,
    early_stop: bool = True,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    batch_size: int = 256,
) -> GradientAttack:
    """Basic iterative method: FGSM in small steps from the example itself (Kurakin et al. 2017, Eq. 2).

    Args:
        step_size: eps / steps unless given.
        early_stop: return each example at its first success.
        mask: bool, shaped like one example: the entries that may change; None for all.
    """
    goal, criterion = _labels(objective, targeted)
    return GradientAttack(
        goal, ball(norm, eps, bounds, mask), steps, eps / steps if step_size is None else step_size,
        steepest(norm, mask), criterion=criterion, early_stop=early_stop, batch_size=batch_size,
    )  # fmt: skip


def pgd(
    eps: float,
    *,
    norm: Norm = linf,
    steps: int = 20,
    step_size: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    targeted: bool = False,
    early_stop: bool = True,
    keep_best: bool = True,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> GradientAttack:
    """Projected gradient descent (Madry et al. 2018, Eq. 3) in L∞, L2, L1 or L0.

        x ← project(x + step_size · direction(∇ₓJ(x, y)))

    The direction is the norm's steepest ascent: sign, unit L2 length, or the signs of the largest
    entries (L1). L1 uses the true projection onto the ball. Under L0, ``eps`` is a number of entries: those
    of largest gradient go to the edge of the box, and of all that differ the ``eps`` largest stay.

    Args:
        eps: radius in input units.
        steps: gradient steps per restart.
        step_size: 2.5 · eps / steps unless given; under L0 the width of the box.
        random_start: start at a random point of the ball; later restarts always do. Under L0 the first
            run starts at the example: random entries would keep the better ones out.
        restarts: runs per example, the later ones only where the earlier failed.
        targeted: ``y`` are targets to move towards.
        early_stop: return each example at its first success.
        keep_best: return the point of highest loss; else the last point, as the paper does.
        mask: bool, shaped like one example: the entries that may change; None for all.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    >>> x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    >>> result = pgd(0.3, steps=5)(net, x, y)
    >>> bool((result.norms["linf"] <= 0.3 + 1e-6).all())
    True
    """
    goal, criterion = _labels(objective, targeted)
    if step_size is None:
        step_size = 2.5 * eps / steps if norm is not l0 else _width(bounds)
    inside = ball(norm, eps, bounds, mask)
    direction = into(few(int(eps)), mask) if norm is l0 else steepest(norm, mask)
    return GradientAttack(
        goal, inside, steps, step_size, direction, criterion=criterion,
        random_start=random_start and norm is not l0, restarts=restarts, early_stop=early_stop,
        keep_best=keep_best, seed=seed, batch_size=batch_size,
    )  # fmt: skip


def mi_fgsm(
    eps: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    targeted: bool = False,
    early_stop: bool = False,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    batch_size: int = 256,
) -> GradientAttack:
    """Momentum iterative FGSM (Dong et al. 2018, Alg. 1): m ← decay · m + g/‖g‖₁, step along sign(m).

    Made to transfer, so by default it goes on after the source network is fooled and returns the
    last point.

    Args:
        step_size: eps / steps unless given.
        decay: weight of the past; 0 is BIM.
        mask: bool, shaped like one example: the entries that may change; None for all.
    """
    goal, criterion = _labels(objective, targeted)
    return GradientAttack(
        goal, ball(linf, eps, bounds, mask), steps, eps / steps if step_size is None else step_size,
        into(chain((momentum(decay), sign())), mask), criterion=criterion, early_stop=early_stop,
        keep_best=early_stop, batch_size=batch_size,
    )  # fmt: skip


def di_fgsm(
    eps: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 0.0,
    smallest: float = 0.9,
    probability: float = 0.5,
    targeted: bool = False,
    early_stop: bool = False,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> GradientAttack:
    """Diverse-input FGSM (Xie et al. 2019, Eq. 5): each gradient is taken at a randomly resized copy.

    With ``decay=1.0`` it is the paper's M-DI²-FGSM. Images (b, C, H, W) only.

    Args:
        smallest: smallest side of the copy as a share of the image's; the rest is black
            (the paper enlarges; see :class:`walnut.core.transforms.resize_pad`).
        probability: share of steps in which the copy is changed.
        mask: bool, shaped like one example: the entries that may change; None for all.
    """
    goal, criterion = _labels(objective, targeted)
    return GradientAttack(
        goal, ball(linf, eps, bounds, mask), steps, eps / steps if step_size is None else step_size,
        into(chain((momentum(decay), sign())), mask), averaged(resize_pad(smallest, probability)),
        criterion=criterion, early_stop=early_stop, keep_best=early_stop, seed=seed,
        batch_size=batch_size,
    )  # fmt: skip
