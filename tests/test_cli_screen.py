"""What goes to which stream, and how often."""

from __future__ import annotations

import json

import pytest

from walnut.cli import screen as module
from walnut.cli.screen import Screen, plain


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_progress_is_a_line_now_and_then(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen()
    for done in range(101):
        screen.progress("training", done, 100)
        clock[0] += 0.2
    screen.progress("training", 100, 100)
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines == [f"training: {done}/100" for done in (0, 25, 50, 75, 100)]
    for done, what in enumerate(("one", "two", "three", "four")):
        screen.progress(what, done, 9)
        clock[0] += 0.45
    assert capsys.readouterr().err.splitlines() == ["three: 2/9"]


def test_quiet_is_quiet_and_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(as_json=True, quiet=True)
    screen.progress("work", 0, 1)
    screen.note("odd")
    screen.say("words")
    screen.table("title", ["a"], [["b"]])
    assert capsys.readouterr() == ("", "")
    screen.document({"a": (1, float("inf")), 2: "é"})
    assert json.loads(capsys.readouterr().out) == {"a": [1, None], "2": "é"}
    assert screen.notes == ["odd"]


def test_a_note_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for _ in range(3):
        screen.note("odd")
    assert capsys.readouterr().err == "walnut: note: odd\n"


def test_a_table_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().table("what", ["", "n"], [["one", 1], ["twenty", 20]])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert [line.split() for line in printed.splitlines()] == [
        ["what"], ["n"], ["─" * 10], ["one", "1"], ["twenty", "20"], [],
    ]  # fmt: skip
    Screen(as_json=True).document({})
    assert capsys.readouterr().out == "{}\n"


def test_a_long_cell_hides_no_figure(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().table("", ["", "n", "why"], [["one", 12345, "because " * 100]])
    assert "12345" in capsys.readouterr().out


def test_the_terminal_gets_a_live_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    screen = Screen()
    screen.progress("training", 3, 10)
    assert screen._live is not None
    screen.note("odd")  # takes the live line away first
    assert screen._live is None
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "training" in printed.err
    assert "\x1b[3" not in printed.err  # no colour


def test_plain_is_what_json_holds() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    assert plain({"a": [Odd(), None, True, 1.5], 3: ("x",)}) == {
        "a": ["odd", None, True, 1.5],
        "3": ["x"],
    }
