"""Runtimes as callables: a batch in, logits out, with the threads they use on record."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.evaluate.onnx_model import OnnxModel, onnx_model
from walnut.weights import bake

Path_ = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Runtime:
    """A network in a runtime: ``runtime(x)`` takes (b, ...) and returns logits (b, classes).

    Attributes:
        name: of the runtime.
        version: of the runtime.
        threads: that one call uses.
        ask: what is called.
    """

    name: str
    version: str
    threads: int
    ask: Callable[[Tensor], Tensor] = field(repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits (b, classes), without a graph."""
        with torch.no_grad():
            return self.ask(x)


def _threads(threads: int | None) -> int:
    found = torch.get_num_threads() if threads is None else threads
    if found < 1:
        raise WalnutError(f"a runtime needs at least one thread, not {threads}")
    return found


def eager(model: nn.Module) -> Runtime:
    """Return a copy of a network as torch runs it, on torch's own number of threads.

    Represented weights are made once and not at every call; the network itself is not changed.
    """
    return Runtime("PyTorch eager", torch.__version__, torch.get_num_threads(), _still(model))


def _still(model: nn.Module) -> nn.Module:
    return bake(copy.deepcopy(model)).eval()


def compiled(model: nn.Module) -> Runtime:
    """Return a copy of a network behind ``torch.compile``; the first call compiles, for some seconds.

    It needs a C++ compiler, and says so where there is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about torch, when its compiler is first loaded
        fast: Any = torch.compile(_still(model))

    def ask(x: Tensor) -> Tensor:
        try:
            found: Tensor = fast(x)
        except torch._dynamo.exc.TorchDynamoException as error:
            line = str(error).strip().partition("\n")[0]
            raise WalnutError(f"torch.compile cannot run this network here: {line}") from error
        return found

    return Runtime("torch.compile", torch.__version__, torch.get_num_threads(), ask)


def onnx_runtime(path: Path_, threads: int | None = None) -> Runtime:
    """Return an ONNX file in ONNX Runtime, all its graph optimisations on.

    threads: as many as torch uses, unless given.
    """
    return _onnx(path, _threads(threads), "ORT_ENABLE_ALL", "ONNX Runtime")


def simulated(path: Path_, threads: int | None = None) -> Runtime:
    """Return an ONNX file as it is written, without optimisations: QDQ pairs round, and every
    product between them is computed in floating point. What fake quantisation would answer.
    """
    return _onnx(path, _threads(threads), "ORT_DISABLE_ALL", "ONNX Runtime, simulated")


def _onnx(path: Path_, threads: int, optimisations: str, name: str) -> Runtime:
    path = _file(path)
    try:
        import onnxruntime
    except ImportError as error:
        raise WalnutError(
            f"{path.name} needs ONNX Runtime: pip install 'walnut-nn[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, optimisations)
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own kinds have no common base
        line = str(error).strip().partition("\n")[0]
        raise WalnutError(f"ONNX Runtime cannot open {path.name}: {line}") from error
    whole: OnnxModel = onnx_model(session)  # asks one at a time where scales depend on the batch
    return Runtime(name, onnxruntime.__version__, threads, whole)


def openvino(
    path: Path_, threads: int | None = None, *, precision: torch.dtype = torch.float32
) -> Runtime:
    """Return an ONNX file in OpenVINO on the processor, tuned for latency.

    Args:
        path: an .onnx file.
        threads: as many as torch uses, unless given.
        precision: of what is not integer. OpenVINO's own choice is bfloat16 where the processor has
            it, which is another network than the one exported; here it is float32 unless asked.
    """
    path = _file(path)
    try:
        import openvino as ov
    except ImportError as error:
        raise WalnutError("OpenVINO is missing: pip install 'walnut-nn[openvino]'") from error
    kinds = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
    if precision not in kinds:
        raise WalnutError(f"OpenVINO computes in float32, bfloat16 or float16, not {precision}")
    count = _threads(threads)
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": count,
        "INFERENCE_PRECISION_HINT": kinds[precision],
    }
    try:
        compiled_model = ov.Core().compile_model(str(path), "CPU", hints)
    except Exception as error:  # OpenVINO raises plain RuntimeErrors of its own
        line = str(error).strip().splitlines()[-1]
        raise WalnutError(f"OpenVINO cannot open {path.name}: {line}") from error

    def ask(x: Tensor) -> Tensor:
        found = compiled_model(x.detach().cpu().numpy())[0]
        return torch.from_numpy(found.copy())  # the runtime reuses its memory

    return Runtime("OpenVINO", ov.__version__.partition("-")[0], count, ask)


def executorch(path: Path_) -> Runtime:
    """Return a .pte program in ExecuTorch; it takes the batch size it was exported for."""
    path = _file(path)
    try:
        from executorch.runtime import Runtime as Executor
    except ImportError as error:
        raise WalnutError("ExecuTorch is missing: pip install executorch") from error
    method = Executor.get().load_program(path).load_method("forward")
    return Runtime("ExecuTorch", _version("executorch"), 1, lambda x: method.execute([x])[0])


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _file(path: Path_) -> Path:
    path = Path(path)
    if not path.is_file():
        raise WalnutError(f"there is no file {str(path)!r} to run")
    return path
