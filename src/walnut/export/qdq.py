"""Integers where kernels have them: ONNX files with quantised weights and activations."""

from __future__ import annotations

import copy
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError, WalnutWarning
from walnut.core.files import write_bytes
from walnut.core.frozen import frozen
from walnut.weights import bake
from walnut.weights.activations import shapes_said
from walnut.weights.calibrate import Reach, entropy, min_max, percentile
from walnut.weights.input_grid import without_grids

from .gap import gap
from .graph import integer_pads
from .onnx import Exported, serialised
from .runtimes import onnx_runtime, simulated

PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN")
_MOST_KEPT = {"entropy": 200, "percentile": 500}  # these methods keep every activation in memory


def qdq(
    model: nn.Module,
    path: str | os.PathLike[str],
    x: Tensor,
    *,
    reach: Reach = min_max(),
    activations: torch.dtype = torch.uint8,
    batch_size: int = 50,
) -> Exported:
    """Write a network to an ONNX file with QDQ: int8 weights per channel, 8-bit activations.

    Batch norm is folded first. ``QuantizeLinear`` and ``DequantizeLinear`` stand around each product;
    a runtime fuses them into integer kernels (ONNX Runtime, OpenVINO). Bias are 32-bit integers.
    Then the file is run twice, by those kernels and as a simulation in floating point, and the gap
    is in the record: a kernel may saturate (processors without VNNI do, in 16 bits) where a
    simulation does not.

    Args:
        model: any network of one input and one output.
        path: the file; it appears whole or not at all.
        x: examples (n, ...) to find the activations' ranges on, some hundreds. They are from the
            training set where figures are to be believed.
        reach: ``min_max()``, ``percentile(share)`` or ``entropy()``, as ONNX Runtime computes them.
        activations: ``torch.uint8`` or ``torch.int8``. The first is fast on every processor.
        batch_size: of the passes that find the ranges; examples beyond whole batches are not used.

    Raises:
        WalnutError: calibration data of another shape or not finite, a runtime that is missing.
    """
    path = Path(path)
    _check(model, x)
    # grids that activations were simulated on make way for those of the file
    content = serialised(without_grids(copy.deepcopy(model)), x)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, made = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        plain.write_bytes(content)
        _quantise(plain, made, x, reach, activations, batch_size)
        write_bytes(path, made.read_bytes())
    return _measured(model, path, x)


def dynamic(model: nn.Module, path: str | os.PathLike[str], x: Tensor) -> Exported:
    """Write a network to an ONNX file whose activations get their scale anew at every call.

    No calibration; weights are int8 per tensor, as ONNX Runtime's dynamic kernels want them. The
    scale is taken over the whole batch, so an answer depends on its batch: it is asked one by one.
    ``x`` are examples to try it on. Raises WalnutError as :func:`qdq` does.
    """
    path = Path(path)
    _check(model, x)
    # grids that activations were simulated on make way for those of the file
    content = serialised(without_grids(copy.deepcopy(model)), x)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, made = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        plain.write_bytes(content)
        tools = _tools()
        # uint8: ConvInteger has no kernel for int8 weights
        tools.quantize_dynamic(str(plain), str(made), weight_type=tools.QuantType.QUInt8)
        write_bytes(path, made.read_bytes())
    return _measured(model, path, x[:100])


def _check(model: nn.Module, x: Tensor) -> None:
    """Run the network on some of the examples, for the words it has about their shape."""
    if x.ndim < 2 or len(x) == 0:
        raise WalnutError(f"calibration data is a batch of examples (n, ...), not {tuple(x.shape)}")
    if not bool(x.isfinite().all()):
        raise WalnutError("calibration data must be finite: it holds NaN or infinity")
    with torch.no_grad(), frozen(model), shapes_said(model, x):
        model(x[:2])


def _quantise(
    plain: Path, made: Path, x: Tensor, reach: Reach, activations: torch.dtype, batch_size: int
) -> None:
    tools = _tools()
    kinds = {torch.uint8: tools.QuantType.QUInt8, torch.int8: tools.QuantType.QInt8}
    if activations not in kinds:
        raise WalnutError(f"activations are torch.uint8 or torch.int8 here, not {activations}")
    method, options, most = _method(reach, tools)
    tools.quantize_static(
        str(plain),
        str(made),
        _reader(tools, x[:most].float(), batch_size),
        quant_format=tools.QuantFormat.QDQ,
        per_channel=True,
        activation_type=kinds[activations],
        weight_type=tools.QuantType.QInt8,
        calibrate_method=method,
        extra_options=options,
    )
    _tidied(made)


def _tidied(path: Path) -> None:
    """Take out of a QDQ file what its runtimes would compute for nothing."""
    import onnx

    proto = onnx.load(str(path))
    integer_pads(proto.graph)
    onnx.save(proto, str(path))


def _method(reach: Reach, tools: Any) -> tuple[Any, dict[str, Any], int | None]:
    """Return ONNX Runtime's name of a way to find ranges, its options, and how many examples."""
    if isinstance(reach, min_max):
        return tools.CalibrationMethod.MinMax, {}, None
    if isinstance(reach, entropy):
        return tools.CalibrationMethod.Entropy, {}, _MOST_KEPT["entropy"]
    if isinstance(reach, percentile):
        options = {"CalibPercentile": 100 * reach.share}
        return tools.CalibrationMethod.Percentile, options, _MOST_KEPT["percentile"]
    raise WalnutError(
        f"ONNX Runtime finds ranges by min_max(), percentile() or entropy(), not by {reach!r}"
    )


def _reader(tools: Any, x: Tensor, batch_size: int) -> Any:
    class Reader(tools.CalibrationDataReader):
        """The examples, batch by batch."""

        def __init__(self) -> None:
            size = min(batch_size, len(x))
            # whole batches only: ONNX Runtime's histograms need them all alike
            self.batches: Iterator[Tensor] = iter(x[: len(x) // size * size].split(size))

        def get_next(self) -> dict[str, Any] | None:
            rows = next(self.batches, None)
            return None if rows is None else {"x": rows.numpy()}

    return Reader()


def _measured(model: nn.Module, path: Path, x: Tensor) -> Exported:
    """Return the record of a file of integers: run by its kernels, as a simulation, and by torch."""
    deployed, twin = onnx_runtime(path), bake(copy.deepcopy(model))
    with frozen(twin):
        dense = gap(deployed, twin, x)
    left = floating(path)
    if left:
        warnings.warn(
            f"left in floating point in {path.name}: {', '.join(left)}", WalnutWarning, stacklevel=3
        )
    return Exported(path, path.stat().st_size, gap(deployed, simulated(path), x), left, dense)


def floating(path: Path) -> tuple[str, ...]:
    """Return the products of a QDQ file that stay in floating point: what enters is not rounded."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    maker = {output: node.op_type for node in graph.node for output in node.output}
    return tuple(
        f"{node.name or node.output[0]} ({node.op_type})"
        for node in graph.node
        if node.op_type in PRODUCTS
        and any(maker.get(name) != "DequantizeLinear" for name in node.input[:2])
    )


def _tools() -> Any:
    try:
        import onnxruntime.quantization as tools
    except ImportError as error:
        raise WalnutError(
            "quantising needs onnx and onnxruntime: pip install 'walnut-nn[export]'"
        ) from error
    return tools


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice and its progress off the screen."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
