"""Compiled loops: plain Python first, and machine code that is kept where a folder can be written."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from walnut.core.compiled import PATIENCE, Lazy, compiled


@compiled()
def doubled(x: int) -> int:
    return 2 * x


@compiled()
def total(x: list[int]) -> int:
    s = 0
    for value in x:
        s += doubled(value)
    return s


def test_plain_python_calls_plain_python() -> None:
    assert isinstance(total, Lazy)
    assert total.plain([1, 2, 3]) == 12
    assert "machine" not in doubled.__dict__


def test_machine_code_pays_once_much_is_asked_for() -> None:
    loop = Lazy(total.__wrapped__, {})
    assert not loop.pays(PATIENCE // 2)
    assert not loop.pays(PATIENCE // 2)
    assert loop.pays(1)
    loop = Lazy(total.__wrapped__, {})
    assert callable(loop.machine)
    assert loop.pays(0)  # it is there


def test_where_the_package_cannot_be_written_the_users_cache_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "package" / "loops.py"
    source.parent.mkdir()
    source.write_text(
        "from walnut.core.compiled import compiled\n\n"
        "@compiled()\ndef trebled(x):\n    return 3 * x\n"
    )
    (source.parent / "__pycache__").write_text("a file: no folder can be made here, even by root")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    spec = importlib.util.spec_from_file_location("loops", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.trebled(14) == 42
    assert list((tmp_path / "cache").rglob("*.nbi"))
