"""The page as a document: self-contained, escaped, labelled, the same for equal input."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import report_results as results
import report_robust as robust
from walnut.core.errors import WalnutError
from walnut.report import render

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A page's elements in order, their parents checked as they close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} repeats an attribute: {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page(result: dict[str, Any], pictures: dict[str, np.ndarray] | None, folder: Path) -> str:
    return render(result, pictures, folder / "report.html").read_text(encoding="utf-8")


CASES = {
    "audit": lambda: (results.audit(), results.arrays()),
    "audit without arrays": lambda: (results.audit(), None),
    "transfer": lambda: (results.transfer(), None),
    "attack in colour": lambda: (results.attack(), results.arrays(shape=(3, 32, 32))),
    "attack on vectors": lambda: (results.attack(), results.arrays(shape=(20,))),
    "attack on long vectors": lambda: (results.attack(), results.arrays(shape=(2000,))),
    "train": lambda: (results.train(), None),
    "robustness": lambda: (robust.robustness(), results.arrays()),
    "nothing": lambda: ({}, None),
}


@pytest.fixture(params=CASES, name="case", scope="module")
def fixture_case(request, tmp_path_factory) -> tuple[str, str, Page]:
    text = page(*CASES[request.param](), tmp_path_factory.mktemp("page"))
    return request.param, text, Page(text)


def test_nothing_is_fetched_and_nothing_runs(case):
    _, text, parsed = case
    policy = next(m for m in parsed.all("meta") if "http-equiv" in m)
    assert "default-src 'none'" in str(policy["content"])
    assert not parsed.all("script")
    assert not parsed.all("link")
    for tag, attributes in parsed.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} has a handler"
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                assert str(value).startswith(("#", "data:image/png;base64,")), value
    assert not re.search(r"url\((?!#)|@import|https?:", text.replace("http-equiv", ""))


def test_everything_has_a_name(case):
    _, _, parsed = case
    assert parsed.all("html")[0]["lang"] == "en"
    assert len(parsed.all("title")[0]) == 0
    for landmark in ("header", "main", "footer"):
        assert len(parsed.all(landmark)) == 1
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in parsed.elements:
        for name in str(attributes.get("aria-labelledby") or "").split():
            assert name in ids
        href = str(attributes.get("href") or "")
        assert not href.startswith("#") or href[1:] in ids, href
        for name in re.findall(r"url\(#([^)]+)\)", " ".join(map(str, attributes.values()))):
            assert name in ids
        if "tabindex" in attributes:
            assert attributes["role"] == "region"
            assert attributes["aria-label"]
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-labelledby"]
    assert all(a.get("alt") for a in parsed.all("img"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert {a.get("scope") for a in parsed.all("th")} <= {"row", "col"}


def test_headings_go_down_one_at_a_time(case):
    _, _, parsed = case
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_every_chart_has_its_numbers(case):
    name, _, parsed = case
    charts = len(parsed.all("svg"))
    # 3 radii, 3 attacks, 3 layers and 2 measures; a training has 3 measures
    wanted = {"audit": 11, "audit without arrays": 11, "transfer": 3, "train": 3, "nothing": 0}
    wanted["robustness"] = 5  # a curve, two maps, two lines
    assert charts == wanted.get(name, 1)
    assert len(parsed.all("figure")) == charts
    assert len(parsed.all("details")) >= charts


def test_normal_results_are_small(case):
    assert len(case[1].encode()) < 500_000


def test_sections_are_there_when_their_data_is(tmp_path):
    full = results.audit()
    for key in ("transfer", "curves", "histograms", "pictures"):
        full[key] = full[key][:1]
    owners = {
        "transfer": "transfer",
        "curves": "robustness",
        "histograms": "weights",
        "layers": "layers",
        "history": "training",
        "pictures": "pictures",
        "notes": "notes",
    }
    whole = Page(page(full, results.arrays(), tmp_path))
    sections = {a.get("id") for a in whole.all("section")}
    assert set(owners.values()) <= sections
    for key, section in owners.items():
        less = {name: value for name, value in full.items() if name != key}
        left = {a.get("id") for a in Page(page(less, results.arrays(), tmp_path)).all("section")}
        assert left == sections - {section}


def test_the_page_says_what_the_result_says(tmp_path):
    text = Page(page(results.audit(), results.arrays(), tmp_path)).text
    for shown in (
        "24,797",
        "43×",
        "97.4–99.0",
        "lenet-300-100 on digits",
        "9f2c" * 16,
        "2 min 3 s",
    ):
        assert shown in text
    assert "5 times as strong" in text  # 10 was asked for; beyond 5, 0.1 leaves [0, 1]
    assert text.count("shared = packed") >= 3


def test_equal_input_gives_an_equal_file(tmp_path):
    first = page(results.audit(), results.arrays(), tmp_path)
    assert page(copy.deepcopy(results.audit()), results.arrays(), tmp_path) == first


def hostile(value: Any) -> Any:
    """Return a result whose every text is an attack on the page."""
    if isinstance(value, str):
        return results.HOSTILE
    if isinstance(value, list):
        return [hostile(item) for item in value]
    kept = ("level", "kind")  # what a text means to the page, so that all of it is drawn
    if isinstance(value, dict):
        return {k: v if k in kept else hostile(v) for k, v in value.items()}
    return value


@pytest.mark.parametrize(
    "make",
    [results.audit, results.transfer, results.attack, results.train, robust.robustness],
)
def test_no_text_of_a_result_becomes_markup(make, tmp_path):
    text = page(hostile(make()), results.arrays(), tmp_path)
    parsed = Page(text)
    assert not parsed.all("script")
    assert "<script" not in text
    assert "alert(1)" in parsed.text
    assert "{{ 7*7 }}" in parsed.text
    assert "\u202e" not in text
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "name", ["$\\frac$", "中文 网络", "a\x00b\x1b[31m", "\ud800", "_x", "", "e" * 300]
)
def test_any_name_can_be_drawn(name, tmp_path):
    result = results.transfer()
    for entry in result["transfer"]:
        entry["names"][0] = name
    result["rows"][0]["form"] = name
    result["curves"] = results.curves((name, "dense"))
    result["histograms"] = [{**r, "layer": name} for r in results.histograms()]
    Page(page(result, None, tmp_path))


def test_one_row_one_picture_two_classes(tmp_path):
    result = results.attack()
    result["pictures"] = result["pictures"][:1]
    result["data"]["classes"] = ["cat", "dog"]
    parsed = Page(page(result, results.arrays(rows=1), tmp_path))
    assert len(parsed.all("img")) == 3


@pytest.mark.parametrize(
    "key", ["rows", "transfer", "curves", "histograms", "layers", "history", "pictures"]
)
@pytest.mark.parametrize("wrong", [7, "text", [1], [{"eps": "x"}], {"a": 1}])
def test_a_result_of_the_wrong_form_is_refused_in_words(key, wrong, tmp_path):
    result = {**results.audit(), key: wrong}
    if (key, wrong) == ("history", [{"eps": "x"}]):  # nothing that is drawn, and nothing wrong
        assert 'id="training"' not in page(result, results.arrays(), tmp_path)
        return
    with pytest.raises(WalnutError, match=f"the result's .?{key}"):
        page(result, results.arrays(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hole", [None, float("nan"), float("inf")])
def test_missing_numbers_are_dashes(hole, tmp_path):
    def holed(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: holed(v) for k, v in value.items()}
        return hole if isinstance(value, float) else value

    result = results.audit()
    result["rows"] = [holed(row) for row in result["rows"]]
    text = Page(page(result, results.arrays(), tmp_path)).text
    assert "nan" not in text.lower().replace("finance", "")
    assert "–" in text


def test_it_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old")
    with pytest.raises(WalnutError, match="plain JSON"):
        render({"rows": {1, 2}}, None, target)
    assert target.read_text() == "old"
    assert render({}, None, str(target)) == target
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(WalnutError, match="cannot be written"):
        render({}, None, tmp_path / "nowhere" / "report.html")


def test_a_large_page_says_so(tmp_path):
    result = {**results.train(), "notes": ["x" * 2_100_000]}
    assert "This page is large: 2." in page(result, None, tmp_path)


def test_many_pictures_stay_under_two_megabytes(tmp_path):
    count = 400
    result = results.audit((3, 32, 32))
    result["pictures"] = [
        {
            "form": "dense",
            "attack": "pgd",
            "eps": 0.1,
            "prediction": "1",
            "success": True,
            "array": i,
        }
        for i in range(count)
    ]
    text = page(result, results.arrays(count, (3, 32, 32)), tmp_path)
    assert len(text) < 2_000_000
    omitted = int(re.search(r"([\d,]+) pictures more are in pictures.npz", text)[1])
    assert len(Page(text).all("img")) == 3 * (count - omitted)
