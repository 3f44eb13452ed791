"""Independent toolkits, imported without what they do not need here."""

from __future__ import annotations

import sys
import types
import warnings
from contextlib import contextmanager
from typing import Any


class _Stub(types.ModuleType):
    """A module that gives a placeholder for whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def _stubs(*names: str):
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        module = _Stub(name)
        module.__path__ = []
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
