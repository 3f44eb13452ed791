"""The verdict against the full AutoAttack protocol: what each leaves, and what each costs.

    python benchmarks/strength.py [NAME ...]     all networks, or some of them

Every network gets, on the same examples, `effort="standard"` and two runs of the full AutoAttack protocol
(APGD-CE, APGD-T, FAB-T, Square with 5000 queries):

    torchattacks    torchattacks' stages, each on what the last one left, every example to its last step
    autoattack      `effort="autoattack"`, the protocol through our own engine, which drops what has fallen

AutoAttack itself does not install beside this torch. The robust accuracy must be no higher than either's.
All of them draw at random, and one example of 500 goes this way or that with the seed: ours is run with three
seeds and torchattacks' with two, and a row also says whether ours is no higher on average. The first seed of
each is the figure. The ratio of processor times is of torchattacks' second run to the median of ours, between
whose first and second it comes ("timed in turn").

The stages are also compared one by one on two networks. A run that was cut off goes on where it was, and
does not repeat the protocol, which does not change with the cascade and is by far the dearest part; where
the cascade has changed since, all three of ours are later than it ("timed in turn" says no), and the ratio
has what the machine did in between in it: remove a network's "again" and "seed" files to time both.

The settings were chosen on networks that are not here, but for two stages that were chosen on the provable
network beyond the radius it is judged at, where they do not run; earlier versions were also looked at on the
MNIST networks (see walnut.evaluate.stages). Networks that are not named keep the rows they had, under "with
earlier stages" once the cascade has changed.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import peers
import record
from defended import RECIPES, network
from walnut import data, nets
from walnut.attacks import apgd, apgd_t, square
from walnut.attacks.fab import fab
from walnut.core.constraints import l2, linf
from walnut.evaluate import Verdict, correct, robustness
from walnut.evaluate.ledger import fingerprint
from walnut.evaluate.stage import Setting
from walnut.evaluate.stages import STANDARD
from walnut.recipes.record import Cells, digest

SEED, EXAMPLES = 0, 500
ROWS = slice(500, 1000)  # of the test set: the first 500 were looked at while the cascade was built
PLAN = fingerprint(
    [
        (stage.name, repr(stage.make(Setting(norm, 0.1))))
        for stage in STANDARD
        for norm in (linf, l2)
    ]
)[:16]
COMMON = {"seed": SEED, "examples": EXAMPLES}
FOLDER = Path("runs/bench-strength")
PARTS = ("seed 0", "torchattacks again", "seed 1")  # in this order where both are timed in turn


@dataclass(frozen=True)
class Case:
    """A network and the ball it is judged in."""

    model: nn.Module
    dataset: Any
    norm: Any
    eps: float


NORMALISED: dict[str, dict[str, list[float]]] = {
    "mnist_conv_small_nat": {"mean": [0.1307], "std": [0.3081]},
    "cifar_cnn_a_adv": {"mean": [0.4914, 0.4824, 0.4467], "std": [0.2471, 0.2435, 0.2616]},
    "resnet20_cifar10": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}


def pretrained(name: str, dataset: str, norm: Any, eps: float) -> Case:
    """Return one of the networks of the data folder."""
    found = data.load(dataset)
    path = Path(os.environ["WALNUT_DATA"]) / "models" / f"{name}.safetensors"
    net = "resnet-20" if name.startswith("resnet") else "small-cnn"
    model = nets.resolve(net, path, dataset=found, **NORMALISED.get(name, {}))
    return Case(model, found, norm, eps)


def trained(name: str) -> Case:
    """Return one of the networks trained by defended.py."""
    model, dataset = network(name)
    return Case(model, dataset, RECIPES[name].norm, RECIPES[name].eps)


CASES = {
    "resnet20 linf 8/255": lambda: pretrained("resnet20_cifar10", "cifar10", linf, 8 / 255),
    "resnet20 l2 0.5": lambda: pretrained("resnet20_cifar10", "cifar10", l2, 0.5),
    "mnist nat linf 0.3": lambda: pretrained("mnist_conv_small_nat", "mnist", linf, 0.3),
    "fashion nat linf 0.1": lambda: trained("fashion-plain"),
    "mnist nat linf 0.1": lambda: pretrained("mnist_conv_small_nat", "mnist", linf, 0.1),
    "mnist nat l2 1": lambda: pretrained("mnist_conv_small_nat", "mnist", l2, 1.0),
    "mnist adv linf 0.3": lambda: pretrained("mnist_cnn_a_adv", "mnist", linf, 0.3),
    "mnist provable linf 0.1": lambda: pretrained("mnist_cnn_provable_eps0.1", "mnist", linf, 0.1),
    "mnist adv l2 2": lambda: trained("mnist-l2"),
    "cifar adv linf 2/255": lambda: pretrained("cifar_cnn_a_adv", "cifar10", linf, 2 / 255),
    "cifar adv l2 0.25": lambda: trained("cifar-l2"),
    "fashion adv linf 0.1": lambda: trained("fashion-linf"),
}


def judge(case: Case, effort: str, seed: int = SEED) -> tuple[Verdict, float]:
    """Return the verdict and the processor time that it took."""
    x, y = case.dataset.test.x[ROWS], case.dataset.test.y[ROWS]
    began = time.process_time()
    found = robustness(
        case.model, (x, y), case.norm, case.eps, effort=effort, with_curve=False, seed=seed
    )
    return found, time.process_time() - began


def compare(name: str) -> dict[str, Any]:
    """Judge one network by the cascade and by both runs of the protocol."""
    case, key = CASES[name](), name.replace("/", "_")
    same = COMMON | {"network": digest(case.model)}
    kept, kept_protocol = Cells(FOLDER, same | {"plan": PLAN}), Cells(FOLDER, same)

    def ask(seed: int) -> dict[str, Any]:
        return kept(f"{key} seed {seed}", lambda: outcome(case, "standard", seed))

    ours = [ask(SEED)]
    theirs = kept_protocol(f"{key} torchattacks", lambda: protocol(case))
    again = kept_protocol(f"{key} torchattacks again", lambda: protocol(case, SEED + 1))
    ours += [ask(SEED + 1), ask(SEED + 2)]
    seconds = sorted(one["cpu seconds"] for one in ours)
    engine = kept_protocol(f"{key} autoattack", lambda: outcome(case, "autoattack"))
    found: dict[str, Any] = {"network": same["network"], "plan": PLAN}
    found["standard"] = ours[0] | {"cpu seconds": seconds[1], "of three": seconds}
    found["standard"]["with each seed"] = [one["robust"] for one in ours]
    judged = {"autoattack": engine, "torchattacks": theirs}
    found |= judged | {"torchattacks again": again}
    found["times less cpu"] = round(again["cpu seconds"] / seconds[1], 1)
    found["least and most"] = [round(again["cpu seconds"] / each, 1) for each in seconds[::-2]]
    made = [(FOLDER / f"{key} {part}.json").stat().st_mtime for part in PARTS]
    found["timed in turn"] = made == sorted(made)
    found["no higher than"] = {
        way: found["standard"]["robust"] <= one["robust"] for way, one in judged.items()
    }
    means = [sum(one["robust"] for one in runs) / len(runs) for runs in (ours, (theirs, again))]
    found["no higher on average"] = means[0] <= means[1] + 1e-9
    return found


def outcome(case: Case, effort: str, seed: int = SEED) -> dict[str, Any]:
    """Judge a network one way."""
    found, seconds = judge(case, effort, seed)
    return {
        "clean": found.clean.value, "robust": found.robust.value,
        "forward": round(found.forward, 2), "backward": round(found.backward, 2),
        "cpu seconds": round(seconds, 3), "flags": [flag.name for flag in found.flags],
        "stages": {s.name: [s.entered, s.broke] for s in found.stages},
    }  # fmt: skip


def protocol(case: Case, seed: int = SEED) -> dict[str, Any]:
    """Run torchattacks' stages as AutoAttack does: each on what stands, every example to its last step."""
    theirs = peers.torchattacks()
    x, y = case.dataset.test.x[ROWS], case.dataset.test.y[ROWS]
    net, passes = case.model, [0, 0]

    def count(module: nn.Module, given: Any, out: torch.Tensor) -> None:
        passes[0] += len(out)
        passes[1] += len(out) if out.requires_grad else 0

    common = {"norm": "Linf" if case.norm is linf else "L2", "eps": case.eps, "seed": seed}
    stages = (
        theirs.APGD(net, steps=100, **common),
        theirs.APGDT(net, steps=100, **common),
        theirs.FAB(net, steps=100, multi_targeted=True, n_classes=10, **common),
        theirs.Square(net, n_queries=5000, **common),
    )
    hook, began = net.register_forward_hook(count), time.process_time()
    standing = correct(net, x, y).nonzero()[:, 0]
    for stage in stages:
        if len(standing):
            with torch.enable_grad():
                found = stage(x[standing], y[standing])
            standing = standing[correct(net, found, y[standing])]
    seconds = time.process_time() - began
    hook.remove()
    return {
        "robust": len(standing) / len(y), "forward": passes[0] / len(y),
        "backward": passes[1] / len(y), "cpu seconds": round(seconds, 1),
    }  # fmt: skip


def stages_against_torchattacks(name: str, examples: int = 100) -> dict[str, Any]:
    """Run each stage of the protocol alone, ours and torchattacks', on examples that are right."""
    theirs = peers.torchattacks()
    case = CASES[name]()
    x, y = case.dataset.test.x[ROWS][:examples], case.dataset.test.y[ROWS][:examples]
    right = correct(case.model, x, y)
    x, y, eps = x[right], y[right], case.eps
    norm = "Linf" if case.norm is linf else "L2"
    net = case.model
    common = {"norm": norm, "eps": eps, "seed": SEED}
    pairs = {
        "apgd-ce": (apgd(eps, norm=case.norm), theirs.APGD(net, steps=100, **common)),
        "apgd-t": (apgd_t(eps, norm=case.norm), theirs.APGDT(net, steps=100, **common)),
        "fab-t": (
            fab(norm=case.norm),
            theirs.FAB(net, steps=100, multi_targeted=True, n_classes=10, **common),
        ),
        "square": (
            square(eps, norm=case.norm, queries=1000),
            theirs.Square(net, n_queries=1000, **common),
        ),
    }
    left = {}
    for stage, (ours, other) in pairs.items():
        found = ours(net, x, y)
        inside = found.norms["linf" if case.norm is linf else "l2"] <= eps * (1 + 1e-5)
        mine = int((~(found.success & inside)).sum())
        wrong = net(other(x, y)).argmax(1) != y
        left[stage] = {"walnut": mine, "torchattacks": int((~wrong).sum()), "examples": len(y)}
    return left


def main() -> None:
    torch.set_num_threads(1)
    before = record.earlier("strength")
    rows = before.get("with earlier stages", {}) | before.get("networks", {})
    figures: dict[str, Any] = {
        "examples": EXAMPLES,
        "networks": {},
        "stages": before.get("stages", {}),
    }
    for name in sys.argv[1:] or list(CASES):
        figures["networks"][name] = compare(name)
        rows.pop(name, None)
        print(name, figures["networks"][name], flush=True)
    current = {name: row for name, row in rows.items() if row.get("plan") == PLAN}
    figures["networks"] |= current
    figures["with earlier stages"] = {n: row for n, row in rows.items() if n not in current}
    for name in ("mnist provable linf 0.1", "cifar adv linf 2/255"):
        if name not in figures["stages"]:
            figures["stages"][name] = stages_against_torchattacks(name)
    judged, ways = figures["networks"].values(), ("torchattacks", "autoattack")
    figures["summary"] = {
        "networks": len(judged),
        "no higher than": {
            way: sum(found["no higher than"][way] for found in judged) for way in ways
        },
        "no higher on average": sum(f["no higher on average"] for f in judged),
        "largest excess": {
            way: max(f["standard"]["robust"] - f[way]["robust"] for f in judged) for way in ways
        },
        "at least 30 times less cpu": sum(f["times less cpu"] >= 30 for f in judged),
        "timed in turn": sum(f["timed in turn"] for f in judged),
    }
    record.write("strength", SEED, figures)


if __name__ == "__main__":
    main()
