"""The page of a verdict: flags above the figure, the curve, the stages, the checks, the maps."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

import report_results as results
import report_robust as made
from test_report_figures import drawn, texts
from test_report_page import Page, page
from walnut.core.errors import WalnutError
from walnut.report import around, curve, labels, maps, palette
from walnut.report.verdict import verdict

SPACE = "\u00a0"


def said(result, folder) -> str:
    return Page(page(result, results.arrays(), folder)).text


def test_the_figure_is_the_headline_where_no_flag_is_red():
    found = verdict(made.robustness(flagged=False, forms=("dense",)))
    assert found.headline.replace(SPACE, " ") == (
        "Dense keeps 61.2 % of 1,000 examples against every attack tried at ε = 0.1 (L∞); "
        "clean 98.5 %."
    )
    assert (found.flags, found.figure) == ((), "")
    assert found.sentences == ("Of 4 checks, 4 came out well.",)
    assert [tile.value.replace(SPACE, " ") for tile in found.tiles][:2] == ["98.5 %", "61.2 %"]


def test_a_red_flag_goes_before_the_figure():
    found = verdict(made.robustness())
    assert found.headline == "1 red flag: do not quote the figure below as it stands."
    (flag,) = found.flags
    assert (flag.title, flag.form, flag.kind) == ("Black box beats white box", "int8", "wrong")
    assert flag.evidence.startswith("Evidence: examples 3, 7, 11, 15,")
    assert flag.evidence.endswith("47 and 3 more; attacks square and APGD.")
    assert "61.2" in found.figure
    assert "the weakest of 2 forms" in found.figure
    told = " ".join(found.sentences).replace(SPACE, " ")
    assert "int8: The gradient comes from a straight-through twin; it agrees on 99.2 %" in told
    assert "Of 10 checks, 8 came out well, 1 to look at." in told


def test_the_page_has_its_parts_in_order(tmp_path):
    parsed = Page(page(made.robustness(), results.arrays(), tmp_path))
    ids = [a["id"] for a in parsed.all("section") if "id" in a]
    wanted = ["curve", "stages", "checks", "maps", "logits", "pictures"]
    assert ids[: len(wanted)] == wanted
    text = parsed.text
    order = [
        "Red flag",
        "Square breaks 14 examples",
        "keeps 61.2",
        "robust accuracy",
        "Look at this",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "What to do: Pass a differentiable twin" in text
    assert "8 checks came out well" in text
    assert "examples with a plausible second class" in text
    assert "apgd-t(eps=0.1, steps=20)" in text  # the full record, among the attacks


def test_passes_of_a_stage_are_per_example_that_entered(tmp_path):
    result = made.robustness(flagged=False, forms=("dense",))
    entry = result["verdict"][0]
    entry["stages"] = [
        {**entry["stages"][0], "entered": 8, "broke": 2, "forward": 20, "backward": 12},
        {**entry["stages"][1], "entered": 0, "broke": 0, "forward": 0, "backward": 0},
    ]
    entry.update(forward=2.5, backward=1.5)
    text = said(result, tmp_path)
    assert "margin 8 2 2.5 1.5 0.6 s always" in text.replace(SPACE, " ")
    assert "APGD 0 0 – – 9.0 s always" in text.replace(SPACE, " ")
    assert "all 2 2.5 per example 1.5 per example" in text.replace(SPACE, " ")


def test_what_is_missing_is_left_out(tmp_path):
    whole = made.robustness(flagged=False, forms=("dense",))
    for key, section in (("curve", "curve"), ("stages", "stages"), ("checks", "checks")):
        result = copy.deepcopy(whole)
        result["verdict"][0][key] = None
        ids = {a.get("id") for a in Page(page(result, results.arrays(), tmp_path)).all("section")}
        assert section not in ids
    ids = {
        a.get("id") for a in Page(page({**whole, "geometry": []}, None, tmp_path)).all("section")
    }
    assert not {"maps", "logits"} & ids


@pytest.mark.parametrize("hole", [None, float("nan")])
def test_missing_numbers_are_dashes(hole, tmp_path):
    result = made.robustness()
    for entry in result["verdict"]:
        for key in ("forward", "backward", "seconds"):
            entry[key] = hole
        entry["curve"]["accuracy"][3] = hole
        entry["clean"]["value"] = entry["robust"]["value"] = hole
    result["geometry"][2]["logits"][5][4] = hole
    text = said(result, tmp_path)
    assert "nan" not in text.lower()
    assert "–" in text


@pytest.mark.parametrize("key", ["verdict", "geometry"])
@pytest.mark.parametrize("wrong", [7, "text", [1], [{"eps": "x"}], {"a": 1}])
def test_a_verdict_of_the_wrong_form_is_refused_in_words(key, wrong, tmp_path):
    with pytest.raises(WalnutError, match=f"the result's .?{key}"):
        page({**made.robustness(), key: wrong}, results.arrays(), tmp_path)


def test_a_curve_begins_at_the_clean_accuracy():
    entry = made.entry("dense", 612, 9.0, [])
    whole = curve.whole_curve(entry)
    assert (whole["eps"][0], whole["accuracy"][0]) == (0.0, 0.985)
    assert len(whole["eps"]) == 21
    again = copy.deepcopy(entry)
    again["curve"]["eps"][0], again["curve"]["accuracy"][0] = 0.0, 0.97
    assert curve.whole_curve(again)["accuracy"][0] == 0.97  # not put there twice
    low, high = whole["low"][10], whole["high"][10]
    assert results.share(round(1000 * whole["accuracy"][10]))["low"] == pytest.approx(low, abs=1e-4)
    assert low < whole["accuracy"][10] < high


def test_the_curve_marks_what_was_asked_and_where_half_falls():
    entries = [made.entry("dense", 612, 9.0, []), made.entry("int8", 655, 5.0, [])]
    figure = curve.curve_figure([curve.whole_curve(entry) for entry in entries], [0.1], "L∞")
    (axes,) = figure.axes
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    assert len(diamonds) == 1  # int8 never falls to half
    (x, y) = diamonds[0].get_xydata()[0]
    assert x == pytest.approx(1 / 9)
    assert y == pytest.approx(0.985 / 2, abs=0.01)
    assert [list(line.get_xdata()) for line in axes.lines].count([0.1, 0.1]) == 1
    found = texts(drawn(figure))
    assert {f"asked ε{SPACE}={SPACE}0.1", "dense", "int8"} <= set(found)
    alone = curve.curve_figure([curve.whole_curve(entries[0])], [0.1], "L∞")
    assert "dense" not in texts(drawn(alone))  # one line needs no name
    assert curve.median_words(curve.whole_curve(entries[1])).startswith("beyond 0.2 (49.2")


def test_norms_are_never_on_one_axis(tmp_path):
    result = made.robustness(flagged=False)
    result["verdict"][1]["norm"] = "l2"
    parsed = Page(page(result, results.arrays(), tmp_path))
    assert "Accuracy left against ε, L∞" in parsed.text
    assert "Accuracy left against ε, L2" in parsed.text


def test_a_map_covers_the_plane_once_and_upwards():
    grid = np.array([[0, 0, 1], [0, 1, 1], [2, 2, 2]])
    areas = []
    for number in range(3):
        path = maps.runs(grid == number, 1.5)
        boxes = path.vertices.reshape(-1, 5, 2)
        areas.append(sum(np.ptp(box[:, 0]) * np.ptp(box[:, 1]) for box in boxes))
    assert areas == pytest.approx([3, 3, 3])
    top = maps.runs(grid == 2, 1.5).vertices
    assert top[:, 1].min() == pytest.approx(0.5)  # the last row is the highest
    right = maps.runs(grid == 1, 1.5).vertices
    assert right[:5, 0].min() == pytest.approx(0.5)  # the last column is the rightmost
    edge = maps.edges(grid, 1.5)
    assert len(edge.vertices) == 2 * (1 + 3 + 1 + 1)  # sides between cells that differ


def test_a_map_shows_its_radius_and_names_its_regions():
    entry = made.plane("dense", ("adversarial", "random"), 3)
    del entry["inside"]
    found = texts(drawn(maps.class_map(entry, 0.1)))
    assert {"3", "5", "8", "9", "adversarial direction", "−0.2", "0.1"} <= set(found)
    squares = [p for p in maps.class_map(entry, 0.1).axes[0].patches if hasattr(p, "get_xy")]
    assert [(p.get_x(), p.get_width()) for p in squares if hasattr(p, "get_x")] == [(-0.1, 0.2)]
    middle = maps.class_map({**entry, "classes": [[0, 0, 1]] * 3}, None).axes[0]
    edge = middle.patches[0].get_path().vertices[:, 0].max()
    assert edge == pytest.approx(0.1)  # halfway from the middle point to the one at the extent
    beyond = maps.class_map(entry, 0.3).axes[0].patches
    assert not [p for p in beyond if hasattr(p, "get_x")]  # the map ends before it


def test_many_classes_have_a_look_each():
    looks = set()
    for number in range(16):
        entry = {**made.plane("d", ("a", "b"), 0), "classes": [[number] * 4] * 4, "names": []}
        patch = maps.class_map(entry, None).axes[0].patches[0]
        looks.add((patch.get_facecolor()[:3], patch.get_alpha()))
    assert len(looks) == 16
    assert maps.class_name([], 300) == "300"


def test_logits_name_the_label_first_and_then_who_wins():
    entry = made.line("dense", "adversarial", 17)
    assert maps.leading(entry)[:2] == [3, 8]
    figure = maps.logit_lines(entry, 0.1)
    assert figure.axes[0].lines[10 - len(maps.leading(entry))].get_color() == palette.light(
        "series-0"
    )
    two = {**entry, "logits": [[1.0, 0.0], [0.0, 1.0]], "eps": [0, 0.1], "label": 0}
    assert sorted(maps.leading({**two, "classes": ["cat", "dog"]})) == [0, 1]
    assert {"cat", "dog"} <= set(
        texts(drawn(maps.logit_lines({**two, "classes": ["cat", "dog"]}, 0.1)))
    )
    flat = {**two, "logits": [[None, float("inf")], [None, None]], "classes": ["cat", "dog"]}
    maps.logit_lines(flat, 0.1)


def test_a_page_holds_only_so_many_maps(tmp_path):
    result = made.robustness(flagged=False, forms=("dense",))
    result["geometry"] = [made.plane("dense", ("a", "b"), i) for i in range(around.MOST + 3)]
    parsed = Page(page(result, results.arrays(), tmp_path))
    assert f"The first {around.MOST} of {around.MOST + 3} are drawn." in parsed.text
    assert len(parsed.all("svg")) == around.MOST + 1


def test_names_at_ends_stand_as_shares_of_the_axes():
    figure = maps.logit_lines(made.line("dense", "random", 17), None)
    (axes,) = figure.axes
    heights = [note.xy[1] for note in axes.texts]
    assert all(0 <= height <= 1 for height in heights)
    ordered = [text.get_text() for text in sorted(axes.texts, key=lambda t: -t.xy[1])]
    assert ordered[:2] == ["3", "8"]
    assert labels.spread([0.5], 0.1) == [0.5]


def test_an_attack_that_seeks_the_smallest_change_is_told_by_its_length(tmp_path):
    result = results.attack()
    found = {
        "eps": None,
        "norm": "l2",
        "median_norm": 1.2345678,
        "robust": results.share(0),
        "fooled_of_correct": results.share(985, 985),
        "attack": "deepfool()",
    }
    result["rows"][0]["attacks"] = {"deepfool": found}
    told = verdict(result).headline.replace(SPACE, " ")
    assert told == (
        "Deepfool fools lenet-5 on 100 % of 985 examples that were right; the median change that "
        "takes has L2 1.235."
    )
    text = said(result, tmp_path).replace(SPACE, " ")
    assert re.search(r"Deepfool median L2", text)
    assert "1.235 fooled 100 %" in text
    result["rows"][0]["attacks"]["deepfool"]["median_norm"] = None
    assert verdict(result).headline.endswith("that were right.")
