"""Ask a network a fixed number of examples at a time, whatever the size of the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from walnut.core.types import Model


def in_batches(network: Model, x: Tensor, size: int | None) -> Tensor:
    """Return the network's answers to ``x`` (b, ...), asked exactly ``size`` at a time (None: at once).

    The last batch is filled up with copies of its last row, whose answers are dropped.
    """
    if size is None:
        return network(x)
    found = []
    for rows in x.split(size):
        short = size - len(rows)
        if short:
            copies = rows[-1:] if len(rows) else x.new_zeros(1, *x.shape[1:])
            full = torch.cat([rows, copies.expand(short, *x.shape[1:])])
            found.append(network(full)[: len(rows)])
        else:
            found.append(network(rows))
    return torch.cat(found)


class FixedBatch(nn.Module):
    """A network that is asked ``size`` examples at a time; None for all at once.

    It is in eval mode unless told otherwise: what it holds may have no mode of its own.
    """

    def __init__(self, network: Model, size: int | None) -> None:
        super().__init__()
        self.network, self.size, self.training = network, size, False

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (b, classes)."""
        return in_batches(self.network, x, self.size)


def alone(model: Model) -> FixedBatch:
    """Return the network asked one example at a time, for one whose answer depends on its batch.

    >>> net = alone(lambda x: x - x.mean())
    >>> net(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    tensor([[ 0.5000, -0.5000],
            [ 1.5000, -1.5000]])
    """
    return FixedBatch(model, 1)
