"""Classics of least perturbations and of defences: DeepFool, C&W, Madry, catastrophic overfitting."""

from __future__ import annotations

import math

from torch import Tensor, nn

from classics_linear import Figures, error
from classics_nets import defended, loaded, pretrained, registered, relu_net, right
from walnut.attacks import carlini_wagner, deepfool, fgsm, lbfgs, noise, pgd
from walnut.core.constraints import l2
from walnut.core.draws import Draws
from walnut.core.types import Adversarial
from walnut.evaluate import accuracy


def relative(found: Adversarial, x: Tensor) -> float:
    """Return ρ = mean ‖r‖₂ / ‖x‖₂ over the examples that were fooled."""
    rho = found.norms["l2"] / x.flatten(1).double().norm(dim=1)
    return round(float(rho[found.success].mean()), 4)


def sign_step(model: nn.Module, x: Tensor, y: Tensor, share: float = 0.9) -> float:
    """Return ρ of the fast gradient sign method at the smallest eps that fools ``share``."""
    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        made = fgsm(middle, bounds=None)(model, x, y)
        enough = float(made.success.double().mean()) >= share
        low, high = (low, middle) if enough else (middle, high)
    made = fgsm(high, bounds=None)(model, x, y)
    rho = made.norms["l2"] / x.flatten(1).double().norm(dim=1)
    return round(float(rho.mean()), 4) if float(made.success.double().mean()) >= share else math.inf


def robustness_of_three(count: int = 200) -> Figures:
    """Table 1 of DeepFool: ρ of DeepFool, of FGSM and of L-BFGS."""
    cases = {
        "lenet": (registered("lenet-5", "mnist"), "mnist", count, 20),
        "fc": (relu_net(500, 150), "mnist", count, 30),
        "cifar": (pretrained("resnet20_cifar10", "cifar10"), "cifar10", 40, 0),
    }
    found = Figures()
    for name, (model, data, some, few) in cases.items():
        test = loaded(data).test
        x, y = right(model, test.x, test.y, some)
        found[f"{name} clean"] = 100 - error(model, test.x[:1000], test.y[:1000])
        made = deepfool(refine=0, bounds=None)(model, x, y)
        found[f"{name} deepfool"] = relative(made, x)
        found[f"{name} reached"] = 100 * float(made.success.double().mean())
        found[f"{name} fgsm"] = sign_step(model, x, y)
        if few:
            found[f"{name} lbfgs"] = relative(lbfgs(refine=0)(model, x[:few], y[:few]), x[:few])
        length = float(made.norms["l2"].mean())
        found[f"{name} noise"] = error(model, noise(length, norm=l2)(model, x, y).x, y)
    return found


def strongest(count: int = 50) -> Figures:
    """C&W in L2: mean length and success, untargeted and with a random target."""
    cases = {
        "mnist": (registered("lenet-5", "mnist"), "mnist", count),
        "cifar": (pretrained("resnet20_cifar10", "cifar10"), "cifar10", 12),
    }
    found = Figures()
    for name, (model, data, some) in cases.items():
        test = loaded(data).test
        x, y = right(model, test.x, test.y, some)
        shift = 1 + (9 * Draws.of(x, 0).uniform(1)[:, 0]).long()
        ways = {
            "untargeted": (carlini_wagner(), y),
            "targeted": (carlini_wagner(targeted=True), (y + shift) % 10),
        }
        for way, (attack, labels) in ways.items():
            made = attack(model, x, labels)
            found[f"{name} {way}"] = round(float(made.norms["l2"][made.success].mean()), 3)
            found[f"{name} {way} success"] = 100 * float(made.success.double().mean())
            longest = float(made.norms["l2"].mean())
            found[f"{name} {way} noise"] = error(model, noise(longest, norm=l2)(model, x, y).x, y)
    return found


def columns(model: nn.Module, data: str, eps: float, steps: int, count: int = 300) -> Figures:
    """Return accuracy in per cent: clean, FGSM, PGD, and noise of the same size."""
    test = loaded(data).test
    x, y = test.x[:count], test.y[:count]
    ways = {"fgsm": fgsm(eps), "pgd": pgd(eps, steps=steps), "noise": noise(eps)}
    found = {"clean": 100 * accuracy(model, test.x, test.y).value}
    for name, attack in ways.items():
        found[name] = 100 - error(model, attack(model, x, y).x, y)
    return {key: round(value, 2) for key, value in found.items()}


def challenge() -> Figures:
    """MNIST at eps .3 (adversarially trained) and at eps .1 (provably): networks of the literature."""
    found = Figures()
    adversarial = columns(pretrained("mnist_cnn_a_adv", "mnist"), "mnist", 0.3, 40)
    provable = columns(pretrained("mnist_cnn_provable_eps0.1", "mnist"), "mnist", 0.1, 40, 1000)
    for name, told in {"adversarial": adversarial, "provable": provable}.items():
        found |= {f"{name} {key}": value for key, value in told.items()}
    return found


def overfitting() -> Figures:
    """Small networks at eps .3, plain and trained on FGSM, judged by FGSM and PGD-50."""
    cases = {
        "fashion plain": (registered("small-cnn", "fashion_mnist"), "fashion_mnist"),
        "mnist fgsm": (defended("mnist", "fgsm"), "mnist"),
        "fashion fgsm": (defended("fashion_mnist", "fgsm"), "fashion_mnist"),
    }
    found = Figures()
    for name, (model, data) in cases.items():
        told = columns(model, data, 0.3, 50, 200)
        found |= {f"{name} {key}": value for key, value in told.items()}
    return found


def trained_on_pgd() -> Figures:
    """The same network trained on PGD."""
    told = columns(defended("fashion_mnist", "pgd"), "fashion_mnist", 0.3, 50, 200)
    return {f"fashion pgd {key}": value for key, value in told.items()}
