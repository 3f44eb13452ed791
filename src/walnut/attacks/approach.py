"""A method that comes nearer: the nearest adversarial point of each row is kept on the way.

What minimal attacks need beside the gradient loop's parts: the margin with the logits behind it
(:class:`Answers`), and the best point by norm (:class:`Approach`, a method of the continuous batch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from walnut.core.constraints import l0, l1, l2, linf
from walnut.core.errors import WalnutError
from walnut.core.gradients import input_gradient
from walnut.core.objectives import margin
from walnut.core.queried import Queried
from walnut.core.types import Model

from .common import Norm
from .nearest import nearest

Bounds = tuple[float, float] | None
NAMES: dict[Any, str] = {linf: "linf", l2: "l2", l1: "l1", l0: "l0"}
"""The key of each norm in ``Adversarial.norms``."""
FAR = 1e6
"""Beyond every boundary worth going to."""
BEYOND = 1.02
"""How far a step to a linearised boundary goes, in ways to it."""


def rows_like(values: Tensor, x: Tensor) -> Tensor:
    """Reshape (b,) so that it broadcasts over the examples of ``x``."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def size(delta: Float[Tensor, " b *d"], norm: Norm) -> Float[Tensor, " b"]:
    """Return ‖delta‖ per example in the norm of the ball ``norm``."""
    flat = delta.flatten(1)
    if norm is l0:
        return flat.count_nonzero(1).to(delta.dtype)
    orders: dict[Any, float] = {linf: float("inf"), l2: 2, l1: 1}
    return torch.linalg.vector_norm(flat, orders[norm], dim=1)


def check_norm(norm: Norm, allowed: tuple[Norm, ...]) -> None:
    """Say which norms a method has."""
    if norm not in allowed:
        names = ", ".join(NAMES[n] for n in allowed)
        raise WalnutError(f"norm must be one of {names}, not {norm!r}")


def slack(logits: Float[Tensor, " b k"]) -> Float[Tensor, " b"]:
    """Return how large a margin must be to survive the rounding of another batch size."""
    return 16 * torch.finfo(logits.dtype).eps * logits.detach().abs().amax(1)


class Answers:
    """The margin by which an example fools, as an objective that remembers what the network said.

    max_{k≠y} z_k − z_y, or z_y − max_{k≠y} z_k for a target y. A method reads the logits and the labels
    of the rows it just asked about; one is made for each run.
    """

    def __init__(self, targeted: bool) -> None:
        self.sign = -1.0 if targeted else 1.0
        self.model: Any = None
        self.logits: Tensor = torch.empty(0)
        self.y: Tensor = torch.empty(0)

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        self.model, self.logits, self.y = model, model(x), y
        return self.sign * margin()(lambda _: self.logits, x, y)

    def unused(self, x: Tensor) -> None:
        """Say that no backward pass follows the last forward pass."""
        if isinstance(self.model, Queried) and self.logits.requires_grad:
            self.model.backward -= len(x)

    def gradients(self, values: list[Tensor], x: Tensor, last: bool = True) -> list[Tensor]:
        """Return ∇ₓ of several values of one forward pass, each by a backward pass, all counted.

        ``last``: the graph is not needed any more.
        """
        found = []
        for i, value in enumerate(values):
            more = i + 1 < len(values) or not last
            found.append(input_gradient(value, x, again=more))
        if isinstance(self.model, Queried):  # the forward pass has counted one
            self.model.backward += len(x) * (len(values) - last)
        return found


def boundary(
    answers: Answers, x: Tensor, classes: Int[Tensor, " b m"], norm: Norm, mask: Tensor | None,
    bounds: Bounds = None, beyond: float = 1e-4, last: bool = True,
) -> tuple[Float[Tensor, " b m"], Float[Tensor, " b m *d"]]:  # fmt: skip
    """Linearise z_k − z_y at ``x`` for some classes: how far each boundary is, and the way to it.

    The size, and the shortest step in ``norm`` that crosses and stays in the box (:func:`nearest`), by
    ``beyond`` input units; infinite and zero where there is no slope. Where the whole box does not
    reach, the step goes as far as the box. One backward pass a class.
    """
    gaps = answers.logits - answers.logits.gather(1, answers.y[:, None])
    chosen = gaps.gather(1, classes)
    slopes = torch.stack(answers.gradients(list(chosen.unbind(1)), x, last), 1)
    if mask is not None:
        slopes = slopes * mask.to(slopes)
    w, at = slopes.flatten(2), x.detach().flatten(1)[:, None]
    largest = w.abs().amax(2)
    flat = (largest == 0) | ~chosen.detach().isfinite()
    scale = largest.clamp_min(torch.finfo(w.dtype).tiny)
    w, gap = w / scale[..., None], chosen.detach().abs() / scale
    duals: dict[Any, float] = {linf: 1, l2: 2}
    gap = gap + beyond * w.norm(duals.get(norm, float("inf")), dim=2)
    low, high = (-FAR, FAR) if bounds is None else bounds
    room = torch.where(w > 0, high - at, at - low).clamp_min(0)
    far = nearest(w.abs(), gap.masked_fill(flat, 0.0), room, norm)
    away = size(far.flatten(0, 1), norm).reshape(flat.shape)
    short = (far * w.abs()).sum(2) < gap * (1 - 1e-4)
    away = torch.where(short, away + FAR, away).masked_fill(flat, float("inf"))
    return away, (far * w.sign()).reshape(slopes.shape)


def rivals(answers: Answers, count: int) -> Int[Tensor, " b m"]:
    """Return the classes of the largest logits but y's, at most ``count``."""
    rest = answers.logits.detach().scatter(1, answers.y[:, None], float("-inf"))
    return rest.topk(min(count, rest.shape[1] - 1), dim=1).indices


@dataclass(frozen=True, eq=False)
class Approach:
    """A method that keeps the nearest adversarial point of each row and ends on it.

    With ``candidates`` classes the first step goes to the nearest of their linearised boundaries.

    State: the point, (nearest point, its size, its margin), steps made, and what :meth:`move` keeps.
    Until a row fools the network, its strongest attempt stands in for the nearest point.
    """

    norm: Norm
    steps: int
    bounds: Bounds
    mask: Tensor | None
    answers: Answers
    confidence: float = 0.0
    candidates: int = 0
    ways: ClassVar[int] = 1  # how many of the nearest linearised boundaries a step is told of

    def begin(self, x0: Tensor) -> Any:
        """Return what the method keeps between steps."""
        return ()

    def enter(self, kept: Any, x0: Tensor, x: Tensor, first: Tensor) -> Any:
        """Return what is kept where ``x`` was reached by a first step to the nearest boundary."""
        return kept

    def slope(self, values: Tensor, x: Tensor) -> Tensor:
        """Return the gradient the method wants, after the margin was asked at ``x``."""
        return self.answers.gradients([values], x)[0]

    def move(
        self,
        x: Tensor,
        kept: Any,
        seen: Any,
        best: Any,
        values: Tensor,
        x0: Tensor,
        progress: Tensor,
    ) -> tuple[Tensor, Any]:
        """Return the next point and what to keep; ``seen`` is what :meth:`evaluate` gave."""
        raise NotImplementedError

    def start(self, x0: Tensor, restart: Tensor, draws: Any) -> Any:
        """Return the state at the example itself."""
        far = torch.full_like(restart, float("inf"), dtype=x0.dtype)
        return x0, (x0, far, -far), torch.zeros_like(restart), self.begin(x0)

    def point(self, state: Any) -> Tensor:
        """Return where the rows stand."""
        return state[0]

    def evaluate(self, value: Any, state: Any, draws: Any) -> tuple[Tensor, Any]:
        """Return the margin, and (gradient inside the mask, which rows fool, ways, how long they are).

        The ways lead to the linearised boundaries, nearest first; there are none after the first step.
        """
        x, made = state[0].detach().requires_grad_(), state[2]
        first = (made == 0) if self.candidates else torch.zeros_like(made, dtype=torch.bool)
        last = (made > 0) & (made >= self.steps - 1)  # the nearest point follows, and no step
        with torch.set_grad_enabled(not bool(last.all())):
            values = value(x)
        logits, ways = self.answers.logits, torch.zeros_like(values.detach()[:, None])[:, :0]
        away, grad = ways, torch.zeros_like(state[0])
        if bool(first.any()):
            away, ways = self._ways(x, last=bool(first.all()))
        if not bool((first | last).all()):
            grad = self.slope(values, x)
        if self.mask is not None:
            grad = grad * self.mask.to(grad)
        sure = values.detach() > self.confidence + slack(logits)
        return values.detach(), (grad, sure, ways, away.detach())

    def _ways(self, x: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """Return how long the ways to the nearest linearised boundaries are, nearest first, and the ways."""
        nearby = rivals(self.answers, self.candidates - 1)
        away, steps = boundary(
            self.answers, x, nearby, self.norm, self.mask, self.bounds, last=last
        )
        order = away.argsort(dim=1, stable=True)[:, : self.ways]
        rows = torch.arange(len(x), device=x.device)[:, None]
        return away.gather(1, order), steps[rows, order].detach()

    def advance(
        self, state: Any, seen: Any, values: Tensor, x0: Tensor, progress: Tensor, draws: Any
    ) -> Any:
        """Note the point if it is the nearest, move, and end on the nearest."""
        x, (best_x, best_size, best_margin), made, kept = state
        sure, length = seen[1], size(x - x0, self.norm)
        attempt = ~best_size.isfinite() & ~sure & (made > 0) & (values > best_margin)
        nearer = sure & (length < best_size)
        best_x = torch.where(rows_like(nearer | attempt, x), x, best_x)
        best_size = torch.where(nearer, length, best_size)
        best_margin = torch.where(nearer | attempt, values, best_margin)
        best = (best_x, best_size, best_margin)
        moved, kept = self.move(x, kept, seen, best, values, x0, progress)
        if self.candidates and seen[2].numel():
            first = rows_like(made == 0, x)
            moved = torch.where(first, self.clip(x0 + BEYOND * seen[2][:, 0]), moved)
            kept = self.enter(kept, x0, moved, made == 0)
        made = made + 1
        last = (made >= self.steps) & best_margin.isfinite()
        return torch.where(rows_like(last, x), best_x, moved), best, made, kept

    def clip(self, x: Tensor) -> Tensor:
        """Put points back into the box."""
        return x if self.bounds is None else x.clamp(*self.bounds)
