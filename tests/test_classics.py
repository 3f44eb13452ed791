"""The page of published figures says what its JSON says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import classics

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "classics.md"
RESULT = ROOT / "benchmarks" / "results" / "classics.json"


@pytest.fixture(scope="module")
def result() -> Any:
    return json.loads(RESULT.read_text(encoding="utf-8"))


def test_the_page_is_what_the_json_gives(result: Any) -> None:
    assert PAGE.read_text(encoding="utf-8") == classics.page(result)


def test_thirty_figures_each_with_its_source_and_a_reason(result: Any) -> None:
    assert len({row["id"] for row in result["rows"]}) == len(result["rows"]) >= 30
    text = PAGE.read_text(encoding="utf-8")
    for row in result["rows"]:
        assert all(row[key] for key in ("source", "experiment", "why"))
        assert f"| {row['id']} | {row['experiment']} |" in text


def test_everything_took_less_than_forty_minutes_of_one_core(result: Any) -> None:
    spent = sum(sum(result[part].values()) for part in classics.TIMES)
    assert spent < 40 * 60
    assert f"In all {spent / 60:.0f} processor minutes" in PAGE.read_text(encoding="utf-8")


def test_rows_are_the_figures_that_were_measured(result: Any) -> None:
    kept: dict[str, Any] = {}
    for key, value in result["figures"].items():
        experiment, _, figure = key.partition(": ")
        seconds, trainings = result["cpu seconds"][experiment], result["trainings"]
        told = {"figures": {}, "cpu seconds": seconds, "trainings": trainings}
        kept.setdefault(experiment, told)["figures"][figure] = value
    again = json.loads(json.dumps(classics.gathered(kept)))
    assert again == {key: result[key] for key in again}


@pytest.mark.parametrize(
    ("published", "ours", "unit", "said"),
    [
        (90.0, 60.0, "%", True),
        (90.0, 59.9, "%", False),
        (0.1, 0.15, "", True),
        (0.1, 0.1501, "", False),
        (0.0, 1.0, "%", True),
        (0.0, 1.1, "%", False),
    ],
)
def test_near_is_a_factor_of_one_and_a_half(
    published: float, ours: float, unit: str, said: bool
) -> None:
    assert classics.near({"published": published, "ours": ours, "unit": unit}) is said


def test_an_order_that_does_not_hold_is_told() -> None:
    figures = {"deepfool": 0.3, "lbfgs": 0.2, "fgsm": 1.0}
    told = {f"lenet {key}": value for key, value in figures.items()}
    made = classics.gathered({"deepfool": {"figures": told, "cpu seconds": 1.0}})
    assert [order["holds"] for order in made["orders"]] == [False]
    assert len(made["rows"]) == 3
    assert "ρ LeNet: FGSM" not in made["missing"]
