"""Networks in the runtimes that people use: files of theirs, what they answer, and how fast."""

from __future__ import annotations

from .gap import Gap, gap
from .onnx import Exported, to_onnx
from .qdq import dynamic, qdq
from .runtimes import Runtime, compiled, eager, executorch, onnx_runtime, openvino, simulated
from .sparse import CsrLinear, to_csr

__all__ = [
    "CsrLinear",
    "Exported",
    "Gap",
    "Runtime",
    "compiled",
    "dynamic",
    "eager",
    "executorch",
    "gap",
    "onnx_runtime",
    "openvino",
    "qdq",
    "simulated",
    "to_csr",
    "to_onnx",
]
