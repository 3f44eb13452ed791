"""Grids, learned steps, binary and ternary weights: closed forms, and what a file holds of them."""

from __future__ import annotations

import copy
import math
import os

import pytest
import torch
from torch import nn

from walnut import nets
from walnut.core.errors import WalnutError
from walnut.training import Batches, adam, fit
from walnut.weights import bake, pack, prune, represent, unpack, weights
from walnut.weights.binary import Binary, StochasticBinary, mean_magnitude, unit
from walnut.weights.calibrate import entropy, min_max, mse, percentile
from walnut.weights.lsq import LearnedStep, gradient_scale, step_round
from walnut.weights.quantise import quantise
from walnut.weights.quantised import Cast, Quantise, bfloat, half, per_channel, per_tensor
from walnut.weights.ternary import LearnedTernary, Ternary

REACHES = [min_max(), percentile(0.99), mse(), entropy()]


def layer(w: torch.Tensor) -> nn.Linear:
    net = nn.Linear(w.shape[1], w.shape[0], bias=False)
    with torch.no_grad():
        net.weight.copy_(w)
    return net


@pytest.mark.parametrize("reach", REACHES, ids=repr)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_weight_on_a_grid_is_the_nearest_whole_multiple(bits: int, reach) -> None:
    w = torch.randn(6, 50)
    w[0, :10] = 0
    top = 2 ** (bits - 1) - 1
    net = represent(layer(w), {"weight": Quantise(bits, per_channel(), reach)})
    made, scale = net.weight.detach(), net.parametrizations.weight[0].scale
    k = made / scale
    assert torch.allclose(k, k.round(), atol=1e-4)
    assert k.abs().max() <= top + 1e-4
    grid = torch.arange(-top, top + 1) * scale[..., None]  # brute force over all grid points
    nearest = (w[..., None] - grid).abs().amin(-1)
    assert torch.allclose((made - w).abs(), nearest, atol=1e-6)
    inside = w.abs() <= top * scale
    assert ((made - w).abs()[inside] <= (scale / 2).expand_as(w)[inside] + 1e-6).all()
    assert not made[0, :10].any()
    assert not torch.signbit(made[made == 0]).any()  # +0, one kind of zero


def test_reaches_by_their_definitions() -> None:
    rows = torch.rand(4, 1000) ** 3
    assert torch.equal(min_max()(rows, 7), rows.amax(1))
    share = (rows <= percentile(0.9)(rows, 7)[:, None]).float().mean(1)
    assert torch.allclose(share, torch.full((4,), 0.9), atol=2e-3)

    def error(top: torch.Tensor, levels: int) -> torch.Tensor:
        scale = (top / levels)[:, None]
        return (rows - scale * (rows / scale).round().clamp_max(levels)).square().sum(1)

    for levels in (1, 3, 7, 127):
        found = error(mse(100)(rows, levels), levels)
        tried = torch.stack([error(rows.amax(1) * i / 100, levels) for i in range(1, 101)])
        assert torch.allclose(found, tried.amin(0), rtol=1e-4)  # brute force
    normal = torch.randn(1, 20_000).abs()
    normal[0, 0] = 60.0  # one outlier
    assert entropy()(normal, 127)[0] < 20 < min_max()(normal, 127)[0]
    assert mse()(normal, 7)[0] < 20


def test_the_least_squares_step_of_a_normal_weight_is_the_known_one() -> None:
    """Max 1960: the best uniform quantiser of N(0, 1) with 15 levels has a step of 0.3352 (16 levels)."""
    w = torch.randn(1, 400_000)
    top = float(mse(400)(w.abs(), 7))
    assert (
        0.34 < top / 7 < 0.37
    )  # 15 levels: between the steps of 14 and 16 levels, 0.3739 and 0.3352


@pytest.mark.parametrize("reach", REACHES, ids=repr)
def test_rows_of_zeros_and_single_values(reach) -> None:
    w = torch.zeros(3, 8)
    w[1] = 0.25
    w[2, 0] = -1e-30
    net = represent(layer(w), {"weight": Quantise(8, reach=reach)})
    assert torch.allclose(net.weight, w, atol=1e-6)
    assert torch.isfinite(net.weight).all()
    whole = represent(layer(torch.zeros(2, 3)), {"weight": Quantise(4, per_tensor(), reach)})
    assert not whole.weight.any()
    assert reach(torch.zeros(2, 0), 7).tolist() == [0.0, 0.0]


def test_gradients_pass_where_nothing_is_cut_off() -> None:
    w = torch.tensor([[0.1, -0.9, 1.0, 0.2]])
    net = represent(layer(w), {"weight": Quantise(3, reach=lambda rows, levels: rows.amax(1) / 2)})
    net.weight.sum().backward()
    original = net.parametrizations.weight.original
    assert original.grad.tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_wrong_bits_wrong_axes_and_wrong_numbers_are_refused() -> None:
    with pytest.raises(WalnutError, match="2 to 8 bits, not 1"):
        Quantise(1)
    with pytest.raises(WalnutError, match="no axis 4"):
        represent(layer(torch.ones(2, 2)), {"weight": Quantise(8, per_channel(4))})
    for part in (Quantise(4), LearnedStep(4), Binary(), Ternary(), LearnedTernary(), half()):
        with pytest.raises(WalnutError, match="NaN"):
            represent(layer(torch.tensor([[1.0, math.nan]])), {"weight": part})
    with pytest.raises(WalnutError, match="floating-point type"):
        Cast(torch.int8)
    for wrong in (
        lambda: percentile(0.0),
        lambda: mse(0),
        lambda: entropy(1),
        lambda: Ternary(-1.0),
        lambda: LearnedTernary(1.0),
        lambda: LearnedStep(9),
    ):
        with pytest.raises(WalnutError):
            wrong()


def test_half_precision_is_torchs_own_and_its_file_is_half() -> None:
    w = torch.randn(200, 100)
    w[0, 0] = 1e6  # beyond float16
    for part, dtype in ((half(), torch.float16), (bfloat(), torch.bfloat16)):
        made = represent(layer(w), {"weight": part}).weight
        most = torch.finfo(dtype).max
        assert torch.equal(made, w.clamp(-most, most).to(dtype).float())


def test_the_whole_network_keeps_its_masks_while_it_learns(tmp_path) -> None:
    net = nets.build("lenet-300-100", shape=(1, 8, 8))
    quantise(prune(net, 0.2), 4)
    dead = {n: w == 0 for n, w in weights(net).items() if w.ndim > 1}
    x, y = torch.rand(64, 1, 8, 8), torch.randint(0, 10, (64,))
    ce = lambda model, x, y: nn.functional.cross_entropy(model(x), y, reduction="none")  # noqa: E731
    fit(net, ce, Batches(x, y, 16), epochs=2)
    for name, was in dead.items():
        assert not weights(net)[name][was].any()
    sizes = pack(net, tmp_path / "a.walnut")
    again = nets.load(tmp_path / "a.walnut")
    assert torch.equal(again(x), net(x))
    dense = pack(bake(copy.deepcopy(net)), tmp_path / "b.walnut")
    assert sizes.bytes == os.path.getsize(tmp_path / "a.walnut")
    assert sizes.bytes <= 1.05 * dense.bytes


@pytest.mark.parametrize(("bits", "low", "high"), [(8, 0.85, 1.0), (4, 0.75, 1.0), (2, 0.55, 1.0)])
def test_a_file_pays_for_bits_not_for_floats(bits, low, high, tmp_path) -> None:
    """A normal weight on b bits has an entropy somewhat below b bits an entry."""
    net = represent(layer(torch.randn(256, 512)), {"weight": Quantise(bits, per_tensor())})
    size = pack(net, tmp_path / "w.walnut", {"net": "linear", "arguments": {}}).bytes
    ideal = 256 * 512 * bits / 8
    assert low * 0.5 * ideal < size < high * ideal + 1500


@pytest.mark.parametrize(
    ("part", "bits"),
    [(Binary(unit()), 1.0), (Binary(mean_magnitude(per_tensor())), 1.0), (Ternary(), math.log2(3)),
     (LearnedTernary(0.2), math.log2(3))],
)  # fmt: skip
def test_the_file_of_binary_and_ternary_weights_has_their_entropy(part, bits, tmp_path) -> None:
    net = represent(layer(torch.randn(300, 400)), {"weight": part})
    made = net.weight.detach()
    size = pack(net, tmp_path / "w.walnut", {"net": "linear", "arguments": {}}).bytes
    assert size == os.path.getsize(tmp_path / "w.walnut")
    share = made.unique(return_counts=True)[1] / made.numel()
    ideal = float(-(share * share.log2()).sum()) * made.numel() / 8
    assert ideal <= made.numel() * bits / 8 * 1.001
    assert ideal * 0.99 < size < ideal * 1.03 + 300
    _, state = unpack(tmp_path / "w.walnut")
    assert torch.equal(state["weight"], made)


def test_learned_steps_have_the_papers_gradients() -> None:
    v = torch.randn(500, dtype=torch.double)
    step = torch.tensor(0.3, dtype=torch.double, requires_grad=True)
    low, high, by = -4, 3, gradient_scale(500, 3)
    latent = v.clone().requires_grad_()
    upstream = torch.randn(500, dtype=torch.double)
    (upstream * step_round(latent, step, low, high, by)).sum().backward()
    q = v / 0.3
    inside = (q > low) & (q < high)
    formula = torch.where(inside, q.round() - q, q.clamp(low, high)) * by  # Eq. 3
    assert torch.allclose(step.grad, (upstream * formula).sum())
    assert torch.equal(latent.grad, upstream * inside)  # Eq. 5
    # a straight-through round by autograd gives the same: round(q) = q + (round(q) − q).detach()
    s = torch.tensor(0.3, dtype=torch.double, requires_grad=True)
    q = (v / s).clamp(low, high)
    (upstream * s * (q + (q.round() - q).detach())).sum().backward()
    assert torch.allclose(s.grad * by, step.grad)


def test_the_step_where_nothing_is_rounded_differently_is_a_true_derivative() -> None:
    """Cut-off values move with the step exactly: finite differences agree."""
    v = torch.tensor([5.0, -7.0, 9.0], dtype=torch.double)
    step = torch.tensor(0.5, dtype=torch.double, requires_grad=True)
    out = step_round(v, step, -4, 3, 1.0).sum()
    out.backward()
    moved = step_round(v, step.detach() + 1e-6, -4, 3, 1.0).sum()
    assert float(step.grad) == pytest.approx(float((moved - out).detach()) / 1e-6, abs=1e-4)


def test_a_learned_step_finds_the_grid() -> None:
    target = torch.randint(-3, 4, (8, 40)) * 0.21
    net = represent(layer(target + 0.02 * torch.randn(8, 40)), {"weight": LearnedStep(3)})
    step = net.parametrizations.weight[0].step
    optimiser = torch.optim.Adam([step], lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        (net.weight - target).square().sum().backward()
        optimiser.step()
    assert float(step.detach()) == pytest.approx(0.21, abs=0.01)
    with torch.no_grad():
        step.mul_(-1)
    assert torch.allclose(net.weight, target, atol=0.05)


def test_binary_weights_by_their_formulas() -> None:
    w = torch.tensor([[0.5, -0.25, 0.0, 2.0], [-1.0, -1.0, 3.0, 1.0]])
    assert torch.equal(
        represent(layer(w), {"weight": Binary(unit())}).weight.detach(),
        torch.tensor([[1.0, -1.0, 1.0, 1.0], [-1.0, -1.0, 1.0, 1.0]]),
    )
    net = represent(layer(w), {"weight": Binary()})
    alpha = w.abs().mean(1, keepdim=True)
    sign = torch.tensor([[1.0, -1.0, 1.0, 1.0], [-1.0, -1.0, 1.0, 1.0]])
    assert torch.equal(net.weight.detach(), alpha * sign)
    best = torch.linspace(0.1, 3, 2000)  # α is the least-squares scale
    losses = (w[0] - best[:, None] * sign[0]).square().sum(1)
    assert float(best[losses.argmin()]) == pytest.approx(float(alpha[0]), abs=2e-3)
    plain = represent(layer(w), {"weight": Binary(unit())})
    (plain.weight * torch.tensor([[1.0, 1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 1.0]])).sum().backward()
    grad = plain.parametrizations.weight.original.grad
    # pushing 2.0 up or −… down further is dropped; 3.0 may come back
    assert grad.tolist() == [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]


def test_random_signs_are_fair_draw_by_draw_and_gone_in_eval() -> None:
    w = torch.linspace(-1.2, 1.2, 9).repeat(2000, 1)
    net = represent(layer(w), {"weight": StochasticBinary()})
    first = net.weight.detach()
    assert torch.equal(net.weight, first)  # one draw a step
    share = (first > 0).float().mean(0)
    expected = ((w[0] + 1) / 2).clamp(0, 1)
    assert (share - expected).abs().max() < 4 * math.sqrt(0.25 / 2000)
    net.weight.sum().backward()
    assert not torch.equal(net.weight, first)
    net.eval()
    assert torch.equal(net.weight.detach(), torch.where(w >= 0, 1.0, -1.0))


def test_ternary_weights_by_their_formulas() -> None:
    w = torch.randn(20, 30)
    made = represent(layer(w), {"weight": Ternary()}).weight.detach()
    live = w.abs() > 0.7 * w.abs().mean()
    alpha = w.abs()[live].mean()
    assert torch.allclose(made, alpha * w.sign() * live)
    trained = represent(layer(w), {"weight": LearnedTernary(0.1)})
    up, down = w > 0.1 * w.abs().max(), w < -0.1 * w.abs().max()
    assert torch.allclose(
        trained.weight.detach(), up * w[up].mean() + down * w[down].mean(), atol=1e-6
    )
    g = torch.randn(20, 30)
    (g * trained.weight).sum().backward()
    part = trained.parametrizations.weight[0]
    assert torch.allclose(part.positive.grad, g[up].sum(), atol=1e-4)
    assert torch.allclose(part.negative.grad, -g[down].sum(), atol=1e-4)
    factor = torch.where(up, part.positive, torch.where(down, part.negative, 1.0))
    assert torch.allclose(trained.parametrizations.weight.original.grad, g * factor)
    zeros = represent(layer(torch.zeros(2, 3)), {"weight": LearnedTernary()})
    assert not zeros.weight.any()
    assert not represent(layer(torch.zeros(2, 3)), {"weight": Ternary()}).weight.any()


@pytest.mark.parametrize(
    "part",
    [Quantise(2), LearnedStep(2), Binary(), Binary(unit()), StochasticBinary(), Ternary(), LearnedTernary()],
    ids=repr,
)  # fmt: skip
def test_fit_trains_through_the_straight_through_gradient(part) -> None:
    x = torch.randn(200, 10)
    y = (x[:, :5].sum(1) > x[:, 5:].sum(1)).long()
    net = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    represent(net, {"0.weight": part, "3.weight": part})
    ce = lambda model, x, y: nn.functional.cross_entropy(model(x), y, reduction="none")  # noqa: E731
    fit(net, ce, Batches(x, y, 50), epochs=25, optimizer=adam(0.03))
    share = float((net(x).argmax(1) == y).float().mean())
    assert share > (0.8 if isinstance(part, StochasticBinary) else 0.9)
