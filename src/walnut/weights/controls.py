"""What a pruned network is to be held against: the same counts, chosen or filled by chance.

Frankle & Carbin 2019 ("The Lottery Ticket Hypothesis") and Liu et al. 2019 ("Rethinking the Value
of Network Pruning") run them; both are trained like the pruned network before they are compared.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .mask import Fixed, Masked
from .represent import bake, represent, representations


def masks(model: nn.Module) -> dict[str, Tensor]:
    """Return the mask of each pruned weight, by its name."""
    found = {}
    for name, chain in representations(model).items():
        if isinstance(chain[-1], Masked):
            found[name] = chain[-1].mask
    return found


def random_mask(dense: nn.Module, pruned: nn.Module, *, seed: int = 0) -> nn.Module:
    """Return a copy of the dense network under masks drawn by chance.

    Each layer keeps as many weights as in ``pruned``; only which ones is left to chance.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, mask in _needed(pruned).items():
        order = torch.randperm(mask.numel(), generator=generator)
        drawn[name] = mask.cpu().reshape(-1)[order].reshape(mask.shape).to(mask.device)
    return _under(bake(copy.deepcopy(dense)), drawn)


def reinitialised(pruned: nn.Module, *, seed: int = 0) -> nn.Module:
    """Return a copy of the pruned network with fresh weights under the same masks.

    Modules draw by their own ``reset_parameters``.

    Raises:
        WalnutError: nothing is masked, or a module with weights of its own cannot draw fresh ones.
    """
    kept = {name: mask.clone() for name, mask in _needed(pruned).items()}
    fresh = bake(copy.deepcopy(pruned))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in fresh.named_modules():
            own = any(p is not None for p in module._parameters.values())
            if not own:
                continue
            reset = getattr(module, "reset_parameters", None)
            if reset is None:
                raise WalnutError(
                    f"{name or type(module).__name__} has weights but no reset_parameters(): "
                    "a control with fresh weights cannot be made of it"
                )
            reset()
    return _under(fresh, kept)


def _needed(pruned: nn.Module) -> dict[str, Tensor]:
    found = masks(pruned)
    if not found:
        raise WalnutError("the network has no masks: prune it first")
    return found


def _under(model: nn.Module, chosen: dict[str, Tensor]) -> nn.Module:
    """Put given masks on a network."""
    return represent(model, {name: Fixed(mask) for name, mask in chosen.items()})
