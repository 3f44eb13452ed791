"""Classics of least perturbations and of defences: DeepFool, C&W, Madry, catastrophic overfitting."""

from __future__ import annotations

from torch import Tensor, nn

from classics_defended import defended
from classics_linear import Figures, error
from classics_nets import loaded, pretrained, registered, relu_net, right
from walnut.attacks import carlini_wagner, deepfool, fgsm, lbfgs, noise, pgd
from walnut.core.constraints import l2
from walnut.core.draws import Draws
from walnut.core.types import Adversarial
from walnut.evaluate import accuracy


def relative(found: Adversarial, x: Tensor, rows: Tensor | None = None) -> float:
    """Return ρ = mean ‖r‖₂ / ‖x‖₂ over ``rows``, the examples that were fooled unless given."""
    rho = found.norms["l2"] / x.flatten(1).double().norm(dim=1)
    return round(float(rho[found.success if rows is None else rows].mean()), 4)


def sign_step(model: nn.Module, x: Tensor, y: Tensor, share: float = 0.9) -> Adversarial:
    """Return the fast gradient sign method at the smallest eps that fools ``share``.

    More of a sign step is not always worse for a network, so radii are tried from below, a seventh
    more each time, and the last gap is halved.
    """

    def enough(eps: float) -> bool:
        made = fgsm(eps, bounds=None)(model, x, y)
        return float(made.success.double().mean()) >= share

    low = high = 0.005
    while not enough(high) and high < 2:
        low, high = high, high * 8 / 7
    for _ in range(4):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return fgsm(high, bounds=None)(model, x, y)


def robustness_of_three(count: int = 60) -> Figures:
    """Table 1 of DeepFool: ρ of DeepFool, of FGSM and of L-BFGS.

    Pictures that a network is shown less their mean are shorter, so ρ is larger: the second figure.
    """
    cases = {
        "lenet": (registered("lenet-5", "mnist"), "mnist", count, 15),
        "fc": (relu_net(500, 150), "mnist", count, 15),
        "cifar": (pretrained("resnet20_cifar10", "cifar10"), "cifar10", 40, 4),
        "cifar-lenet": (registered("lenet-5", "cifar10", epochs=3), "cifar10", count, 15),
    }
    found = Figures()
    for name, (model, data, some, few) in cases.items():
        test = loaded(data).test
        x, y = right(model, test.x, test.y, some)
        found[f"{name} clean"] = 100 - error(model, test.x[:1000], test.y[:1000])
        made = deepfool(refine=0, bounds=None)(model, x, y)
        found[f"{name} reached"] = 100 * float(made.success.double().mean())
        ways = {
            "deepfool": (made, made.success), "fgsm": (sign_step(model, x, y), made.success >= 0),
            "lbfgs": (lbfgs(refine=0)(model, x[:few], y[:few]), None),
        }  # fmt: skip
        middle = loaded(data).train.x.mean(0)
        for way, (those, rows) in ways.items():
            found[f"{name} {way}"] = relative(those, x[: len(those.x)], rows)
            found[f"{name} {way}, centred"] = relative(those, x[: len(those.x)] - middle, rows)
            found[f"{name} {way} reached"] = 100 * float(those.success.double().mean())
        length = float(made.norms["l2"].mean())
        found[f"{name} noise"] = error(model, noise(length, norm=l2)(model, x, y).x, y)
    return found


def strongest(count: int = 30) -> Figures:
    """C&W in L2: mean length and success, untargeted and with a random target."""
    cases = {
        "mnist": (registered("lenet-5", "mnist"), "mnist", count),
        "cifar": (pretrained("resnet20_cifar10", "cifar10"), "cifar10", 8),
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
    found = Figures()
    for data, name in (("mnist", "mnist"), ("fashion_mnist", "fashion")):
        told = columns(defended(data, "fgsm"), data, 0.3, 50, 500)
        found |= {f"{name} fgsm {key}": value for key, value in told.items()}
    told = columns(registered("small-cnn", "fashion_mnist"), "fashion_mnist", 0.3, 50, 500)
    return found | {f"fashion plain {key}": value for key, value in told.items()}


def trained_on_pgd() -> Figures:
    """The same network trained on PGD and with TRADES."""
    cases = (
        ("mnist", "pgd"), ("mnist", "trades1"), ("mnist", "trades6"),
        ("fashion", "pgd"), ("fashion", "trades1"),
    )  # fmt: skip
    found = Figures()
    for name, kind in cases:
        data = {"fashion": "fashion_mnist"}.get(name, name)
        told = columns(defended(data, kind), data, 0.3, 50, 500)
        found |= {f"{name} {kind} {key}": value for key, value in told.items()}
    return found
