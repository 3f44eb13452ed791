"""Does a useful gradient flow from the logits to the input, or only something that looks like one?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen, random_states, restore_random
from walnut.core.gradients import input_gradient
from walnut.core.queried import Queried
from walnut.core.types import Model

from .adapt import adapt

Kind = Literal["direct", "none", "zero", "wrong"]

EXAMPLES = 16
DIRECTIONS = 3
STEPS = (1 / 255, 8 / 255)  # of the range: steep networks bend early, coarse ones round late
FLAT = 1e-6  # a whole range in every entry would move the logits by less than float32 rounds them
AGREES = (
    0.8  # sound networks, also in bfloat16, lie above 0.88; half an input detached gives about 0.7
)
SURE = 0.95  # agreement: no second step is asked

_WORDS: dict[Kind, str] = {
    "direct": "gradients reach the input and predict what the network does",
    "none": "no gradient reaches the input",
    "zero": "gradients reach the input, but they are zero",
    "wrong": "gradients reach the input, but they do not predict what the network does",
}


@dataclass(frozen=True)
class GradientPath:
    """How a gradient comes from the logits to the input, with the figures that say so.

    Attributes:
        kind: ``direct`` (attack it directly), ``none`` (no graph), ``zero`` (a graph, flat), or
            ``wrong`` (a gradient that does not predict the function, or is not finite).
        share: of the examples, those with a finite gradient that is not nearly zero.
        agreement: correlation, in [-1, 1], of the rise that the gradient predicts along random
            directions with the rise measured; nan where there was nothing to compare.
        slope: root mean square of the measured rise of the margin, per unit of movement along a random
            direction; 0 where the network did not react at all.
        examples: examples looked at.
        forward: forward passes spent on each.
        backward: backward passes spent on each.
    """

    kind: Kind
    share: float
    agreement: float
    slope: float
    examples: int
    forward: int
    backward: int

    @property
    def sentence(self) -> str:
        """Say it in words."""
        if self.kind == "none":
            return f"{_WORDS['none']} ({self.examples} examples)"
        agreement = "" if math.isnan(self.agreement) else f", agreement {self.agreement:.2f}"
        return f"{_WORDS[self.kind]} (finite and not zero on {self.share:.0%}{agreement})"

    def json(self) -> dict[str, Any]:
        """Return plain numbers for a result file; an agreement of nothing is None."""
        agreement = None if math.isnan(self.agreement) else self.agreement
        return asdict(self) | {"agreement": agreement, "sentence": self.sentence}


def gradient_path(model: Any, x: Float[Tensor, " n *d"]) -> GradientPath:
    """Probe whether a useful gradient flows from a network's logits to its input.

        predicted = ∇v(x) · u,    measured = (v(x + h·u) − v(x − h·u)) / 2h

    with v the margin between the two largest logits, u random signs times lengths in [1/2, 3/2], h = 1/255
    and 8/255 of the inputs' range; the step that agrees better counts, and the longer is not asked where the
    shorter agrees at 0.95. (Were all entries of u of one length, a ripple finer than the steps, sin(10⁴ x),
    would seem to be what its slope says it is.) Each pass starts from the same random numbers, so that a
    randomised network is compared with itself. Examples are first moved inside the range by the longest step.

    Args:
        model: any form that :func:`walnut.evaluate.adapt.adapt` takes; nothing of it changes.
        x: examples (n, ...), of which the first 16 are used.

    Costs 8 or 14 forward passes and one backward pass per example used.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    >>> x = torch.rand(4, 1, 3, 3)
    >>> gradient_path(net, x).kind, gradient_path(lambda z: net((z * 7).round() / 7), x).kind
    ('direct', 'zero')
    """
    if len(x) == 0:
        raise WalnutError("there are no examples to look for a gradient at")
    network = adapt(model)
    with torch.inference_mode(False), torch.enable_grad(), frozen(network):
        asked = Queried(_repeatable(network))
        width = max(1.0, float(x.max())) - min(0.0, float(x.min()))
        x = _inside(x[:EXAMPLES].detach().clone(), 1.5 * STEPS[-1] * width)
        with torch.no_grad():
            logits = asked(x)
            pair = logits.topk(2).indices
        asked.forget()
        grad = _gradient(asked, x, pair)
        useful = _useful(logits, grad)
        with torch.no_grad():
            rises = _rises(asked, x, pair, grad, width, useful)
        n = len(x)
        return _judge(grad, useful, *rises, n, asked.forward // n, asked.backward // n)


def _repeatable(model: Model) -> Callable[[Tensor], Tensor]:
    """Return a network that is held still, giving the same random numbers to every pass."""
    states = random_states()

    def ask(x: Tensor) -> Tensor:
        restore_random(states)
        return model(x)

    return ask


def _direction(x: Tensor, draws: Draws) -> Tensor:
    signs = 2.0 * draws.integers(2, *x.shape[1:]).to(x.dtype) - 1.0
    return signs * (0.5 + draws.fold(1).uniform(*x.shape[1:], dtype=x.dtype))


def _inside(x: Tensor, room: float) -> Tensor:
    low, high = min(0.0, float(x.min())), max(1.0, float(x.max()))
    return x.clamp(low + room, high - room)


def _margin(logits: Tensor, pair: Tensor) -> Float[Tensor, " b"]:
    first, second = logits.gather(1, pair).unbind(1)
    return first - second


def _gradient(asked: Queried, x: Tensor, pair: Tensor) -> Tensor | None:
    x = x.clone().requires_grad_()
    try:
        return input_gradient(_margin(asked(x), pair), x)
    except (
        WalnutError,
        RuntimeError,
    ):  # kernels without a backward pass raise in words of their own
        return None
    finally:
        asked.forget()


def _useful(logits: Tensor, grad: Tensor | None) -> Bool[Tensor, " b"]:
    if grad is None:
        return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    flat = grad.detach().flatten(1).abs()
    return flat.isfinite().all(1) & (flat.sum(1) > FLAT * logits.detach().abs().amax(1))


def _rises(
    asked: Queried, x: Tensor, pair: Tensor, grad: Tensor | None, width: float, useful: Tensor
) -> tuple[float, float]:
    """Return the agreement of the predicted and the measured rises, and the slope."""
    draws, squares, best = Draws.of(x, seed=0), [], math.nan
    for i, step in enumerate(STEPS):
        predicted, measured = [], []
        for j in range(DIRECTIONS):
            u = _direction(x, draws.fold(i).fold(j))
            up, down = (_margin(asked(x + s * step * width * u), pair) for s in (1, -1))
            measured.append((up - down).double() / (2 * step * width))
            along = torch.zeros_like(up) if grad is None else (grad * u).flatten(1).sum(1)
            predicted.append(along.double())
        rises = torch.stack(measured)
        squares.append(float(rises.square().mean()))
        found = _agreement(torch.stack(predicted)[:, useful], rises[:, useful])
        best = found if math.isnan(best) else max(best, found)
        if best >= SURE:
            break
    return best, math.sqrt(sum(squares) / len(squares))


def _agreement(p: Tensor, q: Tensor) -> float:
    """Return the correlation over directions and examples, each example of weight one; nan of nothing."""
    size = (p.square().mean(0) + q.square().mean(0)).sqrt().clamp_min(1e-300)
    p, q = p / size, q / size
    both = float((p.square().sum() * q.square().sum()).sqrt())
    return float((p * q).sum()) / both if both > 0 else math.nan


def _judge(
    grad: Tensor | None, useful: Tensor, agreement: float, slope: float, *counts: int
) -> GradientPath:
    if grad is None:
        return GradientPath("none", 0.0, math.nan, slope, *counts)
    share = float(useful.double().mean())
    kind: Kind = "direct"
    if float(grad.detach().flatten(1).isfinite().all(1).double().mean()) <= 0.5:
        kind = "wrong"
    elif share <= 0.5:
        kind = "zero"
    elif not agreement >= AGREES:
        kind = "wrong"
    return GradientPath(kind, share, agreement, slope, *counts)
