"""Verbs of the command line, run in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from walnut.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """Run a verb with --json and return its document, the only thing on standard output."""
    capsys.readouterr()
    code = main([*(str(word) for word in words), "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return dict(json.loads(printed.out))


def two_nets(folder: Path, a: str, b: str) -> dict[str, Path]:
    """Train two networks a little, by the verb, and return their files."""
    for name, net in {"a": a, "b": b}.items():
        words = ["train", "--net", net, "--epochs", "3", "--quiet", "--out", str(folder / name)]
        assert main(words) == 0
    return {name: folder / name / "model.safetensors" for name in "ab"}
