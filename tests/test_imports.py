"""Who may import what, and how long a module or a function may be: read from the sources."""

from __future__ import annotations

import ast
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import walnut

ROOT = Path(walnut.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

BASE = {"types", "draws", "frozen", "errors", "features", "files", "compiled"}
LOOPS = {"ascend", "search"}
LEVERS = {"attacks", "explain", "weights", "training"}
WHOLE_MODEL = {
    "activations",
    "bits",
    "curvature",
    "lowrank",
    "norms",
    "pack",
    "prune",
    "quantise",
    "represent",
    "separable",
    "share",
    "winograd",
}


def test_the_tests_see_this_checkout_and_no_copy_of_it() -> None:
    assert ROOT.resolve() == (Path(__file__).parents[1] / "src" / "walnut").resolve(), (
        "walnut is installed as a copy, and changes to src are not tested: pip install -e ."
    )


def dotted(path: Path) -> str:
    """Return the module's name without the package: core.types for src/walnut/core/types.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_package(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).is_dir()


def imported(path: Path) -> set[str]:
    """Return the walnut modules that a module imports, at the top or inside a function."""
    package = ["walnut", *path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            names = {f"{target}.{alias.name}" for alias in node.names}
            found |= {n if _is_module(n) else target for n in names}
    ours = {name for name in found if name.split(".")[0] == "walnut"}
    return {name.removeprefix("walnut").removeprefix(".") for name in ours}


def _is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split(".")[1:])
    return name.startswith("walnut.") and (place.is_dir() or place.with_suffix(".py").is_file())


def level(name: str) -> int:
    """Return how high a module stands in the house."""
    room, _, part = name.partition(".")
    part = part.split(".")[0]
    if room == "core":
        if part in LOOPS:
            return 2
        if part == "rows":  # the one place where steps are repeated: the base of both loops
            return 1
        return 0 if part in BASE or not part else 1
    if room == "codec":
        return 2
    if room == "weights":
        return 3 if part in WHOLE_MODEL or not part else 2
    if room in ("attacks", "explain"):
        return 3
    if room == "training":
        return 4
    return {
        "evaluate": 4,
        "checks": 4,
        "nets": 5,
        "data": 5,
        "export": 5,
        "recipes": 6,
        "report": 6,
    }.get(room, 7)


def allowed(name: str, other: str) -> bool:
    """Say whether the module ``name`` may import the module ``other``."""
    room, other_room = name.split(".")[0], other.split(".")[0]
    if room in ("", "cli", "__init__"):
        return True
    if other == "":
        return room in ("recipes", "report", "cli")  # for __version__
    if room in LEVERS and other_room in LEVERS and room != other_room:
        return False
    if room == other_room and room != "core":
        return True
    if room == "report":
        return level(other) == 0 or other_room == "report"
    if level(name) == 0:
        return level(other) == 0
    if level(name) == 6 and level(other) == 6:
        return room == "recipes"
    return level(other) < level(name) or (room == "core" and level(other) <= level(name))


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_down(path: Path) -> None:
    name = dotted(path)
    wrong = {other for other in imported(path) if not allowed(name, other)}
    assert not wrong, f"walnut.{name} may not import {', '.join(sorted(wrong))}"


def test_no_circles() -> None:
    graph = {dotted(path): imported(path) - {dotted(path)} for path in MODULES}
    top = {path for path in MODULES if path.name != "__init__.py"}
    graph = {dotted(path): graph[dotted(path)] & {dotted(p) for p in top} for path in top}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_one_concept_a_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300, f"{path.name} is longer than 300 lines"
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = _body_lines(node)
            assert body <= 50, f"{path.name}: {node.name} has {body} lines"


def _body_lines(node: ast.FunctionDef) -> int:
    """Return the lines of a function without its signature and its docstring."""
    first = node.body[0]
    said = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    begin = (first.end_lineno or 0) + 1 if said else first.lineno
    return (node.end_lineno or 0) - begin + 1


def test_functions_are_short() -> None:
    sizes = [
        _body_lines(node)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    assert statistics.median(sizes) <= 12


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["audit", "--help"],
        ["audit", "--robust", "--help"],
        ["attack", "--help"],
        ["show"],
        ["shw"],
    ],
)
def test_the_command_line_imports_no_torch(words: list[str]) -> None:
    code = f"import sys; from walnut.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_report_imports_no_torch() -> None:
    code = "import sys, walnut.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return time.perf_counter() - began


def test_importing_walnut_costs_little_more_than_torch() -> None:
    codes = ("import torch", "import walnut", "from walnut import pgd")
    took: dict[str, list[float]] = {code: [] for code in codes}
    for _ in range(3):
        for code in codes:
            took[code].append(seconds(code))
    # the least: what a busy machine adds is out
    base, bare, attack = (min(took[code]) for code in codes)
    assert bare < 0.2 * base  # nothing is imported before it is used
    assert attack < 1.5 * base
