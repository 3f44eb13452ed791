"""Classics that carry over or fool as a whole: rubbish, substitutes, transfer, EOT, patches, universal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from classics_linear import Figures, error
from classics_nets import loaded, pretrained, registered, relu_net, right
from walnut import nets
from walnut.attacks import bim, fgsm, mi_fgsm, ni_fgsm, noise, pgd, vmi_fgsm
from walnut.attacks.cppn import cppn
from walnut.attacks.evolve import direct, evolve
from walnut.attacks.expectation import eot
from walnut.attacks.linear import share_along
from walnut.attacks.lines import class_weight, mean_gradient, random_line
from walnut.attacks.patch import patch
from walnut.attacks.rubbish import fooling, judged, noise_pictures
from walnut.attacks.universal import universal
from walnut.attacks.universal_sgd import universal_sgd
from walnut.core.draws import Draws
from walnut.core.placement import Placement
from walnut.core.transforms import compose, rotate, zoom
from walnut.evaluate import predict
from walnut.evaluate.expectation import adversariality
from walnut.evaluate.patch import patch_success
from walnut.evaluate.universal import fooling_rate, learning_curve
from walnut.recipes.jacobian import reservoir, turning
from walnut.recipes.substitute import LabelOracle, train_substitute


def nguyen() -> Figures:
    """Pictures of nothing that a LeNet is sure of: by gradient, evolved pixels, evolved CPPNs."""
    model, found = registered("lenet-5", "mnist"), Figures()
    other = registered("lenet-5", "mnist", 1)
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


def papernot(count: int = 500) -> Figures:
    """Substitutes trained on the answers to 150 examples and what is made of them; FGSM at .3."""
    data, found = loaded("mnist"), Figures()
    seeds, x, y = data.validation.x[:150], data.test.x[:count], data.test.y[:count]
    oracles = {"dnn": registered("lenet-5", "mnist"), "logistic": relu_net()}
    substitutes = {"dnn": "lenet-300-100", "regression": "softmax"}
    chosen = (("dnn", "dnn"), ("logistic", "regression"), ("dnn", "regression"))
    for oracle, kind in chosen:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            fresh = nets.build(substitutes[kind], shape=data.shape)
        made = train_substitute(
            LabelOracle(oracles[oracle]), fresh, seeds, rounds=6, step=turning(),
            select=reservoir(after=5, keep=1600) if kind == "dnn" else reservoir(after=2, keep=50),
        )  # fmt: skip
        name = f"{oracle} through {kind}"
        agree = predict(made.model, x).argmax(1) == predict(oracles[oracle], x).argmax(1)
        found |= {
            f"{name}: queries": made.queries,
            f"{name}: agreement": round(100 * float(agree.double().mean()), 2),
            f"{name}: error": error(oracles[oracle], fgsm(0.3)(made.model, x, y).x, y),
            f"{name}: noise": error(oracles[oracle], noise(0.3)(made.model, x, y).x, y),
            f"{name}: white box": error(oracles[oracle], fgsm(0.3)(oracles[oracle], x, y).x, y),
        }
    return found


def ordering(count: int = 150, eps: float = 16 / 255) -> Figures:
    """I, FGSM, MI, NI, VMI at eps 16/255, ten steps: success on the source and on another network."""
    test, found = loaded("fashion_mnist").test, Figures()
    source = registered("lenet-5", "fashion_mnist")
    target = registered("small-cnn", "fashion_mnist")
    x, y = test.x[:600], test.y[:600]
    both = (predict(source, x).argmax(1) == y) & (predict(target, x).argmax(1) == y)
    x, y = x[both][:count], y[both][:count]
    ways = {
        "FGSM": fgsm(eps), "I": bim(eps, early_stop=False), "MI": mi_fgsm(eps), "NI": ni_fgsm(eps),
        "VMI": vmi_fgsm(eps), "noise": noise(eps),
    }  # fmt: skip
    for name, attack in ways.items():
        made = attack(source, x, y).x
        found[f"{name} on source"] = error(source, made, y)
        found[f"{name} on target"] = error(target, made, y)
    return found


def athalye(count: int = 40) -> Figures:
    """Targeted, under rotations of ±30° and zooms; PGD with as many passes beside it."""
    test, model = loaded("fashion_mnist").test, registered("lenet-5", "fashion_mnist")
    x, y = right(model, test.x, test.y, count)
    shift = 1 + (9 * Draws.of(x, 0).uniform(1)[:, 0]).long()
    target, found = (y + shift) % 10, Figures()
    transform = compose((rotate(30.0), zoom(0.9, 1.4)))
    for eps in (0.1, 0.2):
        ways = {
            "eot": eot(eps, transform, targeted=True, steps=30, samples=6),
            "pgd": pgd(eps, targeted=True, steps=180, early_stop=False),
            "noise": noise(eps),
        }
        for name, attack in ways.items():
            made = attack(model, x, y if name == "noise" else target).x
            told = adversariality(model, made, y, transform, clean=x, target=target)
            found[f"{name} {eps}"] = round(100 * told.mean, 2)
            found[f"{name} {eps} deviation"] = round(100 * told.deviation, 2)
            found[f"{name} {eps} in place"] = error(model, made, y)
            found["clean accuracy"] = round(100 * told.clean_accuracy, 2)
            found["clean"] = round(100 * told.clean_mean, 2)
    return found


def brown() -> Figures:
    """A round targeted patch, stuck anywhere: success against the share of the picture it covers."""
    found = Figures()
    cases = {
        "cifar": (pretrained("resnet20_cifar10", "cifar10"), "cifar10", 80, 24, 150),
        "fashion": (registered("lenet-5", "fashion_mnist"), "fashion_mnist", 300, 64, 500),
    }
    for name, (model, data, steps, pictures, held_out) in cases.items():
        split, test = loaded(data).train, loaded(data).test
        attack = patch(0, placement=Placement((0.2, 0.6)), steps=steps, pictures=pictures)
        made = attack(model, split.x[:2000], split.y[:2000])
        areas = (0.02, 0.05, 0.1, 0.2)
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
    found, counts = Figures(), (20, 100, 300)
    fashion, other = (registered(net, "fashion_mnist") for net in ("lenet-5", "small-cnn"))
    cifar = pretrained("resnet20_cifar10", "cifar10")
    cases: dict[str, tuple[nn.Module, str, Any, tuple[int, ...]]] = {
        "fashion 0.1": (fashion, "fashion_mnist", universal(0.1), counts),
        "fashion 0.2": (fashion, "fashion_mnist", universal(0.2), counts),
        "fashion 0.2 sgd": (fashion, "fashion_mnist", universal_sgd(0.2, epochs=20), (300,)),
        "cifar sgd": (cifar, "cifar10", universal_sgd(10 / 255, epochs=4), (300,)),
    }
    for name, (model, data, make, sizes) in cases.items():
        split, held_out = loaded(data).train, loaded(data).test.x[:300]
        for point in learning_curve(make, model, split.x, sizes, held_out, y=split.y):
            found[f"{name} {point.count}"] = round(100 * point.held_out.value, 2)
            found[f"{name} {point.count} seen"] = round(100 * point.seen.value, 2)
            found[f"{name} {point.count} shuffled"] = round(100 * point.control.value, 2)
        if data == "fashion_mnist":
            rate = fooling_rate(other, point.made.pattern, held_out)
            found[f"{name} on another"] = round(100 * rate.value, 2)
    return found


def linear(count: int = 500) -> Figures:
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
