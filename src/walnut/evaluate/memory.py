"""How much memory a network's activations need at their peak, counted while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen


@dataclass(frozen=True)
class Activations:
    """What one forward pass holds besides the weights.

    peak_bytes: the largest sum of tensors alive at one moment. moved_bytes: what all operations
    together have written, each tensor once (what a memory without a cache would have to take).
    """

    peak_bytes: int
    moved_bytes: int


class _Watch(TorchDispatchMode):
    """Adds up the storages that are alive after each operation."""

    def __init__(self, weights: set[int], first: torch.Tensor) -> None:
        super().__init__()
        self.weights = weights
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = self.written = 0
        self._note([first])
        self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._note([t for t in tree_leaves(out) if isinstance(t, torch.Tensor)])
        return out

    def _note(self, tensors: list[torch.Tensor]) -> None:
        self.alive = {k: pair for k, pair in self.alive.items() if not pair[0].expired()}
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self.alive and storage.data_ptr() not in self.weights:
                self.alive[key] = (StorageWeakRef(storage), storage.nbytes())
                self.written += storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))


def activation_memory(model: nn.Module, shape: tuple[int, ...], batch: int = 1) -> Activations:
    """Run one batch and return what its activations take.

    The rule: a tensor counts from the operation that makes it until the program lets go of it, as
    PyTorch runs it, its input included, which is held throughout. Weights and buffers do not count,
    a view or a change in place counts nothing new, and what a kernel needs inside (the unrolled
    columns of a convolution, say) is not seen. A runtime that plans its memory ahead may need less.

    Args:
        model: network from inputs of ``shape``; run in eval mode without gradients.
        shape: of one example.
        batch: how many at a time.

    >>> activation_memory(nn.Sequential(nn.Linear(10, 30), nn.Linear(30, 5)), (10,)).peak_bytes
    180
    """
    if batch < 1:
        raise WalnutError("a batch has at least one example")
    reference = next(model.parameters(), torch.zeros(1))
    x = torch.zeros(batch, *shape, dtype=reference.dtype, device=reference.device)
    with torch.no_grad(), frozen(model):
        model(x)  # representations are computed once and cached: they are weights
        held = {t.untyped_storage().data_ptr() for t in _weights(model)}
        watch = _Watch(held, x)
        with watch:
            model(x)
    return Activations(watch.peak, watch.written)


def _weights(model: nn.Module) -> list[torch.Tensor]:
    """Return all that a network holds: parameters, buffers, and what represents weights."""
    found: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        found += [getattr(module, name) for name in getattr(module, "parametrizations", {})]
    return found
