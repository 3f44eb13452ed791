"""Basin hopping: the contract, closed forms, and that hops begin at the best point so far."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import labelled, linear_net, small_net
from walnut.attacks import basin_hopping, fmn, pgd, square
from walnut.checks import check_attack
from walnut.core.constraints import l0, l1, l2, linf
from walnut.core.errors import WalnutError
from walnut.core.objectives import margin
from walnut.evaluate.stage import Reached

ATTACKS = {
    "linf": basin_hopping(0.1, steps=4, hops=3),
    "l2": basin_hopping(0.5, norm=l2, steps=4, hops=3, restarts=2),
    "l1": basin_hopping(1.0, norm=l1, steps=4, hops=2),
    "one-step": basin_hopping(0.1, steps=1, hops=1),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (7,)], ids=["image", "vector"])
def test_contract(name: str, shape: tuple[int, ...]) -> None:
    check_attack(ATTACKS[name], shape=shape)


@pytest.mark.parametrize("name", ATTACKS)
def test_two_classes(name: str) -> None:
    check_attack(ATTACKS[name], shape=(5,), classes=2)


@pytest.mark.parametrize(("norm", "dual"), [(linf, 1), (l2, 2)])
def test_it_breaks_exactly_what_a_linear_network_lets_it(norm: Any, dual: float) -> None:
    net = linear_net(8, 2)
    x = torch.randn(60, 8, dtype=torch.float64)
    y = net(x).argmax(1)
    rows = torch.arange(len(x))
    slope = torch.linalg.vector_norm(net.weight[0] - net.weight[1], dual)
    away = ((net(x)[rows, y] - net(x)[rows, 1 - y]) / slope).detach()
    eps = float(away.median()) * 1.001
    found = basin_hopping(eps, norm=norm, bounds=None)(net, x, y)
    assert torch.equal(found.success, away < eps)
    size = found.norms["linf" if norm is linf else "l2"]
    assert bool((size <= eps * (1 + 1e-9)).all())


class Ridges(nn.Module):
    """A margin of many hills along the first entry, each higher than the one before it."""

    def forward(self, x: Tensor) -> Tensor:
        t = x[:, 0]
        height = t + 0.25 * torch.cos(40 * t) - 0.62
        return torch.stack([torch.zeros_like(height), height], 1)


def ridges(n: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return examples from which no single climb of the steps below gets to the highest hill."""
    x = torch.cat(
        [torch.zeros(n, 1), torch.rand(n, 1, generator=torch.Generator().manual_seed(0))], 1
    )
    return Ridges().eval(), x.double(), torch.zeros(n, dtype=torch.int64)


def test_hops_go_from_the_best_point_and_not_from_the_example() -> None:
    """A hop of a quarter of the radius reaches the highest hill only in several stages."""
    net, x, y = ridges(200)
    settings = {"steps": 12, "peak": 0.02, "reach": 0.25, "share": 1.0}
    far = basin_hopping(0.5, hops=12, restarts=1, **settings)(net, x, y)
    near = basin_hopping(0.5, hops=1, restarts=12, **settings)(net, x, y)
    assert float(near.success.double().mean()) < 0.05
    assert float(far.success.double().mean()) > 0.5


def test_a_hop_that_leads_down_is_taken_back() -> None:
    """Ten hops up of sixty, each as often down: most walks from the last point never get there."""
    net = linear_net(2, 2)
    net.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    net.bias.data = torch.tensor([0.0, -0.495], dtype=torch.float64)
    _, x, y = ridges(200)
    found = basin_hopping(0.5, steps=1, hops=60, reach=0.1, share=1.0, bounds=None)(net, x, y)
    assert float(found.success.double().mean()) > 0.95


def test_a_hop_moves_a_share_of_the_entries_to_the_ends_of_the_ball() -> None:
    net, x = linear_net(2000, 2), torch.full((3, 2000), 0.5, dtype=torch.float64)
    y = net(x).argmax(1)
    found = basin_hopping(0.1, steps=1, hops=1, share=0.2)(net, x, y)  # a hop and no climb
    moved = (found.x - x).abs()
    assert bool(((moved - 0.1).abs() < 1e-9).logical_or(moved == 0).all())
    assert abs(float((moved > 0).double().mean()) - 0.2) < 0.03


def test_more_hops_only_add() -> None:
    net = small_net()
    x, y = labelled(net, 40)
    few = basin_hopping(0.06, steps=4, hops=2)(net, x, y).success
    many = basin_hopping(0.06, steps=4, hops=8)(net, x, y).success
    assert bool((many | ~few).all())


def test_steps_and_hops_are_what_is_spent() -> None:
    net = small_net()
    x, y = labelled(net, 6)
    found = basin_hopping(1e-6, steps=5, hops=4, restarts=2)(net, x, y)
    assert not found.success.any()
    assert found.backward.tolist() == [40] * 6


def test_a_mask_is_kept_and_bad_numbers_are_refused() -> None:
    net = linear_net(6, 3)
    x = torch.rand(12, 6, dtype=torch.float64)
    free = torch.tensor([True, True, False, True, False, True])
    found = basin_hopping(0.3, mask=free, steps=4, hops=2)(net, x, net(x).argmax(1))
    assert torch.equal(found.x[:, ~free], x[:, ~free])
    with pytest.raises(WalnutError, match="at least 1"):
        basin_hopping(0.1, hops=0)
    with pytest.raises(WalnutError, match="share"):
        basin_hopping(0.1, share=0.0)
    with pytest.raises(WalnutError, match="linf, l2, l1"):
        basin_hopping(0.1, norm=l0)


def test_square_goes_on_where_another_attack_ended() -> None:
    """What fell stays as it fell; the others begin at its best points, end no lower, and pay for both."""
    net = small_net()
    x, y = labelled(net, 40)
    first = pgd(0.06, steps=2)
    before, after = (a(net, x, y) for a in (first, square(0.06, queries=60, first=first)))
    fell = before.success
    assert 0 < int(fell.sum()) < 40
    assert torch.equal(after.x[fell], before.x[fell])
    assert torch.equal(after.forward[fell], before.forward[fell])
    left = ~fell & ~after.success
    assert int((after.success & ~fell).sum()) > 0
    gain = (margin()(net, after.x, y) - margin()(net, before.x, y)).detach()
    assert bool((gain[left] >= -1e-6).all())
    assert bool((after.forward[left] >= before.forward[left] + 60).all())
    assert torch.equal(after.backward, before.backward)
    assert bool(
        (after.first_success[after.success & ~fell] >= before.backward[after.success & ~fell]).all()
    )
    assert bool((after.norms["linf"] <= 0.06 + 1e-6).all())


def test_hops_are_taken_from_where_another_attack_ended() -> None:
    """From the foot of the highest hill a small hop is enough; from the example it is not."""
    net, x, y = ridges(200)
    settings = {"steps": 12, "peak": 0.02, "reach": 0.1, "share": 1.0, "hops": 2}

    def uphill(model: Any, x: Tensor, y: Tensor) -> Any:
        return Reached(x + torch.tensor([0.45, 0.0], dtype=x.dtype))(model, x, y)

    alone = basin_hopping(0.5, **settings)(net, x, y)
    after = basin_hopping(0.5, first=uphill, **settings)(net, x, y)
    assert float(alone.success.double().mean()) < 0.1
    assert float(after.success.double().mean()) > 0.9
    start = margin()(net, x + torch.tensor([0.45, 0.0], dtype=x.dtype), y)
    worst = basin_hopping(0.5, first=uphill, **settings | {"reach": 1.0, "hops": 1})(net, x, y)
    assert bool((margin()(net, worst.x, y) >= start - 1e-9).all())  # never below where it began


def test_square_takes_nothing_from_outside_its_ball() -> None:
    """An attack that knows no radius succeeds everywhere; what counts is what fools inside eps."""
    net = small_net()
    x, y = labelled(net, 30)
    far = fmn(norm=linf)
    assert bool(far(net, x, y).success.all())
    found = square(0.03, queries=20, first=far)(net, x, y)
    assert 0 < int(found.success.sum()) < 30
    assert bool((found.norms["linf"] <= 0.03 + 1e-6).all())


def test_square_after_another_attack_keeps_the_contract() -> None:
    check_attack(square(0.1, queries=10, first=basin_hopping(0.1, steps=3, hops=2)))


def test_hops_after_another_attack_keep_the_contract() -> None:
    check_attack(basin_hopping(0.1, steps=3, hops=2, restarts=2, first=pgd(0.1, steps=3)))
