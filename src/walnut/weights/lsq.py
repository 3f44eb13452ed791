"""Learned steps: a grid whose scale trains with the network (LSQ)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.types import Packed

from .quantised import Along, finite, on_grid, per_tensor
from .representation import Representation

_SMALLEST = 1e-12  # a step is never smaller, or quotients overflow


class _Step(torch.autograd.Function):
    """round(clip(v / s, low, high)) · s with Esser's gradients, in v and in s."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, step: Tensor, low: int, high: int, gradient_scale: float
    ) -> Tensor:
        quotient = v / step
        integers = quotient.clamp(low, high).round()
        ctx.save_for_backward(quotient, integers, step)
        ctx.limits = low, high, gradient_scale
        return integers * step + 0.0  # + 0: −0 becomes 0

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (grad,) = grads
        quotient, integers, step = ctx.saved_tensors
        low, high, gradient_scale = ctx.limits
        inside = (quotient > low) & (quotient < high)
        by_step = torch.where(inside, integers - quotient, integers) * grad * gradient_scale
        return grad * inside, by_step.sum_to_size(step.shape), None, None, None


def step_round(v: Tensor, step: Tensor, low: int, high: int, gradient_scale: float) -> Tensor:
    """Return v̂ = round(clip(v / s, low, high)) · s, with gradients to v and to the step s.

    ∂v̂/∂v = 1 where low < v/s < high, else 0;
    ∂v̂/∂s = g · (round(v/s) − v/s inside, low below, high above).

    Args:
        v: what is rounded.
        step: s > 0, of a shape that multiplies ``v``.
        low, high: the smallest and the largest integer (−Q_N and Q_P).
        gradient_scale: g.

    Esser et al. 2020 ("Learned step size quantization"), Eq. 1, 2, 3 and 5.

    >>> v, s = torch.tensor([0.7, 9.0]), torch.tensor(1.0, requires_grad=True)
    >>> step_round(v, s, -4, 3, 1.0)
    tensor([1., 3.], grad_fn=<_StepBackward>)
    >>> step_round(v, s, -4, 3, 1.0).sum().backward(); round(s.grad.item(), 4)  # 1 − 0.7 + 3
    3.3
    """
    return _Step.apply(v, step, low, high, gradient_scale)


def gradient_scale(count: int, high: int) -> float:
    """Return g = 1 / √(N · Q_P): the step's update then keeps the proportion of the weights'.

    count: N, the weights (or the features of an activation) that share the step. Esser et al. 2020,
    section 2.2.
    """
    return 1.0 / math.sqrt(max(1, count) * max(1, high))


def first_step(rows: Tensor, high: int) -> Tensor:
    """Return the steps (r,) to start from, 2 · mean |v| / √Q_P for each row; 1 for a row of zeros.

    Esser et al. 2020, section 2.1.
    """
    step = 2 * rows.abs().mean(1) / math.sqrt(max(1, high))
    return torch.where(step > 0, step.clamp_min(_SMALLEST), 1.0)


class Stepped(Representation):
    """w ↦ round(clip(w / s, −2^(b−1), 2^(b−1) − 1)) · s; the step s is a parameter of the filter."""

    def __init__(self, step: Tensor, bits: int, along: Along, shared: int) -> None:
        super().__init__()
        self.step = nn.Parameter(step)
        self.along = along
        self.low, self.high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        self.gradient_scale = gradient_scale(shared, self.high)

    def _spread(self, w: Tensor) -> Tensor:
        return self.along.spread(self.step.abs().clamp_min(_SMALLEST), w)

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the weight on its grid."""
        (w,) = latents
        return step_round(w, self._spread(w), self.low, self.high, self.gradient_scale)

    def right_inverse(self, w: Tensor) -> Tensor:
        """Return the weight as it is: what is trained is not rounded."""
        return w

    def encode(self, w: Tensor) -> Packed:
        """Return the whole numbers and their step."""
        return on_grid(w, self._spread(w)) or super().encode(w)


@dataclass(frozen=True)
class LearnedStep:
    """Round a weight to 2^bits values, whole numbers times a step that is trained beside it.

    The step is one more parameter of the network: build the optimiser afterwards. Weight decay on it
    pulls the grid together; Esser et al. leave it on and halve the weights' own at few bits.

    Args:
        bits: from 2 to 8.
        along: which entries share a step. The paper has one for each layer, the default.

    Esser et al. 2020 ("Learned step size quantization", LSQ). A step that an update would make
    negative counts by its magnitude, which the paper does not say.
    """

    bits: int
    along: Along = per_tensor()
    source: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise WalnutError(f"a grid has 2 to 8 bits, not {self.bits}")

    def build(self, w: Tensor) -> Stepped:
        """Return the filter for the weight ``w``, with the step that the paper starts from."""
        rows = self.along.rows(finite(w))
        step = first_step(rows, (1 << (self.bits - 1)) - 1)
        return Stepped(step, self.bits, self.along, rows.shape[1])
