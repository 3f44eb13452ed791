"""The input lever: fool a network. Every attack is ``(model, x, y) -> Adversarial``."""

from .apgd import apgd, apgd_t
from .carlini_wagner import carlini_wagner
from .ddn import ddn
from .decision import boundary, hop_skip_jump
from .deepfool import deepfool
from .fmn import fmn
from .gradient import GradientAttack, bim, di_fgsm, fgsm, mi_fgsm, pgd
from .jsma import jsma
from .lbfgs import lbfgs
from .noise import NoiseAttack, noise
from .query import bpda, nes, spsa
from .smallest import smallest
from .square import square
from .transferable import ni_fgsm, si_fgsm, ti_fgsm, transferable, vmi_fgsm

__all__ = [
    "GradientAttack",
    "NoiseAttack",
    "apgd",
    "apgd_t",
    "bim",
    "boundary",
    "bpda",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "di_fgsm",
    "fgsm",
    "fmn",
    "hop_skip_jump",
    "jsma",
    "lbfgs",
    "mi_fgsm",
    "nes",
    "ni_fgsm",
    "noise",
    "pgd",
    "si_fgsm",
    "smallest",
    "spsa",
    "square",
    "ti_fgsm",
    "transferable",
    "vmi_fgsm",
]
