"""What classics.py sets side by side: the published figures, where ours are, and why they differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A published figure, ours ("experiment: figure") and, where there is one, ours under plain noise."""

    id: str
    experiment: str
    source: str
    published: float
    unit: str
    ours: str
    why: str
    noise: str = ""


@dataclass(frozen=True)
class Order:
    """A published order of figures, smallest first."""

    id: str
    claim: str
    source: str
    rising: tuple[str, ...]


S1, S2, S4 = (f"Szegedy 2014, Table {n}" for n in (1, 2, 4))
SCALED = "our scaling of the penalty (λ‖W‖²/k in the loss) is a reading of one sentence"
SHORT = "4 epochs of Adam here, which is short for sigmoid units"


def szegedy() -> tuple[Row, ...]:
    """Return the rows of Szegedy et al. 2014, Table 1, and those of noise."""
    table1 = (
        ("FC10(1e-4)", 7.4, 0.062), ("FC10(1e-2)", 9.4, 0.10), ("FC10(1)", 20.0, 0.14),
        ("FC100-100-10", 1.64, 0.058), ("FC200-200-10", 1.54, 0.065),
    )  # fmt: skip
    rows = []
    for name, wrong, least in table1:
        why = SCALED if name.startswith("FC10(") else SHORT
        rows += [
            Row(f"test error, {name}", "MNIST, test error", S1, wrong, "%",
                f"szegedy: test error {name}", why),
            Row(f"distortion, {name}", "least √(Σ(x̂ − x)²/n) to error, box L-BFGS", S1, least, "",
                f"szegedy: distortion {name}",
                f"40 examples, nearest class; any class: {{szegedy: distortion {name}, any target}}"),
        ]  # fmt: skip
    noise = (("0.1", "FC10(1e-4)", 5.0), ("0.1", "FC100-100-10", 0.0),
             ("0.3", "FC10(1e-4)", 15.6), ("0.3", "FC100-100-10", 5.0))  # fmt: skip
    for sigma, name, wrong in noise:
        rows.append(
            Row(f"noise σ {sigma}, {name}", "error under Gaussian noise", S2, wrong, "%",
                f"szegedy: gaussian {sigma} {name}",
                f"2,000 test examples here; theirs are others, since σ .1 gives less than their test error; "
                f"cut to the box it is {{szegedy: gaussian {sigma} {name}, cut}} %")
        )  # fmt: skip
    return tuple(rows)


def carried() -> tuple[Row, ...]:
    """Return the rows of Szegedy et al. 2014, Tables 2 and 4."""
    rows = []
    table2 = (
        ("FC10(1e-4)", "FC100-100-10", 2.0), ("FC10(1)", "FC10(1e-4)", 71.9),
        ("FC10(1)", "FC100-100-10", 48.1), ("FC100-100-10", "FC10(1e-4)", 28.9),
    )  # fmt: skip
    for made, shown, wrong in table2:
        rows.append(
            Row(f"transfer, {made} → {shown}", "error on the examples made on another network", S2,
                wrong, "%", f"szegedy: {made} -> {shown}",
                f"40 examples, {{szegedy: clean {shown}}} % of them wrong without it; ours are shorter",
                f"szegedy: gaussian 0.1 {shown}")
        )  # fmt: skip
    table4 = (
        ("FC100 -> FC123", "same half, other widths", 26.2),
        ("FC100 -> FC100'", "the other half of the data", 5.9),
        ("FC100 -> FC123 at .1", "same half, drawn to length .1", 98.0),
        ("FC100 -> FC100' at .1", "other half, drawn to length .1", 43.0),
    )
    for key, what, wrong in table4:
        target = key.removeprefix("FC100 -> ").removesuffix(" at .1")
        rows.append(
            Row(f"halves, {key.replace('->', '→')}", f"transfer: {what}", S4, wrong, "%",
                f"halves: {key}", "40 test examples, networks of 4 epochs on half of MNIST",
                f"halves: gaussian .1 {target}")
        )  # fmt: skip
    return tuple(rows)


G4, G6, G7 = (f"Goodfellow 2015, §{n}" for n in (4, 6, 7))
GOODFELLOW = (
    Row("FGSM, softmax: error", "MNIST, eps .25", G4, 99.9, "%", "goodfellow: softmax error",
        "cut to the box here, uncut {goodfellow: softmax error uncut} %", "goodfellow: softmax error noise"),
    Row("FGSM, softmax: confidence", "where it is wrong", G4, 79.3, "%", "goodfellow: softmax confidence",
        "cut to the box here, uncut {goodfellow: softmax confidence uncut} %",
        "goodfellow: softmax confidence noise"),
    Row("FGSM, maxout: error", "MNIST, eps .25", G4, 89.4, "%", "goodfellow: maxout error",
        "half the units and 6 epochs of Adam", "goodfellow: maxout error noise"),
    Row("FGSM, maxout: confidence", "where it is wrong", G4, 97.6, "%", "goodfellow: maxout confidence",
        "half the units and 6 epochs of Adam; uncut {goodfellow: maxout confidence uncut} %",
        "goodfellow: maxout confidence noise"),
    Row("FGSM, CIFAR-10: error", "eps .1", G4, 87.15, "%", "goodfellow: cifar error",
        "ResNet-20 on pixels in [0, 1], where .1 is so long that noise does nearly as much; theirs a maxout "
        "network on preprocessed pixels",
        "goodfellow: cifar error noise"),
    Row("FGSM, CIFAR-10: confidence", "where it is wrong", G4, 96.6, "%", "goodfellow: cifar confidence",
        "another network, and a longer step in its own units", "goodfellow: cifar confidence noise"),
    Row("FGSM, RBF: error", "MNIST, eps .25", G7, 55.4, "%", "goodfellow: rbf error",
        "100 units below a linear layer here, one unit a class there, often silent",
        "goodfellow: rbf error noise"),
    Row("FGSM, RBF: confidence", "where it is wrong", G7, 1.2, "%", "goodfellow: rbf confidence",
        "our answers are a softmax over ten classes, so never below 10 %; theirs may all be near 0"),
    Row("FGSM-AT: error", "maxout trained on ½ J(x) + ½ J(FGSM)", G6, 17.9, "%",
        "adversarial-training: new error",
        "half the units, 6 epochs; noise does more than FGSM: it learnt FGSM, not the ball",
        "adversarial-training: new error noise"),
    Row("FGSM-AT: confidence", "where it is wrong", G6, 81.4, "%",
        "adversarial-training: new confidence", "6 epochs of Adam, half the units"),
    Row("FGSM-AT: transfer to the new", "made on the old", G6, 19.6, "%",
        "adversarial-training: old -> new", "half the units, 6 epochs; both networks have one seed"),
    Row("FGSM-AT: transfer from the new", "made on the new, shown to the old", G6, 40.9, "%",
        "adversarial-training: new -> old", "half the units, 6 epochs; both networks have one seed"),
    Row("FGSM-AT: clean error before", "maxout", G6, 0.94, "%", "adversarial-training: old clean",
        "6 epochs of Adam and half the units; theirs stopped by a validation set"),
    Row("FGSM-AT: clean error after", "maxout", G6, 0.84, "%", "adversarial-training: new clean",
        "6 epochs of Adam and half the units; theirs stopped by a validation set"),
)  # fmt: skip

T = "Tramèr 2017, §3"
D1 = "Moosavi-Dezfooli 2016, Table 1"
CW = "Carlini & Wagner 2017, Table IV"
LEAST = (
    Row("subspace, FC: source", "orthogonal directions of length 5 that fool", T, 44.28, "",
        "tramer: fc source", "sets of 14 sizes from 1 to 128 are tried, and turned from random directions",
        "tramer: fc noise"),
    Row("subspace, FC: both", "of these, on a second network", T, 24.87, "", "tramer: fc both",
        "ReLU networks of 200 and 200 units and 2 epochs, two seeds"),
    Row("subspace, CNN: source", "the same, convolutional", T, 15.0, "", "tramer: cnn source",
        "another convolutional network", "tramer: cnn noise"),
    Row("subspace, CNN: both", "of these, on a second network", T, 2.0, "", "tramer: cnn both",
        "two seeds of one network here, which share more than two architectures"),
    Row("ρ LeNet: DeepFool", "mean ‖r‖/‖x‖, MNIST", D1, 0.20, "", "deepfool: lenet deepfool",
        "no bisection and no box, as published; LeNet-5 of 3 epochs on 20,000 examples"),
    Row("ρ LeNet: FGSM", "at the smallest eps that fools 90 %", D1, 1.0, "", "deepfool: lenet fgsm",
        "another LeNet, 3 epochs on 20,000 examples; eps found to a thousandth, not cut to the box"),
    Row("ρ LeNet: L-BFGS", "Szegedy's", D1, 0.25, "", "deepfool: lenet lbfgs",
        "20 examples; the box binds here"),
    Row("ρ FC500-150-10: DeepFool", "MNIST", D1, 0.11, "", "deepfool: fc deepfool",
        "2 epochs of Adam"),
    Row("ρ FC500-150-10: FGSM", "MNIST", D1, 0.39, "", "deepfool: fc fgsm",
        "2 epochs of Adam; eps found to a thousandth, not cut to the box"),
    Row("ρ FC500-150-10: L-BFGS", "MNIST", D1, 0.12, "", "deepfool: fc lbfgs",
        "30 examples; the box binds here"),
    Row("ρ CIFAR-10: DeepFool", "NIN there, ResNet-20 here", D1, 0.023, "", "deepfool: cifar deepfool",
        "another network, deeper; 40 examples"),
    Row("ρ CIFAR-10: FGSM", "NIN there, ResNet-20 here", D1, 0.12, "", "deepfool: cifar fgsm",
        "one sign step fools 90 % only where nothing is left of the picture; small steps fool most"),
    Row("C&W MNIST: success", "L2, random targets", CW, 100.0, "%", "carlini-wagner: mnist targeted success",
        "50 examples", "carlini-wagner: mnist targeted noise"),
    Row("C&W MNIST: length", "L2, random targets (≈ 1.4–1.8)", CW, 1.6, "",
        "carlini-wagner: mnist targeted",
        "LeNet-5 and 300 passes for 10,000; untargeted {carlini-wagner: mnist untargeted}"),
    Row("C&W CIFAR-10: length", "L2 (≈ 0.2–0.3)", CW, 0.25, "", "carlini-wagner: cifar targeted",
        "ResNet-20, 12 examples; untargeted {carlini-wagner: cifar untargeted}",
        "carlini-wagner: cifar targeted noise"),
)  # fmt: skip

MADRY, MT = "Madry 2018, Table 1", "MTandHJ, PyTorch-Robust"
WONG = "Wong & Kolter 2018, Table 1"
TRAINED = (
    "short of convergence: 3 to 6 epochs on 10,000 or 20,000 examples, 84 on all of them there"
)


def defences() -> tuple[Row, ...]:
    """Return the rows of adversarially trained networks."""
    rows = [
        Row(f"MNIST eps .3, trained on PGD: {name}", "accuracy", MADRY, value, "%",
            f"challenge: adversarial {key}",
            "another published network (166,406 parameters), 20 times smaller than theirs",
            "challenge: adversarial noise")
        for name, key, value in (("clean", "clean", 98.8), ("FGSM", "fgsm", 95.6), ("PGD-40", "pgd", 93.2))
    ] + [
        Row(f"MNIST eps .1, provable: {name}", "accuracy", WONG, value, "%",
            f"challenge: provable {key}", why, "challenge: provable noise")
        for name, key, value, why in (
            ("clean", "clean", 98.2, "their own weights on the same 10,000 examples"),
            ("FGSM", "fgsm", 96.1, "their own weights, the first 1,000 test examples"),
            ("PGD", "pgd", 95.9, "their own weights, the first 1,000 test examples, 40 steps"),
        )
    ]  # fmt: skip
    tables = (
        ("fashion plain", "Fashion-MNIST, plain", (91.82, 2.12, 0.0)),
        ("mnist fgsm", "MNIST, trained on FGSM", (99.30, 99.64, 0.01)),
        ("fashion fgsm", "Fashion-MNIST, trained on FGSM", (91.94, 96.34, 0.0)),
        ("fashion pgd", "Fashion-MNIST, trained on PGD", (77.76, 70.55, 61.97)),
    )
    for key, name, values in tables:
        where = "pgd-training" if key == "fashion pgd" else "overfitting"
        columns = ("clean", "fgsm", "pgd")
        for column, label, value in zip(columns, ("clean", "FGSM", "PGD-50"), values, strict=True):
            rows.append(
                Row(f"eps .3, {name}: {label}", "accuracy", MT, value, "%",
                    f"{where}: {key} {column}", TRAINED, f"{where}: {key} noise")
            )  # fmt: skip
    return tuple(rows)


N, P, A = "Nguyen 2015, §3", "Papernot 2017", "Athalye 2018, Table 2"
B, M = "Brown 2017, Fig. 3", "Moosavi-Dezfooli 2017, Table 1"
X = "TransferAttack, ResNet-50 → VGG-16"
WHOLE = (
    Row("fooling: evolved pixels", "LeNet on MNIST, median confidence", N, 99.99, "%",
        "nguyen: direct median", "champions stop where they come to 99.99 %; 200 generations of 100 children",
        "nguyen: noise median"),
    Row("fooling: CPPN", "LeNet on MNIST, median confidence", N, 99.99, "%", "nguyen: cppn median",
        "the same stop and budget", "nguyen: noise median"),
    Row("fooling: gradient", "LeNet on MNIST, median confidence", N, 99.99, "%",
        "nguyen: gradient median", "the climb stops at 99.99 %", "nguyen: noise median"),
    Row("substitute of a DNN", "MNIST, 6,400 queries, FGSM eps .3, error of the oracle", P, 84.24, "%",
        "papernot: dnn through dnn: error",
        "our LeNet-5 for a service's network; {papernot: dnn through dnn: agreement} % of answers agree",
        "papernot: dnn through dnn: noise"),
    Row("regression as substitute, Amazon", "oracle: softmax regression", P, 96.19, "%",
        "papernot: logistic through regression: error",
        "800 queries as there, to our own regression in place of a service",
        "papernot: logistic through regression: noise"),
    Row("regression as substitute, Google", "oracle unknown there, LeNet-5 here", P, 88.94, "%",
        "papernot: dnn through regression: error", "the oracle there is not known and may have been linear",
        "papernot: dnn through regression: noise"),
    Row("EOT, 2-D: adversariality", "targeted, ±30°, zoom .9 to 1.4", A, 96.4, "%", "athalye: eot 0.1",
        "Fashion-MNIST at eps .1 and 180 passes (at eps .2: {athalye: eot 0.2} %); theirs ImageNet, "
        "with 300 times the pixels and thousands of passes", "athalye: noise 0.1"),
    Row("patch of 10 % of the picture", "targeted success (≈ 90 %)", B, 90.0, "%", "brown: cifar 0.1",
        "ResNet-20 on CIFAR-10, a patch of ten pixels made in 80 steps (LeNet-5 on Fashion-MNIST: "
        "{brown: fashion 0.1} %)", "brown: cifar 0.1 noise"),
    Row("patch of 5 % of the picture", "targeted success (≈ 90 % at 5–10 %)", B, 90.0, "%",
        "brown: cifar 0.05", "the same patch, seven pixels wide (Fashion-MNIST: {brown: fashion 0.05} %)",
        "brown: cifar 0.05 noise"),
    Row("universal, CaffeNet", "fooling rate on held-out pictures", M, 93.3, "%", "moosavi: fashion 0.2 300",
        "LeNet-5 on Fashion-MNIST at eps .2 from 300 pictures (at .1: {moosavi: fashion 0.1 300} %); "
        "ImageNet at 10/255 from 10,000 there", "moosavi: fashion 0.2 300 shuffled"),
    Row("universal, ResNet-152", "fooling rate on held-out pictures, 10/255", M, 84.0, "%",
        "moosavi: cifar sgd 300", "ResNet-20 on CIFAR-10 from 300 pictures; far fewer pixels to add up over",
        "moosavi: cifar sgd 300 shuffled"),
)  # fmt: skip
CARRIED = tuple(
    Row(f"transfer, {name}: {where}", "success, ten steps of eps 16/255", X, value, "%",
        f"ordering: {name} on {key}",
        "LeNet-5 → small CNN on Fashion-MNIST: ten classes lie further apart than a thousand",
        f"ordering: noise on {key}")
    for name, first, second in (
        ("FGSM", 49.2, 54.6), ("I", 99.6, 36.5), ("MI", 99.9, 57.9), ("NI", 100.0, 66.5), ("VMI", 99.6, 70.8),
    )
    for where, key, value in (("source", "source", first), ("another", "target", second))
)  # fmt: skip

ROWS = (*szegedy(), *carried(), *GOODFELLOW, *LEAST, *defences(), *WHOLE, *CARRIED)

ORDERS = (
    *(Order(f"decay {what}", f"more weight decay, more {what}", S1,
            tuple(f"szegedy: {what} FC10({w})" for w in ("1e-4", "1e-2", "1")))
      for what in ("test error", "distortion")),
    Order("halves", "carries over more to the same half than to the other", S4,
          ("halves: FC100 -> FC100'", "halves: FC100 -> FC123")),
    Order("halves-long", "the same, drawn to length .1", S4,
          ("halves: FC100 -> FC100' at .1", "halves: FC100 -> FC123 at .1")),
    Order("noise", "noise of the same length does less than what was made on another network", S4,
          ("halves: gaussian .1 FC100'", "halves: FC100 -> FC100' at .1")),
    Order("rbf", "Gaussian units are fooled less than maxout, maxout less than softmax", G7,
          ("goodfellow: rbf error", "goodfellow: maxout error", "goodfellow: softmax error")),
    Order("unsure", "Gaussian units are less sure where they are wrong", G7,
          ("goodfellow: rbf confidence", "goodfellow: softmax confidence", "goodfellow: maxout confidence")),
    Order("trained", "FGSM-AT resists FGSM, and old → new carries less than new → old", G6,
          ("adversarial-training: old -> new", "adversarial-training: new -> old",
           "adversarial-training: old error")),
    Order("subspace", "fewer directions fool two networks than one", T,
          ("tramer: fc both", "tramer: fc source")),
    *(Order(net, f"{label}: DeepFool < L-BFGS < FGSM", D1,
            tuple(f"deepfool: {net} {way}" for way in ("deepfool", "lbfgs", "fgsm")))
      for net, label in (("lenet", "LeNet"), ("fc", "FC500-150-10"))),
    *(Order(f"{data}-fgsm", f"{label}, trained on FGSM: PGD breaks what FGSM does not", MT,
            (f"overfitting: {data} fgsm pgd", f"overfitting: {data} fgsm fgsm"))
      for data, label in (("mnist", "MNIST"), ("fashion", "Fashion-MNIST"))),
    Order("pgd", "PGD training holds where FGSM training does not", MT,
          ("overfitting: fashion fgsm pgd", "pgd-training: fashion pgd pgd")),
    Order("off", "another network: I < FGSM < MI < NI < VMI", X,
          tuple(f"ordering: {n} on target" for n in ("I", "FGSM", "MI", "NI", "VMI"))),
    Order("on", "the source itself: FGSM below the iterated ones", X,
          ("ordering: FGSM on source", "ordering: I on source")),
    Order("eot", "PGD with as many passes survives the transforms less than EOT", A,
          ("athalye: pgd 0.1", "athalye: eot 0.1")),
    Order("patch", "a larger patch works more often", B,
          tuple(f"brown: cifar {a}" for a in (0.02, 0.05, 0.1, 0.2))),
    Order("universal", "more pictures, a better universal perturbation", M,
          tuple(f"moosavi: fashion 0.2 {n}" for n in (20, 100, 300))),
)  # fmt: skip
