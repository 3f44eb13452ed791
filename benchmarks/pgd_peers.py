"""PGD-20 of walnut, Foolbox, torchattacks and ART: same network, examples, step size and start.

One thread; all are run in turn in each round, and the figure is the ratio of walnut's time to theirs
in the same round. "Equal steps" is every example for all 20 steps and the last point; "rows leaving" is
how walnut runs by itself: an example leaves at the step that fools the network.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import peers
import record
from walnut import data, nets
from walnut.attacks import pgd
from walnut.evaluate import correct

STEPS, EXAMPLES, SEED = 20, 100, 0
Call = Callable[[], Tensor]


def art_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Call | None:
    """Return ART's PGD on tensors, or None where ART is not there."""
    estimators, evasion = peers.art()
    if estimators is None:
        return None
    wrapped = estimators.PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0),
        device_type="cpu",
    )  # fmt: skip
    attack = evasion.ProjectedGradientDescent(
        wrapped, eps=eps, eps_step=2.5 * eps / STEPS, max_iter=STEPS, batch_size=len(x),
        verbose=False,
    )  # fmt: skip
    return lambda: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def candidates(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, Call]:
    """Return what is timed: each gives the examples it found."""
    size = 2.5 * eps / STEPS
    common = {"steps": STEPS, "random_start": False, "batch_size": len(x)}
    equal = pgd(eps, early_stop=False, keep_best=False, **common)
    leaving = pgd(eps, **common)
    made: dict[str, Call] = {
        "equal steps": lambda: equal(model, x, y).x,
        "rows leaving": lambda: leaving(model, x, y).x,
    }
    torchattacks, foolbox, art = peers.torchattacks(), peers.foolbox(), art_pgd(model, x, y, eps)
    if torchattacks is not None:
        theirs = torchattacks.PGD(model, eps=eps, alpha=size, steps=STEPS, random_start=False)
        made["torchattacks"] = lambda: theirs(x, y)
    if foolbox is not None:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        attack = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=STEPS, random_start=False)
        made["foolbox"] = lambda: attack(wrapped, x, y, epsilons=eps)[1]
    if art is not None:
        made["art"] = art
    return made


def measure(model: nn.Module, x: Tensor, y: Tensor, eps: float, rounds: int) -> dict[str, Any]:
    """Time every candidate in turn, and count whom each leaves right."""
    made = candidates(model, x, y, eps)
    robust = {name: int(correct(model, call().detach(), y).sum()) for name, call in made.items()}
    clocks = {"processor": time.process_time, "wall": time.perf_counter}
    times: dict[str, dict[str, list[float]]] = {c: {n: [] for n in made} for c in clocks}
    names = list(made)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            began = {c: clock() for c, clock in clocks.items()}
            made[name]()
            for c, clock in clocks.items():
                times[c][name].append(clock() - began[c])
    return {
        "eps": eps,
        "examples": len(x),
        "rounds": rounds,
        "robust_examples": robust,
        **{f"{c}_time": ratios(found) for c, found in times.items()},
    }


def ratios(times: dict[str, list[float]]) -> dict[str, Any]:
    """Return seconds of each, and theirs over walnut's in the same round."""
    theirs = [name for name in times if name not in ("equal steps", "rows leaving")]
    fastest = [min(round_) for round_ in zip(*(times[name] for name in theirs), strict=True)]
    pairs = {**{name: times[name] for name in theirs}, "fastest of them": fastest}
    found: dict[str, Any] = {"seconds": {name: record.spread(t) for name, t in times.items()}}
    for mine in ("equal steps", "rows leaving"):
        found[f"their time / walnut's, {mine}"] = {
            name: record.spread([a / b for a, b in zip(t, times[mine], strict=True)])
            for name, t in pairs.items()
        }
    return found


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{'network':26s}{'':14s}{'robust':>7s}{'equal steps':>22s}{'rows leaving':>22s}")
    for net, entry in figures.items():
        for name in (*entry["robust_examples"], "fastest of them"):
            cells = []
            for mine in ("equal steps", "rows leaving"):
                r = entry["processor_time"][f"their time / walnut's, {mine}"].get(name)
                cells.append(f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})" if r else "")
            robust = entry["robust_examples"].get(name, "")
            print(f"{net:26s}{name:16s}{robust!s:>5s}{cells[0]:>22s}{cells[1]:>22s}")


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    root = Path(os.environ.get("WALNUT_DATA", "../shared/data")) / "models"
    cifar, mnist = data.load("cifar10"), data.load("mnist")
    resnet = nets.resolve(
        "resnet-20", root / "resnet20_cifar10.safetensors", dataset=cifar,
        mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    small = nets.resolve(
        "small-cnn", root / "mnist_conv_small_nat.safetensors", dataset=mnist, mean=[0.1307],
        std=[0.3081],
    )  # fmt: skip
    cases = {
        "resnet20_cifar10": (resnet, cifar, 8 / 255, 7),
        "mnist_conv_small_nat": (small, mnist, 0.3, 21),
    }
    figures = {
        name: measure(model.eval(), d.test.x[:EXAMPLES], d.test.y[:EXAMPLES], eps, rounds)
        for name, (model, d, eps, rounds) in cases.items()
    }
    record.write("pgd_peers", SEED, {"steps": STEPS, "threads_used": 1, **figures})
    show(figures)


if __name__ == "__main__":
    main()
