"""Lines of least perturbations and of defences: DeepFool, C&W, Madry, Wong & Kolter, MTandHJ."""

from __future__ import annotations

from classics_row import Order, Row

D1 = "Moosavi-Dezfooli 2016, Table 1"
CW = "Carlini & Wagner 2017, Table IV"
EDGE = "the smallest eps found from below, not cut to the box"
LENGTH = "relative to pictures less their mean {{deepfool: {}, centred}}"
LEAST = (
    Row("ρ LeNet: DeepFool", "mean ‖r‖/‖x‖, MNIST", D1, 0.20, "", "deepfool: lenet deepfool",
        "no bisection and no box, as published; another LeNet, of 3 epochs"),
    Row("ρ LeNet: FGSM", "at the smallest eps that fools 90 %", D1, 1.0, "", "deepfool: lenet fgsm",
        f"another LeNet, of 3 epochs; {EDGE}"),
    Row("ρ LeNet: L-BFGS", "Szegedy's", D1, 0.25, "", "deepfool: lenet lbfgs",
        "20 examples, nearest class; the box binds here"),
    Row("ρ FC500-150-10: DeepFool", "MNIST", D1, 0.11, "", "deepfool: fc deepfool",
        "6 epochs of Adam"),
    Row("ρ FC500-150-10: FGSM", "MNIST", D1, 0.39, "", "deepfool: fc fgsm",
        f"6 epochs of Adam; {EDGE}"),
    Row("ρ FC500-150-10: L-BFGS", "MNIST", D1, 0.12, "", "deepfool: fc lbfgs",
        "20 examples, nearest class; the box binds here"),
    Row("ρ LeNet, CIFAR-10: DeepFool", "mean ‖r‖/‖x‖", D1, 0.030, "", "deepfool: cifar-lenet deepfool",
        f"Caffe's LeNet-5; {LENGTH.format('cifar-lenet deepfool')}"),
    Row("ρ LeNet, CIFAR-10: FGSM", "at the smallest eps that fools 90 %", D1, 0.13, "",
        "deepfool: cifar-lenet fgsm", f"{EDGE}; {LENGTH.format('cifar-lenet fgsm')}"),
    Row("ρ LeNet, CIFAR-10: L-BFGS", "Szegedy's", D1, 0.039, "", "deepfool: cifar-lenet lbfgs",
        f"20 examples, nearest class; {LENGTH.format('cifar-lenet lbfgs')}"),
    Row("ρ CIFAR-10: DeepFool", "NIN there, ResNet-20 here", D1, 0.023, "", "deepfool: cifar deepfool",
        f"another network, deeper and with batch norm; {LENGTH.format('cifar deepfool')}"),
    Row("ρ CIFAR-10: FGSM", "NIN there, ResNet-20 here", D1, 0.12, "", "deepfool: cifar fgsm",
        f"{EDGE}; small steps fool most, 90 % takes a long one; {LENGTH.format('cifar fgsm')}"),
    Row("ρ CIFAR-10: L-BFGS", "NIN there, ResNet-20 here", D1, 0.024, "", "deepfool: cifar lbfgs",
        f"another network, deeper and with batch norm; {LENGTH.format('cifar lbfgs')}"),
    Row("C&W MNIST: success", "L2, random targets", CW, 100.0, "%", "carlini-wagner: mnist targeted success",
        "30 examples", "carlini-wagner: mnist targeted noise"),
    Row("C&W MNIST: length", "L2, random targets (≈ 1.4–1.8)", CW, 1.6, "",
        "carlini-wagner: mnist targeted",
        "LeNet-5 and 300 passes for 10,000; untargeted {carlini-wagner: mnist untargeted}"),
    Row("C&W CIFAR-10: length", "L2 (≈ 0.2–0.3)", CW, 0.25, "", "carlini-wagner: cifar targeted",
        "ResNet-20, 8 examples; untargeted {carlini-wagner: cifar untargeted}",
        "carlini-wagner: cifar targeted noise"),
)  # fmt: skip

MADRY, MT = "Madry 2018, Table 1", "MTandHJ, PyTorch-Robust"
WONG = "Wong & Kolter 2018, Table 1"
TRAINED = "a smaller network: {} epochs in all of {} examples, 84 of 60,000 there"
PLAIN, FGSM_AT, PGD_AT = (
    "a smaller network, 3 epochs; 84 there", TRAINED.format(8, "40,000"),
    f"{TRAINED.format(6, '20,000')}; three steps for 40",
)  # fmt: skip
TABLES = (
    ("fashion plain", "Fashion-MNIST, plain", PLAIN, (91.82, 2.12, 0.0)),
    ("mnist fgsm", "MNIST, trained on FGSM", FGSM_AT, (99.30, 99.64, 0.01)),
    ("fashion fgsm", "Fashion-MNIST, trained on FGSM", FGSM_AT, (91.94, 96.34, 0.0)),
    ("mnist pgd", "MNIST, trained on PGD", PGD_AT, (99.46, 97.5, 96.27)),
    ("fashion pgd", "Fashion-MNIST, trained on PGD", PGD_AT, (77.76, 70.55, 61.97)),
    ("mnist trades1", "MNIST, TRADES with β = 1", PGD_AT, (99.45, 97.59, 96.22)),
    ("mnist trades6", "MNIST, TRADES with β = 6", PGD_AT, (99.23, None, 95.83)),
    ("fashion trades1", "Fashion-MNIST, TRADES with β = 1", PGD_AT, (86.06, 67.89, 58.07)),
)  # fmt: skip


def published() -> tuple[Row, ...]:
    """Return the rows of defended networks whose weights the literature gives away."""
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
    return tuple(rows)


def trained() -> tuple[Row, ...]:
    """Return the rows of adversarially trained networks."""
    rows = []
    for key, name, why, values in TABLES:
        where = "overfitting" if key.endswith(("plain", "fgsm")) else "pgd-training"
        columns = zip(("clean", "fgsm", "pgd"), ("clean", "FGSM", "PGD-50"), values, strict=True)
        rows += [
            Row(f"eps .3, {name}: {label}", "accuracy", MT, value, "%",
                f"{where}: {key} {column}", why, f"{where}: {key} noise")
            for column, label, value in columns if value is not None
        ]  # fmt: skip
    return tuple(rows)


ROWS = (*LEAST, *published(), *trained())

ORDERS = (
    *(Order(net, f"{label}: DeepFool < L-BFGS < FGSM", D1,
            tuple(f"deepfool: {net} {way}" for way in ("deepfool", "lbfgs", "fgsm")))
      for net, label in (("lenet", "LeNet"), ("fc", "FC500-150-10"), ("cifar-lenet", "LeNet on CIFAR-10"))),
    *(Order(f"{data}-fgsm", f"{label}, trained on FGSM: PGD breaks what FGSM does not", MT,
            (f"overfitting: {data} fgsm pgd", f"overfitting: {data} fgsm fgsm"))
      for data, label in (("mnist", "MNIST"), ("fashion", "Fashion-MNIST"))),
    *(Order(f"{data}-pgd", f"{label}: PGD training holds where FGSM training does not", MT,
            (f"overfitting: {data} fgsm pgd", f"pgd-training: {data} pgd pgd"))
      for data, label in (("mnist", "MNIST"), ("fashion", "Fashion-MNIST"))),
    Order("price", "Fashion-MNIST: PGD training costs more clean accuracy than TRADES with β = 1", MT,
          ("pgd-training: fashion pgd clean", "pgd-training: fashion trades1 clean")),
    Order("price-mnist", "MNIST: TRADES with β = 6 costs more clean accuracy than with β = 1", MT,
          ("pgd-training: mnist trades6 clean", "pgd-training: mnist trades1 clean")),
)  # fmt: skip
