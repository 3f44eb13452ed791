"""How near the nearest adversarial example found is, and at how many passes: walnut and its peers.

Every method attacks the same examples (the first the network classifies rightly). What it returns is
judged here, alike for all: a fresh forward pass must be fooled and the point must lie in the box. A
method that solved fewer than nine examples in ten is listed but not compared; the others are compared
on the examples that all of them solved. Passes are forward plus backward passes an example, counted by
hooks on the network for the peers and by walnut's own records for walnut.

The peers that search a constant nine or ten times over take only the first examples. Where one of them
is the best there, all methods are compared on these alone.

What an earlier run found with a toolkit that is not installed now stays under ``measured_earlier``, as
multiples of the best peer of that run, and takes no part in the comparison.

``at_a_fifth`` says what walnut reaches at a fifth of the passes of the cheapest peer that comes within
2 % of the best: which of its methods, and whether its mean norm is within 2 % of the best peer's too.

On linear networks the optimum inside the box is known for every norm, and the ratio to it is given.
``fmn 16`` is ``fmn(steps=16, starts=2, skip=2.0, refine=4)``; the other settings of walnut are its defaults.
They were chosen on the ``tune-`` networks of defended.py and on examples from the 2,000th on, never on these.

    python benchmarks/minimal_norms.py [NAME ...]     # all networks, or some; the others keep their rows
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import record
from minimal_peers import Call, of_art, of_foolbox, of_torchattacks
from walnut import data, nets
from walnut.attacks.carlini_wagner import carlini_wagner
from walnut.attacks.ddn import ddn
from walnut.attacks.deepfool import deepfool
from walnut.attacks.fmn import fmn
from walnut.core.constraints import l0, l1, linf
from walnut.core.types import perturbation_norms

SEED = 0
FEW = 30  # examples for the peers that search a constant
SLOW = (" 9x", " 10x")
Found = tuple[Tensor, float]

SHORT: dict[str, Any] = {"steps": 16, "starts": 2, "skip": 2.0, "refine": 4}
MINE: dict[str, dict[str, Any]] = {
    "l2": {
        "ddn": ddn(),
        "fmn": fmn(),
        "fmn 16": fmn(**SHORT),
        "carlini_wagner": carlini_wagner(),
        "deepfool": deepfool(),
    },
    "linf": {
        "fmn": fmn(norm=linf),
        "fmn 16": fmn(norm=linf, **SHORT),
        "carlini_wagner": carlini_wagner(norm=linf),
        "deepfool": deepfool(norm=linf),
    },
    "l1": {"fmn": fmn(norm=l1), "fmn 16": fmn(norm=l1, **SHORT)},
    "l0": {"fmn": fmn(norm=l0), "fmn 16": fmn(norm=l0, **SHORT)},
}


class Counted(nn.Module):
    """A network that counts the examples of its forward and backward passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, x: Tensor) -> Tensor:
        """Ask the network."""
        self.passes += len(x)
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(lambda grad: self._back(len(x)))
        return logits

    def _back(self, rows: int) -> None:
        self.passes += rows


def judged(model: nn.Module, x: Tensor, y: Tensor, x0: Tensor, norm: str) -> Tensor:
    """Return the norm of each example, infinite where it does not fool or leaves the box."""
    x = x.detach().to(x0)
    with torch.no_grad():
        fooled = model(x).argmax(1) != y
    flat = x.flatten(1)
    inside = (flat.amin(1) >= -1e-6) & (flat.amax(1) <= 1 + 1e-6)
    return perturbation_norms(x, x0)[norm].masked_fill(~(fooled & inside), float("inf"))


def attack_all(
    model: nn.Module, x: Tensor, y: Tensor, norm: str, others: dict[str, Call]
) -> dict[str, Found]:
    """Return norms (n,) and passes an example of every method."""
    found: dict[str, Found] = {}
    for name, mine in MINE[norm].items():
        got = mine(model, x, y)
        passes = float((got.forward + got.backward).double().mean())
        found[f"walnut {name}"] = judged(model, got.x, y, x, norm), passes
    for name, call in others.items():
        few = FEW if any(mark in name for mark in SLOW) else len(x)
        counted, began = Counted(model).eval(), time.process_time()
        torch.manual_seed(SEED)
        np.random.seed(SEED)
        try:
            theirs = call(counted, x[:few].clone(), y[:few])
        except Exception as error:
            print(f"{name} ({norm}) failed: {error!r}", file=sys.stderr)
            continue
        size = torch.full((len(x),), float("nan"))
        size[:few] = judged(model, theirs, y[:few], x[:few], norm)
        found[name] = size, counted.passes / len(x[:few])
        print(f"{name} ({norm}): {time.process_time() - began:.0f} s", file=sys.stderr)
    model.zero_grad(set_to_none=True)
    return found


def compared(found: dict[str, Found]) -> dict[str, Any]:
    """Return the means on common examples, and each against the best peer."""
    asked = {n: ~size.isnan() for n, (size, _) in found.items()}
    solved = {
        n: float(size.isfinite().sum()) / int(asked[n].sum()) for n, (size, _) in found.items()
    }
    good = [n for n in found if solved[n] >= 0.9]
    whole = [n for n in good if asked[n].all()]
    common = torch.stack([found[n][0].isfinite() for n in whole]).all(0)
    best, ratio = against_best(found, good, whole, common)
    if best not in whole and any(not n.startswith("walnut") for n in good):
        common = torch.stack([found[n][0].isfinite() for n in good]).all(0)
        best, ratio = against_best(found, good, good, common)
    rows: dict[str, dict[str, Any]] = {}
    for name, (size, passes) in found.items():
        rows[name] = row = {"solved": solved[name], "passes": round(passes, 1)}
        if name in good:
            on = common & size.isfinite()
            row["examples"] = int(on.sum())
            row["mean_norm"] = round(float(size[on].mean()), 5)
        if name in ratio and best:
            row["norm_to_best_peer"] = round(ratio[name], 4)
            row["passes_to_best_peer"] = round(passes / found[best][1], 4)
    near = [n for n in ratio if not n.startswith("walnut") and ratio[n] <= 1.02]
    cheap = min(near, key=lambda n: found[n][1]) if near else None
    return {
        "compared_examples": int(common.sum()), "best_peer": best,
        "cheapest_peer_within_2_percent": cheap,
        "at_a_fifth": at_a_fifth(found, ratio, cheap), "methods": rows,
    }  # fmt: skip


def against_best(
    found: dict[str, Found], good: list[str], whole: list[str], common: Tensor
) -> tuple[str | None, dict[str, float]]:
    """Return the best peer and every method's mean over its, each on the examples that both were given."""

    def mean(name: str, on: Tensor) -> float:
        return float(found[name][0][on].mean())

    theirs = [n for n in whole if not n.startswith("walnut")]
    if not theirs:
        return None, {}
    base = min(theirs, key=lambda n: mean(n, common))
    ratio = {}
    for name in good:
        on = common & found[name][0].isfinite()
        ratio[name] = mean(name, on) / mean(base, on)
    return min((n for n in good if not n.startswith("walnut")), key=lambda n: ratio[n]), ratio


def at_a_fifth(
    found: dict[str, Found], ratio: dict[str, float], cheap: str | None
) -> dict[str, Any] | None:
    """Return walnut's best method within a fifth of the passes of the peer ``cheap``."""
    if cheap is None:
        return None
    budget = found[cheap][1] / 5
    mine = [n for n in ratio if n.startswith("walnut") and found[n][1] <= budget]
    name = min(mine, key=lambda n: ratio[n]) if mine else None
    return {
        "budget": round(budget, 1), "method": name,
        "met": name is not None and ratio[name] <= 1.02,
    }  # fmt: skip


def carried(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Keep what an earlier run measured with toolkits that are not installed now, set apart."""
    for norm, entry in now.items():
        old = before.get(norm, {})
        rows = {**old.get("measured_earlier", {}), **old.get("methods", {})}
        gone = {n: row for n, row in rows.items() if n not in entry["methods"]}
        theirs = {n: row for n, row in gone.items() if not n.startswith("walnut")}
        if theirs:
            entry["measured_earlier"] = theirs
    return now


def optimum(w: Tensor, gap: Tensor, room: Tensor, norm: str) -> float:
    """Return min ‖δ‖ with w·δ ≥ gap and 0 ≤ δ_i sign(w_i) ≤ room_i, for one linear boundary.

    The solutions are δ_i = min(t, room_i) for L∞ and min(t |w_i|, room_i) for L2, with t by bisection;
    for L1 the entries of largest |w_i| filled to their room, for L0 those of largest |w_i| room_i.
    """
    if float((w * room).sum()) < float(gap):
        return float("inf")
    if norm in ("linf", "l2"):
        rate = torch.ones_like(w) if norm == "linf" else w
        low, high = 0.0, float((room / rate.clamp_min(1e-12)).max())
        for _ in range(100):
            t = (low + high) / 2
            enough = float((w * torch.minimum(t * rate, room)).sum()) >= float(gap)
            low, high = (low, t) if enough else (t, high)
        step = torch.minimum(high * rate, room)
        return float(step.max() if norm == "linf" else step.norm())
    order = (w if norm == "l1" else w * room).argsort(descending=True)
    gain = (w * room)[order].cumsum(0)
    k = int((gain < gap).sum())
    if norm == "l0":
        return float(k + 1)
    left = gap - (gain[k - 1] if k else 0.0)
    return float(room[order][:k].sum() + left / w[order][k])


def analytic(model: nn.Linear, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """Return the least norm inside [0, 1] that fools a linear network, over all classes."""
    weight, flat = model.weight.detach().double(), x.flatten(1).double()
    logits = flat @ weight.T + model.bias.detach().double()
    found = []
    for i, label in enumerate(y.tolist()):
        sizes = []
        for k in range(len(weight)):
            if k != label:
                w = weight[k] - weight[label]
                room = torch.where(w > 0, 1 - flat[i], flat[i])
                sizes.append(optimum(w.abs(), logits[i, label] - logits[i, k], room, norm))
        found.append(min(sizes))
    return torch.tensor(found)


def linear(images: Tensor) -> dict[str, Any]:
    """Return each method's norm over the optimum on a random linear network: mean and worst."""
    torch.manual_seed(SEED)
    layer = nn.Linear(images[0].numel(), 10)
    model = nn.Sequential(nn.Flatten(), layer).eval()
    y = model(images).argmax(1)
    figures = {}
    for norm, methods in MINE.items():
        least = analytic(layer, images, y, norm)
        for name, mine in methods.items():
            ratio = judged(model, mine(model, images, y).x, y, images, norm) / least
            figures[f"{norm} {name}"] = {
                "mean": round(float(ratio.mean()), 4), "worst": round(float(ratio.max()), 4),
            }  # fmt: skip
    return figures


def cases(root: Path) -> dict[str, tuple[nn.Module, Any, int, int]]:
    """Return network, data, number of examples and the peers' longest run."""
    mnist, cifar = data.load("mnist"), data.load("cifar10")
    usual = {"mean": [0.4914, 0.4824, 0.4467], "std": [0.2471, 0.2435, 0.2616]}
    resnet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    return {
        name: (nets.resolve(net, root / f"{name}.safetensors", dataset=d, **args).eval(), d, n, s)
        for name, net, d, args, n, s in (
            ("mnist_conv_small_nat", "small-cnn", mnist, {"mean": [0.1307], "std": [0.3081]}, 100, 1000),
            ("mnist_cnn_a_adv", "small-cnn", mnist, {}, 100, 1000),
            ("cifar_cnn_a_adv", "small-cnn", cifar, usual, 100, 1000),
            ("resnet20_cifar10", "resnet-20", cifar, resnet, 15, 600),
        )
    }  # fmt: skip


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    for net, norms in figures.items():
        for norm, entry in norms.items():
            print(f"\n{net} {norm}: {entry['compared_examples']} examples; {entry['at_a_fifth']}")
            for name, row in sorted(
                entry["methods"].items(), key=lambda r: r[1].get("mean_norm", 1e9)
            ):
                ratio = row.get("norm_to_best_peer", float("nan"))
                print(
                    f"  {name:30s} solved {row['solved']:5.2f}  norm {row.get('mean_norm', 0):9.4f}"
                    f"  / best peer {ratio:6.3f}  passes {row['passes']:8.1f}"
                )  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    root = Path(os.environ.get("WALNUT_DATA", "../shared/data")) / "models"
    straight = linear(data.load("mnist").test.x[:50])
    everything = cases(root)
    path = record.RESULTS / "minimal_norms.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    figures: dict[str, Any] = {name: before[name] for name in everything if name in before}
    for name in sys.argv[1:] or everything:
        model, dataset, count, steps = everything[name]
        x, y = dataset.test.x[: 3 * count], dataset.test.y[: 3 * count]
        with torch.no_grad():
            right = (model(x).argmax(1) == y).nonzero()[:count, 0]
        # on the large network only the peers that were ever near the best, for time
        slow = name.startswith("resnet")
        others = [of_foolbox(steps)] + ([] if slow else [of_art(steps), of_torchattacks(steps)])
        figures[name] = {
            norm: compared(
                attack_all(
                    model,
                    x[right],
                    y[right],
                    norm,
                    {
                        k: v
                        for group in others
                        for k, v in group.get(norm, {}).items()
                        if not (slow and "9x" in k)
                    },
                )
            )
            for norm in MINE
        }
        carried(before.get(name, {}), figures[name])
        record.write("minimal_norms", SEED, {"linear_ratio_to_optimum": straight, **figures})
    show(figures)


if __name__ == "__main__":
    main()
