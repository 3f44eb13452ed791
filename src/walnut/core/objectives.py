"""Objectives: what a network's answer to an example is worth, one value per example.

Each is called ``objective(model, x, y) -> (b,)``. Lower is better for training; an attack ascends it.
Values of a batch are never reduced: the loops sum before they differentiate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .errors import WalnutError
from .features import activations
from .types import Model, Objective


def _excess(logits: Float[Tensor, " b k"], y: Tensor) -> Float[Tensor, " b"]:
    """Return log Σ_{k≠y} exp(z_k) − z_y."""
    rest = logits.scatter(1, y[:, None], float("-inf"))
    return rest.logsumexp(1) - logits.gather(1, y[:, None])[:, 0]


@dataclass(frozen=True)
class cross_entropy:
    """J(x, y) = −log softmax(z)_y, written softplus(log Σ_{k≠y} exp z_k − z_y).

    The two forms are equal; this one does not cancel. With the usual form p_y − 1 rounds to nothing
    once p_y is near 1 (a margin of 17 in float32), and the gradient of a confident example is noise;
    here its direction stays exact until exp underflows (a margin of 88 in float32).

    Args:
        y: labels (b,), int64; or target distributions (b, classes), where the usual form is used.

    >>> import torch
    >>> z = torch.tensor([[2.0, 0.0], [0.0, 40.0]], dtype=torch.float64)
    >>> cross_entropy()(lambda x: z, z, torch.tensor([0, 1])).numpy().round(4)
    array([0.1269, 0.    ])
    """

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Float[Tensor, " b"]:
        logits = model(x)
        if y.is_floating_point():
            return -(y * F.log_softmax(logits, 1)).sum(1)
        return -F.logsigmoid(-_excess(logits, y))


@dataclass(frozen=True)
class margin:
    """max_{k≠y} z_k − z_y: positive where the network is fooled (Carlini & Wagner 2017, f₆ with κ=0)."""

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Float[Tensor, " b"]:
        logits = model(x)
        rest = logits.scatter(1, y[:, None], float("-inf")).amax(1)
        return rest - logits.gather(1, y[:, None])[:, 0]


@dataclass(frozen=True)
class probability_margin:
    """max_{k≠y} p_k − p_y with p = softmax(z), in [−1, 1].

    Unlike the logits' margin it favours examples whose logits are small
    (the loss of Xu et al. 2024, arXiv 2411.15210).
    """

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Float[Tensor, " b"]:
        p = model(x).softmax(1)
        rest = p.scatter(1, y[:, None], float("-inf")).amax(1)
        return rest - p.gather(1, y[:, None])[:, 0]


@dataclass(frozen=True)
class kl_divergence:
    """T² · KL(softmax(t/T) ‖ softmax(z/T)), with t the logits of ``teacher`` on the same input.

    Args:
        teacher: maps (b, ...) to logits; its output is not differentiated.
        temperature: T > 0; the factor T² keeps gradients comparable (Hinton et al. 2015, §2).
    """

    teacher: Model = field(repr=False)
    temperature: float = 1.0

    def __call__(self, model: Model, x: Tensor, y: Tensor | None = None) -> Float[Tensor, " b"]:
        with torch.no_grad():
            wanted = (self.teacher(x) / self.temperature).log_softmax(1)
        found = (model(x) / self.temperature).log_softmax(1)
        return self.temperature**2 * (wanted.exp() * (wanted - found)).sum(1)


@dataclass(frozen=True)
class feature_distance:
    """‖φ(x) − φ(y)‖₂² at a layer φ, with ``y`` a batch of reference *inputs* shaped like ``x``."""

    layer: str

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Float[Tensor, " b"]:
        with activations(model, [self.layer]) as seen:
            with torch.no_grad():
                model(y)
            wanted = seen[self.layer].detach()
            model(x)
            return (seen[self.layer] - wanted).flatten(1).square().sum(1)


@dataclass(frozen=True)
class targeted:
    """−objective: ascending it moves an example *towards* the label given as ``y``."""

    objective: Objective

    def __call__(self, model: Model, x: Tensor, y: Tensor | None) -> Float[Tensor, " b"]:
        return -self.objective(model, x, y)


@dataclass(frozen=True)
class weighted:
    """Σ_i w_i · objective_i. Give pairs: ``weighted(((1.0, cross_entropy()), (0.1, margin())))``."""

    terms: tuple[tuple[float, Objective], ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise WalnutError("weighted() needs at least one (weight, objective) pair")

    def __call__(self, model: Model, x: Tensor, y: Tensor | None) -> Float[Tensor, " b"]:
        return torch.stack([w * objective(model, x, y) for w, objective in self.terms]).sum(0)


@dataclass(frozen=True)
class misclassified:
    """Criterion of an untargeted attack: the largest logit is not that of ``y``."""

    def __call__(self, logits: Float[Tensor, " b k"], y: Tensor) -> Bool[Tensor, " b"]:
        return logits.argmax(1) != y


@dataclass(frozen=True)
class classified_as:
    """Criterion of a targeted attack: the largest logit is that of the target ``y``."""

    def __call__(self, logits: Float[Tensor, " b k"], y: Tensor) -> Bool[Tensor, " b"]:
        return logits.argmax(1) == y
