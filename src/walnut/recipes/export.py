"""Write a network for a runtime, and measure what is deployed: bytes, answers, accuracy, time."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.types import Progress
from walnut.data import Dataset
from walnut.evaluate import accuracy
from walnut.evaluate.cost import latency
from walnut.export import Exported, Runtime, eager, gap, onnx_runtime, openvino, to_onnx

from .record import Json, drawn_examples, header

Writer = Callable[[nn.Module, Path, Tensor], Exported]
"""``(model, path, calibration examples) -> record``: what writes the file that is wanted."""

CALIBRATION = 500


def export(
    model: nn.Module,
    dataset: Dataset,
    *,
    to: Path,
    write: Writer,
    name: str = "network",
    calibration: int = CALIBRATION,
    examples: int = 1000,
    rounds: int = 30,
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Export a network and measure every form of it that runs here, in turn, on one example.

    Args:
        model: trained network from [0, 1] to logits; it is not changed.
        dataset: the training split gives the calibration examples, the test split the accuracy.
        to: the file.
        write: ``to_onnx``, ``dynamic``, or ``qdq`` with its arguments filled in.
        name: how the network is called.
        calibration: how many training examples the ranges are found on.
        examples: how many test examples the accuracy is measured on.
        rounds: of the timing.
        seed: of the examples.
        progress: called as work goes on.

    Returns:
        a result with a row for each form. ``bytes`` are the length of a file that the row's runtime
        opens; ``latency`` is timed, batch 1, alternating with the network in PyTorch.
    """
    if to.suffix != ".onnx":
        raise WalnutError(f"{to.name} is to be an .onnx file: call it {to.stem}.onnx")
    began, tell = time.perf_counter(), progress or (lambda what, done, total: None)
    seen = _calibration(dataset, calibration, seed)
    x, y = drawn_examples(dataset, examples, seed)
    tell("writing and checking the file", 0, 3)
    made = write(model, to, seen)
    with tempfile.TemporaryDirectory() as folder:
        plain = made if made.dense is None else to_onnx(model, Path(folder) / "f.onnx", seen[:50])
        forms = _forms(model, made, plain)
        tell("accuracy", 1, 3)
        rows: list[Json] = [
            {
                "form": form,
                "runtime": runtime.name,
                "version": runtime.version,
                **({"bytes": record.bytes} if record else {}),
                "clean": accuracy(runtime, x, y).json(),
                "gap": gap(runtime, eager(model), x[:200]).json(),
            }
            for form, (runtime, record) in forms.items()
        ]
        tell("timing", 2, 3)
        times = latency(
            {form: runtime for form, (runtime, _) in forms.items()}, x[:1], rounds=rounds
        )
    for row in rows:
        row["latency"] = times[row["form"]].json()
        if "bytes" in row:
            row["ratio"] = plain.bytes / row["bytes"]
    tell("timing", 3, 3)
    result = header("export", seed, dataset, len(y))
    result["network"] = {"name": name}
    result["rows"] = rows
    result["export"] = made.json() | {"calibration": len(seen)}
    result["seconds"] = round(time.perf_counter() - began, 3)
    return result


def _calibration(dataset: Dataset, count: int, seed: int) -> Tensor:
    """Return ``count`` training examples, drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset.train), generator=generator)[:count]
    return dataset.train.x[order]


def _forms(
    model: nn.Module, made: Exported, plain: Exported
) -> dict[str, tuple[Runtime, Exported | None]]:
    """Return the forms that can be run here, the network in PyTorch first."""
    forms: dict[str, tuple[Runtime, Exported | None]] = {"PyTorch": (eager(model), None)}
    files = {"float32": plain} if made is plain else {"float32": plain, "int8": made}
    for kind, record in files.items():
        forms[f"ONNX Runtime {kind}"] = (onnx_runtime(record.path), record)
    if importlib.util.find_spec("openvino") is not None and not _is_dynamic(made):
        for kind, record in files.items():
            forms[f"OpenVINO {kind}"] = (openvino(record.path), record)
    return forms


def _is_dynamic(made: Exported) -> bool:
    """Say whether a file quantises as it runs: OpenVINO takes the batch for one example there."""
    return b"DynamicQuantizeLinear" in made.path.read_bytes()
