"""The input lever: fool a network. Every attack is ``(model, x, y) -> Adversarial``."""

from .apgd import apgd, apgd_t
from .decision import boundary, hop_skip_jump
from .gradient import GradientAttack, bim, di_fgsm, fgsm, mi_fgsm, pgd
from .noise import NoiseAttack, noise
from .query import bpda, nes, spsa
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
    "di_fgsm",
    "fgsm",
    "hop_skip_jump",
    "mi_fgsm",
    "nes",
    "ni_fgsm",
    "noise",
    "pgd",
    "si_fgsm",
    "spsa",
    "square",
    "ti_fgsm",
    "transferable",
    "vmi_fgsm",
]
