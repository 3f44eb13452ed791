"""FGSM and PGD against Foolbox and torchattacks: same network, same examples, same start.

In float64 all three must agree. In float32 the usual cross-entropy loses its gradient where a network
is confident (p − 1 rounds to 0), so the others' signs are partly noise there; the benchmark counts on
which entries each float32 result has the sign that float64 says is right.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import peers
import record
from walnut import data, nets
from walnut.attacks import fgsm, pgd
from walnut.evaluate import correct

EXAMPLES, SEED, STEPS = 500, 0, 20


def fgsm_of_others(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, Tensor]:
    """Return the FGSM examples of each toolkit that is there."""
    found = {}
    torchattacks, foolbox = peers.torchattacks(), peers.foolbox()
    if torchattacks is not None:
        found["torchattacks"] = torchattacks.FGSM(model, eps=eps)(x, y)
    if foolbox is not None:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        found["foolbox"] = foolbox.attacks.FGSM(random_start=False)(wrapped, x, y, epsilons=eps)[1]
    return found


def pgd_of_others(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, Tensor]:
    """Return the PGD examples of each toolkit that is there, started at the examples."""
    found, size = {}, 2.5 * eps / STEPS
    torchattacks, foolbox = peers.torchattacks(), peers.foolbox()
    if torchattacks is not None:
        attack = torchattacks.PGD(model, eps=eps, alpha=size, steps=STEPS, random_start=False)
        found["torchattacks"] = attack(x, y)
    if foolbox is not None:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        attack = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=STEPS, random_start=False)
        found["foolbox"] = attack(wrapped, x, y, epsilons=eps)[1]
    return found


def compare(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, Any]:
    """Return the largest differences, and robust counts, of walnut and each other."""
    mine = fgsm(eps)(model, x, y).x
    climbed = pgd(
        eps, steps=STEPS, random_start=False, early_stop=False, keep_best=False, batch_size=len(x)
    )(model, x, y).x
    figures: dict[str, Any] = {"robust_pgd": {"walnut": int(correct(model, climbed, y).sum())}}
    for name, theirs in fgsm_of_others(model, x, y, eps).items():
        gap = (mine - theirs).abs().flatten(1).amax(1)
        figures[f"fgsm_{name}"] = {
            "largest_difference": float(gap.max()),
            "examples_beyond_1e-6": int((gap > 1e-6).sum()),
        }
    for name, theirs in pgd_of_others(model, x, y, eps).items():
        gap = (climbed - theirs).abs().flatten(1).amax(1)
        figures[f"pgd_{name}"] = {
            "largest_difference": float(gap.max()),
            "examples_beyond_1e-5": int((gap > 1e-5).sum()),
        }
        figures["robust_pgd"][name] = int(correct(model, theirs, y).sum())
    return figures


def right_signs(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, float]:
    """Return the share of entries that each float32 FGSM moves as the float64 gradient says."""
    truth = (fgsm(eps, bounds=None)(model.double(), x.double(), y).x - x.double()).sign()
    model.float()
    shares = {"walnut": fgsm(eps)(model, x, y).x, **fgsm_of_others(model, x, y, eps)}
    counts = (truth != 0) & ((x.double() + eps * truth).clamp(0, 1) != x.double())
    return {
        name: float((((z.double() - x.double()).sign() == truth) & counts).sum() / counts.sum())
        for name, z in shares.items()
    }


def main() -> None:
    root = Path(os.environ.get("WALNUT_DATA", "../shared/data")) / "models"
    cifar_mean, cifar_std = [0.4914, 0.4824, 0.4467], [0.2471, 0.2435, 0.2616]
    cases = {
        "mnist_cnn_a_adv": ("mnist", "small-cnn", {}, 0.3),
        "mnist_conv_small_nat": ("mnist", "small-cnn", {"mean": [0.1307], "std": [0.3081]}, 0.1),
        "cifar_cnn_a_adv": (
            "cifar10",
            "small-cnn",
            {"mean": cifar_mean, "std": cifar_std},
            2 / 255,
        ),
    }
    figures: dict[str, Any] = {}
    for name, (where, net, arguments, eps) in cases.items():
        dataset = data.load(where)
        model = nets.resolve(net, root / f"{name}.safetensors", dataset=dataset, **arguments)
        x, y = dataset.test.x[:EXAMPLES], dataset.test.y[:EXAMPLES]
        entry: dict[str, Any] = {"eps": eps, "examples": len(y)}
        entry["float32"] = compare(model, x, y, eps)
        entry["float64"] = compare(model.double(), x.double(), y, eps)
        entry["right_signs_in_float32"] = right_signs(model.float(), x, y, eps)
        figures[name] = entry
    record.write("parity", SEED, figures)


if __name__ == "__main__":
    main()
