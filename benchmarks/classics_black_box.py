"""Classics that carry over: substitutes, k-NN, and the attacks that are made to transfer."""

from __future__ import annotations

from sklearn.neighbors import KNeighborsClassifier

from classics_linear import Figures, error
from classics_nets import fresh, loaded, pretrained, registered, relu_net
from walnut import nets
from walnut.attacks import di_fgsm, fgsm, noise, si_fgsm, ti_fgsm, transferable, vmi_fgsm
from walnut.evaluate import predict
from walnut.nets.classical import Classical
from walnut.recipes.jacobian import reservoir, turning
from walnut.recipes.substitute import LabelOracle, train_substitute


def papernot(count: int = 500) -> Figures:
    """Substitutes trained on the answers to 150 examples and what is made of them; FGSM at .3."""
    data, found = loaded("mnist"), Figures()
    seeds, x, y = data.validation.x[:150], data.test.x[:count], data.test.y[:count]
    oracles = {"dnn": registered("lenet-5", "mnist"), "logistic": relu_net()}
    substitutes = {"dnn": "small-cnn", "regression": "softmax"}
    chosen = (("dnn", "dnn"), ("logistic", "regression"), ("dnn", "regression"))
    for oracle, kind in chosen:
        start = fresh(lambda kind=kind: nets.build(substitutes[kind], shape=data.shape))
        made = train_substitute(
            LabelOracle(oracles[oracle]), start, seeds, rounds=6, step=turning(),
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


def neighbours(count: int = 500) -> Figures:
    """What FGSM at .3 makes of a network and of regression, shown to a k-NN that has no gradient."""
    data, found = loaded("mnist"), Figures()
    x, y = data.test.x[:count], data.test.y[:count]
    flat = data.train.x[:20_000].flatten(1).numpy()
    voted = KNeighborsClassifier(15).fit(flat, data.train.y[:20_000].numpy())
    target = Classical(voted, 10)
    found["clean"] = error(target, x, y)
    sources = {"dnn": registered("lenet-5", "mnist"), "regression": relu_net()}
    for name, source in sources.items():
        made = fgsm(0.3)(source, x, y).x
        found[f"{name} on itself"] = error(source, made, y)
        found[f"{name} on k-NN"] = error(target, made, y)
    found["noise"] = error(target, noise(0.3)(sources["dnn"], x, y).x, y)
    return found


def ordering(count: int = 300) -> Figures:
    """FGSM and the iterated ones, ten steps: success on the source and on another network.

    On examples that both get right. All return their last point, as the published code does.
    """
    test, found = loaded("cifar10").test, Figures()
    source = pretrained("resnet20_cifar10", "cifar10")
    target = registered("vgg-11", "cifar10", epochs=4, width=8)
    x, y = test.x[: 2 * count], test.y[: 2 * count]
    both = (predict(source, x).argmax(1) == y) & (predict(target, x).argmax(1) == y)
    x, y = x[both][:count], y[both][:count]
    found["examples"] = len(x)
    found["target test error"] = error(target, test.x[:2000], test.y[:2000])
    eps = 16 / 255
    ways = {
        "FGSM": fgsm(eps), "I": transferable(eps, decay=0.0), "MI": transferable(eps),
        "NI": transferable(eps, look_ahead=1.0), "DI": di_fgsm(eps), "TI": ti_fgsm(eps),
        "SI": si_fgsm(eps, copies=3), "VMI": vmi_fgsm(eps, samples=5), "noise": noise(eps),
    }  # fmt: skip
    for name, attack in ways.items():
        made = attack(source, x, y).x
        found[f"{name} on source"] = error(source, made, y)
        found[f"{name} on target"] = error(target, made, y)
    return found
