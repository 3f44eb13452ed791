"""k-means in one dimension: against brute force, against its bound, against Lloyd."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from walnut.core.errors import WalnutError
from walnut.weights import assign, kmeans, lloyd
from walnut.weights.kmeans import density, linear, random


def cost_of(values: torch.Tensor, centroids: torch.Tensor) -> float:
    return float((values.double()[:, None] - centroids.double()).square().amin(1).sum())


def brute_force(values: list[float], k: int) -> float:
    """Return the least cost over all ways to cut the sorted values into k runs."""
    x = np.sort(np.array(values))
    best = np.inf
    for cuts in itertools.combinations(range(1, len(x)), min(k, len(x)) - 1):
        parts = np.split(x, cuts)
        best = min(best, sum(float(((p - p.mean()) ** 2).sum()) for p in parts))
    return best


@given(
    st.lists(st.integers(-50, 50).map(lambda v: v / 4), min_size=1, max_size=11),
    st.integers(1, 6),
)
@settings(max_examples=200, deadline=None)
def test_optimal_on_small_inputs(values: list[float], k: int) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    found = kmeans(x, k)
    assert found.gap == 0.0
    assert len(found.centroids) <= k
    assert found.cost == pytest.approx(brute_force(values, k), abs=1e-9)
    assert cost_of(x, found.centroids) == pytest.approx(found.cost, abs=1e-9)
    assert torch.equal(found.centroids, found.centroids.sort().values)


@pytest.mark.parametrize("bins", [16, 64, 256])
@pytest.mark.parametrize("k", [2, 5, 9])
@pytest.mark.parametrize("shape", ["normal", "cauchy", "steps"])
def test_the_gap_is_a_bound(bins: int, k: int, shape: str) -> None:
    """With few bins the result is a little worse than the optimum, and never by more than it says."""
    g = torch.Generator().manual_seed(k)
    x = torch.randn(900, generator=g, dtype=torch.float64)
    x = {"normal": x, "cauchy": (x * 1.2).tan(), "steps": (4 * x).round() + 0.01 * x}[shape]
    best = kmeans(x, k)
    assert best.gap == 0.0
    rough = kmeans(x, k, bins=bins)
    assert 0 < rough.gap <= 1
    assert best.cost <= rough.cost * (1 + 1e-9)
    assert rough.cost * (1 - rough.gap) <= best.cost * (1 + 1e-9)


@pytest.mark.parametrize("k", [2, 16, 64])
def test_many_values_within_a_percent_and_consistent(k: int) -> None:
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    found = kmeans(x, k)
    assert found.gap < 0.01
    assert cost_of(x, found.centroids) == pytest.approx(found.cost, rel=1e-4)
    for start in (linear, density, random(3)):
        assert lloyd(start)(x, k).cost >= found.cost * (1 - found.gap)


def test_lloyds_starts_are_those_of_the_paper() -> None:
    x = torch.tensor([0.0, 1.0, 2.0, 10.0])
    assert linear(x, 3).tolist() == [0.0, 5.0, 10.0]
    assert density(x, 2).tolist() == [1.0, 10.0]
    assert set(random(0)(x, 3).tolist()) <= {0.0, 1.0, 2.0, 10.0}
    assert torch.equal(random(5)(x, 3), random(5)(x, 3))


def test_lloyd_is_a_fixed_point() -> None:
    x = torch.randn(3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = lloyd(linear, 1000)(x, 6)
    index = assign(x, found.centroids)
    means = torch.stack([x[index == i].mean() for i in range(len(found.centroids))])
    assert torch.allclose(means, found.centroids)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_assign_finds_the_nearest(values: list[float], k: int) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    centroids = kmeans(x, k).centroids
    got = (x - centroids[assign(x, centroids)]).abs()
    assert torch.allclose(got, (x[:, None] - centroids).abs().amin(1))


def test_few_distinct_values_are_their_own_centroids() -> None:
    x = torch.tensor([1.5, -2.0, 1.5, 0.25] * 100)
    found = kmeans(x, 16)
    assert found.centroids.tolist() == [-2.0, 0.25, 1.5]
    assert (found.cost, found.gap) == (0.0, 0.0)


def test_half_precision_is_clustered() -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = kmeans(x, 4)
    assert found.centroids.dtype == torch.bfloat16
    assert len(found.centroids) == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(WalnutError, match="infinite or not a number"):
        kmeans(torch.tensor([1.0, value]), 2)


def test_nothing_to_cluster_is_refused() -> None:
    with pytest.raises(WalnutError, match="at least one value"):
        kmeans(torch.zeros(0), 2)
    with pytest.raises(WalnutError, match="at least one centroid"):
        kmeans(torch.ones(3), 0)
