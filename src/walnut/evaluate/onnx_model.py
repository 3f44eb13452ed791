"""A network in ONNX Runtime as a callable: no gradient, any batch size."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from walnut.core.errors import WalnutError

from .fixed_batch import in_batches

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_OVER_THE_BATCH = b"DynamicQuantizeLinear"  # takes its scale from all that it is given


def is_session(model: Any) -> bool:
    """Say whether this is an ONNX Runtime session, without importing ONNX Runtime."""
    runtime = sys.modules.get("onnxruntime")
    return runtime is not None and isinstance(model, runtime.InferenceSession)


class OnnxModel:
    """An ONNX Runtime session that takes and returns tensors; see :func:`onnx_model`.

    ``batch`` is how many examples it is asked at a time: None for any number.
    """

    def __init__(self, session: Any, name: str, batch: int | None) -> None:
        inputs = session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(i.name for i in inputs)
            raise WalnutError(
                f"{name} has {len(inputs)} inputs ({names}); walnut needs a network of one"
            )
        if inputs[0].type not in _TYPES:
            raise WalnutError(
                f"{name} takes {inputs[0].type}; walnut attacks inputs in [0, 1]: put the scaling into "
                "the network, so that it takes tensor(float)"
            )
        self.session, self.name = session, name
        self.input, self.dtype = inputs[0].name, _TYPES[inputs[0].type]
        self.output = session.get_outputs()[0].name
        first = inputs[0].shape[0] if inputs[0].shape else None
        self.batch = first if isinstance(first, int) else batch

    def __repr__(self) -> str:
        return f"OnnxModel({self.name!r})"

    def __call__(self, x: Tensor) -> Tensor:
        """Return the first output (b, classes), float32 or wider; without a graph."""
        return in_batches(self._ask, x.detach().cpu(), self.batch).to(x.device)

    def _ask(self, x: Tensor) -> Tensor:
        rows = x.numpy().astype(self.dtype, copy=False)
        try:
            found = self.session.run([self.output], {self.input: rows})[0]
        except Exception as error:  # ONNX Runtime's own kinds have no common base
            line = str(error).strip().partition("\n")[0]
            raise WalnutError(f"{self.name} does not take {tuple(rows.shape)}: {line}") from error
        logits = torch.from_numpy(found)
        return logits.float() if logits.dtype == torch.float16 else logits


def onnx_model(source: str | os.PathLike[str] | Any) -> OnnxModel:
    """Return a callable for an ONNX file or session: one input, one row of logits per example.

    Args:
        source: the path of an .onnx file, opened on the processor with as many threads as torch uses;
            or an ``onnxruntime.InferenceSession``.

    A network made for a fixed batch is filled up with copies. One with dynamically quantised
    activations is asked one example at a time: their scale is taken over all that it is given, so
    that an answer would depend on its batch. Of several outputs the first counts.

    Raises:
        WalnutError: no such file, no ONNX Runtime, several inputs, or an input of integers.
    """
    if is_session(source):
        path = getattr(source, "_model_path", None)
        return OnnxModel(source, Path(path).name if path else "the ONNX network", _batch(path))
    path = Path(source)
    if not path.is_file():
        raise WalnutError(
            f"there is no file {str(path)!r}; a network is given as an object or an .onnx file"
        )
    if path.suffix != ".onnx":
        raise WalnutError(
            f"{path.name} is no .onnx file: load it first (torch.jit.load, torch.export.load, "
            "walnut.nets.load) and give the network"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise WalnutError(
            f"{path.name} needs ONNX Runtime: pip install 'walnut-nn[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own kinds have no common base
        line = str(error).strip().partition("\n")[0]
        raise WalnutError(f"ONNX Runtime cannot open {path.name}: {line}") from error
    return OnnxModel(session, path.name, _batch(path))


def _batch(path: str | os.PathLike[str] | None) -> int | None:
    """Return 1 for a file whose activations are quantised over the batch."""
    if path is None or not Path(path).is_file():
        return None
    return 1 if _OVER_THE_BATCH in Path(path).read_bytes() else None
