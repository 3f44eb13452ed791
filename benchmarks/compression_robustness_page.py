"""The page docs/compression-robustness.md and its figure, made of the committed result.

Every sentence of the page's findings is written by a rule from the figures, so that it says what they
say. Forms of one network are compared on the same examples: those that only one of the two withstands
are counted, and by chance they would fall to either side alike (sign test, two-sided).
"""

from __future__ import annotations

import json
from math import comb
from pathlib import Path
from typing import Any

import record

PAGE = Path(__file__).parents[1] / "docs" / "compression-robustness.md"
CHANCE = 0.01  # a difference is called one below this; some dozens of pairs are compared
KERNELS = "int8 (ONNX Runtime, deployed)"
Forms = dict[str, dict[str, Any]]

HEAD = """# What compression does to robustness

{count} networks, each in {ways} compressed forms; every form is a file that was written, weighed, opened
again and attacked. Made by `python benchmarks/compression_robustness.py` from
[the result](../benchmarks/results/compression_robustness.json) ({machine}; {date}).

![Clean and robust accuracy of every form](compression-robustness.svg)

"""

TAIL = """
## How to read the tables

- **Bytes**: length of the file; **smaller**: against 4 bytes a parameter.
- **Clean**: 1,000 test examples. **Robust**: worst case of the cascade in the L∞ ball on the first 200
  (ResNet-20: 100). A 95 % interval is about ±7 points wide (±10), but the forms of a network have the same
  examples: **lost, gained** counts those that only the dense network, or only this form, withstands.
  "Clearly" is a sign test on these two counts at p < 0.01: eight examples or more, all to one side.
- **Transfer**: accuracy on adversarial examples made against the dense network (PGD, 20 steps).
- **Time**: of one example on one thread, the dense network in PyTorch being 1, both in turn. On a busy
  machine; the quartiles are in the result.
- Without retraining: pruning (LAMP), codebooks (k-means), fp16, int8, low rank (k×1 and 1×k convolutions and
  thin layers, fitted to the responses on 500 training images). With: *structured* (units removed by Taylor
  scores, then one epoch towards the dense network's answers) and *Deep Compression* (20 % of the weights,
  4-bit codebook, two epochs on labels), both on 10,000 clean training images and no adversarial ones.
- **int8** is ONNX Runtime's own kernels, weights per channel and activations in 8 bits. They have no
  gradient: they are attacked through the gradient of the float network, with that network's examples, and
  by queries.
- Red flags of the cascade's honesty checks stand below a table; none means none were raised.
"""


def chance(lost: int, gained: int) -> float:
    """Return the two-sided sign test's p: how often as uneven a split comes up by chance.

    >>> round(chance(0, 5), 4), chance(3, 3)
    (0.0625, 1.0)
    """
    n, most = lost + gained, max(lost, gained)
    return min(1.0, 2 * sum(comb(n, k) for k in range(most, n + 1)) / 2**n)


def at(form: dict[str, Any]) -> dict[str, Any]:
    """Return what a form is at its network's radius."""
    (found,) = form["at"].values()
    return dict(found)


def moved(dense: dict[str, Any], form: dict[str, Any]) -> tuple[int, int]:
    """Return how many examples only the dense network withstands, and how many only the form."""
    before, after = set(at(dense)["standing"]), set(at(form)["standing"])
    return len(before - after), len(after - before)


def percent(share: dict[str, Any]) -> str:
    return f"{100 * share['value']:.1f}"


def radius(eps: float) -> str:
    levels = round(255 * eps)
    return f"{levels}/255" if abs(255 * eps - levels) < 1e-6 else f"{eps:g}"


def table(forms: Forms) -> str:
    """Return one network's rows, and the red flags."""
    dense = forms["dense"]
    lines = [
        "| form | bytes | smaller | clean % | robust % | lost, gained | transfer % | time |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    raised: dict[str, list[str]] = {}
    for way, f in forms.items():
        own = at(f)
        lost, gained = moved(dense, f)
        lines.append(
            f"| {way} | {f['bytes']:,} | {f['ratio']:.1f}× | {percent(f['clean'])} | "
            f"{percent(own['robust'])} | {'' if way == 'dense' else f'{lost}, {gained}'} | "
            f"{percent(own['transfer_from_dense'])} | {f['latency']['ratio_to_dense']:.2f} |"
        )
        for flag in own["flags"]:
            raised.setdefault(flag, []).append(way)
    flags = [f"- red flag “{flag}”: {', '.join(ways)}" for flag, ways in raised.items()]
    return "\n".join([*lines, *([""] if flags else []), *flags, ""])


def findings(networks: dict[str, Forms]) -> str:
    """Return the page's sentences."""
    lines = ["## What was found", ""]
    for name, forms in networks.items():
        lines.append(f"- **{name}** ({percent(at(forms['dense'])['robust'])} % robust as it is): "
                     + _told_apart(forms))  # fmt: skip
    return "\n".join([*lines, *_unseen(networks), *_integers(networks), *_carried(networks),
                      *_small_is_not_fast(networks), ""])  # fmt: skip


def _told_apart(forms: Forms) -> str:
    """Say which forms withstand clearly fewer or more examples than the dense network."""
    dense, worse, better, same = forms["dense"], [], [], []
    for way, form in forms.items():
        if way == "dense":
            continue
        lost, gained = moved(dense, form)
        points = 100 * (at(form)["robust"]["value"] - at(dense)["robust"]["value"])
        if chance(lost, gained) >= CHANCE:
            same.append(_short(way))
        elif lost > gained:
            worse.append(f"{_short(way)} ({points:+.1f} points)")
        else:
            better.append(f"{_short(way)} ({points:+.1f})")
    parts = [("clearly less robust: ", worse), ("clearly more: ", better),
             ("not told apart from it: ", same)]  # fmt: skip
    return "; ".join(words + ", ".join(ways) for words, ways in parts if ways) + "."


def _unseen(networks: dict[str, Forms]) -> list[str]:
    """Say where clean accuracy hid what was lost."""
    found = []
    for name, forms in networks.items():
        dense = forms["dense"]
        for way, form in forms.items():
            lost, gained = moved(dense, form)
            clean = 100 * (form["clean"]["value"] - dense["clean"]["value"])
            if clean >= -1 and lost > gained and chance(lost, gained) < CHANCE:
                points = 100 * (at(form)["robust"]["value"] - at(dense)["robust"]["value"])
                found.append(f"{name}, {_short(way)} ({clean:+.1f} clean, {points:+.1f} robust)")
    if not found:
        return ["- No form that keeps clean accuracy to a point is clearly less robust."]
    return [
        "- **Clean accuracy does not show it.** At most a point of clean accuracy went, and clearly more of "
        "the robustness, in: " + "; ".join(found) + "."
    ]


def _integers(networks: dict[str, Forms]) -> list[str]:
    """Say what queries alone would have told of the integer kernels."""
    rows, behind = [], 0
    for name, forms in networks.items():
        own = at(forms[KERNELS])
        asked, robust = own["asked_only"], own["robust"]
        rows.append(f"{name} {percent(asked)} against {percent(robust)} %")
        stages = own["stages"]
        blind = [s for s in stages if s in ("queries", "all queries", "labels only", "all labels",
                                            "estimated gradients")]  # fmt: skip
        behind += sum(stages[s][1] for s in blind)
    return [
        "- **The deployed int8 kernels, asked only, look more robust than they are.** What 500 queries an "
        "example (Square) leave, against the cascade with the float network's gradient: "
        + "; ".join(rows)
        + f". Behind the gradient, the cascade's queries on the kernels broke {behind} further "
        f"example{'' if behind == 1 else 's'} of all networks together."
    ]


def _carried(networks: dict[str, Forms]) -> list[str]:
    """Say how far examples made for the dense network reach."""
    gaps = [
        (100 * (at(f)["transfer_from_dense"]["value"] - at(f)["robust"]["value"]), name, way)
        for name, forms in networks.items()
        for way, f in forms.items()
        if way != "dense"
    ]
    gap, name, way = max(gaps)
    small = sum(g <= 2 for g, *_ in gaps)
    return [
        f"- **Examples of the dense network carry over, not always far enough.** In {small} of "
        f"{len(gaps)} forms accuracy on them is within 2 points of the form's own robust accuracy; where "
        f"it is furthest off ({name}, {_short(way)}) it is {gap:.1f} points too high. Attack the file that "
        "is shipped."
    ]


def _small_is_not_fast(networks: dict[str, Forms]) -> list[str]:
    """Say what the bytes did for the time."""
    packed, kernels = [], []
    for forms in networks.values():
        for way, f in forms.items():
            times = f["latency"]["ratio_to_dense"]
            if way == KERNELS:
                kernels.append(times)
            elif way.startswith(("pruned", "4-bit", "2-bit", "Deep")):
                packed.append(times)
    return [
        "- **A small file is not a fast network.** Pruned and shared weights run as dense ones: "
        f"{min(packed):.2f} to {max(packed):.2f} of the dense network's time. The int8 kernels take "
        f"{min(kernels):.2f} to {max(kernels):.2f} of it (a part of that is the runtime's and not the "
        "integers')."
    ]


def draw(networks: dict[str, Forms], path: Path) -> None:
    """Draw clean and robust accuracy of every form, a panel a network."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "svg.fonttype": "none",
            "font.size": 10,
            "svg.hashsalt": "walnut",
            "figure.facecolor": "white",
        }
    )
    from matplotlib import pyplot

    count = len(networks)
    figure, panels = pyplot.subplots(
        1, count, figsize=(3.1 + 2.0 * count, 4.6), sharey=True, squeeze=False
    )
    for panel, (name, forms) in zip(panels[0], networks.items(), strict=True):
        ways = list(forms)
        places = range(len(ways))
        robust = [at(f)["robust"] for f in forms.values()]
        panel.axvline(100 * robust[0]["value"], color="#8a949e", lw=0.8, zorder=1)
        panel.hlines(places, [100 * r["low"] for r in robust], [100 * r["high"] for r in robust],
                     color="#0068a6", lw=1.2, zorder=2)  # fmt: skip
        panel.scatter([100 * r["value"] for r in robust], places, color="#0068a6", s=26, zorder=3,
                      label="robust, 95 % interval")  # fmt: skip
        panel.scatter([100 * f["clean"]["value"] for f in forms.values()], places, facecolor="white",
                      edgecolor="#b84c00", s=26, zorder=3, label="clean")  # fmt: skip
        eps = radius(at(forms["dense"])["eps"])
        panel.set_title(f"{name.replace(', ', chr(10))}\nε = {eps}", fontsize=10)
        panel.set(xlim=(0, 104), xticks=(0, 50, 100), xlabel="accuracy, %")
        panel.set_yticks(list(places), [_short(way) for way in ways])
        panel.grid(axis="x", color="#dce1e6", lw=0.6)
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    panels[0][0].invert_yaxis()
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=2, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _short(way: str) -> str:
    return way.split(",")[0].removesuffix(" (ONNX Runtime")


def write() -> None:
    """Write the page and the figure."""
    whole = json.loads((record.RESULTS / "compression_robustness.json").read_text(encoding="utf-8"))
    networks, machine = whole["networks"], whole["machine"]
    first = next(iter(networks.values()))
    text = HEAD.format(
        count=len(networks), ways=len(first) - 1, date=whole["date"],
        machine=f"{machine['processor']}, {machine['threads']} thread, torch {machine['torch']}",
    )  # fmt: skip
    text += findings(networks) + "\n"
    for name, forms in networks.items():
        text += f"\n## {name}, ε = {radius(at(forms['dense'])['eps'])}\n\n" + table(forms)
    PAGE.write_text(text + TAIL, encoding="utf-8")
    draw(networks, PAGE.with_suffix(".svg"))
    print(f"written to {PAGE}")
