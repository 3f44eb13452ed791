"""Independent toolkits, imported without what they do not need here."""

from __future__ import annotations

import sys
import types
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any


class _Stub(types.ModuleType):
    """A module that gives a placeholder for whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


SIX = {"string_types": (str,)}


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def _stubs(*names: str, **contents: dict[str, Any]):
    missing = [name for name in names if name not in sys.modules and not _there(name)]
    for name in missing:
        module = _Stub(name)
        module.__path__ = []
        vars(module).update(contents.get(name, {}))
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def torchattacks() -> Any:
    """Return torchattacks (2023, unmaintained; it imports torchvision), or None."""
    try:
        with (
            warnings.catch_warnings(),
            _stubs("torchvision", "torchvision.transforms", "torchvision.models", "requests"),
        ):
            warnings.simplefilter("ignore")
            import torchattacks

            return torchattacks
    except ImportError:
        return None


def foolbox() -> Any:
    """Return Foolbox, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import foolbox

            return foolbox
    except ImportError:
        return None


def art() -> Any:
    """Return ART's estimators.classification and attacks.evasion, or (None, None).

    Its progress bars and its use of six need no packages here.
    """
    bars = {"trange": lambda n, *_, **__: range(n), "tqdm": lambda rows, *_, **__: rows}
    try:
        with (
            warnings.catch_warnings(),
            _stubs("tqdm", "tqdm.auto", "six", tqdm=bars, **{"tqdm.auto": bars}, six=SIX),
        ):
            warnings.simplefilter("ignore")
            from art.attacks import evasion
            from art.estimators import classification

            return classification, evasion
    except ImportError:
        return None, None
