"""A network as an ONNX file."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.files import write_bytes
from walnut.core.frozen import frozen
from walnut.weights import bake

from .gap import Gap, gap
from .graph import merge_slices
from .runtimes import onnx_runtime

OPSET = 18
_MOST = (1 << 31) - 1  # protobuf's limit for one message
_HINT = "pip install 'walnut-nn[export]'"


@dataclass(frozen=True)
class Exported:
    """A file of a runtime, and how far its answers are from what it was made from.

    Attributes:
        path: the file.
        bytes: its length.
        gap: the runtime's answers against the reference's: torch's for floating point, the simulation
            of the same file for integers.
        left: layers that stayed in floating point in a file of integers.
        dense: for integers, the answers against the network in torch.
    """

    path: Path
    bytes: int
    gap: Gap
    left: tuple[str, ...] = ()
    dense: Gap | None = field(default=None)

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "path": str(self.path), "bytes": self.bytes, "gap": self.gap.json(),
            "left": list(self.left), "gap_to_dense": self.dense.json() if self.dense else None,
        }  # fmt: skip


def to_onnx(model: nn.Module, path: str | os.PathLike[str], x: Tensor) -> Exported:
    """Write a network to an ONNX file in float32, for any batch size, and check what it answers.

    Batch norm is folded into the convolution before it. Represented weights go in as they are used;
    the network itself is not changed.

    Args:
        model: any network of one input and one output.
        path: the file; it appears whole or not at all. Its input is called ``x``, its output
            ``logits``.
        x: examples (n, ...) that the file is tried on, beside torch.

    Raises:
        WalnutError: ONNX is not installed, a network that cannot be traced, one above 2 GB.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = to_onnx(nn.Linear(4, 2).eval(), f"{folder}/net.onnx", torch.rand(8, 4))
    ...     made.bytes == os.path.getsize(made.path), made.gap.largest < 1e-5, made.gap.agreement
    (True, True, 1.0)
    """
    path = Path(path)
    write_bytes(path, serialised(model, x))
    twin = bake(copy.deepcopy(model))
    with frozen(twin):
        found = gap(onnx_runtime(path), twin, x)
    return Exported(path, path.stat().st_size, found)


def serialised(model: nn.Module, x: Tensor) -> bytes:
    """Return a network as the bytes of an ONNX file; see :func:`to_onnx`."""
    if x.ndim < 2 or len(x) == 0:
        raise WalnutError(f"give examples (n, ...) to export with, not a tensor {tuple(x.shape)}")
    twin = bake(copy.deepcopy(model)).eval().cpu().float()
    pair = torch.cat([x[:1], x[:1]]).float().cpu()  # a batch of one would be taken for a constant
    _tried(twin, pair)
    with _quiet():
        program = _traced(twin, pair)
    proto = program.model_proto
    del proto.graph.value_info[:]  # hints that the exporter's own optimiser leaves out of date
    merge_slices(proto.graph)
    if proto.ByteSize() > _MOST:
        raise WalnutError(
            f"an ONNX file of {proto.ByteSize() / 1e9:.1f} GB is not written: 2 GB is the most"
        )
    content: bytes = proto.SerializeToString()
    return content


def _traced(twin: nn.Module, pair: Tensor) -> Any:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise WalnutError(f"exporting needs onnx and onnxscript: {_HINT}") from error
    try:
        return torch.onnx.export(
            twin,
            (pair,),
            dynamo=True,
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            verbose=False,
        )
    except Exception as error:  # the exporter's own kinds have no common base
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        line = str(cause).strip().partition("\n")[0][:200]
        raise WalnutError(f"this network cannot be exported to ONNX: {line}") from error


def _tried(twin: nn.Module, pair: Tensor) -> None:
    try:
        with torch.no_grad():
            twin(pair)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        line = str(error).partition("\n")[0]
        raise WalnutError(
            f"the network does not take examples of shape {tuple(pair.shape[1:])}: {line}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on packages that are missing off the screen."""
    logger = logging.getLogger("torch.onnx")
    level, logger.level = logger.level, logging.ERROR
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.level = level


def operators(path: str | os.PathLike[str]) -> Mapping[str, int]:
    """Return how often each operator occurs in an ONNX file."""
    import onnx

    counts: dict[str, int] = {}
    for node in onnx.load(str(path), load_external_data=False).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
