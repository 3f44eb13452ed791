"""The input lever: fool a network. Every attack is ``(model, x, y) -> Adversarial``."""

from .gradient import GradientAttack, bim, di_fgsm, fgsm, mi_fgsm, pgd
from .noise import NoiseAttack, noise

__all__ = [
    "GradientAttack",
    "NoiseAttack",
    "bim",
    "di_fgsm",
    "fgsm",
    "mi_fgsm",
    "noise",
    "pgd",
]
