"""Training for size: what the whole numbers of a network cost a coder, as an objective.

The cost is an adaptive model's, in the shape of walnut's own coder: for each weight whether it is
zero, predicted from how full its output, its input, its kernel and its place in the kernel are
(itself left out); then a sign; then a magnitude from the tensor's histogram.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from walnut.core.errors import WalnutError

_STRENGTH = 1.0
"""How many weights the tensor's own density counts as, in a group's."""

_NEWTON, _RIDGE = 4, 4.0
"""Steps of the fit of the mixture, and how many nats a unit of distance from its start costs."""

_LEAST = 0.05
"""The least slope in bits a unit towards zero: a weight without use shall always come down."""


@dataclass(frozen=True, eq=False)
class Table:
    """The prices of one tensor, in bits.

    ``zero``: of a zero, shaped like the tensor; ``live``: of not being one, likewise (sign and
    magnitude apart); ``value``: (m + 1,) of sign and magnitude by magnitude, 0 for 0.
    """

    zero: Float[Tensor, "*w"]
    live: Float[Tensor, "*w"]
    value: Float[Tensor, " m"]

    @cached_property
    def first(self) -> Float[Tensor, "*w"]:
        """Return what the step from 0 to ±1 costs at each place; negative where zeros are rare."""
        return self.live - self.zero + self.value[1]

    @cached_property
    def slope(self) -> Float[Tensor, "*w"]:
        """Return the pull of that step towards zero."""
        return self.first.clamp_min(_LEAST)

    @cached_property
    def base(self) -> Tensor:
        """Return the price of zeros everywhere."""
        return self.zero.sum()

    def bits(self, k: Int[Tensor, "*w"]) -> float:
        """Return the price of whole numbers shaped like the tensor."""
        flag = torch.where(k == 0, self.zero, self.live)
        return float(flag.sum(dtype=torch.float64) + self.value[k.abs()].sum(dtype=torch.float64))


def table(k: Int[Tensor, "*w"], most: int | None = None) -> Table:
    """Return the prices that an adaptive coder of ``k`` comes to.

    ::

        log-odds of a non-zero   log d/(1−d) + Σ_g a_g (log q_g/(1−q_g) − log d/(1−d))
        density of a group g     q_g = (n_g − z + d) / (N_g − 1 + 1), z = 1 if the weight is not zero
        magnitude m              (count_m + 1/2) / (all + 1/2 · magnitudes)

    with d the tensor's density and g over outputs, inputs, kernels and places in the kernel; a_g is
    fitted by Newton's method to the tensor itself, near 1. Leaving a weight out of its own groups
    is what makes the last non-zero of a row dear: (1 − q) / q there is what the row's death saves.

    Args:
        k: whole numbers of any shape.
        most: the largest magnitude to give a price; that of ``k``, and two more, by default.
    """
    live = (k != 0).float()
    count, total = float(live.sum()), max(k.numel(), 1)
    base = math.log((count + 0.5) / (total - count + 0.5))
    logit = torch.full(k.shape, base, device=k.device)
    features = [_log_odds(live, axes) - base for axes in _groups(k.shape)]
    if features and 0 < count < total:
        logit = _mixed(base, torch.stack(features, -1), live)
    top = int(k.abs().max()) if k.numel() else 0
    top = max(most if most is not None else top + 2, top, 1)
    seen = torch.bincount(k.abs().reshape(-1).long(), minlength=top + 1)[1:].double() + 0.5
    value = 1.0 - torch.log2(seen / seen.sum())
    log2 = math.log(2.0)
    return Table(
        torch.nn.functional.softplus(logit) / log2,
        torch.nn.functional.softplus(-logit) / log2,
        torch.cat([value.new_zeros(1), value]).float(),
    )


def _groups(shape: torch.Size) -> list[tuple[int, ...]]:
    """Return the axes that stay apart in each group of weights that share a density."""
    if len(shape) < 2:
        return []
    if len(shape) == 2:
        return [(0,), (1,)]
    return [(0,), (1,), (0, 1), tuple(range(2, len(shape)))]


def _log_odds(live: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return for each weight the log-odds of a non-zero in its group, the weight itself left out."""
    others = [i for i in range(live.ndim) if i not in axes]
    size = math.prod(live.shape[i] for i in others)
    mean = _STRENGTH * (live.mean() + 0.5 / live.numel())
    ones = (live.sum(others, keepdim=True) - live + mean).clamp_min(1e-6)
    zeros = (size - 1 + _STRENGTH - ones).clamp_min(1e-6)
    return (ones / zeros).log()


def _mixed(base: float, features: Float[Tensor, "*w g"], live: Tensor) -> Tensor:
    """Return log-odds mixed from groups: a ridge logistic regression about weights of 1."""
    x = torch.cat([torch.ones_like(features[..., :1]), features], -1).flatten(0, -2).double()
    y, start = live.reshape(-1).double(), torch.ones(x.shape[1], dtype=torch.float64)
    start = start.to(x.device)
    start[0] = base
    a = start.clone()
    for _ in range(_NEWTON):
        p = (x @ a).sigmoid()
        slope = x.T @ (y - p) - _RIDGE * (a - start)
        bend = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * torch.eye(len(a), device=x.device)
        step = torch.linalg.solve(bend, slope)
        a = a + step * (1.0 / step.abs().max().clamp_min(1.0))
    return (x @ a).float().reshape(live.shape)


def ideal_bits(integers: Mapping[str, Int[Tensor, "*w"]]) -> float:
    """Return the bits that whole numbers cost under the model of :func:`table`, all tensors.

    >>> ideal_bits({"w": torch.zeros(100, 100, dtype=torch.int64)}) < 2
    True
    """
    return sum(table(k).bits(k) for k in integers.values())


class _Expected(torch.autograd.Function):
    """Bits of v rounded up or down at random, without bias: linear between whole numbers."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, prices: Table) -> Tensor:
        size = v.detach().abs().reshape(-1)
        first, value = prices.first.reshape(-1), prices.value
        total = prices.base + torch.dot(first, size.clamp_max(1.0))
        above = (size > 1).nonzero()[:, 0]  # few, in a network that is small already
        size = size[above]
        low = size.floor().clamp_max(len(value) - 2).long()
        rise = value[low + 1] - value[low]
        slope = prices.slope.reshape(-1).index_put((above,), rise.clamp_min(_LEAST))
        ctx.save_for_backward(slope.reshape(v.shape).mul_(v.detach().sign()))
        return total + (value[low] - value[1] + rise * (size - low)).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None


def expected_bits(v: Float[Tensor, "*w"], prices: Table) -> Float[Tensor, ""]:
    """Return the mean price of ``v`` rounded at random to one of its two whole neighbours.

    For |v| < 1 it is zero + |v|·(live − zero + value[1]): an L1 penalty, weighted by what the
    non-zero costs at its place (Candès et al. 2008's reweighting, with the coder's own weights).
    Above, it rises by value[m + 1] − value[m]. The gradient is the slope of that line, at least a
    twentieth of a bit, so that a tensor that is nearly full still lets go of a weight.
    """
    total: Tensor = _Expected.apply(v, prices)
    return total


Read = Callable[[Any], Mapping[str, Tensor]]
"""``model -> {name: v}``: weights in steps of their grids, differentiable, not yet rounded."""


@dataclass(frozen=True)
class rate:
    """The bits of a network's weights, the same for every example.

    ::

        R(θ) = Σ_tensors Σ_i  E[ price_i(round(v_i)) ],   prices made anew every ``every`` calls

    Add it to what the network shall learn: ``weighted(((1.0, cross_entropy()), (2e-5, rate())))``.
    The factor is a loss per bit: ln 2 / (training examples) is the minimum description length
    (Hinton & van Camp 1993); Oktay et al. 2020, Eq. 5 ("Scalable model compression by entropy
    penalized reparameterization"). Where we differ: no learned densities and no noise; prices are
    counted on the present whole numbers as the adaptive coder would, per place, so that rows,
    inputs and kernels that are nearly empty grow dear and die.

    Args:
        read: finds the weights; give :func:`walnut.weights.in_steps`.
        every: calls between two counts of the prices; a run that goes on from a checkpoint counts
            them at its first call, so with ``every`` > 1 it follows the unbroken run only nearly.
    """

    read: Read = field(repr=False)
    every: int = 25
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise WalnutError(f"prices are counted every 1 or more calls, not {self.every}")

    def bits(self, model: Any) -> Float[Tensor, ""]:
        """Return the expected bits of all weights on a grid, differentiable."""
        read = self.read(model)
        if not read:
            raise WalnutError(
                "no weight of this network is on a grid: represent(model, {...: Grid()}) first"
            )
        if self._kept.get("calls", self.every) >= self.every or set(read) != set(self.prices):
            with torch.no_grad():
                self._kept["prices"] = {n: table(v.round().long()) for n, v in read.items()}
            self._kept["calls"] = 0
        self._kept["calls"] += 1
        return torch.stack([expected_bits(v, self.prices[n]) for n, v in read.items()]).sum()

    @property
    def prices(self) -> dict[str, Table]:
        """Return the prices in force."""
        prices: dict[str, Table] = self._kept.get("prices", {})
        return prices

    def __call__(self, model: Any, x: Tensor, y: Any = None) -> Float[Tensor, " b"]:
        return self.bits(model).expand(len(x))
