"""What all tests share: one thread, known seeds, the real data where there is any, and the peers."""

from __future__ import annotations

import importlib
import os
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _data_or_skip(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("data") and not os.environ.get("WALNUT_DATA"):
        pytest.skip("needs the real data: set WALNUT_DATA to its folder")


@pytest.fixture
def data_folder() -> Path:
    """The folder of the real data; the test is skipped where there is none."""
    folder = os.environ.get("WALNUT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the real data: set WALNUT_DATA to its folder")
    return Path(folder)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that runs/ is not made in the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _peer(name: str) -> Any:
    """Import an independent toolkit, whatever it warns of; skip where it is not there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            pytest.skip(f"{name} is not installed: {error}")


@pytest.fixture
def foolbox() -> Iterator[Any]:
    """Foolbox, an independent toolkit to agree with."""
    module = _peer("foolbox")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield module


@pytest.fixture
def torchattacks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """torchattacks, an independent toolkit to agree with.

    It imports torchvision for pretrained networks and image files, which no test needs, and whose
    wheel does not import beside the CPU build of torch: an empty module stands in for it.
    """
    for name in (
        "torchvision",
        "torchvision.models",
        "torchvision.transforms",
        "torchvision.utils",
    ):
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, _Hollow(name))
    module = _peer("torchattacks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield module


class _Hollow(types.ModuleType):
    """A module that has every attribute and does nothing."""

    __path__: list[str] = []  # noqa: RUF012 - what makes it a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Hollow(f"{self.__name__}.{name}")
