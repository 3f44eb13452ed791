"""The input space round an example: logits along directions, and maps of the classes in a plane.

Directions come from axes (:mod:`.axes`). Nothing is clipped to the box: points outside it are marked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from walnut.core.constraints import linf
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.queried import Queried

from .axes import Axis, Norm, units


@dataclass(frozen=True)
class Lines:
    """Logits along one direction per example.

    Attributes:
        axis: what made the direction.
        t: distances (T,) in the norm that was asked for, ascending, 0 in the middle.
        logits: (b, T, classes).
        inside: (b, T), whether the point lies in the box.
        label: true labels (b,).
        l2: Euclidean length of a step of 1 in ``t`` (b,).
    """

    axis: str
    t: Float[Tensor, " t"]
    logits: Float[Tensor, " b t k"]
    inside: Bool[Tensor, " b t"]
    label: Int[Tensor, " b"]
    l2: Float[Tensor, " b"]

    @property
    def prediction(self) -> Int[Tensor, " b t"]:
        """Return the class at each point."""
        return self.logits.argmax(2)

    def json(self, row: int) -> dict[str, Any]:
        """Return one example's line as plain numbers, as the figure takes it."""
        return {
            "axis": self.axis,
            "t": [round(v, 6) for v in self.t.tolist()],
            "logits": [[round(v, 4) for v in point] for point in self.logits[row].tolist()],
            "inside": self.inside[row].tolist(),
            "label": int(self.label[row]),
            "l2": float(self.l2[row]),
        }


@dataclass(frozen=True)
class CrossSection:
    """The class on a grid x + a·u + b·v, for each example ("church windows").

    Attributes:
        axes: what made u and v.
        grid: values (g,) of a and of b in the norm that was asked for, ascending, 0 in the middle.
        prediction: (n, g, g), first b, then a.
        inside: (n, g, g), whether the point lies in the box.
        label: true labels (n,).
        l2: Euclidean length of u, which is that of v (n,).
    """

    axes: tuple[str, str]
    grid: Float[Tensor, " g"]
    prediction: Int[Tensor, " n g g"]
    inside: Bool[Tensor, " n g g"]
    label: Int[Tensor, " n"]
    l2: Float[Tensor, " n"]

    def json(self, row: int) -> dict[str, Any]:
        """Return one example's map as plain numbers, as the figure takes it."""
        return {
            "axes": list(self.axes),
            "grid": [round(v, 6) for v in self.grid.tolist()],
            "prediction": self.prediction[row].tolist(),
            "inside": self.inside[row].tolist(),
            "label": int(self.label[row]),
            "l2": float(self.l2[row]),
        }


def lines(
    model: Any,
    x: Float[Tensor, " b *d"],
    y: Int[Tensor, " b"],
    axes: tuple[Axis, ...],
    *,
    eps: float,
    norm: Norm = linf,
    points: int = 101,
    bounds: tuple[float, float] = (0.0, 1.0),
    batch_size: int = 500,
) -> tuple[Lines, ...]:
    """Return the logits at x + t·d, t in [−eps, eps], for each axis' direction d.

    ``points`` forward passes an example and axis, after the axes' own.

    Args:
        model: network from [0, 1] to logits; nothing of it changes.
        x: examples (b, ...).
        y: true labels (b,).
        axes: directions, the first one's length the measure of all; usually an adversarial and a
            random one.
        eps: how far, in input units of ``norm``.
        norm: ``linf`` or ``l2``.
        points: values of t, an odd number ≥ 3, so that the example itself is among them.
        bounds: the box outside of which points are marked.

    Raises:
        WalnutError: an axis that leaves an example where it is has no direction.

    Goodfellow et al. 2015, Fig. 4.

    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(3 * torch.eye(2))
    >>> towards_the_second = lambda model, x, y: torch.tensor([[-1.0, 1.0]])
    >>> x, y = torch.tensor([[0.6, 0.4]]), torch.tensor([0])
    >>> lines(net, x, y, (towards_the_second,), eps=0.3, points=5)[0].prediction.tolist()
    [[0, 0, 0, 1, 1]]
    """
    t = _values(eps, points, x)
    found = []
    found_axes = units(model, x, y, axes, norm, apart=False)
    for axis, d in zip(axes, found_axes, strict=True):
        logits, inside = _ask(model, x, (d,), (t,), bounds, batch_size)
        found.append(Lines(repr(axis), t, logits, inside, y, d.flatten(1).norm(dim=1)))
    return tuple(found)


def cross_section(
    model: Any,
    x: Float[Tensor, " n *d"],
    y: Int[Tensor, " n"],
    axes: tuple[Axis, Axis],
    *,
    eps: float,
    norm: Norm = linf,
    points: int = 51,
    bounds: tuple[float, float] = (0.0, 1.0),
    batch_size: int = 500,
) -> CrossSection:
    """Return the class at x + a·u + b·v for a and b in [−eps, eps], a map for each example.

    u is the first axis' direction, v the second's without its part along u, as long as u.
    Costs ``points``² forward passes an example.

    Args:
        model, x, y, eps, norm, bounds: as in :func:`lines`.
        axes: two axes: adversarial × random, two adversarial, two random.
        points: values of a and of b, an odd number ≥ 3.

    Raises:
        WalnutError: an axis without a direction, or a second one parallel to the first.

    Warde-Farley & Goodfellow 2016 ("Adversarial perturbations of deep neural networks", Fig. 11.2).

    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(3 * torch.eye(2))
    >>> right, up = (lambda model, x, y, v=v: torch.tensor([v]) for v in ([1.0, 0.0], [0.0, 1.0]))
    >>> x, y = torch.tensor([[0.6, 0.5]]), torch.tensor([0])
    >>> cross_section(net, x, y, (right, up), eps=0.2, points=3).prediction.tolist()
    [[[0, 0, 0], [1, 0, 0], [1, 1, 0]]]
    """
    grid = _values(eps, points, x)
    u, v = units(model, x, y, axes, norm, apart=True)
    logits, inside = _ask(model, x, (v, u), (grid, grid), bounds, batch_size)
    return CrossSection(
        axes=(repr(axes[0]), repr(axes[1])),
        grid=grid,
        prediction=logits.argmax(2).reshape(len(x), points, points),
        inside=inside.reshape(len(x), points, points),
        label=y,
        l2=u.flatten(1).norm(dim=1),
    )


def _values(eps: float, points: int, x: Tensor) -> Tensor:
    if points < 3 or points % 2 == 0 or not 0 < eps < math.inf:
        raise WalnutError("points must be an odd number, 3 or more, and eps positive")
    if len(x) == 0 or not bool(x.isfinite().all()):
        raise WalnutError("there must be at least one example, and no NaN or infinite values")
    half = points // 2
    steps = torch.arange(-half, half + 1, dtype=x.dtype, device=x.device)
    return eps * steps / half


def _ask(
    model: Any,
    x: Tensor,
    axes: tuple[Tensor, ...],
    values: tuple[Tensor, ...],
    bounds: tuple[float, float],
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Return logits (b, points, classes) and whether each point is in the box (b, points)."""
    places = torch.cartesian_prod(*values).reshape(-1, len(values))
    logits, inside = [], []
    with torch.inference_mode(False), torch.no_grad(), frozen(model):
        asked = Queried(model)
        for point in _points(x, axes, places, batch_size):
            logits.append(asked(point).detach())
            low, high = bounds[0] - 1e-6, bounds[1] + 1e-6
            inside.append(((point >= low) & (point <= high)).flatten(1).all(1))
            asked.forget()
    shape = len(x), len(places)
    return torch.cat(logits).reshape(*shape, -1), torch.cat(inside).reshape(shape)


def _points(
    x: Tensor, axes: tuple[Tensor, ...], places: Tensor, batch_size: int
) -> Iterator[Tensor]:
    for index in torch.arange(len(x) * len(places), device=x.device).split(batch_size):
        row, place = index // len(places), places[index % len(places)]
        point = x[row]
        for i, axis in enumerate(axes):
            point = point + place[:, i].reshape(-1, *[1] * (x.ndim - 1)) * axis[row]
        yield point
