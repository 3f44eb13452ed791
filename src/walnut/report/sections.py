"""The page's sections: each is there when its data is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..core.errors import WalnutError
from . import around, choices, figures, flags, images, robust, tables
from .charts import chart
from .parts import Section
from .reproduce import reproduce
from .words import attack_name, count, known, listed, percent, plural, radius

Record = dict[str, Any]
MOST_LAYERS = 36  # histograms on one page; a deeper network's others are in result.json
PICTURE_BUDGET = 1_100_000  # bytes of pictures in a page that is to stay under 2 MB


def sections(result: Record, pictures: dict[str, np.ndarray] | None) -> list[Section]:
    """Return the page's sections in order, after the verdict and the main table."""
    made = [
        guarded("verdict", robust.curves, result),
        guarded("verdict", robust.stages, result),
        guarded("verdict", flags.checks, result),
        guarded("front", choices.front, result),
        guarded("geometry", around.maps, result),
        guarded("geometry", around.lines, result),
        guarded("transfer", transfer, result),
        guarded("curves", curves, result),
        guarded("pictures", lambda found: shown(found, pictures), result),
        guarded("sensitivity", choices.sensitivity, result),
        guarded("histograms", histograms, result),
        guarded("layers", layers, result),
        guarded("history", history, result),
        guarded("notes", notes, result),
    ]
    return [*(section for section in made if section), reproduce(result)]


def guarded(key: str, build: Callable[[Record], Section | None], result: Record) -> Section | None:
    """Build a section where ``result[key]`` is, and say which key is at fault where that fails."""
    if not result.get(key):
        return None
    try:
        return build(result)
    except WalnutError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise WalnutError(
            f"the result's {key!r} cannot be drawn ({told}): was result.json edited by hand?"
        ) from error


def transfer(result: Record) -> Section:
    """Accuracy of every network on examples made against every network, a chart a radius."""
    charts = []
    for i, entry in enumerate(result["transfer"]):
        names = [str(name) for name in entry["names"]]
        place = f"ε\u00a0=\u00a0{radius(entry.get('eps'))}"
        attack = attack_name(str(entry.get("method") or entry.get("attack", "")))
        lines = [
            [name, *map(percent, row)] for name, row in zip(names, entry["accuracy"], strict=True)
        ]
        lines += [
            [label, *map(percent, entry[key])] for key, label in figures.CONTROLS if entry.get(key)
        ]
        heads = [f"on {name}" for name in names]
        charts.append(
            chart(
                figures.transfer_heatmap(entry),
                prefix=f"transfer-{i}",
                title=f"{attack}, {place}" if attack else place,
                words="Accuracy left on each network, in per cent, by examples made against each.",
                table=tables.grid(f"Accuracy left at {place}", "made against", heads, lines),
            )
        )
    intro = (
        "Each cell is the accuracy, in per cent, that the network of its column keeps on examples "
        "made against the network of its row. The stronger the colour, the more were fooled; down "
        "the diagonal each network meets its own examples. Noise is random and of the same size."
    )
    return Section("transfer", "What transfers", "Transfer", intro, charts=tuple(charts))


def curves(result: Record) -> Section:
    """Accuracy left as the radius grows, a chart an attack."""
    found = result["curves"]
    charts = []
    for i, attack in enumerate(dict.fromkeys(str(curve.get("attack", "")) for curve in found)):
        mine = [curve for curve in found if str(curve.get("attack", "")) == attack]
        name = attack_name(attack)
        title = f"{name[:1].upper()}{name[1:]}" or "Attack"
        lines = [
            [
                str(curve["form"]),
                radius(curve["eps"][k]),
                percent(curve["accuracy"][k]),
                band(curve, k),
            ]
            for curve in mine
            for k in range(len(curve["eps"]))
        ]
        charts.append(
            chart(
                figures.robustness_curves(mine),
                prefix=f"curves-{i}",
                title=title,
                words=f"Accuracy left under {name} against its radius, a line a network.",
                table=tables.grid(f"Accuracy left under {name}", "network", CURVE_HEADS, lines),
            )
        )
    intro = (
        "Accuracy left as an attack may change every input by more. Shaded: 95\u00a0% intervals. Under "
        "an attack that works a line comes down to nothing as ε grows; under noise it need not."
    )
    return Section("robustness", "Robustness against ε", "Robustness", intro, charts=tuple(charts))


CURVE_HEADS = ("ε", "accuracy left", "95\u00a0% interval, %")


def band(curve: Record, place: int) -> str:
    """Return a curve's 95 % interval at one radius."""
    if not (curve.get("low") and curve.get("high")):
        return "–"
    low, high = curve["low"][place], curve["high"][place]
    return f"{100 * low:.1f}–{100 * high:.1f}" if known(low) and known(high) else "–"


def histograms(result: Record) -> Section:
    """The weights of each layer before and after, zeros told apart."""
    found = result["histograms"]
    names = list(dict.fromkeys(str(record["layer"]) for record in found))
    charts = []
    for i, layer in enumerate(names[:MOST_LAYERS]):
        mine = merged([record for record in found if str(record["layer"]) == layer])
        lines = [
            [record["shown"], f"{record['edges'][k]:.4g} to {record['edges'][k + 1]:.4g}", count(n)]
            for record in mine
            for k, n in enumerate(record["counts"])
            if n
        ]
        charts.append(
            chart(
                figures.weight_histograms(mine),
                prefix=f"weights-{i}",
                title=layer,
                words=f"Histograms of the non-zero weights of {layer}: {zeros_words(mine)}",
                table=tables.grid(
                    f"Non-zero weights of {layer}", "form", ("weights from", "count"), lines
                ),
            )
        )
    intro = (
        "How the weights of each layer are spread, before and after. Zeros are counted apart and "
        "left out of the bars; each strip is as tall as its own fullest bin."
    )
    if len(names) > MOST_LAYERS:
        intro += f" The first {MOST_LAYERS} of {len(names)} layers are drawn."
    return Section("weights", "Weights before and after", "Weights", intro, charts=tuple(charts))


def merged(records: Sequence[Record]) -> list[Record]:
    """Return one record for forms whose histograms are the same, named ``shared = packed``."""
    kept: list[Record] = []
    for record in records:
        same = [k for k in kept if all(k.get(key) == record.get(key) for key in BARS)]
        if same:
            same[0]["shown"] += f" = {record['form']}"
        else:
            kept.append({**record, "shown": str(record["form"])})
    return kept


BARS = ("edges", "counts", "zeros")


def zeros_words(records: Sequence[Record]) -> str:
    """Return what became of a layer's zeros, in a sentence."""
    told = [
        f"{record['shown']}, {figures.zeros_note(record)}"
        for record in records
        if record.get("zeros") is not None
    ]
    return "; ".join(told) + "." if told else ""


def shown(result: Record, pictures: dict[str, np.ndarray] | None) -> Section:
    """Originals, perturbations and results."""
    reason = images.readable(pictures)
    title = "What the attacks did"
    if reason or pictures is None:
        return Section("pictures", title, "Pictures", reason)
    forms = [str(row["form"]) for row in result.get("rows") or []]
    made, omitted = images.groups(result["pictures"], pictures, forms, PICTURE_BUDGET)
    intro = (
        "Each row begins with the original; then, for each network, what was added and the result."
    )
    if omitted:
        intro += f" To keep the page small, {plural(omitted, 'picture')} more are in pictures.npz."
    return Section("pictures", title, "Pictures", intro, groups=made)


def layers(result: Record) -> Section:
    """The packed file, tensor by tensor."""
    intro = "Where the bytes of the packed file are. A ratio is against four bytes a weight."
    return Section(
        "layers", "Inside the file", "File", intro, tables=(tables.layers(result["layers"]),)
    )


MEASURES = {
    "train_loss": ("Training loss", False),
    "loss": ("Loss", False),
    "validation_accuracy": ("Validation accuracy", True),
    "accuracy": ("Accuracy", True),
    "density": ("Weights kept", True),
    "lr": ("Learning rate", False),
}


def history(result: Record) -> Section | None:
    """How training went, a chart a measure."""
    records = result["history"]
    epochs = [record.get("epoch") for record in records]
    ordered = all(map(known, epochs)) and all(a < b for a, b in pairwise(epochs))
    steps = epochs if ordered else list(range(1, len(records) + 1))
    stages = [str(record.get("stage", "")) for record in records]
    marks = stages if any(stages) else [] if ordered else [""] * len(records)
    charts = []
    for i, (key, (title, share)) in enumerate(MEASURES.items()):
        values = [record.get(key) for record in records]
        if not any(map(known, values)):
            continue
        written = [percent(v) if share else f"{v:.4g}" if known(v) else "–" for v in values]
        names = [f"{s} {stage}".strip() for s, stage in zip(steps, stages, strict=True)]
        lines = [list(pair) for pair in zip(names, written, strict=True)]
        unit = "step" if marks else "epoch"
        charts.append(
            chart(
                figures.history_curve(steps, values, share=share, marks=marks),
                prefix=f"history-{i}",
                title=title,
                words=f"{title} from {written[0]} to {written[-1]} in {plural(len(steps), unit)}.",
                table=tables.grid(title, unit, (title.lower(),), lines),
            )
        )
    if not charts:
        return None
    named = list(dict.fromkeys(filter(None, stages)))
    intro = f"In order: {listed(named)}. A dotted line stands where one ends." if named else ""
    return Section("training", "How training went", "Training", intro, charts=tuple(charts))


def notes(result: Record) -> Section:
    """Warnings and remarks the run wrote down."""
    return Section("notes", "Notes", "Notes", notes=tuple(map(str, result["notes"])))
