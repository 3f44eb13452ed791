"""One door for every form a network is shipped in: modules, exported graphs, ONNX, half precision."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.types import Model

from .fixed_batch import FixedBatch
from .onnx_model import is_session, onnx_model

_DYNAMIC = "torch.ao.nn.quantized.dynamic"


class _Scaled(torch.autograd.Function):
    """The logits as they are; on the way back each row's gradient is made to have a largest entry of 1."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, scales: list[Tensor]) -> Tensor:
        ctx.scales = scales
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        scale = grads[0].abs().amax(1)
        scale = torch.where(scale == 0, 1.0, scale)
        ctx.scales[:] = [scale]
        return grads[0] / scale[:, None], None


class _Unscaled(torch.autograd.Function):
    """The input as it is; on the way back each row's gradient gets its size again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: list[Tensor]) -> Tensor:
        ctx.scales = scales
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.scales
        return grads[0] * scale.reshape(-1, *[1] * (grads[0].ndim - 1)), None


class Cast(nn.Module):
    """A network of another precision, asked in the caller's: inputs cast on the way in, logits out.

    Going back, each row's gradient is scaled to 1 before it enters the network and scaled back behind
    it (loss scaling, Micikevicius et al. 2018, §3.2, for each example by itself): p_y − 1 of a
    confident example is below the smallest float16, and its gradient would vanish in the cast.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype
        self.training = bool(getattr(network, "training", False)) and not is_exported(network)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) in the precision of ``x``, float32 at least."""
        scales: list[Tensor] = []
        logits = self.network(_Unscaled.apply(x, scales).to(self.dtype))
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            return logits  # Queried says what is wrong with it
        return _Scaled.apply(logits.to(torch.promote_types(x.dtype, torch.float32)), scales)


def adapt(model: Any) -> Model:
    """Return a callable, (b, ...) in [0, 1] to logits (b, classes), for any form of a network.

    ================================= =============================================================
    an ``nn.Module``, TorchScript      itself (frozen TorchScript has no mode, and is wrapped); a copy
                                       where it was made in ``torch.inference_mode()``
    float16, bfloat16, float64         inputs cast to its precision, logits back to the caller's
    ``torch.export`` (program, graph)  its module; one exported for a fixed batch is filled up
    PyTorch dynamic int8               asked one example at a time: the scale of its activations is
                                       taken over the whole batch, so an answer would depend on it
    ONNX Runtime session, .onnx file   :class:`walnut.evaluate.onnx_model.OnnxModel`
    any other callable                 itself
    ================================= =============================================================

    Nothing of the model changes. What was adapted already comes back as it is.

    Raises:
        WalnutError: it is none of these; the message says what it is.

    >>> net = nn.Linear(3, 2).half()
    >>> adapt(net)(torch.rand(4, 3)).dtype, net.weight.dtype
    (torch.float32, torch.float16)
    """
    if isinstance(model, (str, os.PathLike)) or is_session(model):
        return onnx_model(model)
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if isinstance(model, nn.Module):
        return _module(model)
    if isinstance(model, type):
        raise WalnutError(f"{model.__name__} is a class; give a network made from it")
    if not callable(model):
        raise WalnutError(_refusal(model))
    return model


def as_asked(model: Any, x: Tensor) -> Tensor:
    """Return a copy of examples in the precision that they are attacked in: float32, and float64 where
    nothing says that the network is of less.

    A ball of float16 inputs holds so few of them that a network looks robust.
    """
    narrow = x.dtype in (torch.float16, torch.bfloat16)
    known = precision(model) if isinstance(model, nn.Module) else None
    wide = x.dtype == torch.float64 and known not in (None, torch.float64)
    return x.detach().float().clone() if narrow or wide else x.detach().clone()


def _module(model: nn.Module) -> nn.Module:
    if any(p.is_inference() for p in model.parameters()):
        model = copy.deepcopy(
            model
        )  # made inside inference_mode(): gradients cannot pass its weights
    if any(isinstance(m, (Cast, FixedBatch)) for m in model.modules()):
        return model  # it has come through this door, or is made of what has
    size = exported_batch(model)
    if any(type(m).__module__.startswith(_DYNAMIC) for m in model.modules()):
        size = 1
    modeless = is_exported(model) or not hasattr(model, "training")  # exported, frozen TorchScript
    dtype = precision(model)
    if dtype is not None and dtype != torch.float32:
        model = Cast(model, dtype)
    return FixedBatch(model, size) if modeless or size is not None else model


def precision(model: nn.Module) -> torch.dtype | None:
    """Return the type of a network's first floating weight; None where it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def is_exported(model: nn.Module) -> bool:
    """Say whether a module is a graph from ``torch.export``: it has no train or eval mode."""
    return _first_input(model) is not None


def exported_batch(model: nn.Module) -> int | None:
    """Return the batch size that an exported graph insists on, if it does."""
    first = _first_input(model)
    size = None if first is None or first.ndim == 0 else first.shape[0]
    return size if isinstance(size, int) else None


def _first_input(model: nn.Module) -> Tensor | None:
    if not isinstance(model, torch.fx.GraphModule):
        return None
    inputs = (node.meta.get("val") for node in model.graph.nodes if node.op == "placeholder")
    found = next(inputs, None)
    return found if isinstance(found, Tensor) else None


def _refusal(model: Any) -> str:
    kind = type(model).__name__
    methods: tuple[Callable[..., Any], ...] = tuple(
        getattr(model, name)
        for name in ("decision_function", "predict_proba")
        if hasattr(model, name)
    )
    if methods:
        return (
            f"a {kind} cannot be called: give a function from a batch of tensors to one score per "
            f"class, such as lambda x: torch.from_numpy(model.{methods[0].__name__}(x.flatten(1).numpy()))"
        )
    if isinstance(model, dict):
        return "this is a dictionary of weights, not a network: load it into one first"
    return (
        f"a {kind} is not a network: give an nn.Module, TorchScript, a torch.export program, an ONNX "
        "Runtime session, the path of an .onnx file, or a function from a batch to logits"
    )
