"""The page of a search and of a scan: every figure with its numbers, nothing believed that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

import report_choices as choices
from report_results import HOSTILE
from walnut.core.errors import WalnutError
from walnut.report import render


def page(result: dict, folder: Path) -> str:
    return render(result, None, folder / "report.html").read_text(encoding="utf-8")


def test_the_front_and_the_scan_are_drawn(tmp_path: Path) -> None:
    text = page(choices.search(), tmp_path)
    for part in ("Clean accuracy", "Robust accuracy", "What each layer can spare", "368\u00a0µJ"):
        assert part in text
    assert text.count("<svg") == 4  # two measures, eight layers in two charts
    assert "8/255" in text
    assert "the answer" in text
    assert "out of reach" not in text


def test_a_missed_goal_is_said(tmp_path: Path) -> None:
    assert "The goal is out of reach: the answer is the nearest." in page(
        choices.search(met=False), tmp_path
    )


def test_a_latency_goal_is_drawn_over_milliseconds_and_no_robustness_is_left_out(
    tmp_path: Path,
) -> None:
    result = choices.search()
    result["goal"] |= {"latency_ms": 0.05, "eps": None, "robust": None}
    for candidate in result["front"]:
        del candidate["robust"]
    text = page(result, tmp_path)
    assert "Milliseconds an example" in text
    assert "Robust accuracy" not in text


def test_names_from_a_file_are_escaped(tmp_path: Path) -> None:
    result = choices.search()
    result["front"][-1]["name"] = HOSTILE
    result["sensitivity"][0]["layer"] = HOSTILE
    assert "<script>alert" not in page(result, tmp_path)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("front", [{"name": "x", "accuracy": 0.5}]), ("sensitivity", [{"layer": "x"}])],
)
def test_a_damaged_result_is_named(key: str, wrong: list, tmp_path: Path) -> None:
    result = choices.search() | {key: wrong}
    with pytest.raises(WalnutError, match=f"'{key}'"):
        page(result, tmp_path)


def test_one_candidate_alone_can_be_drawn(tmp_path: Path) -> None:
    result = choices.search()
    result["front"] = result["front"][-1:]
    assert page(result, tmp_path).count("<svg") == 4
