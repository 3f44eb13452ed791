"""Classics on fully connected networks: Szegedy et al. 2014, Goodfellow et al. 2015, Tramèr et al. 2017."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from classics_models import bernoulli
from classics_nets import (
    fully,
    loaded,
    maxout,
    pretrained,
    rbf,
    registered,
    relu_net,
    right,
)
from walnut.attacks import fgsm, lbfgs, noise
from walnut.core.constraints import l2
from walnut.core.draws import Draws
from walnut.core.types import Attack
from walnut.evaluate import correct, predict
from walnut.evaluate.subspace import adversarial_subspace

Figures = dict[str, float]
FC = ("FC10(1e-4)", "FC10(1e-2)", "FC10(1)", "FC100-100-10", "FC200-200-10", "AE400-10")


def error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the error in per cent."""
    return round(100 * float((~correct(model, x, y)).double().mean()), 2)


def distortion(x: Tensor, x0: Tensor) -> Tensor:
    """Return √(Σ (x̂ − x)² / n) per example."""
    return (x - x0).flatten(1).square().mean(1).sqrt()


def magnified(x: Tensor, x0: Tensor, to: float) -> Tensor:
    """Return the examples with their perturbations drawn to the distortion ``to``, not cut to the box."""
    scale = to / distortion(x, x0).clamp_min(1e-12)
    return x0 + scale[:, None, None, None] * (x - x0)


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Return x + σ n, not cut to the box: cut, the black of a digit would become grey on the mean."""
    return x + sigma * Draws.of(x, 0).normal(x[0].numel()).reshape(x.shape).to(x)


def another(x: Tensor, y: Tensor) -> Tensor:
    """Return a label for each example, drawn evenly from those that are not its own."""
    return (y + 1 + (9 * Draws.of(x, 0).uniform(1)[:, 0]).long()) % 10


def szegedy(count: int = 40, few: int = 10) -> Figures:
    """Tables 1 and 2: test error, least distortion on training examples, what carries over.

    D(x, l) is the least distortion to a label l that is given (§4.1), so l is drawn here; the nearest
    class is the second figure. All of Table 2 is about training examples, noise too.
    """
    data, found = loaded("mnist"), Figures()
    x, y = data.train.x[:count], data.train.y[:count]
    for name in FC:
        model = fully(name)
        found[f"test error {name}"] = error(model, data.test.x, data.test.y)
        made = lbfgs(refine=0, targeted=True)(model, x, another(x, y))
        found[f"distortion {name}"] = round(float(distortion(made.x, x).mean()), 4)
        found[f"reached {name}"] = 100 * float(made.success.double().mean())
        found[f"clean {name}"] = error(model, x, y)
        near = lbfgs(refine=0)(model, x[:few], y[:few])
        found[f"distortion {name}, nearest"] = round(float(distortion(near.x, x[:few]).mean()), 4)
        for other in FC:
            found[f"{name} -> {other}"] = error(fully(other), made.x, y)
            found[f"{name} -> {other}, nearest"] = error(fully(other), near.x, y[:few])
    seen, labels = data.train.x[:2000], data.train.y[:2000]
    for sigma, name in itertools.product((0.1, 0.3), FC):
        found[f"gaussian {sigma} {name}"] = error(fully(name), gaussian(seen, sigma), labels)
        cut = gaussian(seen, sigma).clamp(0, 1)
        found[f"gaussian {sigma} {name}, cut"] = error(fully(name), cut, labels)
    return found


def halves(count: int = 48, few: int = 16) -> Figures:
    """Tables 3 and 4: networks trained on disjoint halves of the training set, test examples."""
    networks = {
        "FC100": fully("FC100-100-10", "first half"),
        "FC123": fully("FC123-456-10", "first half"),
        "FC100'": fully("FC100-100-10", "second half", 1),
    }
    test = loaded("mnist").test
    found = {f"test error {name}": error(m, test.x, test.y) for name, m in networks.items()}
    ways = {
        "": (lbfgs(refine=0, targeted=True), count), ", nearest": (lbfgs(refine=0), few)
    }  # fmt: skip
    for way, (attack, some) in ways.items():
        x, y = test.x[:some], test.y[:some]
        made = attack(networks["FC100"], x, another(x, y) if way == "" else y)
        found[f"distortion{way}"] = round(float(distortion(made.x, x).mean()), 4)
        for name, model in networks.items():
            found[f"FC100 -> {name}{way}"] = error(model, made.x, y)
            found[f"FC100 -> {name} at .1{way}"] = error(model, magnified(made.x, x, 0.1), y)
    x, y = test.x[:2000], test.y[:2000]
    for name, model in networks.items():
        found[f"gaussian .1 {name}"] = error(model, gaussian(x, 0.1), y)  # of the same length
    return found


def under(model: nn.Module, x: Tensor, y: Tensor, attack: Attack, alone: bool = False) -> Figures:
    """Return the error under an attack and the mean confidence where the network is wrong.

    With ``alone`` each answer is the logarithm of its own probability, which need not add up to one.
    """
    answers = predict(model, attack(model, x, y).x).double()
    sure, read = (answers.exp() if alone else answers.softmax(1)).max(1)
    wrong = read != y
    return {
        "error": round(100 * float(wrong.double().mean()), 2),
        "confidence": round(100 * float(sure[wrong].mean()), 2) if bool(wrong.any()) else 0.0,
    }


def goodfellow(count: int = 2000) -> Figures:
    """§4 and §7: FGSM at .25 on softmax regression, maxout and Gaussian units; ResNet-20 at .1."""
    digits, objects, found = loaded("mnist").test, loaded("cifar10").test, Figures()
    cases = {
        "softmax": (fully("FC10(1e-4)"), digits, count, 0.25),
        "maxout": (maxout(), digits, count, 0.25),
        "rbf": (rbf(), digits, count, 0.25),
        "cifar": (pretrained("resnet20_cifar10", "cifar10"), objects, 200, 0.1),
    }
    for name, (model, split, some, eps) in cases.items():
        x, y, alone = split.x[:some], split.y[:some], name == "rbf"
        goal = {"objective": bernoulli()} if alone else {}
        answers = predict(model, x).double()
        found[f"{name} clean"] = error(model, x, y)
        p = answers.exp() if alone else answers.softmax(1)
        found[f"{name} clean confidence"] = round(100 * float(p.amax(1).mean()), 2)
        ways = {
            "": fgsm(eps, **goal), " uncut": fgsm(eps, bounds=None, **goal), " noise": noise(eps)
        }  # fmt: skip
        for way, attack in ways.items():
            told = under(model, x, y, attack, alone)
            found |= {f"{name} {key}{way}": value for key, value in told.items()}
    return found


def adversarial_training(count: int = 2000) -> Figures:
    """§6: the maxout network trained on ½ J(x) + ½ J(FGSM), and transfer between both."""
    test = loaded("mnist").test
    old, new = maxout(), maxout(0.5)
    x, y = test.x[:count], test.y[:count]
    found = {
        "old clean": error(old, test.x, test.y), "new clean": error(new, test.x, test.y)
    }  # fmt: skip
    for way, attack in {"": fgsm(0.25), " noise": noise(0.25)}.items():
        told = under(new, x, y, attack)
        found |= {f"new {key}{way}": value for key, value in told.items()}
    found["old error"] = under(old, x, y, fgsm(0.25))["error"]
    found["old -> new"] = error(new, fgsm(0.25)(old, x, y).x, y)
    found["new -> old"] = error(old, fgsm(0.25)(new, x, y).x, y)
    return found


def tramer(count: int = 50) -> Figures:
    """§3: orthogonal directions of length 5 that fool a network, and another one as well."""
    test, found = loaded("mnist").test, Figures()
    pairs = {
        "fc": (relu_net(200, 200), relu_net(200, 200, seed=1)),
        "cnn": (registered("small-cnn", "mnist"), registered("small-cnn", "mnist", 1)),
    }
    for name, (source, target) in pairs.items():
        x, y = right(source, test.x, test.y, count)
        told = adversarial_subspace(source, x, y, eps=5.0, targets={"other": target}).json()
        found[f"{name} source"] = told["dimension"]
        found[f"{name} both"] = told["transferred"]["other"]
        found[f"{name} complete"] = told["complete"]
        found[f"{name} outside"] = told["outside"]
        randomly = noise(5.0, norm=l2)(source, x, y)
        found[f"{name} noise"] = error(source, randomly.x, y)
    return found
