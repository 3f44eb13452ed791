"""The rate term: its prices, its gradient, its forecast of real files, and what it buys."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from walnut import data, nets
from walnut.core.errors import WalnutError
from walnut.core.objectives import cross_entropy, weighted
from walnut.evaluate.accuracy import accuracy
from walnut.recipes.small import integers, small
from walnut.training import Batches, adam, fit
from walnut.training.rate import Table, expected_bits, ideal_bits, rate, table
from walnut.weights import Grid, in_steps, pack, represent, weights


def brute_force(k: torch.Tensor) -> torch.Tensor:
    """Return the log-odds of a non-zero at every place, by loops over groups (mixture apart)."""
    d = float((k != 0).double().mean()) + 0.5 / k.numel()
    out = torch.zeros(2, *k.shape, dtype=torch.float64)
    for i in range(k.shape[0]):
        for j in range(k.shape[1]):
            row = [int(k[i, b] != 0) for b in range(k.shape[1]) if b != j]
            column = [int(k[a, j] != 0) for a in range(k.shape[0]) if a != i]
            for g, group in enumerate((row, column)):
                q = (sum(group) + d) / (len(group) + 1)
                out[g, i, j] = math.log(q / (1 - q))
    return out


def sparse(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Return whole numbers with full and empty rows and columns."""
    g = torch.Generator().manual_seed(seed)
    fill = torch.rand(rows, 1, generator=g) * torch.rand(1, columns, generator=g)
    values = torch.randint(1, 4, (rows, columns), generator=g)
    sign = 2 * torch.randint(0, 2, (rows, columns), generator=g) - 1
    return values * sign * (torch.rand(rows, columns, generator=g) < fill**2)


def test_densities_leave_the_weight_out_and_are_mixed():
    k = sparse(6, 5)
    found, groups = table(k), brute_force(k)
    live = int((k != 0).sum())
    base = math.log((live + 0.5) / (k.numel() - live + 0.5))
    logit = torch.log(1 - 2 ** -found.zero.double()) - torch.log(2 ** -found.zero.double())
    x = torch.stack([torch.ones(k.numel(), dtype=torch.float64), *(groups - base).flatten(1)], 1)
    a = torch.linalg.lstsq(x, logit.reshape(-1, 1)).solution[:, 0]
    assert torch.allclose(x @ a, logit.reshape(-1), atol=1e-3)  # log-odds are linear in the groups'
    p = (x @ a).sigmoid()
    slope = x.T @ ((k != 0).reshape(-1).double() - p) - 4.0 * (a - torch.tensor([base, 1.0, 1.0]))
    assert slope.abs().max() < 0.02  # and the mixture is the ridge regression's optimum


def test_prices_are_a_code():
    found = table(sparse(6, 5))
    assert torch.allclose(2.0**-found.zero + 2.0**-found.live, torch.ones(6, 5), atol=1e-5)
    assert float(2 * (2.0 ** -found.value[1:]).sum()) == pytest.approx(1.0, abs=1e-5)


def test_expected_bits_are_those_of_random_rounding():
    k = sparse(8, 9)
    prices, g = table(k), torch.Generator().manual_seed(1)
    v = k + torch.rand(k.shape, generator=g) - 0.5
    v = v.clamp(-3.9, 3.9)
    low = v.floor()
    total = 0.0
    for up in (0, 1):  # each weight takes either neighbour with its chance
        chance = (v - low) if up else 1 - (v - low)
        m = (low + up).long()
        flag = torch.where(m == 0, prices.zero, prices.live)
        total += float((chance * (flag + prices.value[m.abs()])).sum())
    assert float(expected_bits(v, prices)) == pytest.approx(total, rel=1e-5)
    assert float(expected_bits(k.float(), prices)) == pytest.approx(prices.bits(k), rel=1e-5)


def test_the_gradient_is_the_slope():
    prices = Table(torch.full((4,), 0.1), torch.full((4,), 3.1), torch.tensor([0.0, 2.0, 3.0, 3.0]))
    v = torch.tensor([0.4, -0.7, 1.5, -2.5], requires_grad=True)
    expected_bits(v, prices).backward()
    assert v.grad is not None
    assert torch.allclose(v.grad, torch.tensor([5.0, -5.0, 1.0, -0.05]))


def test_the_last_non_zero_of_a_row_is_dear():
    k = torch.zeros(20, 30, dtype=torch.int64)
    k[:5] = 1
    k[10, 3] = 1
    prices = table(k)
    assert float(prices.live[10, 3]) > float(prices.live[0, 3]) + 2


def linear(most: int = 7) -> nn.Sequential:
    return represent(nn.Sequential(nn.Linear(6, 4)), {"0.weight": Grid(most)})


def test_rate_is_one_value_per_example_and_reaches_the_latents():
    net, x = linear(), torch.rand(5, 6)
    values = rate(in_steps)(net, x, None)
    assert values.shape == (5,)
    assert len(values.unique()) == 1
    weighted(((1.0, cross_entropy()), (0.1, rate(in_steps))))(
        net, x, torch.zeros(5, dtype=torch.int64)
    ).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_prices_are_kept_between_counts_and_follow_another_network():
    net, term = linear(), rate(in_steps, every=3)
    first = term.bits(net)
    kept = term.prices
    term.bits(net)
    assert term.prices is kept
    term.bits(net), term.bits(net)
    assert term.prices is not kept
    other = represent(nn.Linear(6, 4), {"weight": Grid(), "bias": Grid()})
    assert set(term.prices) != set(in_steps(other))
    assert float(term.bits(other).detach()) > 0
    assert float(first.detach()) > 0


def test_bad_use_is_refused():
    with pytest.raises(WalnutError, match="on a grid"):
        rate(in_steps).bits(nn.Linear(2, 2))
    with pytest.raises(WalnutError, match="every"):
        rate(in_steps, every=0)
    for most, axes in ((0, ()), (40000, ()), (7, (0, 0)), (7, (-1,))):
        with pytest.raises(WalnutError):
            Grid(most, axes)
    with pytest.raises(WalnutError, match="axis 2"):
        represent(nn.Linear(3, 2), {"weight": Grid(axes=(2,))})


def test_steps_along_an_axis_and_zeros():
    net = nn.Linear(40, 3)
    with torch.no_grad():
        net.weight.mul_(torch.tensor([[1.0], [10.0], [0.0]]))
    represent(net, {"weight": Grid(3, (0,))})
    w = net.weight.detach()
    assert not bool((w[2] != 0).any())
    assert not bool((torch.signbit(w) & (w == 0)).any())
    assert all(len(row.abs().unique()) <= 4 for row in w)
    assert float(w[1].abs().max() / w[0].abs().max()) > 5
    (v,) = in_steps(net).values()
    assert v.shape == (3, 40)
    assert float(v.detach().abs().max()) <= 3


@pytest.fixture(scope="module")
def trained():
    """Two small networks of the digits: trained with and without the rate, equally long."""
    torch.manual_seed(0)
    dataset = data.load("digits")
    batches = Batches(dataset.train.x, dataset.train.y, 64)
    net = nets.build("lenet-300-100", shape=(1, 8, 8), classes=10)
    fit(net, cross_entropy(), batches, epochs=4, optimizer=adam())
    priced, plain = copy.deepcopy(net), copy.deepcopy(net)
    return (
        dataset,
        (priced, small(priced, batches, price=6e-5, epochs=14)),
        (plain, small(plain, batches, price=0.0, epochs=14)),
    )


def test_the_rate_makes_the_real_file_smaller(trained, tmp_path):
    dataset, (priced, _), (plain, _) = trained
    sizes = {}
    for name, net in (("priced", priced), ("plain", plain)):
        sizes[name] = pack(net, tmp_path / f"{name}.walnut").bytes
        assert (tmp_path / f"{name}.walnut").stat().st_size == sizes[name]
    assert sizes["priced"] < sizes["plain"] * 0.7
    x, y = dataset.validation.x, dataset.validation.y
    assert accuracy(priced, x, y).value > accuracy(plain, x, y).value - 0.04
    again = nets.load(tmp_path / "priced.walnut")
    used = weights(priced)
    assert all(torch.equal(w, used[name]) for name, w in weights(again).items())


def test_the_forecast_is_near_the_real_stream(trained, tmp_path):
    _, (priced, made), _ = trained
    rows = pack(priced, tmp_path / "net.walnut").tensors
    real = 8 * sum(row["bytes"] for row in rows if row["weights"] > 300)
    forecast = ideal_bits({n: k for n, k in integers(priced).items() if k.numel() > 300})
    assert made.bits == pytest.approx(ideal_bits(integers(priced)))
    print(made.bits / 8, forecast / 8, real / 8)
    assert 0.75 < forecast / real < 1.1
