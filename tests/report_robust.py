"""A made-up verdict on robustness for the report's tests: two forms, two flags, maps and lines."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from report_results import attack, common, share

NAMES = [str(i) for i in range(10)]


def check(name: str, level: str, sentence: str, *, remedy: str = "", examples=(), attacks=()):
    """Return one check as the engine writes it."""
    return {
        "name": name,
        "level": level,
        "sentence": sentence,
        "remedy": remedy,
        "examples": list(examples),
        "attacks": list(attacks),
    }


GOOD = (
    ("softmax-output", "The outputs are logits: their sums differ from example to example."),
    ("deterministic", "The same input gives the same answer, ten times over."),
    ("large-eps", "At ε = 1 nothing is left, as it must be."),
    ("noise", "Noise of the same norm leaves 98.1 %."),
)
RED = check(
    "black-box-beats-white-box",
    "wrong",
    "Square breaks 14 examples that every gradient attack left standing.",
    remedy="Pass a differentiable twin of the network (--twin), or quote the query-only figure.",
    examples=range(3, 60, 4),
    attacks=("square", "apgd"),
)
ODD = check(
    "not-converged",
    "odd",
    "The last restart still broke two examples.",
    remedy="Use effort autoattack.",
    examples=(17, 203),
    attacks=("apgd-t",),
)


def stages(left: int) -> list[dict[str, Any]]:
    """Return the stages of a cascade that leaves ``left`` of 985 examples."""
    made, entered = [], 985
    for name, part, passes, why in (
        ("margin", 0.35, (2, 1), "always"),
        ("apgd", 0.4, (30, 29), "always"),
        ("apgd-t", 0.2, (55, 54), "examples with a plausible second class"),
        ("square", 0.05, (400, 0), "always: a query-only canary"),
        ("fab", 0.0, (120, 60), "a flag asked for it"),
    ):
        broke = round((985 - left) * part)
        made.append(
            {
                "name": name,
                "attack": f"{name}(eps=0.1, steps=20)",
                "entered": entered,
                "broke": broke,
                "forward": entered * passes[0],
                "backward": entered * passes[1],
                "seconds": 0.3 * passes[0],
                "why": why,
            }
        )
        entered -= broke
    return made


def entry(form: str, left: int, rate: float, checks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the verdict on one form."""
    eps = [0.01 * (i + 1) for i in range(20)]
    ran = stages(left)
    forward, backward = (sum(stage[key] for stage in ran) / 1000 for key in ("forward", "backward"))
    return {
        "form": form,
        "norm": "linf",
        "eps": 0.1,
        "effort": "standard",
        "clean": share(985),
        "robust": share(left),
        "forward": forward,
        "backward": backward,
        "seconds": sum(stage["seconds"] for stage in ran),
        "stages": ran,
        "curve": {
            "eps": eps,
            "accuracy": [round(985 / (1 + (e * rate) ** 2)) / 1000 for e in eps],
            "median": 1 / rate if rate > 6 else None,
            "forward": 1.7 * forward,
            "backward": 1.6 * backward,
        },
        "checks": [
            *copy.deepcopy(checks),
            *(check(name, "good", sentence) for name, sentence in GOOD),
        ],
        "path": {
            "kind": "direct" if form == "dense" else "twin",
            "sentence": "Gradients are its own."
            if form == "dense"
            else "The gradient comes from a straight-through twin.",
            "agreement": None if form == "dense" else 0.992,
            "gap": None if form == "dense" else 0.31,
        },
    }


def plane(form: str, axes: tuple[str, str], example: int, size: int = 41) -> dict[str, Any]:
    """Return a map with four regions; the corners lie outside the box."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    grid = np.full((size, size), 3)
    grid[x + 0.3 * np.sin(3 * y) > 0.35] = 8
    grid[(x + y < -1.1)] = 5
    grid[np.hypot(x - 0.8, y - 0.8) < 0.28] = 9
    return {
        "form": form,
        "kind": "map",
        "axes": list(axes),
        "extent": 0.2,
        "example": example,
        "label": 3,
        "classes": grid.tolist(),
        "inside": (np.hypot(x, y) < 1.25).astype(int).tolist(),
        "names": NAMES,
    }


def line(form: str, axis: str, example: int) -> dict[str, Any]:
    """Return logits along a direction: another class soon leads along the adversarial one."""
    eps = np.linspace(-0.2, 0.2, 41)
    slope = 60.0 if axis == "adversarial" else 4.0
    logits = np.stack([np.cos(i + 3 * eps) for i in range(10)], axis=1)
    logits[:, 3] = 9 - slope * eps
    logits[:, 8] = 4 + slope * eps
    return {
        "form": form,
        "kind": "line",
        "axis": axis,
        "eps": eps.tolist(),
        "logits": logits.tolist(),
        "classes": NAMES,
        "example": example,
        "label": 3,
    }


def robustness(
    *, flagged: bool = True, forms: tuple[str, ...] = ("dense", "int8")
) -> dict[str, Any]:
    """Return a verdict; with ``flagged``, the last form has a red flag and an odd check."""
    left = (612, 655)
    checks = [[RED, ODD] if flagged and form == forms[-1] else [] for form in forms]
    entries = [entry(f, left[i], (9.0, 5.0)[i], checks[i]) for i, f in enumerate(forms)]
    rows = [
        {
            "form": e["form"],
            "parameters": 266_610,
            "clean": e["clean"],
            "attacks": {
                "cascade": {
                    "robust": e["robust"],
                    "eps": e["eps"],
                    "attack": "cascade(eps=0.1)",
                    "forward_per_example": e["forward"],
                    "backward_per_example": e["backward"],
                }
            },
        }
        for e in entries
    ]
    shown = attack()["pictures"]
    return {
        **common("robustness"),
        "command": "walnut audit --robust --model lenet.walnut --data digits --eps 0.1",
        "network": {"name": "lenet-300-100"},
        "data": {"name": "digits", "examples": 1000, "classes": NAMES, "shape": [1, 28, 28]},
        "rows": rows,
        "verdict": entries,
        "pictures": [{**record, "form": forms[0], "attack": "apgd"} for record in shown],
        "geometry": [
            plane(forms[0], ("adversarial", "random"), 17),
            plane(forms[0], ("random", "random 2"), 17),
            line(forms[0], "adversarial", 17),
            line(forms[0], "random", 17),
        ],
    }
