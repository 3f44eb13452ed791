"""One table of every part and preset; the contract tests run over all rows.

A new method is a part, a preset, and a row here.
"""

from __future__ import annotations

from walnut.attacks import bim, di_fgsm, fgsm, mi_fgsm, noise, pgd
from walnut.core import constraints as c
from walnut.core import directions as d
from walnut.core import gradients as g
from walnut.core import objectives as o
from walnut.core import transforms as t
from walnut.explain import saliency

EPS = 0.1

ATTACKS = {
    "noise": noise(EPS),
    "noise-best-of-5": noise(EPS, draws=5),
    "noise-l2": noise(0.5, norm=c.l2),
    "fgsm": fgsm(EPS),
    "fgsm-l2": fgsm(0.5, norm=c.l2),
    "fgsm-l1": fgsm(2.0, norm=c.l1),
    "bim": bim(EPS, steps=5),
    "pgd": pgd(EPS, steps=5),
    "pgd-restarts": pgd(EPS, steps=3, restarts=3),
    "pgd-l2": pgd(0.5, norm=c.l2, steps=5),
    "pgd-l1": pgd(2.0, norm=c.l1, steps=5),
    "pgd-full-run": pgd(EPS, steps=5, early_stop=False),
    "mi-fgsm": mi_fgsm(EPS, steps=5),
    "di-fgsm": di_fgsm(EPS, steps=5),
    "di-fgsm-momentum": di_fgsm(EPS, steps=5, decay=1.0, early_stop=True),
}
"""Untargeted attacks on images."""

GRADIENT_ATTACKS = {name: attack for name, attack in ATTACKS.items() if "noise" not in name}
VECTOR_ATTACKS = {name: attack for name, attack in ATTACKS.items() if "di-" not in name}

TARGETED = {
    "fgsm": fgsm(EPS, targeted=True),
    "bim": bim(EPS, steps=5, targeted=True),
    "pgd": pgd(EPS, steps=5, targeted=True),
    "pgd-l2": pgd(0.5, norm=c.l2, steps=5, targeted=True),
    "mi-fgsm": mi_fgsm(EPS, steps=5, targeted=True),
    "di-fgsm": di_fgsm(EPS, steps=5, targeted=True),
}

CONSTRAINTS = {
    "linf": c.linf(0.2),
    "l2": c.l2(0.5),
    "l1": c.l1(0.6),
    "l0": c.l0(1),
    "box": c.box(0.0, 1.0),
    "unconstrained": c.unconstrained(),
    "linf-box": c.intersection((c.linf(0.2), c.box())),
    "l2-box": c.intersection((c.l2(0.5), c.box())),
    "l1-box": c.intersection((c.l1(0.6), c.box())),
}

DIRECTIONS = {
    "sign": d.sign(),
    "normalized": d.normalized(),
    "sparse": d.sparse(0.3),
    "momentum": d.momentum(),
    "nesterov": d.nesterov(),
    "blurred": d.blurred(3),
    "mi": d.chain((d.momentum(), d.sign())),
    "ti-mi": d.chain((d.blurred(3), d.momentum(0.9), d.sign())),
}
MEMORYLESS = ("sign", "normalized", "sparse")

GRADIENTS = {
    "plain": g.plain(),
    "eot": g.averaged(t.noise(0.01), 4),
    "di": g.averaged(t.resize_pad()),
}

TRANSFORMS = {
    "resize_pad": t.resize_pad(probability=1.0),
    "jitter": t.jitter(),
    "rotate": t.rotate(),
    "scale": t.scale(),
    "noise": t.noise(),
    "compose": t.compose((t.jitter(), t.rotate(), t.noise())),
}

OBJECTIVES = {
    "cross_entropy": o.cross_entropy(),
    "margin": o.margin(),
    "probability_margin": o.probability_margin(),
    "targeted": o.targeted(o.cross_entropy()),
    "weighted": o.weighted(((0.5, o.cross_entropy()), (2.0, o.margin()))),
}

EXPLAINERS = {"saliency": saliency()}
