"""What all tests share: one thread, known seeds, and the real data where there is any."""

from __future__ import annotations

import os
from pathlib import Path

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
