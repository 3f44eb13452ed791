"""Gradient estimators: from the value of each example to its gradient in the input."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .draws import Draws
from .errors import WalnutError
from .types import Transform, ValueFn

NO_PATH = (
    "no gradient reaches the input: the network is quantised, detached, or ends in argmax; "
    "use an attack that only queries (square, hop_skip_jump, noise), or bpda(attack, twin) with a "
    "differentiable twin of the network"
)


def input_gradient(values: Float[Tensor, " b"], x: Tensor, *, again: bool = False) -> Tensor:
    """Return ∂(Σ values)/∂x, shaped like ``x``; no weight's gradient is computed.

    Args:
        values: one per example, with their graph.
        x: the input that they came from, a leaf that requires a gradient.
        again: keep the graph for another call.

    Raises:
        WalnutError: no gradient flows; the message names what to do instead.
    """
    if not values.requires_grad:
        raise WalnutError(NO_PATH)
    try:
        with warnings.catch_warnings():  # integer kernels warn, and give no gradient: said below
            warnings.filterwarnings(
                "ignore", ".*an autograd kernel was not registered", UserWarning
            )
            (grad,) = torch.autograd.grad(values.sum(), x, retain_graph=again, allow_unused=True)
    except RuntimeError as error:
        if "derivative" not in str(error) and "not implemented" not in str(error):
            raise
        raise WalnutError(NO_PATH) from error
    if grad is None:
        raise WalnutError(NO_PATH)
    return grad


@dataclass(frozen=True)
class plain:
    """∇ₓ value(x), by one backward pass that computes no weight's gradient."""

    def __call__(
        self, value: ValueFn, x: Float[Tensor, " b *d"], draws: Draws
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b *d"]]:
        x = x.detach().requires_grad_()
        values = value(x)
        return values.detach(), input_gradient(values, x)


@dataclass(frozen=True)
class averaged:
    """E_T[∇ₓ value(T(x))] over ``samples`` draws of a random transform (EOT; with one draw, DI).

    Athalye et al. 2018 (ICML, "Synthesizing robust adversarial examples"), Eq. 2; the gradient of
    the mean, not the mean of sampled logits. A transform that samples points on a path must shift
    its input by a *detached* offset, or the result is off by the path factor.

    Args:
        transform: a random, differentiable change of the input.
        samples: draws per step, ≥ 1; each costs a forward and a backward pass.
    """

    transform: Transform
    samples: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise WalnutError(f"averaged() needs samples >= 1, not {self.samples}")

    def __call__(
        self, value: ValueFn, x: Float[Tensor, " b *d"], draws: Draws
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b *d"]]:
        total, values = torch.zeros_like(x), torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for i in range(self.samples):
            stream = draws.fold(i)

            def transformed(z: Tensor, stream: Draws = stream) -> Tensor:
                return value(self.transform(z, stream))

            v, grad = plain()(transformed, x, stream)
            total, values = total + grad, values + v
        return values / self.samples, total / self.samples
