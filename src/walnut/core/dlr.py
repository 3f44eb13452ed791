"""The difference of logits ratio: an objective that no rescaling of the logits can flatten."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .errors import WalnutError
from .types import Criterion, Model


def _spread(logits: Float[Tensor, " b k"], third: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return z_π1 − third, never 0: logits that are all equal have no scale to divide by."""
    return (logits.amax(1) - third).clamp_min(torch.finfo(logits.dtype).eps)


@dataclass(frozen=True)
class dlr:
    """DLR(x, y) = −(z_y − max_{k≠y} z_k) / (z_π1 − z_π3), π the classes by falling logit.

    In [−1, 0] where the network is right, positive where it is fooled, and the same when all logits are
    shifted or multiplied by a number (Croce & Hein 2020, Eq. 6). It needs three classes: with two there
    is no z_π3, and the margin max_{k≠y} z_k − z_y is returned in its place.

    >>> import torch
    >>> z = torch.tensor([[4.0, 1.0, 0.0], [0.0, 40.0, 20.0]])
    >>> dlr()(lambda x: z, z, torch.tensor([0, 2]))
    tensor([-0.7500,  0.5000])
    """

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Float[Tensor, " b"]:
        logits = model(x)
        rest = logits.scatter(1, y[:, None], float("-inf")).amax(1)
        margin = rest - logits.gather(1, y[:, None])[:, 0]
        if logits.shape[1] < 3:
            return margin
        return margin / _spread(logits, logits.topk(3, dim=1).values[:, 2])


@dataclass(frozen=True)
class targeted_dlr:
    """−(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2): from the label y to one target t (Croce & Hein 2020, Eq. 7).

    It needs four classes. With three, z_π3 can be z_t itself, and the ratio is −1 wherever y is on top,
    without a gradient; z_t − z_y is returned then, as with two.

    Args:
        y: labels and targets side by side, (b, 2), int64.

    Raises:
        WalnutError: ``y`` holds labels only.

    >>> import torch
    >>> z = torch.tensor([[4.0, 1.0, 0.0, 2.0]])
    >>> targeted_dlr()(lambda x: z, z, torch.tensor([[0, 3]]))
    tensor([-0.5714])
    """

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Float[Tensor, " b"]:
        if y.ndim != 2 or y.shape[1] != 2:
            raise WalnutError(
                f"targeted_dlr() needs labels and targets side by side, (b, 2), not {tuple(y.shape)}; "
                "use torch.stack([labels, targets], 1)"
            )
        logits = model(x)
        label, target = logits.gather(1, y).unbind(1)
        if logits.shape[1] < 4:
            return target - label
        largest = logits.topk(4, dim=1).values
        return (target - label) / _spread(logits, largest[:, 2:].mean(1))


@dataclass(frozen=True)
class of_label:
    """A criterion that looks at the label only where ``y`` holds labels and targets (b, 2)."""

    criterion: Criterion

    def __call__(self, logits: Float[Tensor, " b k"], y: Tensor) -> Bool[Tensor, " b"]:
        return self.criterion(logits, y[:, 0])
