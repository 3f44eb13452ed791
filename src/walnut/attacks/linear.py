"""Linear fooling: one direction per class, added to any picture until the network calls it that class."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from walnut.core.errors import WalnutError
from walnut.core.queried import Queried, label_error, whole
from walnut.core.types import Adversarial, Model

from .approach import Bounds, rows_like, slack
from .lines import Lines, crossing
from .minimal import MinimalAttack, Record, held


@dataclass(frozen=True)
class LinearAdversarial(Adversarial):
    """An attack's record, and ``coefficient``: the smallest a found, inf where there was none."""

    coefficient: Float[Tensor, " b"]


@dataclass(frozen=True, kw_only=True, repr=False)
class LinearFooling(MinimalAttack):
    """See :func:`linear_fooling`."""

    lines: Lines
    largest: float | None = None
    points: int = 16
    halvings: int = 12

    def reach(self, x: Tensor) -> float:
        """Return the largest coefficient to try."""
        if self.largest is not None:
            return self.largest
        if self.bounds is None:
            raise WalnutError("without bounds there is no largest coefficient: give largest=")
        return float((self.bounds[1] - self.bounds[0]) * x[0].numel() ** 0.5)

    def move(self, x: Tensor, step: Tensor, a: Tensor) -> Tensor:
        """Return clip(x + a · step)."""
        moved = x + rows_like(a.to(x.dtype), x) * step
        return moved if self.bounds is None else moved.clamp(*self.bounds)

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> LinearAdversarial:
        """Move every example of ``x`` (n, ...) along its line.

        Raises:
            WalnutError: something does not fit; the message says what and how to mend it.
        """
        y = whole(y)
        self.checked(model, x, y)
        began, net = time.perf_counter(), Queried(model)
        outer = torch.is_inference_mode_enabled()
        with held(model):
            x, y = (x.clone(), y.clone()) if outer else (x.detach(), y)
            record = Record.asked(net, x, y, self.criterion(), self.batch_size)
            a = torch.where(record.success, 0.0, float("inf")).double()
            rows = (~record.success).nonzero()[:, 0]
            if len(rows):
                a[rows] = self._found(record, net, rows, y)
            done = record.close(began, repr(self), self.seed)
        return LinearAdversarial(**vars(done), coefficient=a)

    def _found(self, record: Record, net: Queried, rows: Tensor, y: Tensor) -> Tensor:
        """Return the coefficients of some rows, and put their pictures into the record."""
        with torch.no_grad():
            logits = torch.cat([net(record.x0[p]) for p in rows.split(self.batch_size)])
        record.forward[rows] += 1
        rest = logits.scatter(1, y[rows][:, None], float("-inf")).argmax(1)
        before = net.forward, net.backward
        line = self.lines(net, record.x0[rows], logits, y[rows] if self.targeted else rest)
        record.forward[rows[0]] += net.forward - before[0]
        record.backward[rows[0]] += net.backward - before[1]
        step = line.direction if self.mask is None else line.direction * self.mask.to(record.x0)
        found = []
        for part in torch.arange(len(rows), device=rows.device).split(self.batch_size):
            walk = _Walk(self, record, net, rows[part], y[rows[part]], step[part])
            if line.slopes is not None and self.mask is None:
                a = crossing(logits[part], line.slopes[part], walk.y, self.targeted)
                walk.exact(a)
            walk.search()
            found.append(walk.a)
        return torch.cat(found)


class _Walk:
    """Some rows on their way along their lines."""

    def __init__(
        self, attack: LinearFooling, record: Record, net: Queried, rows: Tensor, y: Tensor,
        step: Tensor,
    ) -> None:  # fmt: skip
        self.attack, self.record, self.net = attack, record, net
        self.rows, self.y, self.step = rows, y, step
        self.x0 = record.x0[rows]
        self.a = torch.full_like(rows, float("inf"), dtype=torch.float64)
        self.low = torch.zeros_like(self.a)
        self.best = torch.full_like(self.a, float("-inf"))

    def ask(self, some: Tensor, a: Tensor, place: int) -> Tensor:
        """Ask about some rows at a; keep what fools, or what comes nearest to it; say which fool."""
        x = self.attack.move(self.x0[some], self.step[some], a)
        with torch.no_grad():
            logits = self.net(x)
        at = self.rows[some]
        self.record.forward[at] += 1
        margin = self.attack.margin(logits, self.y[some])
        fools = margin > slack(logits)
        better = fools | (self.a[some].isinf() & (margin > self.best[some]))
        kept = at[better]
        self.record.x[kept], self.record.success[kept] = x[better], fools[better]
        self.record.prediction[kept] = logits.argmax(1)[better]
        first = at[fools]
        self.record.first[first] = torch.where(
            self.record.first[first] < 0, place, self.record.first[first]
        )
        self.best[some] = torch.maximum(self.best[some], margin.double())
        self.a[some] = torch.where(fools, a, self.a[some])
        return fools

    def exact(self, a: Tensor) -> None:
        """Take the closed form where the box does not bind on the way."""
        free = self.x0 + rows_like(a.to(self.x0.dtype), self.x0) * self.step
        inside = a.isfinite() & (a <= self.attack.reach(self.x0))
        if self.attack.bounds is not None:
            low, high = self.attack.bounds
            inside = inside & ((free >= low) & (free <= high)).flatten(1).all(1)
        some = inside.nonzero()[:, 0]
        if len(some):
            self.ask(some, a[some] * (1 + 1e-6), 1)

    def search(self) -> None:
        """Try growing coefficients, then bisect between the first that fools and the one before."""
        attack, live = self.attack, self.a.isinf().nonzero()[:, 0]
        exact, top = self.a.isfinite(), attack.reach(self.x0)
        for place in range(attack.points):
            if len(live) == 0:
                break
            a = torch.full_like(self.a[live], top * 2.0 ** (place + 1 - attack.points))
            fools = self.ask(live, a, place + 1)
            self.low[live[~fools]] = a[~fools]
            live = live[~fools]
        some = (self.a.isfinite() & ~exact).nonzero()[:, 0]
        for _ in range(attack.halvings if len(some) else 0):
            middle = (self.low[some] + self.a[some]) / 2
            fools = self.ask(some, middle, attack.points)
            self.low[some[~fools]] = middle[~fools]


def linear_fooling(
    lines: Lines,
    *,
    targeted: bool = True,
    largest: float | None = None,
    points: int = 16,
    halvings: int = 12,
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    batch_size: int = 256,
) -> LinearFooling:
    """x̂ = clip(x + a · u_c): the smallest a found for which the network calls x̂ the class c.

    a is a length in input units: u_c has unit L2 length. For a linear network and where the box does not
    bind, a is the exact smallest; else growing coefficients are tried, largest · 2^(j − points), and
    bisected, so that a smaller one can be missed where the way there is not monotone. The passes that
    find the directions are shared by all examples and counted on the first. Goodfellow, Shlens & Szegedy
    2015, §3 (the linear explanation) and §8 (one direction for many pictures); Karpathy 2015, "Breaking
    linear classifiers on ImageNet".

    Args:
        lines: from :mod:`walnut.attacks.lines`: ``class_weight()``, ``weight_difference()``,
            ``mean_gradient(examples)``, or the control ``random_line()``.
        targeted: ``y`` are the classes to become; else true labels, and the class is each example's
            runner-up.
        largest: coefficient tried; the box's diagonal unless given.
        points: coefficients tried, each twice the one before.
        halvings: passes of bisection.
        mask: bool, shaped like one example: entries that may change.

    >>> from walnut.attacks.lines import weight_difference
    >>> net = torch.nn.Linear(2, 2, bias=False).eval()
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 3.0]]))
    >>> found = linear_fooling(weight_difference())(net, torch.tensor([[0.7, 0.5]]), torch.tensor([1]))
    >>> round(float(found.coefficient), 3), found.x.numpy().round(2)
    (0.141, array([[0.6, 0.6]], dtype=float32))
    """
    return LinearFooling(
        lines=lines, targeted=targeted, largest=largest, points=points, halvings=halvings,
        refine=0, bounds=bounds, mask=mask, batch_size=batch_size,
    )  # fmt: skip


def share_along(
    model: Model,
    x: Float[Tensor, " n *d"],
    target: Int[Tensor, " n"],
    lines: Lines,
    coefficients: tuple[float, ...],
    *,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 256,
) -> Float[Tensor, " a"]:
    """Return, for each coefficient a, the share of pictures that clip(x + a · u) makes their target.

    Leave out pictures of the target class itself: they would count as moved.
    """
    net, walker = Queried(model), linear_fooling(lines, bounds=bounds)
    shares = []
    with held(model):
        with torch.no_grad():
            logits = torch.cat([net(part) for part in x.split(batch_size)])
        if wrong := label_error(target, net.classes):
            raise wrong
        step = lines(net, x, logits, target).direction
        for a in coefficients:
            moved = walker.move(x, step, torch.full((len(x),), a, device=x.device))
            with torch.no_grad():
                called = torch.cat([net(part).argmax(1) for part in moved.split(batch_size)])
            shares.append((called == target).double().mean())
    return torch.stack(shares)
