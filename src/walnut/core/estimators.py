"""Gradients for networks that give none: finite differences of values, and a differentiable twin.

Finite differences ask for values only (forward passes, no backward); a random direction belongs to its
example, so the estimate does not depend on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .draws import Draws
from .errors import WalnutError
from .gradients import plain
from .types import GradientEstimator, Model, ValueFn

Estimate = tuple[Float[Tensor, " b"], Float[Tensor, " b *d"]]


def _check(pairs: int, sigma: float, name: str) -> None:
    if pairs < 1 or not sigma > 0:
        raise WalnutError(f"{name}() needs pairs >= 1 and sigma > 0, not {pairs} and {sigma}")


def _difference(value: ValueFn, x: Tensor, u: Tensor, sigma: float) -> Tensor:
    """Return (f(x + σu) − f(x − σu)) / 2σ · u."""
    rise = (value(x + sigma * u) - value(x - sigma * u)) / (2 * sigma)
    return rise.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) * u


@dataclass(frozen=True)
class nes:
    """1/n Σ_i u_i · (f(x + σu_i) − f(x − σu_i)) / 2σ, u_i ~ N(0, 1) (Ilyas et al. 2018, Alg. 1).

    The gradient of f smoothed by a Gaussian, from antithetic pairs; unbiased on a linear f.

    Args:
        pairs: n; each costs two forward passes, and the point itself one more.
        sigma: width of the smoothing in input units.

    >>> import torch
    >>> x = torch.zeros(1, 2, dtype=torch.float64)
    >>> f = lambda z: z @ torch.tensor([3.0, -1.0], dtype=torch.float64)
    >>> nes(5000)(f, x, Draws.of(x, 0))[1].numpy().round(0)
    array([[ 3., -1.]])
    """

    pairs: int = 25
    sigma: float = 0.001

    def __post_init__(self) -> None:
        _check(self.pairs, self.sigma, "nes")

    def __call__(self, value: ValueFn, x: Float[Tensor, " b *d"], draws: Draws) -> Estimate:
        grad, x = torch.zeros_like(x), x.detach()
        with torch.no_grad():
            for i in range(self.pairs):
                u = draws.fold(i).normal(*x.shape[1:], dtype=x.dtype)
                grad += _difference(value, x, u, self.sigma)
            return value(x), grad / self.pairs  # the point last: the loop need not ask again


@dataclass(frozen=True)
class spsa:
    """1/n Σ_i u_i · (f(x + σu_i) − f(x − σu_i)) / 2σ, u_i of random signs (Spall 1992; Uesato 2018, §3).

    Spall divides by u_i; for signs that is the same as multiplying.

    Args:
        pairs: n; each costs two forward passes, and the point itself one more.
        sigma: step of the difference in input units (δ = 0.01 in Uesato et al.).
    """

    pairs: int = 64
    sigma: float = 0.01

    def __post_init__(self) -> None:
        _check(self.pairs, self.sigma, "spsa")

    def __call__(self, value: ValueFn, x: Float[Tensor, " b *d"], draws: Draws) -> Estimate:
        grad, x = torch.zeros_like(x), x.detach()
        with torch.no_grad():
            for i in range(self.pairs):
                u = 2.0 * draws.fold(i).integers(2, *x.shape[1:]).to(x.dtype) - 1.0
                grad += _difference(value, x, u, self.sigma)
            return value(x), grad / self.pairs


@dataclass(frozen=True)
class scale_copies:
    """1/m Σ_{i<m} ∇ₓ f(x / 2^i): the gradient over all scaled copies (SI-FGSM, Lin et al. 2020, Eq. 9).

    The value is that of x itself.

    Args:
        copies: m ≥ 1; each costs what ``inner`` costs.
        inner: how the gradient of each copy is had.
    """

    copies: int = 5
    inner: GradientEstimator = plain()

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise WalnutError(f"scale_copies() needs copies >= 1, not {self.copies}")

    def __call__(self, value: ValueFn, x: Float[Tensor, " b *d"], draws: Draws) -> Estimate:
        total = torch.zeros_like(x)
        for i in range(1, self.copies):

            def smaller(z: Tensor, factor: float = 0.5**i) -> Tensor:
                return value(z * factor)

            total = total + self.inner(smaller, x, draws.fold(i))[1]
        values, grad = self.inner(value, x, draws.fold(0))
        return values, (total + grad) / self.copies


class _StraightThrough(nn.Module):
    """Answers with the network, differentiates its twin."""

    def __init__(self, model: Model, twin: Model) -> None:
        super().__init__()
        self.model, self.twin = model, twin
        # as an attribute: train() would reach into the network, and exported ones refuse it
        self.training = bool(getattr(model, "training", False)) and isinstance(model, nn.Module)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            real = self.model(x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return real
        soft = self.twin(x)
        if soft.shape != real.shape:
            raise WalnutError(
                f"the twin returns {tuple(soft.shape)}, the network {tuple(real.shape)}: "
                "a twin has the same classes"
            )
        return _Through.apply(real.to(soft.dtype), soft)


class _Through(torch.autograd.Function):
    """The first argument forward, the second backward: soft + (real − soft) would round."""

    @staticmethod
    def forward(ctx: object, real: Tensor, soft: Tensor) -> Tensor:
        return real.clone()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[None, Tensor]:
        return None, grads[0]


@dataclass(frozen=True)
class straight_through:
    """A network that answers as ``model`` and differentiates as ``twin`` (BPDA, Athalye et al. 2018, §4.1).

    For networks with a step, a rounding or integer arithmetic inside: the twin leaves that out, or
    puts something smooth in its place. The gradient of an objective J is J'(z_model) · ∂z_twin/∂x. A
    network attacked so is flattered: query it too, and try what fools the twin.

    >>> import torch
    >>> net = straight_through(lambda z: z)(lambda z: z.round())
    >>> x = torch.tensor([[0.2, 0.9]], requires_grad=True)
    >>> net(x).detach(), torch.autograd.grad(net(x).sum(), x)[0]
    (tensor([[0., 1.]]), tensor([[1., 1.]]))
    """

    twin: Model = field(repr=False)

    def __call__(self, model: Model) -> nn.Module:
        """Return the network to attack; a forward pass of it is one of each where a gradient is wanted."""
        return _StraightThrough(model, self.twin)
