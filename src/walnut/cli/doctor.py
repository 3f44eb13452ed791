"""``walnut doctor``: what is installed, what is broken, and whether a network can be attacked."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata

from walnut.core.files import write_json

from .options import DataOptions, NetworkOptions, Options
from .run import Run
from .screen import plain
from .values import Count

FOLDER = False
_CORE = {
    "torch": "torch", "numpy": "numpy", "safetensors": "safetensors",
    "constriction": "constriction", "scikit-learn": "sklearn", "matplotlib": "matplotlib",
    "pillow": "PIL", "jinja2": "jinja2", "jaxtyping": "jaxtyping",
}  # fmt: skip
_EXTRAS = {
    "pyarrow": ("pyarrow", "parquet", "reads MNIST and CIFAR-10 as Parquet"),
    "huggingface-hub": ("huggingface_hub", "hub", "fetches data sets"),
    "lightning-fabric": ("lightning_fabric", "dist", "trains on more devices"),
}
_OTHERS = {"torchvision": "torchvision", "torchaudio": "torchaudio"}
_MARKS = {"good": "ok", "absent": "-", "odd": "note", "wrong": "WRONG"}


class Config(DataOptions, NetworkOptions, Options):
    """Say what is installed, broken or missing; with --model, check a network too.

    Example: walnut doctor --model runs/lenet/model.safetensors --data mnist

    Exit code 1 when something is wrong.
    """

    examples: Count = 500
    """How many test examples a network is checked on."""


@dataclass(frozen=True)
class Line:
    """One line of the diagnosis: what was looked at, how it is, and what to do."""

    what: str
    level: str
    sentence: str
    remedy: str = ""


def run(config: Config, run: Run) -> int:
    """Print the diagnosis; 1 when something is wrong."""
    lines = [*_machine(), *_packages(run)]
    if config.model:
        lines += _network(config, run)
    wrong = sum(line.level == "wrong" for line in lines)
    document = {"kind": "doctor", "wrong": wrong, "findings": [asdict(line) for line in lines]}
    if config.out:
        write_json(config.out / "result.json", plain(document))
    run.screen.document(document)
    run.screen.table(
        "", ["", "what", "finding"], [(_MARKS[x.level], x.what, x.sentence) for x in lines], left=3
    )
    for line in lines:
        if line.remedy:
            run.screen.say(f"{line.what}: {line.remedy}")
    return 1 if wrong else 0


def _machine() -> list[Line]:
    """Return what computes, and where data is looked for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    folder = os.environ.get("WALNUT_DATA")
    if folder and not os.path.isdir(folder):
        where = Line("WALNUT_DATA", "wrong", f"{folder} is not a folder", "correct or unset it")
    else:
        where = Line("WALNUT_DATA", "good", folder or "not set: only the digits come along")
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return [Line("machine", "good", f"{python}, {cores} cores"), where]


def _packages(run: Run) -> list[Line]:
    """Return a line per package, each imported in a process of its own."""
    lines = []
    names = [*_CORE, *_EXTRAS, *_OTHERS]
    for index, name in enumerate(names):
        run.screen.progress("looking at packages", index, len(names))
        lines += _package(name)
    run.screen.progress("looking at packages", len(names), len(names))
    return lines


def _package(name: str) -> list[Line]:
    """Return how one package is."""
    module = _CORE.get(name) or _OTHERS.get(name) or _EXTRAS[name][0]
    version = _version(name)
    if version is None and name in _OTHERS and not _findable(module):
        return []
    if version is None and name in _EXTRAS and not _findable(module):
        _, extra, use = _EXTRAS[name]
        return [Line(name, "absent", f'not installed; {use}: pip install "walnut-nn[{extra}]"')]
    trouble = probe(module)
    shown = version or "of no known version"
    if not trouble:
        return [Line(name, "good", shown)]
    if name in _OTHERS:
        remedy = (
            "walnut does not use it, other packages may: uninstall it, or install the wheel "
            "built for your torch"
        )
        return [Line(name, "odd", f"{shown} is installed but broken: {trouble}", remedy)]
    return [
        Line(
            name,
            "wrong",
            f"{shown} does not import: {trouble}",
            f"pip install --force-reinstall {name}",
        )
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _findable(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def probe(module: str, *, timeout: float = 120.0) -> str:
    """Import ``module`` in another process; return what went wrong there, or an empty text.

    A broken wheel may raise anything (torchvision: ``RuntimeError: operator torchvision::nms does
    not exist``) or take the interpreter with it; neither reaches this process.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its import took more than {timeout:g} seconds"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"its import ended the interpreter (signal {-done.returncode})"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return said[-1][:200] if said else f"its import ended with code {done.returncode}"


def _network(config: Config, run: Run) -> list[Line]:
    """Return the findings about the network of ``--model``."""
    from walnut.evaluate.honesty import examine

    model, dataset = run.subject()
    x, y = dataset.test.x[: config.examples], dataset.test.y[: config.examples]
    run.screen.progress("looking at the network", 0, 1)
    found = examine(model, x, y)
    run.screen.progress("looking at the network", 1, 1)
    return [Line(f.name, f.level, f.sentence, f.remedy) for f in found]
