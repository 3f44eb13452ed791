import itertools

import pytest
import torch

from instances import CONSTRAINTS
from walnut.core import constraints as c
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError

EXACT = ("linf", "l2", "l1", "l0", "box", "unconstrained", "linf-box")


@pytest.fixture
def points():
    g = torch.Generator().manual_seed(0)
    x0 = torch.rand(200, 3, generator=g, dtype=torch.float64)
    return x0, x0 + torch.randn(200, 3, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_projecting_twice_is_projecting_once_and_lands_inside(name, points):
    x0, x = points
    part = CONSTRAINTS[name]
    once = part.project(x, x0)
    assert part.contains(once, x0).all()
    assert torch.allclose(part.project(once, x0), once, atol=1e-12)
    assert torch.allclose(part.project(x0, x0), x0)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_samples_are_inside_differ_and_repeat(name, points):
    x0, _ = points
    part = CONSTRAINTS[name]
    drawn = part.sample(x0, Draws.of(x0, 0))
    assert part.contains(drawn, x0).all()
    assert torch.equal(drawn, part.sample(x0, Draws.of(x0, 0)))
    assert not torch.equal(drawn, part.sample(x0, Draws.of(x0, 1)))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("d", [2, 3])
def test_the_projection_is_the_nearest_point_by_brute_force(name, d):
    part = CONSTRAINTS[name]
    g = torch.Generator().manual_seed(1)
    axis = torch.linspace(-1.5, 2.5, 201 if d == 2 else 61, dtype=torch.float64)
    for _ in range(10):
        x0 = torch.rand(1, d, generator=g, dtype=torch.float64)
        x = x0 + torch.randn(1, d, generator=g, dtype=torch.float64).clamp(-1, 1)
        axes = [torch.cat([axis, x0[0, i : i + 1], x[0, i : i + 1]]) for i in range(d)]
        grid = torch.cartesian_prod(*axes)
        inside = grid[part.contains(grid, x0.expand_as(grid))]
        nearest = (inside - x).norm(dim=1).min()
        assert (part.project(x, x0) - x).norm() <= nearest + 1e-9


@pytest.mark.parametrize("name", ["l2-box", "l1-box"])
def test_ball_then_box_is_feasible_but_not_always_nearest(name, points):
    x0, x = points
    part = CONSTRAINTS[name]
    assert part.contains(part.project(x, x0), x0).all()


def test_l1_projection_is_sparse_and_shrinks_all_entries_alike():
    x0 = torch.zeros(50, 64, dtype=torch.float64)
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = c.l1(1.0).project(x, x0)
    assert torch.allclose(found.abs().sum(1), torch.ones(50, dtype=torch.float64))
    assert (found != 0).double().mean() < 0.25
    for row, before in zip(found, x, strict=True):
        kept = row != 0
        shrunk = (before.abs() - row.abs())[kept]
        assert shrunk.max() - shrunk.min() < 1e-12


def test_samples_fill_the_l2_ball_evenly():
    x0 = torch.rand(4000, 3, dtype=torch.float64)
    radius = (c.l2(1.0).sample(x0, Draws.of(x0, 0)) - x0).norm(dim=1)
    for share in (0.25, 0.5, 0.75):
        assert abs(float((radius**3 < share).double().mean()) - share) < 0.04


def test_samples_fill_the_l1_ball_evenly():
    x0 = torch.rand(4000, 3, dtype=torch.float64)
    size = (c.l1(1.0).sample(x0, Draws.of(x0, 0)) - x0).abs().sum(1)
    for share in (0.25, 0.5, 0.75):
        assert abs(float((size**3 < share).double().mean()) - share) < 0.04


def test_a_region_leaves_the_rest_untouched(points):
    x0, x = points
    part = c.region(torch.tensor([True, False, True]))
    found = part.project(x, x0)
    assert torch.equal(found[:, 1], x0[:, 1])
    assert torch.equal(found[:, 0], x[:, 0])
    assert part.contains(found, x0).all()
    assert not part.contains(x, x0).any()


@pytest.mark.parametrize("shape", [(4,), (2, 3), (3, 2, 2), (1, 2, 2, 2)])
def test_any_shape_of_example_works(shape):
    x0 = torch.rand(5, *shape)
    for part in CONSTRAINTS.values():
        found = part.project(part.sample(x0, Draws.of(x0, 0)), x0)
        assert found.shape == x0.shape
        assert part.contains(found, x0).all()


@pytest.mark.parametrize("kind", [c.linf, c.l2, c.l1, c.l0])
@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(kind, eps):
    with pytest.raises(WalnutError, match="radius in input units"):
        kind(eps)


@pytest.mark.parametrize("kind", [c.linf, c.l2, c.l1, c.l0])
def test_radius_zero_allows_nothing(kind, points):
    x0, x = points
    assert torch.allclose(kind(0.0).project(x, x0), x0)


def test_refusals():
    with pytest.raises(WalnutError, match="lower < upper"):
        c.box(1.0, 0.0)
    with pytest.raises(WalnutError, match="at least one"):
        c.intersection(())


def test_float32_budgets_hold_to_an_ulp():
    x0 = torch.rand(100, 300)
    for eps, kind in itertools.product((8 / 255, 0.3), (c.linf,)):
        part = c.intersection((kind(eps), c.box()))
        x = part.project(x0 + torch.randn(100, 300), x0)
        assert float((x - x0).abs().max()) <= eps + 2**-24
