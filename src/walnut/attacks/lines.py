"""Straight lines through a network: one direction per class, and where a linear network gives way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.queried import Queried

from .approach import rows_like, slack


@dataclass(frozen=True)
class Line:
    """A direction per row, of unit L2 length, and how fast each logit rises along it where that is known."""

    direction: Float[Tensor, " b *d"]
    slopes: Float[Tensor, " b k"] | None = None


@runtime_checkable
class Lines(Protocol):
    """Which way to go to make a picture the class ``target``."""

    def __call__(self, net: Queried, x: Tensor, logits: Tensor, target: Tensor) -> Line:
        """Return the direction of every row; ``logits`` are the network's answers at ``x``."""
        ...


def unit(direction: Tensor) -> Tensor:
    """Return each row at L2 length 1; a row of zeros stays."""
    length = direction.flatten(1).norm(dim=1)
    return direction / rows_like(length, direction).clamp_min(torch.finfo(direction.dtype).tiny)


def class_weights(net: Queried, x: Tensor, logits: Tensor) -> Float[Tensor, " k *d"]:
    """Return the weight vector of every class of a linear network: z(x) = W·x + b.

    Read off as a gradient, so that layers that flatten or normalise may stand before the weights.

    Raises:
        WalnutError: the network is not linear in its input.
    """
    middle = torch.full_like(x[:1], 0.5).expand(logits.shape[1], *x.shape[1:])
    with torch.enable_grad():
        middle = middle.clone().requires_grad_()
        answers = net(middle)
        (weights,) = torch.autograd.grad(answers.diagonal().sum(), middle)
    net.forget()
    steps = (x - 0.5).flatten(1).double()
    drawn = answers.detach()[0].double() + steps @ weights.flatten(1).double().T
    if not torch.allclose(drawn, logits.double(), rtol=1e-3, atol=1e-3 * float(drawn.abs().max())):
        raise WalnutError(
            "the network is not linear in its input, so its classes have no weight vectors; use "
            "mean_gradient(examples), or feature_fooling() for its last layer"
        )
    return weights


def along(weights: Float[Tensor, " k *d"], direction: Float[Tensor, " b *d"]) -> Line:
    """Return the line of a direction through a linear map, with its slopes."""
    step = unit(direction)
    return Line(step, step.flatten(1) @ weights.flatten(1).T)


@dataclass(frozen=True)
class class_weight:
    """w_c / ‖w_c‖₂ of a linear network: the same pattern for every picture."""

    def __call__(self, net: Queried, x: Tensor, logits: Tensor, target: Tensor) -> Line:
        weights = class_weights(net, x, logits)
        return along(weights, weights[target])


@dataclass(frozen=True)
class weight_difference:
    """(w_c − w_k) / ‖w_c − w_k‖₂ of a linear network, k being what it calls the picture now.

    With two classes the shortest way there is, in L2.
    """

    def __call__(self, net: Queried, x: Tensor, logits: Tensor, target: Tensor) -> Line:
        weights = class_weights(net, x, logits)
        return along(weights, weights[target] - weights[logits.argmax(1)])


@dataclass(frozen=True, eq=False)
class mean_gradient:
    """g_c / ‖g_c‖₂ with g_c = mean ∇ₓ z_c over a set: one direction per class, of any network.

    Of a linear network it is w_c. Costs a forward and a backward pass per example of the set and class.

    Args:
        over: examples (m, ...) to average over; others than those it is then tried on.
    """

    over: Tensor = field(repr=False)
    batch_size: int = field(default=256, repr=False)

    def __call__(self, net: Queried, x: Tensor, logits: Tensor, target: Tensor) -> Line:
        found, place = target.unique(return_inverse=True)
        total = torch.zeros(len(found), *x.shape[1:], dtype=x.dtype, device=x.device)
        for row, label in enumerate(found.tolist()):
            for part in self.over.to(x).split(self.batch_size):
                with torch.enable_grad():
                    part = part.clone().requires_grad_()
                    (grad,) = torch.autograd.grad(net(part)[:, label].sum(), part)
                total[row] += grad.sum(0)
                net.forget()
        return Line(unit(total)[place])


@dataclass(frozen=True)
class random_line:
    """A fixed random direction, the same for all: the control."""

    seed: int = 0

    def __call__(self, net: Queried, x: Tensor, logits: Tensor, target: Tensor) -> Line:
        draws = Draws.keyed(torch.zeros(1, dtype=torch.int64, device=x.device)).fold(self.seed)
        return Line(unit(draws.normal(*x.shape[1:], dtype=x.dtype)).expand(x.shape))


def crossing(
    logits: Float[Tensor, " b k"], slopes: Float[Tensor, " b k"], y: Tensor, targeted: bool
) -> Float[Tensor, " b"]:
    """Return the smallest a ≥ 0 at which logits + a · slopes fools, inf where no a does.

    Targeted: z_y is above all others for every a in (low, high) = ∩_k {a : (z_y − z_k) + a (s_y − s_k) > 0}.
    Untargeted: the first other class to overtake z_y.
    """
    z, s = logits.double(), slopes.double()
    lead = z.gather(1, y[:, None]) - z
    gain = s.gather(1, y[:, None]) - s
    own = torch.zeros_like(lead, dtype=torch.bool).scatter(1, y[:, None], True)
    enough = slack(logits).double()[:, None]
    need = (enough - lead) / gain if targeted else (-enough - lead) / gain
    if not targeted:
        first = torch.where(~own & (gain < 0), need.clamp_min(0), float("inf"))
        return first.amin(1)
    low = torch.where(~own & (gain > 0), need, 0.0).amax(1).clamp_min(0)
    high = torch.where(~own & (gain < 0), need, float("inf")).amin(1)
    stuck = (~own & (gain == 0) & (lead < enough)).any(1)
    return torch.where((low > high) | stuck, float("inf"), low)
