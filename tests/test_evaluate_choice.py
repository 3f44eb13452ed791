"""When a stage is worth running."""

import pytest
import torch

from walnut.evaluate.choice import often
from walnut.evaluate.stage import Suspicion
from walnut.evaluate.survey import StageRecord, Survey


def _survey(*went: tuple[str, str, int, int]) -> Survey:
    """Return a survey after stages of (name, family, entered, broke)."""
    survey = Survey.of(torch.rand(4, 3), torch.zeros(4, dtype=torch.int64))
    for name, family, entered, broke in went:
        survey.stages.append(StageRecord(name, "", family, "", entered, broke, 0, 0, 0.0))
    return survey


@pytest.mark.parametrize("broke", [0, 4, 5, 100])
def test_a_stage_is_widened_where_it_breaks_its_part(broke):
    survey = _survey(("first", "gradient", 100, 100), ("last", "gradient", 100, broke))
    why = often(0.05)(survey, Suspicion((), True))
    assert why == (f"last broke {broke} of 100" if broke >= 5 else "")


def test_only_the_last_stage_with_gradients_counts_and_only_where_there_are_any():
    survey = _survey(("climb", "gradient", 10, 5), ("queries", "query", 10, 0))
    assert often(0.05)(survey, Suspicion((), True)) == "climb broke 5 of 10"
    assert not often(0.05)(survey, Suspicion((), False))
    assert not often(0.05)(_survey(), Suspicion((), True))
