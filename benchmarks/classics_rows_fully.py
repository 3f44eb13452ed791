"""Lines of fully connected networks: Szegedy et al. 2014, Goodfellow et al. 2015, Tramèr et al. 2017."""

from __future__ import annotations

from classics_row import Order, Row

S1, S2, S4 = (f"Szegedy 2014, Table {n}" for n in (1, 2, 4))
SCALED = "our scaling of the penalty (λ‖W‖²/k in the loss) is a reading of one sentence"
ADAM = "25 epochs of Adam in place of L-BFGS to the end; no training error there"
SPARSE = "sparseness and its weight are not published; those of the tutorial of the time here"


def szegedy() -> tuple[Row, ...]:
    """Return the rows of Szegedy et al. 2014, Table 1, and those of noise."""
    table1 = (
        ("FC10(1e-4)", 7.4, 0.062, SCALED), ("FC10(1e-2)", 9.4, 0.10, SCALED),
        ("FC10(1)", 20.0, 0.14, SCALED), ("FC100-100-10", 1.64, 0.058, ADAM),
        ("FC200-200-10", 1.54, 0.065, ADAM), ("AE400-10", 1.9, 0.086, SPARSE),
    )  # fmt: skip
    rows = []
    for name, wrong, least, why in table1:
        rows += [
            Row(f"test error, {name}", "MNIST, test error", S1, wrong, "%",
                f"szegedy: test error {name}", why),
            Row(f"distortion, {name}", "least √(Σ(x̂ − x)²/n) to a drawn label, box L-BFGS", S1, least, "",
                f"szegedy: distortion {name}",
                f"40 training examples; to the nearest class {{szegedy: distortion {name}, nearest}}"),
        ]  # fmt: skip
    noise = (("0.1", "FC10(1e-4)", 5.0), ("0.1", "FC100-100-10", 0.0), ("0.1", "AE400-10", 0.8),
             ("0.3", "FC10(1e-4)", 15.6), ("0.3", "FC100-100-10", 5.0), ("0.3", "AE400-10", 3.1))  # fmt: skip
    for sigma, name, wrong in noise:
        rows.append(
            Row(f"noise σ {sigma}, {name}", "error of training examples under Gaussian noise", S2, wrong,
                "%", f"szegedy: gaussian {sigma} {name}",
                f"2,000 training examples; cut to the box it is {{szegedy: gaussian {sigma} {name}, cut}} %")
        )  # fmt: skip
    return tuple(rows)


def carried() -> tuple[Row, ...]:
    """Return the rows of Szegedy et al. 2014, Tables 2 and 4."""
    rows = []
    table2 = (
        ("FC10(1e-4)", "FC100-100-10", 2.0), ("FC10(1e-4)", "AE400-10", 2.7),
        ("FC10(1)", "FC10(1e-4)", 71.9), ("FC10(1)", "FC100-100-10", 48.1), ("FC10(1)", "AE400-10", 34.4),
        ("FC100-100-10", "FC10(1e-4)", 28.9), ("FC100-100-10", "AE400-10", 2.0),
    )  # fmt: skip
    for made, shown, wrong in table2:
        rows.append(
            Row(f"transfer, {made} → {shown}", "error on the examples made on another network", S2,
                wrong, "%", f"szegedy: {made} -> {shown}",
                f"40 examples, {{szegedy: clean {shown}}} % of them wrong without it; "
                f"to the nearest class {{szegedy: {made} -> {shown}, nearest}} %",
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
                f"halves: {key}",
                f"48 test examples to a drawn label; to the nearest class {{halves: {key}, nearest}} %",
                f"halves: gaussian .1 {target}")
        )  # fmt: skip
    return tuple(rows)


G4, G6, G7 = (f"Goodfellow 2015, §{n}" for n in (4, 6, 7))
HALF = "half the units, 15 epochs of Adam"
GOODFELLOW = (
    Row("FGSM, softmax: error", "MNIST, eps .25", G4, 99.9, "%", "goodfellow: softmax error",
        "cut to the box here, uncut {goodfellow: softmax error uncut} %", "goodfellow: softmax error noise"),
    Row("FGSM, softmax: confidence", "where it is wrong", G4, 79.3, "%", "goodfellow: softmax confidence",
        "cut to the box here, uncut {goodfellow: softmax confidence uncut} %",
        "goodfellow: softmax confidence noise"),
    Row("FGSM, maxout: error", "MNIST, eps .25", G4, 89.4, "%", "goodfellow: maxout error",
        HALF, "goodfellow: maxout error noise"),
    Row("FGSM, maxout: confidence", "where it is wrong", G4, 97.6, "%", "goodfellow: maxout confidence",
        HALF + "; uncut {goodfellow: maxout confidence uncut} %", "goodfellow: maxout confidence noise"),
    Row("FGSM, CIFAR-10: error", "eps .1", G4, 87.15, "%", "goodfellow: cifar error",
        "ResNet-20 on pixels in [0, 1], where .1 is so long that noise does nearly as much; theirs a maxout "
        "network on preprocessed pixels",
        "goodfellow: cifar error noise"),
    Row("FGSM, CIFAR-10: confidence", "where it is wrong", G4, 96.6, "%", "goodfellow: cifar confidence",
        "another network, and a longer step in its own units", "goodfellow: cifar confidence noise"),
    Row("FGSM, RBF: error", "MNIST, eps .25", G7, 55.4, "%", "goodfellow: rbf error",
        "one Gaussian unit a class, as there; its matrix is a diagonal and a rank of 16 here, not told there",
        "goodfellow: rbf error noise"),
    Row("FGSM, RBF: confidence", "where it is wrong", G7, 1.2, "%", "goodfellow: rbf confidence",
        "the unit's own probability, as there; on clean digits it is near theirs",
        "goodfellow: rbf confidence noise"),
    Row("RBF: confidence on clean digits", "mean over test examples", G7, 60.6, "%",
        "goodfellow: rbf clean confidence", "{goodfellow: rbf clean} % of them wrong"),
    Row("FGSM-AT: error", "maxout trained on ½ J(x) + ½ J(FGSM)", G6, 17.9, "%",
        "adversarial-training: new error", HALF, "adversarial-training: new error noise"),
    Row("FGSM-AT: confidence", "where it is wrong", G6, 81.4, "%",
        "adversarial-training: new confidence", HALF),
    Row("FGSM-AT: transfer to the new", "made on the old", G6, 19.6, "%",
        "adversarial-training: old -> new", HALF + "; both networks have one seed"),
    Row("FGSM-AT: transfer from the new", "made on the new, shown to the old", G6, 40.9, "%",
        "adversarial-training: new -> old", HALF + "; both networks have one seed"),
    Row("FGSM-AT: clean error before", "maxout", G6, 0.94, "%", "adversarial-training: old clean",
        HALF + "; theirs stopped by a validation set, then trained on it too"),
    Row("FGSM-AT: clean error after", "maxout", G6, 0.84, "%", "adversarial-training: new clean",
        HALF + "; theirs stopped by a validation set, then trained on it too"),
)  # fmt: skip

T = "Tramèr 2017, §3"
XOR = "Tramèr 2017, §5"
TRAMER = (
    Row("subspace, FC: source", "orthogonal directions of length 5 that fool", T, 44.28, "",
        "tramer: fc source", "sets of 14 sizes from 1 to 128 are tried, and turned from random directions",
        "tramer: fc noise"),
    Row("subspace, FC: both", "of these, on a second network", T, 24.87, "", "tramer: fc both",
        "ReLU networks of 200 and 200 units, two seeds"),
    Row("subspace, CNN: source", "the same, convolutional", T, 15.0, "", "tramer: cnn source",
        "another convolutional network", "tramer: cnn noise"),
    Row("subspace, CNN: both", "of these, on a second network", T, 2.0, "", "tramer: cnn both",
        "two seeds of one network here, which share more than two architectures"),
)  # fmt: skip

ROWS = (*szegedy(), *carried(), *GOODFELLOW, *TRAMER)

ORDERS = (
    *(Order(f"decay {what}", f"more weight decay, more {what}", S1,
            tuple(f"szegedy: {what} FC10({w})" for w in ("1e-4", "1e-2", "1")))
      for what in ("test error", "distortion")),
    Order("deep", "two hidden layers are fooled by less than the autoencoder", S1,
          ("szegedy: distortion FC100-100-10", "szegedy: distortion AE400-10")),
    Order("halves", "carries over more to the same half than to the other", S4,
          ("halves: FC100 -> FC100'", "halves: FC100 -> FC123")),
    Order("halves-long", "the same, drawn to length .1", S4,
          ("halves: FC100 -> FC100' at .1", "halves: FC100 -> FC123 at .1")),
    Order("noise", "noise of the same length does less than what was made on another network", S4,
          ("halves: gaussian .1 FC100'", "halves: FC100 -> FC100' at .1")),
    Order("rbf", "Gaussian units are fooled less than maxout, maxout less than softmax", G7,
          ("goodfellow: rbf error", "goodfellow: maxout error", "goodfellow: softmax error")),
    Order("unsure", "Gaussian units are less sure than softmax where they are wrong", G7,
          ("goodfellow: rbf confidence", "goodfellow: softmax confidence")),
    Order("surest", "maxout is surer than softmax where it is wrong", G4,
          ("goodfellow: softmax confidence", "goodfellow: maxout confidence")),
    Order("trained", "FGSM-AT resists FGSM, and old → new carries less than new → old", G6,
          ("adversarial-training: old -> new", "adversarial-training: new -> old",
           "adversarial-training: old error")),
    Order("subspace", "fewer directions fool two networks than one", T,
          ("tramer: fc both", "tramer: fc source")),
    Order("xor-linear", "XOR artefacts: what fools a linear model fools another, not a quadratic one", XOR,
          ("xor: linear -> quadratic", "xor: linear -> linear again")),
    Order("xor-quadratic", "XOR artefacts: what fools a quadratic model fools another, not a linear one", XOR,
          ("xor: quadratic -> linear", "xor: quadratic -> quadratic again")),
)  # fmt: skip
