"""Rows for the contract tests: attacks with a step of their own, attacks made to transfer, queries."""

from __future__ import annotations

from walnut.attacks.apgd import apgd, apgd_t
from walnut.attacks.decision import boundary, hop_skip_jump
from walnut.attacks.query import nes, spsa
from walnut.attacks.square import square
from walnut.attacks.transferable import ni_fgsm, si_fgsm, ti_fgsm, transferable, vmi_fgsm
from walnut.core import constraints as c
from walnut.core.directions import blurred
from walnut.core.dlr import dlr
from walnut.core.estimators import scale_copies
from walnut.core.gradients import averaged
from walnut.core.transforms import noise, resize_pad

EPS = 0.1

ADAPTIVE = {
    "apgd-ce": apgd(EPS, steps=12),
    "apgd-dlr": apgd(EPS, steps=12, objective=dlr()),
    "apgd-restarts": apgd(EPS, steps=5, restarts=3),
    "apgd-full-run": apgd(EPS, steps=12, early_stop=False),
    "apgd-eot": apgd(EPS, steps=5, gradient=averaged(noise(0.01), 3)),
    "apgd-l2": apgd(0.5, norm=c.l2, steps=12),
    "apgd-l1": apgd(2.0, norm=c.l1, steps=30),
    "apgd-unbounded": apgd(0.05, steps=5, bounds=None),
    "apgd-t": apgd_t(EPS, steps=8, targets=3),
    "apgd-t-l2": apgd_t(0.5, norm=c.l2, steps=8, targets=9),
    "apgd-t-l1": apgd_t(2.0, norm=c.l1, steps=8, targets=2),
}

EVERYTHING = transferable(
    EPS, steps=3, look_ahead=1.0, smooth=blurred(3), samples=2,
    gradient=scale_copies(2, averaged(resize_pad())),
)  # fmt: skip

TRANSFER = {
    "ni": ni_fgsm(EPS, steps=5),
    "si": si_fgsm(EPS, steps=4, copies=3),
    "vmi": vmi_fgsm(EPS, steps=4, samples=3),
    "vmi-early": vmi_fgsm(EPS, steps=4, samples=3, early_stop=True),
    "vni": transferable(EPS, steps=4, look_ahead=1.0, samples=2),
    "ti": ti_fgsm(EPS, steps=4, size=3),
    "ni-si-ti-di-vmi": EVERYTHING,
}

QUERY = {
    "nes": nes(EPS, steps=3, pairs=6),
    "spsa": spsa(EPS, steps=3, pairs=6),
    "nes-l2": nes(0.5, norm=c.l2, steps=3, pairs=6, sigma=0.01),
    "square": square(EPS, queries=24),
    "square-l2": square(0.5, norm=c.l2, queries=24),
    "square-full-run": square(EPS, queries=15, early_stop=False),
    "boundary": boundary(steps=25),
    "hsj": hop_skip_jump(steps=2, samples=16),
    "hsj-linf": hop_skip_jump(norm=c.linf, steps=2, samples=16),
}

IMAGES_ONLY = ("ti", "ni-si-ti-di-vmi")

TARGETED = {
    "apgd": apgd(EPS, steps=8, targeted=True),
    "apgd-dlr": apgd(EPS, steps=8, targeted=True, objective=dlr()),
    "apgd-l1": apgd(3.0, norm=c.l1, steps=20, targeted=True),
    "ni": ni_fgsm(EPS, steps=5, targeted=True),
    "vmi": vmi_fgsm(EPS, steps=5, samples=3, targeted=True),
    "square": square(EPS, queries=80, targeted=True),
    "nes": nes(EPS, steps=4, pairs=20, targeted=True),
}
