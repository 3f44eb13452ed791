"""The minimal-perturbation attacks, one row each; tests/test_attacks_minimal.py runs over them."""

from __future__ import annotations

from functools import partial

from walnut.attacks import pgd
from walnut.attacks.carlini_wagner import carlini_wagner
from walnut.attacks.ddn import ddn
from walnut.attacks.deepfool import deepfool
from walnut.attacks.fmn import fmn
from walnut.attacks.jsma import jsma
from walnut.attacks.lbfgs import lbfgs
from walnut.attacks.smallest import smallest
from walnut.core.constraints import l0, l1, l2, linf

MINIMAL = {
    "deepfool": deepfool(),
    "deepfool-linf": deepfool(norm=linf),
    "deepfool-published": deepfool(refine=0, kept=9),
    "ddn": ddn(steps=40),
    "fmn": fmn(steps=40),
    "fmn-short": fmn(steps=16, starts=2, skip=2.0, refine=4),
    "fmn-linf": fmn(norm=linf, steps=40),
    "fmn-l1": fmn(norm=l1, steps=40),
    "fmn-l0": fmn(norm=l0, steps=40),
    "carlini-wagner": carlini_wagner(searches=4, steps=15),
    "carlini-wagner-linf": carlini_wagner(norm=linf, searches=4, steps=15),
    "lbfgs": lbfgs(searches=4, iterations=6),
    "jsma": jsma(share=0.3),
    "jsma-down": jsma(theta=-0.5, share=0.3),
    "smallest": smallest(partial(pgd, steps=8), searches=4, first=deepfool(norm=linf)),
}

FULL = {
    "deepfool": (deepfool(), 2),
    "deepfool-linf": (deepfool(norm=linf), 1),
    "ddn": (ddn(), 2),
    "fmn": (fmn(), 2),
    "fmn-linf": (fmn(norm=linf), 1),
    "fmn-l1": (fmn(norm=l1), float("inf")),
    "fmn-short": (fmn(steps=16, starts=2, skip=2.0, refine=4), 2),
    "fmn-short-linf": (fmn(norm=linf, steps=16, starts=2, skip=2.0, refine=4), 1),
    "fmn-short-l1": (fmn(norm=l1, steps=16, starts=2, skip=2.0, refine=4), float("inf")),
    "carlini-wagner": (carlini_wagner(), 2),
    "carlini-wagner-linf": (carlini_wagner(norm=linf), 1),
    "lbfgs": (lbfgs(), 2),
    "smallest-linf": (smallest(partial(pgd, steps=20)), 1),
    "smallest-l2": (smallest(lambda eps: pgd(eps, norm=l2, steps=20), norm=l2, upper=2.0), 2),
}
"""At their defaults, each with the dual exponent of its norm."""

CLASSES_2 = ("lbfgs", "smallest-linf", "smallest-l2")  # cross-entropy weighs all classes

TARGETED = {
    "ddn": ddn(targeted=True),
    "fmn": fmn(targeted=True),
    "fmn-linf": fmn(norm=linf, targeted=True),
    "fmn-l1": fmn(norm=l1, targeted=True),
    "fmn-l0": fmn(norm=l0, targeted=True),
    "carlini-wagner": carlini_wagner(targeted=True),
    "carlini-wagner-linf": carlini_wagner(norm=linf, targeted=True),
    "lbfgs": lbfgs(targeted=True, searches=5),
    "jsma": jsma(targeted=True, share=0.5),
    "smallest": smallest(lambda eps: pgd(eps, steps=12, targeted=True), targeted=True),
}
