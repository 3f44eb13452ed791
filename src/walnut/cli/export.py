"""``walnut export``: write a network for a runtime, and measure what is deployed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from walnut.core.errors import WalnutError
from walnut.core.files import write_json

from .options import ExampleOptions, NetworkOptions, Options
from .run import Run, network_name
from .screen import plain
from .tables import percent, size
from .values import Count, choice, one

FOLDER = False


class Config(ExampleOptions, NetworkOptions, Options):
    """Write a network to an ONNX file, and measure it in the runtimes that are installed.

    Example: walnut export --model lenet.walnut --data mnist --to qdq.onnx

    qdq: int8 weights per channel and 8-bit activations, their ranges found on training examples.

    float: float32. dynamic: int8 weights, the activations' scale found anew at every call.
    """

    to: Annotated[Path | None, one("FILE.onnx", "none")] = None
    """The file to write."""
    form: Annotated[Literal["qdq", "float", "dynamic"], choice("qdq", "float", "dynamic")] = "qdq"
    """What is written."""
    reach: Annotated[
        Literal["min-max", "percentile", "entropy"], choice("min-max", "percentile", "entropy")
    ] = "min-max"
    """How the ranges of activations are found (qdq)."""
    activations: Annotated[Literal["uint8", "int8"], choice("uint8", "int8")] = "uint8"
    """Their type (qdq); uint8 is fast on every processor."""
    calibration: Count = 500
    """How many training examples the ranges are found on."""


def run(config: Config, run: Run) -> int:
    """Export, and print one row for each form that runs here."""
    if config.to is None:
        raise WalnutError("walnut export needs --to: the .onnx file to write")
    model, dataset = run.subject()
    from walnut.recipes.export import export

    result: Any = export(
        model,
        dataset,
        to=config.to,
        write=_writer(config),
        name=network_name(config.model),
        calibration=config.calibration,
        examples=config.examples,
        seed=config.seed,
        progress=run.screen.progress,
    )
    result |= run.identity()
    if config.out:
        write_json(config.out / "result.json", plain(result))
    run.screen.document(result)
    _table(run, result)
    made = result["export"]
    run.screen.say(f"gap of the deployed to the {_reference(config.form)}: {_gap(made['gap'])}")
    run.screen.say(f"file {config.to} ({size(made['bytes'])} bytes)")
    smaller = config.form == "float" or made["bytes"] < _float_bytes(result)
    if not smaller:
        run.screen.note("this file is not smaller than the float32 one")
    return 0 if smaller else 1


def _writer(config: Config) -> Any:
    import torch

    from walnut.export import dynamic, qdq, to_onnx
    from walnut.weights.calibrate import entropy, min_max, percentile

    if config.form == "float":
        return to_onnx
    if config.form == "dynamic":
        return dynamic
    reaches: dict[str, Any] = {
        "min-max": min_max(),
        "percentile": percentile(),
        "entropy": entropy(),
    }
    types = {"uint8": torch.uint8, "int8": torch.int8}
    return partial(qdq, reach=reaches[config.reach], activations=types[config.activations])


def _reference(form: str) -> str:
    return "network in PyTorch" if form == "float" else "simulated"


def _gap(gap: dict[str, Any]) -> str:
    return (
        f"logits up to {gap['largest']:.3g} apart ({gap['relative']:.2%} of their size), the same "
        f"label on {gap['agreement']:.2%} of {gap['examples']} examples"
    )


def _float_bytes(result: dict[str, Any]) -> int:
    return int(next(r["bytes"] for r in result["rows"] if r["form"] == "ONNX Runtime float32"))


def _table(run: Run, result: dict[str, Any]) -> None:
    rows = result["rows"]
    threads = rows[0]["latency"]["threads"]
    run.screen.table(
        "",
        ["", "bytes", "ratio", "clean", "same label", "ms", "time"],
        (
            [
                row["form"],
                size(row.get("bytes")),
                f"{row['ratio']:.1f}×" if "ratio" in row else "–",
                percent(row["clean"]),
                percent(row["gap"]["agreement"]),
                f"{row['latency']['median_ms']:.3f}",
                f"{row['latency']['ratio_to_dense']:.2f}",
            ]
            for row in rows
        ),
    )
    run.screen.say(
        f"ms: one example, {threads} thread{'s' * (threads > 1)}, in turn; time: as a share of "
        "PyTorch's, median of the rounds"
    )
