"""The curve against the figure: what it costs, and whether separate verdicts agree with it.

    python benchmarks/curve.py

For each network: passes of the verdict alone and with the curve, and at five other radii the curve beside a
verdict made for that radius. "point" is the mean cost of the six verdicts: what one point of a curve costs
where each is made by itself.
"""

from __future__ import annotations

from typing import Any

import torch

import record
from strength import CASES, SEED, Case
from walnut.evaluate import robustness

EXAMPLES = 300
NAMES = (
    "fashion nat linf 0.1",
    "mnist provable linf 0.1",
    "cifar adv l2 0.25",
    "fashion adv linf 0.1",
)
AT = (2, 5, 12, 15, 18)  # points of the curve, beside that of the radius asked for


def judge(case: Case, eps: float, with_curve: bool) -> Any:
    """Return the verdict at a radius."""
    rows = slice(500, 500 + EXAMPLES)
    data = case.dataset.test.x[rows], case.dataset.test.y[rows]
    return robustness(case.model, data, case.norm, eps, with_curve=with_curve, seed=SEED)


def compare(name: str) -> dict[str, Any]:
    """Return costs and gaps of one network."""
    case = CASES[name]()
    whole = judge(case, case.eps, True)
    curve = whole.curve
    passes = whole.forward + whole.backward
    extra = curve.forward + curve.backward
    others = {at: judge(case, curve.eps[at], False) for at in AT}
    costs = [passes - extra, *(v.forward + v.backward for v in others.values())]
    point = sum(costs) / len(costs)
    return {
        "passes of the figure": round(passes - extra, 1), "passes with the curve": round(passes, 1),
        "passes of a point, mean": round(point, 1),
        "curve over figure": round(passes / (passes - extra), 2),
        "curve over mean point": round(passes / point, 2),
        "median": curve.median,
        "points": [
            {"eps": curve.eps[at], "curve": curve.accuracy[at], "verdict": v.robust.value}
            for at, v in others.items()
        ],
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"examples": EXAMPLES, "networks": {}}
    for name in NAMES:
        figures["networks"][name] = compare(name)
        print(name, figures["networks"][name], flush=True)
    record.write("curve", SEED, figures)


if __name__ == "__main__":
    main()
