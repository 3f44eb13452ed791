"""Batch normalisation as it is after training: one factor and one addend a channel.

In eval mode y = γ (x − μ) / √(σ² + ε) + β has four numbers a channel, of which only two matter.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from walnut.core.errors import WalnutError


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch normalisations that keep running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def absorb(model: nn.Module) -> nn.Module:
    """Move running statistics into γ and β, in place, and return the network.

    ::

        γ ← γ / √(σ² + ε),   β ← β − γ μ / √(σ² + ε),   μ ← 0,   σ² ← 1 − ε

    What the network computes in eval mode stays the same, to rounding; the statistics and the count
    of batches become constants, which cost a file nothing. In train mode the network is another one
    (a batch's own statistics would be divided by anew): absorb when the training is over. A layer
    without γ and β, or with ε > 1, is left alone.

    Raises:
        WalnutError: a channel of zero variance with ε = 0, which divides by nothing.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    >>> _ = net(torch.rand(8, 3, 9, 9))
    >>> x = torch.rand(2, 3, 9, 9)
    >>> before = net.eval()(x)
    >>> torch.allclose(absorb(net)(x), before, atol=1e-6), net[1].running_mean.tolist()
    (True, [0.0, 0.0, 0.0, 0.0])
    """
    for name, norm in batch_norms(model).items():
        mean, variance = norm.running_mean, norm.running_var
        if norm.weight is None or not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
            continue
        if norm.eps > 1:
            continue
        spread = (variance.double() + norm.eps).sqrt()
        if not bool((spread > 0).all()) or not bool(spread.isfinite().all()):
            raise WalnutError(
                f"{name} divides by a variance that is zero, negative or not a number: train it, or "
                "give it an eps above 0"
            )
        with torch.no_grad():
            gain = norm.weight.double() / spread
            norm.bias.copy_(norm.bias.double() - gain * mean.double())
            norm.weight.copy_(gain)
            mean.zero_()
            variance.fill_(1.0 - norm.eps)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()
    return model


def refreshed(model: nn.Module, batches: list[Tensor]) -> nn.Module:
    """Measure the running statistics anew on some batches, in place, and return the network.

    Every batch counts alike (a plain mean, not a moving one). Weights that were quantised or pruned
    give other means and variances than those the network remembers; to put that right takes no
    labels and no gradients.
    """
    norms, training = batch_norms(model), model.training
    if not norms or not batches:
        raise WalnutError("there are no running statistics to refresh, or no batches to do it with")
    momenta = {name: norm.momentum for name, norm in norms.items()}
    model.eval()
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    try:
        with torch.no_grad():
            for x in batches:
                model(x)
    finally:
        for name, norm in norms.items():
            norm.momentum = momenta[name]
        model.train(training)
    return model
