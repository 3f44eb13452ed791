"""How much a loss feels an error of each weight: a diagonal of its second order."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .represent import matrices, weights


def squared_gradients(
    model: nn.Module, batches: Iterable[Tensor], *, seed: int = 0
) -> dict[str, Tensor]:
    """Return E[(∂ log p(y | x) / ∂w)²] of every weight of two axes or more, by name.

    This is the diagonal of the Fisher information, with y drawn by the network itself, and so that of
    the Gauss-Newton matrix of the cross-entropy: to second order an error Δw raises the loss by
    ½ Σ h Δw², h being this (Martens 2020, "New insights and perspectives on the natural gradient
    method", section 9). No labels are needed. The gradient of a batch's sum is squared, not that of
    each example: with labels that the network draws the examples' gradients have mean zero and are
    independent, so the expectation is the same, at the price of one backward pass a batch.

    Args:
        model: maps a batch to logits (b, classes); it is left as it was. Use eval mode.
        batches: inputs; many small ones give less noise than few large ones.
        seed: of the labels.

    Raises:
        WalnutError: no batches, or a network whose weights take no gradient.

    >>> found = squared_gradients(nn.Linear(4, 3), torch.rand(8, 5, 4))
    >>> {name: tuple(h.shape) for name, h in found.items()}
    {'weight': (3, 4)}
    """
    held = {n: p for n, p in model.named_parameters() if n in set(matrices(model))}
    absent = [n for n in matrices(model) if n not in held or not held[n].requires_grad]
    if absent:
        raise WalnutError(
            f"{', '.join(absent)} takes no gradient as it is: bake the network, or let it require one"
        )
    generator = torch.Generator().manual_seed(seed)
    total = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in held.items()}
    examples = 0
    for x in batches:
        with torch.enable_grad():
            log_p = model(x).log_softmax(1)
            drawn = log_p.detach().exp().cpu().multinomial(1, generator=generator).to(x.device)
            grads = torch.autograd.grad(log_p.gather(1, drawn).sum(), list(held.values()))
        for name, grad in zip(held, grads, strict=True):
            total[name] += grad.double().square()
        examples += len(x)
    if not examples:
        raise WalnutError("the curvature needs at least one batch")
    now = weights(model)
    return {n: (t / examples).to(now[n].dtype) for n, t in total.items()}
