"""A network as an attack may see it: weights frozen, mode set, and everything put back afterwards."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize


def random_states() -> dict[str, Any]:
    """Return the global random states of torch, numpy and Python."""
    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        states["numpy"] = sys.modules["numpy"].random.get_state()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random(states: dict[str, Any]) -> None:
    """Put what :func:`random_states` gave back."""
    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if "numpy" in states:
        sys.modules["numpy"].random.set_state(states["numpy"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Hold a network still: eval mode, no weight gradients, representations computed once.

    On exit, also after an exception, everything is as it was: the mode of every module,
    ``requires_grad`` of every weight, every buffer, and the global random states of torch, numpy
    and Python. ``.grad`` is never written. A plain callable only has its random states kept. The mode
    is set as an attribute: exported networks refuse ``eval()``, and frozen TorchScript has no mode.
    """
    states = random_states()
    module = model if isinstance(model, nn.Module) else nn.Identity()
    modes = [(m, m.training) for m in module.modules() if hasattr(m, "training")]
    wanted = [(p, p.requires_grad) for p in module.parameters() if not p.is_inference()]
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    try:
        for m, _ in modes:
            m.training = False
        for p, _ in wanted:
            p.requires_grad_(False)
        with parametrize.cached():
            yield
    finally:
        for m, mode in modes:
            m.training = mode
        for p, want in wanted:
            p.requires_grad_(want)
        with torch.no_grad():
            for b, value in buffers:
                if not torch.equal(b, value):
                    b.copy_(value)
        restore_random(states)
