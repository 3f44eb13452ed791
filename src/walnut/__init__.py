"""walnut: how small can a network be made, and how easily is it fooled?

An objective scores a network on an example; train to lower it, attack to raise it, look at its
gradient to explain it, and choose which weights exist to carry it.

The public names are listed once, below, and each is imported when it is first used: the command
line and ``import walnut`` stay light.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "walnut.attacks": ("apgd", "bim", "di_fgsm", "fgsm", "mi_fgsm", "noise", "odi_pgd", "pgd"),
    "walnut.explain": ("saliency",),
    "walnut.weights": (
        "bake",
        "factorise",
        "pack",
        "prune",
        "quantise",
        "represent",
        "separate",
        "share",
        "shrink",
        "unpack",
        "winograd",
    ),
    "walnut.training": ("fit",),
    "walnut.evaluate": ("accuracy", "cost", "robust_accuracy", "robustness", "transfer_table"),
    "walnut.nets": ("build", "load", "save"),
    "walnut.data": ("load_data",),
    "walnut.recipes.audit": ("audit",),
    "walnut.recipes.compress": ("compress",),
    "walnut.recipes.robust": ("robust",),
    "walnut.recipes.train": ("train",),
    "walnut.checks": ("check_attack", "check_explainer", "check_representation"),
    "walnut.core.errors": ("WalnutError", "WalnutWarning"),
}
_RENAMED = {"load_data": "load"}  # the name in its own module, where that is another
_WHERE = {name: module for module, names in _PUBLIC.items() for name in names}
_ROOMS = (
    "attacks", "checks", "cli", "codec", "core", "data", "evaluate", "explain", "export", "nets", "recipes",
    "report", "training", "weights",
)  # fmt: skip

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    """Import a public name, or a sub-package, when it is first used (PEP 562)."""
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), _RENAMED.get(name, name))
    elif name in _ROOMS:
        value = import_module(f"walnut.{name}")
    else:
        raise AttributeError(f"module 'walnut' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
