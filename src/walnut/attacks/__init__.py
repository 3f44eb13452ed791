"""The input lever: fool a network. An attack on given examples is ``(model, x, y) -> Adversarial``."""

from .apgd import apgd, apgd_t
from .bracket import bracket
from .carlini_wagner import carlini_wagner
from .ddn import ddn
from .decision import boundary, hop_skip_jump
from .deepfool import deepfool
from .design import design
from .evolve import evolve
from .expectation import eot
from .fab import fab
from .fmn import fmn
from .gradient import GradientAttack, bim, di_fgsm, fgsm, mi_fgsm, pgd
from .hopping import basin_hopping
from .jsma import jsma
from .last_layer import feature_fooling
from .lbfgs import lbfgs
from .linear import linear_fooling
from .noise import NoiseAttack, noise
from .odi import odi_pgd
from .patch import local_patch, patch
from .query import bpda, nes, spsa
from .rubbish import fooling, smooth_fooling
from .smallest import smallest
from .square import square
from .transferable import ni_fgsm, si_fgsm, ti_fgsm, transferable, vmi_fgsm
from .universal import universal
from .universal_sgd import universal_sgd

__all__ = [
    "GradientAttack",
    "NoiseAttack",
    "apgd",
    "apgd_t",
    "basin_hopping",
    "bim",
    "boundary",
    "bpda",
    "bracket",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "design",
    "di_fgsm",
    "eot",
    "evolve",
    "fab",
    "feature_fooling",
    "fgsm",
    "fmn",
    "fooling",
    "hop_skip_jump",
    "jsma",
    "lbfgs",
    "linear_fooling",
    "local_patch",
    "mi_fgsm",
    "nes",
    "ni_fgsm",
    "noise",
    "odi_pgd",
    "patch",
    "pgd",
    "si_fgsm",
    "smallest",
    "smooth_fooling",
    "spsa",
    "square",
    "ti_fgsm",
    "transferable",
    "universal",
    "universal_sgd",
    "vmi_fgsm",
]
