"""Code that rounds, run so that gradients pass: what has no slope gets the identity's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from walnut.core.frozen import frozen
from walnut.core.types import Model


def _through(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function's values with the gradient of its first argument."""

    def soft(x: Tensor, *rest: Any, **options: Any) -> Any:
        value = function(x, *rest, **options)
        if not isinstance(value, Tensor) or value.shape != x.shape or not value.is_floating_point():
            return value
        return _Identity.apply(x, value)

    return soft


class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


_STEPS: set[Any] = {
    function
    for name in (
        "round",
        "floor",
        "ceil",
        "trunc",
        "fix",
        "sign",
        "sgn",
        "detach",
        "fake_quantize_per_tensor_affine",
    )
    for place in (torch, Tensor)
    for function in [getattr(place, name, None)]
    if function is not None
} | {Tensor.data.__get__}  # type: ignore[attr-defined]


class _Straight(TorchFunctionMode):
    """While it is on, functions that are flat between steps pass gradients straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.met = 0  # calls of such functions

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _STEPS or not args or not isinstance(args[0], Tensor):
            return func(*args, **kwargs)
        if not (torch.is_grad_enabled() and args[0].requires_grad):
            return func(*args, **kwargs)
        self.met += 1
        return _through(func)(*args, **kwargs)


class Softened(nn.Module):
    """A network whose rounding, signs and ``detach`` let gradients pass; its values are the same.

    The rule of Bengio et al. 2013 (§4, straight-through estimator) for every such function that the
    network's Python code calls: ``round``, ``floor``, ``ceil``, ``trunc``, ``sign``, ``detach``. Integer
    kernels, ``no_grad`` blocks and compiled code are out of its reach.

    >>> net = Softened(lambda x: (x * 3).round() / 3)
    >>> x = torch.tensor([[0.3, 0.9]], requires_grad=True)
    >>> torch.autograd.grad(net(x).sum(), x)[0]
    tensor([[1., 1.]])
    """

    def __init__(self, network: Model) -> None:
        super().__init__()
        self.network = network
        self.training = isinstance(network, nn.Module) and bool(getattr(network, "training", False))

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's logits (b, classes)."""
        with _Straight():
            return self.network(x)

    def softens(self, x: Tensor) -> bool:
        """Say whether anything on the way from ``x`` (b, ...) to the logits is let pass."""
        held = frozen(self.network)
        with torch.inference_mode(False), torch.enable_grad(), held, _Straight() as mode:
            try:
                self.network(x.detach().clone().requires_grad_())
            except RuntimeError:  # numpy, for one, takes nothing that has a gradient
                return False
        return mode.met > 0
