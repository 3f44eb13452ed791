"""The charts: what is drawn is what the numbers are, as text and as paths, in the page's colours."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

import report_results as results
from walnut.report import figures, labels, palette
from walnut.report.svg import inline_svg


def drawn(figure: Figure, prefix: str = "p") -> ElementTree.Element:
    """Return a figure as the page's SVG, parsed."""
    return ElementTree.fromstring(inline_svg(figure, prefix=prefix, title="t<", description="d"))


def texts(root: ElementTree.Element) -> list[str]:
    return [text for element in root.iter("text") for text in element.itertext()]


def test_the_heat_map_prints_its_values():
    entry = results.matrix(0.05, results.FORMS)
    root = drawn(figures.transfer_heatmap(entry))
    found = texts(root)
    for row in (*entry["accuracy"], entry["noise"], entry["clean"]):
        for value in row:
            assert f"{100 * value:.1f}" in found
    assert {"accuracy left on", "made against", "noise", "clean"} <= set(found)
    assert len(list(root.iter("path"))) >= 24


def test_the_heat_map_is_strongest_where_least_is_left():
    entry = {"eps": 0.1, "names": ["a", "b"], "accuracy": [[0.0, 1.0], [0.5, 0.25]]}
    figure = figures.transfer_heatmap(entry)
    depths = [patch.get_alpha() for patch in figure.axes[0].patches]
    assert depths == pytest.approx([0.7, 0.04, 0.37, 0.535])


def test_curves_are_the_data_in_order_of_eps():
    curve = {"form": "dense", "attack": "pgd", "eps": [0.2, 0, 0.1], "accuracy": [0.1, 0.9, 0.4]}
    line = figures.robustness_curves([curve]).axes[0].lines[0]
    np.testing.assert_allclose(line.get_xydata(), [[0, 0.9], [0.1, 0.4], [0.2, 0.1]])


def test_forms_keep_their_colour_in_every_chart():
    curves = [c for c in results.curves(("packed", "dense")) if c["attack"] == "pgd"]
    lines = figures.robustness_curves(curves).axes[0].lines
    wanted = [palette.light("series-3"), palette.light("series-0")]
    assert [line.get_color() for line in lines] == wanted
    histograms = [r for r in results.histograms() if r["layer"] == "fc1.weight"]
    found = figures.weight_histograms(histograms)
    colors = [axes.texts[0].get_color() for axes in found.axes]
    assert colors == [palette.light(f"series-{i}") for i in range(4)]


def test_histograms_leave_zeros_out_and_say_so():
    record = {"form": "pruned", "layer": "w", "edges": [-1, 0, 1], "counts": [3, 1], "zeros": 12}
    figure = figures.weight_histograms([record])
    assert list(figure.axes[0].patches[0].get_data().values) == [3, 1]
    assert "75.0\u00a0% of 16 are zero" in [text.get_text() for text in figure.axes[0].texts]


def test_labels_keep_apart_and_in_order():
    rng = np.random.default_rng(0)
    for _ in range(300):
        heights = rng.random(rng.integers(1, 9)) * rng.choice([0.02, 0.3, 1])
        placed = np.array(labels.spread(list(heights), 0.08))
        assert (np.argsort(placed) == np.argsort(heights)).all()
        assert (np.diff(np.sort(placed)) >= 0.08 - 1e-5).all()
        assert placed.min() >= -1e-6
        assert placed.max() <= 1 + 1e-6
    assert labels.spread([0.2, 0.5, 0.9], 0.08) == [0.2, 0.5, 0.9]


def test_svg_is_equal_for_equal_figures_and_apart_for_two():
    def made(prefix: str) -> str:
        figure = figures.robustness_curves(results.curves(results.FORMS)[:4])
        return inline_svg(figure, prefix=prefix, title="t", description="d")

    assert made("a") == made("a")
    ids = [set(re.findall(r'id="([^"]+)"', made(prefix))) for prefix in "ab"]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_svg_text_is_text_and_colours_are_variables():
    svg = inline_svg(
        figures.robustness_curves(results.curves(results.FORMS)[:4]),
        prefix="a",
        title="<t>",
        description='"d"&',
    )
    assert svg.startswith('<svg role="img" aria-labelledby="a-title a-desc"')
    assert '<title id="a-title">&lt;t&gt;</title>' in svg
    assert "var(--series-3)" in svg
    assert not re.search(r"#[0-9a-f]{6}", svg), "a colour that does not follow the page"
    assert not re.search("font-family|<style|<metadata|xmlns|DOCTYPE|date", svg)
    assert "dense" in texts(ElementTree.fromstring(svg))


def test_every_figure_stands_alone_in_a_notebook(tmp_path):
    for figure in (
        figures.transfer_heatmap(results.matrix(0.1, ("only",))),
        figures.robustness_curves(results.curves(("dense",))[:1]),
        figures.weight_histograms(results.histograms()[:1]),
        figures.history_curve([1], [0.5], share=True),
        figures.history_curve([1, 2, 3], [None, 0.5, float("nan")], share=False, marks="aab"),
    ):
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 1000


def luminance(color: str) -> float:
    """Return a colour's relative luminance (WCAG 2.2)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_text_colour_has_contrast(theme):
    colors = {role: pair[theme] for role, pair in palette.COLORS.items()}
    inks = [
        "ink",
        "muted",
        "accent",
        "good",
        "bad",
        *(f"series-{i}" for i in range(palette.SERIES)),
    ]
    for role in inks:
        for under in ("page", "panel"):
            assert contrast(colors[role], colors[under]) >= 4.5, (role, under)
    assert contrast(colors["warn"], colors["warn-panel"]) >= 4.5
    assert contrast(colors["ink"], colors["warn-panel"]) >= 4.5
    for depth in np.linspace(0, figures.HEAT_DEPTH, 20):
        over, under = colors["heat"], colors["panel"]
        mixed = [
            round(depth * int(over[i : i + 2], 16) + (1 - depth) * int(under[i : i + 2], 16))
            for i in (1, 3, 5)
        ]
        assert contrast(colors["ink"], "#" + "".join(f"{m:02x}" for m in mixed)) >= 4.5
