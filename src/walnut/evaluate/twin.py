"""A differentiable twin of a network without a gradient: how to have one, and how near it is."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from walnut.core import estimators
from walnut.core.errors import WalnutError

from .accuracy import predict
from .adapt import Cast, adapt, exported_batch, is_exported, precision
from .dequantize import dequantized
from .fixed_batch import FixedBatch
from .onnx_model import OnnxModel, is_session
from .soften import Softened


@dataclass(frozen=True)
class TwinMatch:
    """How near a twin is to its network: share of equal labels, largest logit difference, examples."""

    agreement: float
    gap: float
    examples: int

    def json(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)


def twin_match(
    deployed: Any, twin: Any, x: Float[Tensor, " n *d"], batch_size: int = 500
) -> TwinMatch:
    """Compare a network with its twin on real examples ``x`` (n, ...).

    Raises:
        WalnutError: there are no examples, or the two have different classes.

    >>> net = nn.Linear(4, 3)
    >>> twin_match(net, net, torch.rand(8, 4))
    TwinMatch(agreement=1.0, gap=0.0, examples=8)
    """
    real, soft = (predict(adapt(model), x, batch_size).double() for model in (deployed, twin))
    if real.shape != soft.shape:
        raise WalnutError(
            f"the twin has {soft.shape[1]} classes, the network {real.shape[1]}: a twin has the same"
        )
    agreement = float((real.argmax(1) == soft.argmax(1)).double().mean())
    return TwinMatch(agreement, float((real - soft).abs().max()), len(x))


def straight_through(deployed: Any, twin: Any) -> nn.Module:
    """Return the network that answers as ``deployed`` and differentiates as ``twin``.

        logits = z_deployed(x),    ∂logits/∂x = ∂z_twin/∂x

    Backward-pass differentiable approximation with the identity behind the network (Athalye et al. 2018,
    §4.1). Where we differ from z_twin + (z_deployed − z_twin).detach(): the same gradient, but the
    values are the deployed network's to the last bit; that sum rounds. A pass counts once: forward is
    the deployed network's, and the twin runs only where a gradient is wanted.

    Args:
        deployed: any form that :func:`walnut.evaluate.adapt.adapt` takes.
        twin: the same inputs to the same classes, differentiably.
    """
    return estimators.straight_through(adapt(twin))(adapt(deployed))


def twin_of(model: Any) -> nn.Module:
    """Build a differentiable twin of a network, on a copy: nothing of the network changes.

    - integer modules of ``torch.ao`` (static and dynamic), FX and PT2E graphs, and torchao tensors: the
      weights dequantised, the rounding of activations left out;
    - float16 and bfloat16: a float32 copy;
    - any other Python code: the code itself, with rounding, signs and ``detach`` passed straight through
      (:class:`walnut.evaluate.soften.Softened`); :func:`walnut.evaluate.path.gradient_path` of
      :func:`straight_through` says whether that was enough.

    Raises:
        WalnutError: there is nothing to build it from (ONNX, TorchScript of integers), or a part
            of it is not known; the message names it. Give the float network as the twin then, or
            rely on queries.

    >>> net = nn.Linear(4, 3).bfloat16()
    >>> twin_match(net, twin_of(net), torch.rand(8, 4)).gap < 0.02
    True
    """
    while isinstance(model, (Cast, FixedBatch)):
        model = model.network
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if isinstance(model, OnnxModel) or is_session(model) or isinstance(model, (str, os.PathLike)):
        raise WalnutError(
            "an ONNX network holds no gradient: give the float network that it was made from as the "
            "twin; without one it is only queried"
        )
    if isinstance(model, torch.jit.ScriptModule):
        return _script(model)
    if isinstance(model, nn.Module):
        found = dequantized(model)
        if found is not None:
            return FixedBatch(found, exported_batch(found)) if is_exported(found) else found
    return Softened(adapt(model))


def _script(model: torch.jit.ScriptModule) -> nn.Module:
    if precision(model) in (torch.float16, torch.bfloat16):
        return model.copy().float()
    raise WalnutError(
        "TorchScript cannot be taken apart: give the network that it was made from as the twin"
    )
