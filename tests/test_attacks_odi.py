"""Output-diversified PGD and the bracket of radii: the contract, closed forms, and what they are for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import labelled, linear_net, small_net
from walnut.attacks import bracket, odi_pgd, pgd
from walnut.checks import check_attack
from walnut.core.constraints import l1, l2, linf
from walnut.core.errors import WalnutError
from walnut.core.objectives import margin

ATTACKS = {
    "odi": odi_pgd(0.1, steps=6, restarts=3),
    "odi-l2": odi_pgd(0.5, norm=l2, steps=6, restarts=2),
    "odi-targets": odi_pgd(0.1, steps=6, restarts=3, targets=9, skip=1),
    "odi-one-step": odi_pgd(0.1, steps=1, restarts=1),
    "bracket-linf": bracket(norm=linf, steps=20, leg=6, scout=2),
    "bracket-l2": bracket(norm=l2, steps=20, leg=6, scout=2),
    "bracket-l1": bracket(norm=l1, steps=20, leg=6, scout=2),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (7,)], ids=["image", "vector"])
def test_contract(name: str, shape: tuple[int, ...]) -> None:
    check_attack(ATTACKS[name], shape=shape)


@pytest.mark.parametrize("name", ATTACKS)
def test_two_classes(name: str) -> None:
    check_attack(ATTACKS[name], shape=(5,), classes=2)


def distances(net: nn.Linear, x: Tensor, dual: float) -> Tensor:
    z = net(x)
    y = z.argmax(1)
    rows = torch.arange(len(x))
    slope = torch.linalg.vector_norm(net.weight[y][:, None] - net.weight[None], dual, dim=2)
    away = (z[rows, y][:, None] - z) / slope
    return away.masked_fill(slope == 0, float("inf")).amin(1).detach()


@pytest.mark.parametrize(("norm", "dual"), [(linf, 1), (l2, 2), (l1, float("inf"))])
def test_bracket_finds_the_boundary_of_a_linear_network(norm: Any, dual: float) -> None:
    net = linear_net(8, 4)
    x = torch.randn(40, 8, dtype=torch.float64)
    best = distances(net, x, dual)
    found = bracket(norm=norm, bounds=None, steps=60)(net, x, net(x).argmax(1))
    size = found.norms[{linf: "linf", l2: "l2", l1: "l1"}[norm]]
    assert bool(found.success.all())
    assert bool((size >= best - 1e-9).all())
    assert float((size / best).mean()) < 1.05


@pytest.mark.parametrize(("norm", "dual"), [(linf, 1), (l2, 2)])
def test_odi_breaks_exactly_what_a_linear_network_lets_it(norm: Any, dual: float) -> None:
    net = linear_net(8, 2)
    x = torch.randn(60, 8, dtype=torch.float64)
    best = distances(net, x, dual)
    eps = float(best.median()) * 1.001
    found = odi_pgd(eps, norm=norm, bounds=None)(net, x, net(x).argmax(1))
    assert torch.equal(found.success, best < eps)
    size = found.norms["linf" if norm is linf else "l2"]
    assert bool((size <= eps * (1 + 1e-9)).all())


def test_restarts_only_add() -> None:
    net = small_net()
    x, y = labelled(net, 40)
    few = odi_pgd(0.06, steps=8, restarts=1)(net, x, y).success
    many = odi_pgd(0.06, steps=8, restarts=6)(net, x, y).success
    assert bool((many | ~few).all())


def test_the_first_run_does_not_scout_and_the_others_do() -> None:
    net = small_net()
    x, y = labelled(net, 10)
    plain = pgd(
        1e-4, steps=1, step_size=2e-4, random_start=False, early_stop=False, objective=margin()
    )(net, x, y).x
    first = odi_pgd(1e-4, steps=2, scout=1, restarts=1, peak=1.0)(net, x, y).x
    other = odi_pgd(1e-4, steps=2, scout=1, restarts=1, peak=1.0, skip=1)(net, x, y).x
    assert not torch.equal(first, other)
    assert torch.isclose(first, plain, atol=1e-7).double().mean() > 0.9


def test_targets_are_driven_to_one_after_the_other() -> None:
    """With one target the likeliest other class is reached; it is not with the other ranks."""
    net = linear_net(10, 6, seed=4)
    x = torch.rand(60, 10, dtype=torch.float64)
    z = net(x)
    y, second = z.topk(2, dim=1).indices.unbind(1)
    found = odi_pgd(0.9, steps=20, restarts=1, targets=1, skip=1)(net, x, y)
    hit = found.success
    assert hit.any()
    assert float((found.prediction == second)[hit].double().mean()) > 0.6


def test_a_mask_is_kept_and_a_bad_number_refused() -> None:
    net = linear_net(6, 3)
    x = torch.rand(12, 6, dtype=torch.float64)
    free = torch.tensor([True, True, False, True, False, True])
    found = bracket(norm=l2, mask=free)(net, x, net(x).argmax(1))
    assert torch.equal(found.x[:, ~free], x[:, ~free])
    with pytest.raises(WalnutError, match="scout"):
        bracket(leg=3, scout=3)
    with pytest.raises(WalnutError, match="first radius"):
        bracket(first=0.0)
    with pytest.raises(WalnutError, match="linf or l2"):
        odi_pgd(0.1, norm=l1)
