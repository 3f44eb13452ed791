"""The nearest point of a half-space inside a box: against a solver, and against brute force."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from walnut.attacks.approach import size
from walnut.attacks.nearest import nearest, stretched
from walnut.core.constraints import l0, l1, l2, linf


def problem(seed: int, d: int = 6):
    rng = torch.Generator().manual_seed(seed)
    w = torch.rand(1, 1, d, dtype=torch.float64, generator=rng)
    w[..., 0] = 0.0
    room = torch.rand(1, 1, d, dtype=torch.float64, generator=rng)
    room[..., 1] = 0.0
    share = torch.rand(1, 1, dtype=torch.float64, generator=rng)
    return w, share * (w * room).sum(2), room


def solved(w, gap, room, norm) -> float:
    """Return the least norm as scipy finds it."""
    d = len(w)
    if norm is l1:
        return linprog(
            np.ones(d), -w[None], [-gap], bounds=list(zip(0 * room, room, strict=True))
        ).fun
    if norm is linf:
        top = np.hstack([np.eye(d), -np.ones((d, 1))])
        rows = np.vstack([np.append(-w, 0.0)[None], top])
        bounds = [*zip(0 * room, room, strict=True), (0, None)]
        return linprog(np.eye(d + 1)[d], rows, np.append(-gap, np.zeros(d)), bounds=bounds).fun
    if norm is l2:
        found = minimize(
            lambda v: v @ v, room, jac=lambda v: 2 * v, method="SLSQP", options={"ftol": 1e-14},
            bounds=list(zip(0 * room, room, strict=True)),
            constraints={"type": "ineq", "fun": lambda v: v @ w - gap, "jac": lambda v: w},
        )  # fmt: skip
        return float(np.sqrt(found.fun))
    return next(
        k
        for k in range(d + 1)
        if any(sum((w * room)[list(s)]) >= gap for s in itertools.combinations(range(d), k))
    )


@pytest.mark.parametrize("norm", [l0, l1, l2, linf])
@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_least_norm_and_meets_the_gap(norm, seed):
    w, gap, room = problem(seed)
    found = nearest(w, gap, room, norm)
    assert ((found >= 0) & (found <= room)).all()
    assert torch.allclose((w * found).sum(2), gap, atol=1e-9)
    least = solved(w[0, 0].numpy(), float(gap), room[0, 0].numpy(), norm)
    assert float(size(found[0], norm)) == pytest.approx(least, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("norm", [l0, l1, l2, linf])
def test_rows_do_not_depend_on_one_another_and_a_gap_too_wide_fills_the_box(norm):
    made = [problem(seed) for seed in range(5)]
    w, gap, room = (torch.cat([p[i] for p in made]) for i in range(3))
    gap[4] = 100.0
    whole = nearest(w, gap, room, norm)
    for i in range(5):
        assert torch.allclose(
            whole[i], nearest(w[i : i + 1], gap[i : i + 1], room[i : i + 1], norm)[0]
        )
    assert torch.equal(whole[4], torch.where(w[4] > 0, room[4], 0.0))


def test_a_stretched_difference_is_as_long_as_asked_and_stays_in_its_room():
    rng = torch.Generator().manual_seed(0)
    delta = torch.randn(40, 30, dtype=torch.float64, generator=rng)
    room = 0.3 * torch.rand(40, 30, dtype=torch.float64, generator=rng)
    room[:, ::7] = 0.0
    corner = room.norm(dim=1)
    radius = corner * torch.linspace(0.05, 0.99, 40, dtype=torch.float64)
    found = stretched(delta, radius, room)
    assert torch.allclose(found.norm(dim=1), radius, rtol=1e-4)
    assert (found.abs() <= room).all()
    assert (found * delta >= 0).all()
    share = (found / delta).masked_fill(
        found.abs() >= room, 0.0
    )  # one factor for all that are free
    free = (found.abs() < room) & (room > 0)
    assert torch.allclose(share, torch.where(free, share.amax(1, keepdim=True), 0.0))
    for i in (0, 17, 39):
        alone = stretched(delta[i : i + 1], radius[i : i + 1], room[i : i + 1])
        assert torch.allclose(alone[0], found[i])


def test_a_stretched_difference_ends_at_the_corner_and_nothing_stays_nothing():
    room = torch.tensor([[0.1, 0.2], [0.1, 0.2]])
    found = stretched(torch.tensor([[1.0, -3.0], [0.0, 0.0]]), torch.tensor([9.0, 9.0]), room)
    assert torch.equal(found, torch.tensor([[0.1, -0.2], [0.0, 0.0]]))
