"""Saliency: which entries of the input the class score depends on most, to first order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.core.draws import Draws
from walnut.core.frozen import frozen
from walnut.core.gradients import plain
from walnut.core.types import Model


@dataclass(frozen=True)
class SaliencyMap:
    """The record of :func:`saliency`; call it with ``(model, x, y)``."""

    batch_size: int = 256

    def __call__(
        self, model: Model, x: Float[Tensor, " n *d"], y: Tensor
    ) -> Float[Tensor, " n *d"]:
        """Return the map of each example for class ``y``, shaped like ``x``."""
        maps = []
        with torch.inference_mode(False), torch.enable_grad(), frozen(model):
            for rows in torch.arange(len(x)).split(self.batch_size):
                maps.append(self._batch(model, x[rows].clone(), y[rows]))
        return torch.cat(maps) if maps else torch.zeros_like(x)

    def _batch(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        def score(z: Tensor) -> Tensor:
            return model(z).gather(1, y[:, None])[:, 0]

        _, grad = plain()(score, x, Draws.of(x, 0))
        size = grad.abs()
        return size.amax(1, keepdim=True).expand_as(x).clone() if x.ndim == 4 else size


def saliency(batch_size: int = 256) -> SaliencyMap:
    """|∂S_c/∂x|, with S_c the logit of class c; for images, the maximum over channels.

    Simonyan et al. 2014 ("Deep inside convolutional networks"), §3.1. The map has the shape of the
    input: every channel of an image holds the same maximum.

    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    >>> saliency()(net, torch.tensor([[0.2, 0.4]]), torch.tensor([0]))
    tensor([[3., 0.]])
    """
    return SaliencyMap(batch_size)
