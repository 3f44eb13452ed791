"""Classics that fool as a whole or stand a change: rubbish, EOT, patches, universal patterns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from classics_linear import Figures, another, error
from classics_nets import loaded, pretrained, registered, relu_net, right
from walnut.attacks import noise, pgd
from walnut.attacks.cppn import cppn
from walnut.attacks.evolve import direct, evolve
from walnut.attacks.expectation import eot
from walnut.attacks.linear import share_along
from walnut.attacks.lines import class_weight, mean_gradient, random_line
from walnut.attacks.patch import patch
from walnut.attacks.rubbish import fooling, judged, noise_pictures
from walnut.attacks.universal import universal
from walnut.attacks.universal_sgd import universal_sgd
from walnut.core.placement import Placement
from walnut.core.transforms import compose, rotate, zoom
from walnut.evaluate import predict
from walnut.evaluate.expectation import adversariality
from walnut.evaluate.patch import patch_success
from walnut.evaluate.universal import fooling_rate, learning_curve


def nguyen() -> Figures:
    """Pictures of nothing that a LeNet is sure of: by gradient, evolved pixels, evolved CPPNs."""
    model, found = registered("lenet-5", "mnist"), Figures()
    other = registered("small-cnn", "mnist")
    ways = {
        "gradient": fooling(),
        "direct": evolve(direct(), generations=200),
        "cppn": evolve(cppn(), generations=200),
    }
    for name, attack in ways.items():
        made = attack(model, (1, 28, 28), 10, seed=0)
        found[f"{name} median"] = round(100 * made.median_confidence, 4)
        reached = made.reached[made.reached >= 0]
        found[f"{name} reached"] = len(reached)
        found[f"{name} last"] = int(reached.max()) if len(reached) else -1
        found[f"{name} on another"] = round(
            100 * float(judged(other, made.x, made.wanted)[1].median()), 2
        )
    p = predict(model, noise_pictures((1, 28, 28), 200)).double().softmax(1).amax(1)
    found["noise median"] = round(100 * float(p.median()), 2)
    return found


def athalye(count: int = 30, draws: int = 30) -> Figures:
    """Targeted, under rotations of ±30° and zooms; PGD with as many passes beside it."""
    test, model = loaded("cifar10").test, pretrained("resnet20_cifar10", "cifar10")
    x, y = right(model, test.x, test.y, count)
    target, found = another(x, y), Figures()
    transform = compose((rotate(30.0), zoom(0.9, 1.4)))
    passes = {"steps": 30, "samples": 6}
    ways: dict[str, tuple[Any, Tensor]] = {
        "eot 8": (eot(8 / 255, transform, targeted=True, **passes), target),
        "eot 16": (eot(16 / 255, transform, targeted=True, **passes), target),
        "pgd 16": (pgd(16 / 255, targeted=True, steps=180, early_stop=False), target),
        "noise 16": (noise(16 / 255), y),
    }
    for name, (attack, labels) in ways.items():
        made = attack(model, x, labels).x
        told = adversariality(model, made, y, transform, draws, clean=x, target=target)
        found[name] = round(100 * told.mean, 2)
        found[f"{name} deviation"] = round(100 * told.deviation, 2)
        found[f"{name} in place"] = error(model, made, y)
        found["clean accuracy"] = round(100 * told.clean_accuracy, 2)
        found["clean"] = round(100 * told.clean_mean, 2)
    return found


def brown() -> Figures:
    """A round targeted patch, stuck anywhere: success against the share of the picture it covers."""
    found, areas = Figures(), (0.02, 0.05, 0.1, 0.2)
    cases = {
        "cifar": (pretrained("resnet20_cifar10", "cifar10"), "cifar10", 300, 32, 300),
        "fashion": (registered("lenet-5", "fashion_mnist", count=20_000), "fashion_mnist", 300, 64, 500),
    }  # fmt: skip
    for name, (model, data, steps, pictures, held_out) in cases.items():
        split, test = loaded(data).train, loaded(data).test
        attack = patch(0, placement=Placement((0.2, 0.6)), steps=steps, pictures=pictures)
        made = attack(model, split.x[:4000], split.y[:4000])
        places = [Placement().covering(area, made.mask, loaded(data).shape) for area in areas]
        x, y = test.x[:held_out], test.y[:held_out]
        for area, point in zip(areas, patch_success(model, made, x, y, places), strict=True):
            found[f"{name} {area}"] = round(100 * point.patch.value, 2)
            found[f"{name} {area} noise"] = round(100 * point.noise.value, 2)
            found[f"{name} {area} measured"] = round(100 * point.area, 2)
            if point.picture is not None:
                found[f"{name} {area} picture"] = round(100 * point.picture.value, 2)
    return found


def moosavi() -> Figures:
    """One pattern for all pictures: fooling rate on others, against how many it was made from."""
    found = Figures()
    fashion = registered("lenet-5", "fashion_mnist", count=20_000)
    other = registered("small-cnn", "fashion_mnist")
    cifar = pretrained("resnet20_cifar10", "cifar10")
    cases: dict[str, tuple[nn.Module, str, Any, tuple[int, ...]]] = {
        "fashion 0.1": (fashion, "fashion_mnist", universal(0.1), (100,)),
        "fashion 0.2": (fashion, "fashion_mnist", universal(0.2), (20, 100, 300)),
        "cifar sgd": (cifar, "cifar10", universal_sgd(10 / 255, epochs=8), (50, 250, 1000)),
    }
    for name, (model, data, make, sizes) in cases.items():
        split, held_out = loaded(data).train, loaded(data).test.x[:600]
        for point in learning_curve(make, model, split.x, sizes, held_out, y=split.y):
            found[f"{name} {point.count}"] = round(100 * point.held_out.value, 2)
            found[f"{name} {point.count} seen"] = round(100 * point.seen.value, 2)
            found[f"{name} {point.count} shuffled"] = round(100 * point.control.value, 2)
        if data == "fashion_mnist":
            rate = fooling_rate(other, point.made.pattern, held_out)
            found[f"{name} on another"] = round(100 * rate.value, 2)
    return found


def linear(count: int = 200) -> Figures:
    """Share of digits that a step along one class's direction makes that class, against its length."""
    data, found = loaded("mnist"), Figures()
    cases = {
        "softmax": (relu_net(), class_weight()),
        "lenet": (registered("lenet-5", "mnist"), mean_gradient(data.train.x[:200])),
    }
    lengths = (0.5, 1.0, 2.0, 4.0, 8.0)
    for name, (model, lines) in cases.items():
        kept = data.test.y[:count] != 8
        x = data.test.x[:count][kept]
        target = torch.full((len(x),), 8)
        ways = {"": lines, " random": random_line()}
        for way, line in ways.items():
            shares: Tensor = share_along(model, x, target, line, lengths)
            for a, share in zip(lengths, shares.tolist(), strict=True):
                found[f"{name} {a:g}{way}"] = round(100 * share, 2)
    return found
