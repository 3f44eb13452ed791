"""Look inside a network: the activations of named layers, with hooks that are always removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .errors import WalnutError


@contextmanager
def activations(model: Any, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record what the named layers put out in forward passes made inside the block.

    Args:
        model: an ``nn.Module`` (or a wrapper that holds one as ``.module``).
        layers: names as in ``model.named_modules()``.

    Yields:
        a dictionary that holds, after a forward pass, each layer's last output with its graph.

    Raises:
        WalnutError: a layer is not there; the message lists those that are.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    >>> with activations(net, ["0"]) as seen:
    ...     _ = net(torch.zeros(2, 3))
    >>> tuple(seen["0"].shape), len(net[0]._forward_hooks)
    ((2, 4), 0)
    """
    module = model if isinstance(model, nn.Module) else getattr(model, "module", None)
    if not isinstance(module, nn.Module):
        raise WalnutError("layers can only be looked at in an nn.Module, not in a plain function")
    known = dict(module.named_modules())
    for name in layers:
        if name not in known:
            names = ", ".join(n for n in known if n)
            raise WalnutError(f"the network has no layer {name!r}; it has: {names}")
    seen: dict[str, Tensor] = {}

    def recorder(name: str) -> Any:
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    handles = [known[name].register_forward_hook(recorder(name)) for name in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
