"""Activations on few bits, and bits by a budget."""

from __future__ import annotations

import copy
import itertools
import json
import os

import pytest
import torch
from torch import nn

from walnut import nets
from walnut.core.errors import WalnutError, WalnutWarning
from walnut.training import Batches, fit
from walnut.weights import edits, pack, prune, represent, weights
from walnut.weights.activations import fixed, learned, observe, quantise_activations
from walnut.weights.bits import allocate, distortions, fit_bytes, sizes
from walnut.weights.calibrate import entropy, min_max, mse, percentile
from walnut.weights.input_grid import again
from walnut.weights.lsq import LearnedStep
from walnut.weights.quantised import per_tensor


def cross_entropy(model, x, y):
    return nn.functional.cross_entropy(model(x), y, reduction="none")


@pytest.fixture
def net() -> nn.Module:
    return nets.build("small-cnn", shape=(1, 8, 8), width=4, hidden=16)


def test_a_grid_is_affine_and_holds_zero_exactly() -> None:
    values = torch.cat([torch.randn(500) * 2 + 1, torch.zeros(1)])
    grid = fixed()(values, 8)
    scale, zero = float(grid.scale), grid.zero
    assert (values.max() - values.min()) / 255 == pytest.approx(scale, rel=1e-5)
    out = grid(values[:, None])[:, 0]
    k = out / scale + zero
    assert torch.allclose(k, k.round(), atol=1e-3)
    assert k.min() >= -1e-3
    assert k.max() <= 255 + 1e-3
    assert (out - values).abs().max() <= scale  # half a step, and half a step that 0 moved the grid
    assert out[-1] == 0
    positive = fixed()(values.abs(), 4)
    assert positive.zero == 0
    assert float(positive.scale) == pytest.approx(float(values.abs().max()) / 15)
    nothing = fixed()(torch.zeros(10), 8)
    assert not nothing(torch.zeros(2, 3)).any()


@pytest.mark.parametrize("reach", [min_max(), percentile(0.999), mse(), entropy()], ids=repr)
def test_eight_bits_change_little_and_two_much(net: nn.Module, reach) -> None:
    x = torch.rand(64, 1, 8, 8)
    before = net(x)
    off = {}
    for bits in (8, 2):
        twin = quantise_activations(copy.deepcopy(net), x, bits, start=fixed(reach))
        off[bits] = float((twin(x) - before).detach().norm() / before.detach().norm())
    assert off[8] < 0.05 < off[2]


def test_observed_values_are_what_enters_a_layer(net: nn.Module) -> None:
    x = torch.rand(30, 1, 8, 8)
    layers = {n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    seen = observe(net, x, layers, batch_size=7)
    first = next(n for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    assert float(seen[first].min()) == float(x.min())
    assert float(seen[first].max()) == float(x.max())
    assert all(len(m._forward_pre_hooks) == 0 for m in net.modules())


def test_learned_grids_train_beside_learned_weights_and_come_back_from_a_file(
    net: nn.Module, tmp_path
) -> None:
    x, y = torch.rand(96, 1, 8, 8), torch.arange(96) % 10
    x[torch.arange(96), 0, 0, y % 8] += 3.0
    represent(net, {n: LearnedStep(4) for n, w in weights(net).items() if w.ndim > 1})
    quantise_activations(net, x, 4, start=learned())
    grids = [m for m in net.modules() if type(m).__name__ == "InputGrid"]
    before = [float(g.scale.detach()) for g in grids]
    fit(net, cross_entropy, Batches(x, y, 32), epochs=3)
    assert all(float(g.scale.detach()) != b for g, b in zip(grids, before, strict=True))
    pack(net, tmp_path / "net.walnut")
    back = nets.load(tmp_path / "net.walnut")
    assert torch.equal(back(x), net.eval()(x))
    nets.save(back, tmp_path / "net.safetensors")
    assert torch.equal(nets.load(tmp_path / "net.safetensors")(x), net(x))
    twin = copy.deepcopy(back)  # a copy has grids of its own
    with torch.no_grad():
        for g in (m for m in twin.modules() if type(m).__name__ == "InputGrid"):
            g.scale.mul_(3)
    assert not torch.equal(twin(x), back(x))


@pytest.mark.parametrize(
    "layers",
    [None, 3, {"nothing": [8, 0, False]}, {"0": [9, 0, False]}, {"0": [8, 256, False]}, {"0": [8, 0]},
     {"0": [8, 0, 1]}, {"0": "8"}, {"0": [True, 0, False]}],
)  # fmt: skip
def test_a_hostile_file_gets_no_grid(layers) -> None:
    net = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(WalnutError):
        again(net, {"kind": "input-grids", "layers": layers})
    good = json.loads(json.dumps({"kind": "input-grids", "layers": {"0": [8, 3, True]}}))
    edits.apply(net, [good])
    assert net[0].input_grid.zero == 3


def test_calibration_data_that_does_not_fit_is_refused(net: nn.Module) -> None:
    with pytest.raises(WalnutError, match=r"expects \(n, 1, 8, 8\), given \(5, 3, 8, 8\)"):
        quantise_activations(net, torch.rand(5, 3, 8, 8))
    plain = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(WalnutError, match=r"expects \(n, 3, …, …\), given \(5, 1, 8, 8\)"):
        quantise_activations(plain, torch.rand(5, 1, 8, 8))
    with pytest.raises(WalnutError, match="finite"):
        quantise_activations(net, torch.full((5, 1, 8, 8), float("nan")))
    with pytest.raises(WalnutError, match="batch of examples"):
        quantise_activations(net, torch.rand(0, 1, 8, 8))
    with pytest.raises(WalnutError, match="there is no layer 'x'"):
        quantise_activations(net, torch.rand(5, 1, 8, 8), {"x": 8})
    with pytest.raises(WalnutError, match="2 to 8 bits, not 1"):
        quantise_activations(net, torch.rand(5, 1, 8, 8), 1)
    with pytest.raises(WalnutError, match="no dense or convolutional layer"):
        quantise_activations(nn.Sequential(nn.ReLU()), torch.rand(5, 4))
    assert all(len(m._forward_pre_hooks) == 0 for m in net.modules())


class Own(nn.Module):
    """A layer that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.matrix


def test_layers_of_other_kinds_are_left_alone_and_named() -> None:
    net = nn.Sequential(nn.Linear(4, 4), Own())
    with pytest.warns(WalnutWarning, match=r"left alone.*1 \(Own\)"):
        quantise_activations(net, torch.rand(8, 4))
    assert hasattr(net[0], "input_grid")
    assert not hasattr(net[1], "input_grid")


def test_a_layer_used_twice_has_one_grid_for_both_inputs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(5 * self.layer(x) + 7)

    net, x = Twice(), torch.rand(16, 4)
    with torch.no_grad():
        second = 5 * net.layer(x) + 7
    quantise_activations(net, x)
    reach = (255 - net.layer.input_grid.zero) * float(net.layer.input_grid.scale)
    assert reach == pytest.approx(float(second.max()), rel=1e-2)


def test_bits_are_the_best_of_all_combinations() -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        names = ["a", "b", "c", "d"]
        entries = {n: int(torch.randint(10, 500, (1,), generator=g)) for n in names}
        lost = {
            n: {b: float(torch.rand(1, generator=g) + 0.1) * 4.0**-b for b in (2, 3, 4, 6, 8)}
            for n in names
        }
        budget = sum(entries.values()) * 4.2 / 8
        best = min(
            sum(lost[n][b] for n, b in zip(names, combination, strict=True))
            for combination in itertools.product((2, 3, 4, 6, 8), repeat=4)
            if sum(entries[n] * b for n, b in zip(names, combination, strict=True)) <= 8 * budget
        )
        found = allocate(lost, entries, budget)
        assert found.bytes <= budget
        assert found.distortion == pytest.approx(sum(lost[n][b] for n, b in found.bits.items()))
        assert found.distortion == pytest.approx(best)  # brute force over all of them


def test_more_bytes_never_lose_more() -> None:
    g = torch.Generator().manual_seed(1)
    entries = {str(i): int(torch.randint(10, 500, (1,), generator=g)) for i in range(8)}
    lost = {n: {b: float(torch.rand(1, generator=g)) * 4.0**-b for b in (2, 4, 8)} for n in entries}
    least = sum(entries.values()) * 2 / 8
    budgets = [least * (1 + 0.25 * i) for i in range(13)]
    curve = [allocate(lost, entries, budget).distortion for budget in budgets]
    assert all(later <= earlier for earlier, later in itertools.pairwise(curve))
    assert curve[-1] == pytest.approx(sum(min(of.values()) for of in lost.values()))


def test_an_impossible_budget_names_the_nearest() -> None:
    with pytest.raises(WalnutError, match="the least that these bits need, 25 bytes"):
        allocate({"a": {2: 1.0, 4: 0.5}}, {"a": 100}, budget=10)
    with pytest.raises(WalnutError, match="finite losses"):
        allocate({"a": {2: float("nan")}}, {"a": 100}, budget=100)


def test_the_layer_that_matters_gets_the_bits(net: nn.Module) -> None:
    x = torch.rand(50, 1, 8, 8)
    lost = distortions(net, x, (2, 4, 8))
    assert set(lost) == set(sizes(net))
    for of in lost.values():
        assert of[8] < of[2]
    entries = sizes(net)
    found = allocate(lost, entries, sum(entries.values()) * 4 / 8)
    assert found.bytes <= sum(entries.values()) / 2
    even = sum(of[4] for of in lost.values())
    assert found.distortion <= even
    y = net(x).argmax(1)
    rises = distortions(net, x, (2, 8), objective=cross_entropy, y=y)
    assert max(of[2] for of in rises.values()) > max(abs(of[8]) for of in rises.values())


def test_bits_by_the_length_of_the_file(tmp_path) -> None:
    net, x = nets.build("lenet-300-100", shape=(1, 8, 8)), torch.rand(30, 1, 8, 8)
    prune(net, 0.2)
    whole = 4 * sum(p.numel() for p in net.parameters())
    lost = distortions(net, x, (2, 4, 8), along=per_tensor())
    for budget in (whole // 25, whole // 20):
        twin = copy.deepcopy(net)
        found = fit_bytes(twin, budget, lost, along=per_tensor())
        size = pack(twin, tmp_path / "some.walnut").bytes
        assert 0.75 * budget < size <= budget, found
        assert size == os.path.getsize(tmp_path / "some.walnut")
        assert torch.equal(nets.load(tmp_path / "some.walnut")(x), twin.eval()(x))
    with pytest.raises(WalnutError, match=r"the smallest file .* is \d+ bytes"):
        fit_bytes(copy.deepcopy(net), 300, lost, along=per_tensor())
