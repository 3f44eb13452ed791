"""What all tests share: one thread, known seeds, and the real data where there is any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from walnut.evaluate.stage import Stage

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


def _short_queries() -> Iterator[None]:
    """The verdict's stages of many queries, shortened: for tests of something else."""
    from walnut.evaluate import stages

    short = {
        "all queries": stages.queries(150, seed=1), "queries": stages.queries(60),
        "labels only": stages.labels_only(2, 12), "all labels": stages.labels_only(3, 12),
        "small squares": stages.small_squares(40, seed=9), "wider squares": stages.small_squares(40, seed=19),
    }  # fmt: skip

    def shortened(plan: tuple[Stage, ...]) -> tuple[Stage, ...]:
        return tuple(replace(s, make=short.get(s.name, s.make)) for s in plan)

    assert set(short) <= {s.name for s in stages.STANDARD}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stages.PLANS, "standard", shortened(stages.STANDARD))
        patch.setattr(stages, "SPARSE", shortened(stages.SPARSE))
        yield


short_queries = pytest.fixture(_short_queries, name="short_queries")
short_queries_in_module = pytest.fixture(
    _short_queries, scope="module", name="short_queries_in_module"
)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that runs/ is not made in the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
