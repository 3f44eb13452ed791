"""Lines of what carries over or fools as a whole: rubbish, substitutes, EOT, patches, universal, transfer."""

from __future__ import annotations

from classics_row import Order, Row

N, P, A = "Nguyen 2015, §3", "Papernot 2017, abstract", "Athalye 2018, Table 2"
K, S = "Papernot 2016, Fig. 3", "Papernot 2016, abstract"
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
        "{papernot: dnn through dnn: agreement} % of answers agree, about as there; our LeNet-5 is right on "
        "99 %, the service's network was on 95 %",
        "papernot: dnn through dnn: noise"),
    Row("regression as substitute, Amazon", "oracle: softmax regression", S, 96.19, "%",
        "papernot: logistic through regression: error",
        "800 queries as there, to our own regression in place of a service",
        "papernot: logistic through regression: noise"),
    Row("regression as substitute, Google", "oracle unknown there, LeNet-5 here", S, 88.94, "%",
        "papernot: dnn through regression: error", "the oracle there is not known and may have been linear",
        "papernot: dnn through regression: noise"),
    Row("DNN → k-NN", "FGSM on a network, error of k-NN", K, 8.36, "%", "neighbours: dnn on k-NN",
        "15 neighbours of 20,000 at eps .3; {neighbours: clean} % wrong without it", "neighbours: noise"),
    Row("regression → k-NN", "FGSM on regression, error of k-NN", K, 11.29, "%",
        "neighbours: regression on k-NN",
        "15 neighbours of 20,000 at eps .3; {neighbours: clean} % wrong without it", "neighbours: noise"),
    Row("EOT, 2-D: adversariality", "targeted, ±30°, zoom .9 to 1.4", A, 96.4, "%", "athalye: eot 16",
        "ResNet-20 on CIFAR-10 at eps 16/255 and 180 passes (at 8/255: {athalye: eot 8} %); theirs ImageNet, "
        "with 87 times the pixels and thousands of passes", "athalye: noise 16"),
    Row("patch of 10 % of the picture", "targeted success (≈ 90 %)", B, 90.0, "%", "brown: cifar 0.1",
        "ResNet-20 on CIFAR-10, a patch of eleven pixels made in 300 steps (LeNet-5 on Fashion-MNIST: "
        "{brown: fashion 0.1} %)", "brown: cifar 0.1 noise"),
    Row("patch of 5 % of the picture", "targeted success (≈ 90 % at 5–10 %)", B, 90.0, "%",
        "brown: cifar 0.05", "the same patch, eight pixels wide (Fashion-MNIST: {brown: fashion 0.05} %); "
        "on 20 % of the picture {brown: cifar 0.2} %",
        "brown: cifar 0.05 noise"),
    Row("universal, CaffeNet", "fooling rate on held-out pictures", M, 93.3, "%", "moosavi: fashion 0.2 300",
        "LeNet-5 on Fashion-MNIST at eps .2 from 300 pictures (at .1: {moosavi: fashion 0.1 100} %); "
        "ImageNet at 10/255 from 10,000 there", "moosavi: fashion 0.2 300 shuffled"),
    Row("universal, ResNet-152", "fooling rate on held-out pictures, 10/255", M, 84.0, "%",
        "moosavi: cifar sgd 1000", "ResNet-20 on CIFAR-10 from 1,000 pictures, by gradient in place of "
        "DeepFool; far fewer pixels to add up over", "moosavi: cifar sgd 1000 shuffled"),
)  # fmt: skip
CARRIED = tuple(
    Row(f"transfer, {name}: {where}", "success, ten steps of eps 16/255", X, value, "%",
        f"ordering: {name} on {key}",
        "ResNet-20 → VGG-11 of an eighth of the width, {ordering: target test error} % wrong; "
        f"DI {{ordering: DI on {key}}} %, TI {{ordering: TI on {key}}} %, SI {{ordering: SI on {key}}} %",
        f"ordering: noise on {key}")
    for name, first, second in (
        ("FGSM", 49.2, 54.6), ("I", 99.6, 36.5), ("MI", 99.9, 57.9), ("NI", 100.0, 66.5), ("VMI", 99.6, 70.8),
    )
    for where, key, value in (("source", "source", first), ("another", "target", second))
)  # fmt: skip

ROWS = (*WHOLE, *CARRIED)

ORDERS = (
    Order("off", "another network: I < FGSM < MI < NI < VMI", X,
          tuple(f"ordering: {n} on target" for n in ("I", "FGSM", "MI", "NI", "VMI"))),
    Order("on", "the source itself: FGSM below the iterated ones", X,
          ("ordering: FGSM on source", "ordering: I on source")),
    Order("knn", "k-NN is fooled less than the regression it was made on", K,
          ("neighbours: regression on k-NN", "neighbours: regression on itself")),
    Order("eot", "PGD with as many passes survives the transforms less than EOT", A,
          ("athalye: pgd 16", "athalye: eot 16")),
    Order("patch", "a larger patch works more often", B,
          tuple(f"brown: cifar {a}" for a in (0.02, 0.05, 0.1, 0.2))),
    *(Order(f"universal-{key}", f"more pictures, a better universal perturbation ({label})", M,
            tuple(f"moosavi: {key} {n}" for n in counts))
      for key, label, counts in (("fashion 0.2", "Fashion-MNIST", (20, 100, 300)),
                                 ("cifar sgd", "CIFAR-10", (50, 250, 1000)))),
)  # fmt: skip
