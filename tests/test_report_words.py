"""Numbers in words, and the verdict: said when the numbers say it, and not otherwise."""

from __future__ import annotations

import copy

import pytest

import report_results as results
from walnut.report import words
from walnut.report.odd import oddities
from walnut.report.verdict import verdict

SPACE = "\u00a0"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0 %"),
        (1.0, "100 %"),
        (0.0004, "<\u202f0.1 %"),
        (0.0006, "0.1 %"),
        (0.99949, "99.9 %"),
        (0.9996, ">\u202f99.9 %"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_percent_never_rounds_to_all_or_nothing(value, told):
    assert words.percent(value) == told.replace(" %", f"{SPACE}%")


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (24_797, "24.8 kB"), (999_600, "1 MB"),
     (1_066_440, "1.07 MB"), (3.2e9, "3.2 GB")],
)  # fmt: skip
def test_sizes_are_decimal(value, told):
    assert words.size(value).replace(SPACE, " ") == told


@pytest.mark.parametrize(
    ("eps", "told"),
    [
        (8 / 255, "8/255"),
        (1 / 255, "1/255"),
        (0.1, "0.1"),
        (0.2, "0.2"),
        (0.3, "0.3"),
        (1, "1"),
        (0.031, "0.031"),
    ],
)
def test_radii_in_255ths_only_where_they_are(eps, told):
    assert words.radius(eps) == told


def test_times_and_durations():
    assert [words.times(v) for v in (1, 6.54, 19.94, 19.96, 43.01, 1234.5)] == [
        "1.0×", "6.5×", "19.9×", "20×", "43×", "1,234×",
    ]  # fmt: skip
    told = [words.duration(s).replace(SPACE, " ") for s in (0.42, 59.9, 125, 4800)]
    assert told == ["0.4 s", "59.9 s", "2 min 5 s", "1 h 20 min"]


def test_the_verdict_on_an_audit():
    found = verdict(results.audit())
    assert found.headline.replace(SPACE, " ") == (
        "The packed file is 43× smaller and keeps 98.4 % clean accuracy (dense 98.5 %); "
        "PGD at ε = 0.1 leaves 3.1 % (dense 2.9 %)."
    )
    assert [tile.value.replace(SPACE, " ") for tile in found.tiles] == [
        "43×",
        "98.4 %",
        "3.1 %",
        "13.1 %",
    ]
    told = " ".join(found.sentences)
    assert "differ by less than 1,000 examples can tell" in told
    assert "fool the packed one as well" in told
    assert "no faster and no slower" in told
    assert found.odd == ()


@pytest.mark.parametrize(
    ("left", "told"),
    [(2, "is easier to fool"), (28, "differ by less"), (200, "looks harder to fool")],
)
def test_a_change_is_called_one_only_beyond_the_intervals(left, told):
    result = results.audit()
    result["rows"][-1]["attacks"]["pgd"]["robust"] = results.share(left)
    assert told in " ".join(verdict(result).sentences)


def test_faster_and_slower_need_disjoint_spreads():
    result = results.audit()
    for low, high, told in (
        (0.1, 0.2, "slower"),
        (0.01, 0.02, "faster"),
        (0.04, 0.06, "no faster"),
    ):
        result["rows"][-1]["latency"].update(low_ms=low, high_ms=high)
        assert f"It runs {told}" in " ".join(verdict(result).sentences)


def test_the_verdicts_on_other_kinds():
    told = verdict(results.transfer()).headline.replace(SPACE, " ")
    assert told.startswith("At ε = 0.1, examples leave the network they were made against 5.0 %")
    assert told.endswith("noise of the same size leaves 95.5 %.")
    told = verdict(results.attack()).headline.replace(SPACE, " ")
    assert told == "PGD at ε = 0.1 leaves lenet-5 right on 2.9 % of 1,000 examples (clean 98.5 %)."
    told = verdict(results.train()).headline.replace(SPACE, " ")
    assert told == "After 12 epochs, test accuracy is 98.5 % and validation accuracy is 98.4 %."
    assert verdict({}).headline == ""


@pytest.mark.parametrize("make", [results.audit, results.transfer, results.attack, results.train])
def test_nothing_is_odd_about_a_plausible_result(make):
    assert oddities(make()) == []


def spoil(key: str) -> dict:
    """Return an audit with one thing wrong."""
    result = copy.deepcopy(results.audit())
    packed = result["rows"][-1]
    share = results.share
    if key == "larger":
        packed["ratio"] = 0.9
    elif key == "not exact":
        packed["clean"] = share(985)
    elif key == "lost":
        packed["clean"], result["rows"][2]["clean"] = share(900), share(900)
    elif key == "guessing":
        result["rows"] = [{"form": "dense", "clean": share(101)}]
    elif key == "few":
        result["rows"] = [{"form": "dense", "clean": share(49, 50)}]
    elif key == "weak":
        packed["attacks"]["pgd"]["robust"] = share(400)
    elif key == "noise":
        packed["attacks"]["noise"]["robust"] = share(500)
    elif key == "masked":
        packed["attacks"]["pgd"]["robust"] = packed["attacks"]["fgsm"]["robust"] = share(600)
    elif key == "floor":
        for row in result["rows"]:
            row["attacks"]["pgd"]["robust"] = share(0)
    elif key == "rises":
        result["curves"][0]["low"][-1] = 0.5
    elif key == "diagonal":
        result["transfer"][0]["accuracy"][0][1] = 0.1
    elif key == "loss":
        result["history"][3]["train_loss"] = float("nan")
    return result


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("larger", "no smaller"),
        ("not exact", "packing should be exact"),
        ("lost", "compression cost 8.5 points"),
        ("guessing", "no better than guessing"),
        ("few", "Only 50 examples"),
        ("weak", "PGD fools less than FGSM"),
        ("noise", "random noise alone costs"),
        ("masked", "its gradient is masked"),
        ("floor", "smaller ε"),
        ("rises", "the attack got stuck"),
        ("diagonal", "is fooled more by examples made against dense"),
        ("loss", "lower the learning rate"),
    ],
)
def test_what_is_odd_is_said(key, told):
    assert told in " ".join(oddities(spoil(key)))
