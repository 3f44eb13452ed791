"""Entropy-aware sharing against brute force, and against what it is a mixture of."""

import itertools
import math

import numpy as np
import pytest
import torch

from walnut.core.errors import WalnutError
from walnut.weights import Codebook, kmeans, pack, represent, unpack, weights
from walnut.weights.curvature import squared_gradients
from walnut.weights.entropy_aware import entropy_constrained, quantise
from walnut.weights.share import share_at_rate


def j_of(x, h, index, price, anchor=None):
    """Return J of an assignment at its best levels; label 0 is the anchor's where there is one."""
    total = 0.0
    for j in set(index):
        members = np.array([i for i, a in enumerate(index) if a == j])
        level = (
            anchor if anchor is not None and j == 0 else np.average(x[members], weights=h[members])
        )
        total += (h[members] * (x[members] - level) ** 2).sum()
        total += price * len(members) * -math.log2(len(members) / len(x))
    return total


def brute(x, h, k, price, anchor=None):
    return min(
        j_of(x, h, index, price, anchor) for index in itertools.product(range(k), repeat=len(x))
    )


@pytest.mark.parametrize("price", [0.0, 0.01, 0.1, 0.4, 3.0])
@pytest.mark.parametrize("anchor", [None, 0.0, 9.0])
def test_the_optimum_of_equal_weights_is_found(price, anchor):
    rng = np.random.default_rng(3)
    for _ in range(3):
        x = rng.normal(size=7)
        found = quantise(torch.tensor(x), 3, price, anchor=anchor)
        assert found.distortion + price * found.bits == pytest.approx(
            brute(x, np.ones(7), 3, price, anchor), rel=1e-9, abs=1e-12
        )
        assert anchor is None or anchor in found.levels


@pytest.mark.parametrize("anchor", [None, 0.0])
def test_importances_are_near_the_optimum_and_never_below_it(anchor):
    rng, ratios = np.random.default_rng(4), []
    for _ in range(8):
        x, h = rng.normal(size=6), rng.exponential(size=6)
        found = quantise(torch.tensor(x), 3, 0.1, importance=torch.tensor(h), anchor=anchor)
        best = brute(x, h, 3, 0.1, anchor)
        ratios.append((found.distortion + 0.1 * found.bits) / best)
    assert min(ratios) > 1 - 1e-5  # the importance 0 is lifted a little
    assert np.median(ratios) < 1.0 + 1e-6
    assert max(ratios) < 1.25


def test_at_price_zero_it_is_kmeans():
    w = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, best = quantise(w, 5, 0.0), kmeans(w, 5)
    assert found.distortion == pytest.approx(best.cost, rel=1e-9)
    assert torch.allclose(found.levels, best.centroids)


def test_what_it_reports_is_what_it_returns_and_beats_rounding_at_the_same_bits():
    w = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    found = quantise(w, 15, 0.02, anchor=0.0)
    assert torch.equal(found.levels, found.levels.sort().values)
    assert 0.0 in found.levels
    error = (w.double() - found.levels.double()[found.index]).square().sum()
    assert found.distortion == pytest.approx(float(error), rel=1e-5)
    p = torch.bincount(found.index).double() / len(w)
    assert found.bits == pytest.approx(float(-(p[p > 0].log2() * p[p > 0]).sum()) * len(w))
    rate = found.bits / len(w)
    for k in range(2, 16):  # nearest-value sharing with any number of values, its entropy counted
        near = kmeans(w, k)
        share = torch.bincount(torch.bucketize(w, (near.centroids[1:] + near.centroids[:-1]) / 2))
        p = share.double() / len(w)
        entropy = float(-(p * p.log2()).sum())
        assert near.cost > found.distortion or entropy > rate
    # A Gaussian source at R bits: D ≥ 2^(−2R), and a scalar code is within 0.255 bits of that.
    assert 2 ** (-2 * rate) < found.distortion / len(w) < 2 ** (-2 * (rate - 0.255)) * 1.02


def test_bits_fall_and_distortion_grows_with_the_price():
    w = torch.randn(3000, generator=torch.Generator().manual_seed(2))
    h = torch.rand(3000, generator=torch.Generator().manual_seed(3))
    found = [quantise(w, 16, price, importance=h) for price in (0.0, 0.01, 0.05, 0.2, 1.0)]
    bits, error = [f.bits for f in found], [f.distortion for f in found]
    assert bits == sorted(bits, reverse=True)
    assert error == sorted(error)


def test_a_codebook_keeps_the_assignment_and_the_zeros():
    layer = torch.nn.Linear(60, 40)
    with torch.no_grad():
        layer.weight[:, ::2] = 0.0
    before = layer.weight.detach().clone()
    coded = quantise(before[before != 0], 8, 1e-3)
    represent(layer, {"weight": Codebook(3, entropy_constrained(1e-3))})
    assert (layer.weight[:, ::2] == 0).all()
    live = layer.weight[before != 0]
    assert torch.equal(live, coded.levels[coded.index])
    nearest = torch.cdist(before[before != 0][:, None], coded.levels[:, None]).argmin(1)
    assert (nearest != coded.index).any()


def test_bad_input_is_named():
    w = torch.randn(10)
    for wrong, said in [
        (lambda: quantise(w, 0, 0.1), "too few"),
        (lambda: quantise(w, 1, 0.1, anchor=0.0), "too few"),
        (lambda: quantise(w, 4, -0.1), "price"),
        (lambda: quantise(w, 4, math.nan), "price"),
        (lambda: quantise(torch.tensor([1.0, math.nan]), 4, 0.1), "finite"),
        (lambda: quantise(torch.zeros(0), 4, 0.1), "finite"),
        (lambda: quantise(w, 4, 0.1, importance=torch.ones(3)), "shape"),
        (lambda: quantise(w, 4, 0.1, importance=-torch.ones(10)), "at least 0"),
    ]:
        with pytest.raises(WalnutError, match=said):
            wrong()


def test_one_value_and_few_values():
    one = quantise(torch.full((5,), 2.5), 4, 0.1)
    assert one.levels.tolist() == [2.5]
    assert one.bits == 0
    assert one.distortion == 0
    assert quantise(torch.zeros(4, 4), 4, 0.1, anchor=0.0).levels.tolist() == [0.0]
    assert quantise(torch.tensor(1.5), 4, 0.1).index.shape == ()


def test_sharing_at_a_rate_meets_it_and_spends_bits_where_they_count():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(60, 50), torch.nn.Linear(50, 40))
    with torch.no_grad():
        for layer in net:
            layer.weight.normal_(std=0.1)
    before = {n: w.clone() for n, w in weights(net).items()}
    heavy = {n: torch.ones_like(before[n]) for n in ("0.weight", "1.weight")}
    heavy["1.weight"] *= 50
    found = share_at_rate(net, 1.6, bits=4, importance=heavy)
    assert 1.5 < found.rate <= 1.6
    assert found.rates["1.weight"] > found.rates["0.weight"] + 1
    bits = 0.0
    for name in heavy:
        values, counts = weights(net)[name].unique(return_counts=True)
        assert len(values) <= 16
        bits -= float((counts * (counts / counts.sum()).log2()).sum())
    assert bits / sum(w.numel() for w in heavy.values()) == pytest.approx(found.rate, rel=1e-4)

    def cost(model):
        held = weights(model)
        return sum(float((heavy[n] * (held[n] - before[n]).detach().square()).sum()) for n in heavy)

    other = torch.nn.Sequential(torch.nn.Linear(60, 50), torch.nn.Linear(50, 40))
    other.load_state_dict(before)
    plain = share_at_rate(other, 1.6, bits=4)
    assert plain.rate <= 1.6
    assert cost(net) < 0.7 * cost(other)


def test_shared_at_a_rate_the_network_trains_and_packs(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Linear(30, 4))
    with torch.no_grad():
        net[0].weight[::2] = 0.0
    share_at_rate(net, 1.2)
    assert not net[0].weight[::2].any()
    net(torch.rand(5, 40)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    pack(net, tmp_path / "net.walnut", {"net": "none"})
    _, state = unpack(tmp_path / "net.walnut")
    assert torch.equal(state["0.weight"], net[0].weight)
    with pytest.raises(WalnutError, match="rate above 0"):
        share_at_rate(net, 0.0)
    with pytest.raises(WalnutError, match=r"missing: 1\.weight"):
        share_at_rate(net, 1.0, importance={"0.weight": torch.ones(30, 40)})


def test_squared_gradients_are_the_fisher_information_of_a_linear_softmax():
    torch.manual_seed(0)
    net, x = torch.nn.Linear(3, 4), torch.randn(6, 3)
    p = net(x).softmax(1)
    exact = torch.einsum("bk,bi->ki", p * (1 - p), x.square()) / len(x)  # E[(1[y=k] − p_k)²] x_i²
    one = squared_gradients(net, x[:, None].repeat(500, 1, 1), seed=1)["weight"]
    assert torch.allclose(one, exact, rtol=0.2)
    some = squared_gradients(net, x.repeat(500, 1, 1), seed=1)["weight"]  # batches of six
    assert torch.allclose(some, exact, rtol=0.25)
    assert all(p.grad is None for p in net.parameters())
    with pytest.raises(WalnutError, match="at least one batch"):
        squared_gradients(net, [])
    share_at_rate(net, 1.0)
    with pytest.raises(WalnutError, match="no gradient"):
        squared_gradients(net, x[None])
