"""Memory, energy and sensitivity: closed forms on networks whose figures can be written down."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from walnut import nets
from walnut.core.errors import WalnutError
from walnut.evaluate import accuracy, cost
from walnut.evaluate.energy import (
    DRAM_PER_WORD,
    FP16,
    FP32,
    INT8,
    LIMITS,
    SOURCE,
    SRAM_PER_WORD,
    energy,
)
from walnut.evaluate.memory import activation_memory
from walnut.evaluate.sensitivity import sensitivity
from walnut.weights import bake, prune, share, weights


class Residual(nn.Module):
    """x + second(relu(first(x))): x is alive while the branch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 64), nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(x)))


def test_memory_of_a_chain_is_its_largest_pair() -> None:
    """Sequential lets go of an activation once the next is made; the input is held throughout."""
    sizes = [10, 40, 30, 5, 5]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    found = activation_memory(nn.Sequential(*layers), (10,))
    assert found.peak_bytes == 4 * (10 + 40 + 30)
    assert found.moved_bytes == 4 * (40 + 30 + 5 + 5)


def test_memory_of_a_branch_counts_what_waits() -> None:
    assert activation_memory(Residual(), (8,)).peak_bytes == 4 * (8 + 64 + 64)


def test_memory_grows_with_the_batch_and_views_are_free() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 7))
    one, four = (activation_memory(net, (3, 2, 2), batch).peak_bytes for batch in (1, 4))
    assert one == 4 * (12 + 7)
    assert four == 4 * one
    with pytest.raises(WalnutError, match="at least one"):
        activation_memory(net, (3, 2, 2), 0)


def test_memory_of_a_represented_network_is_that_of_its_baked_one() -> None:
    net = share(prune(nets.build("lenet-300-100"), 0.1), 2)
    held = activation_memory(net, (1, 28, 28))
    assert held == activation_memory(bake(net), (1, 28, 28))


def test_energy_is_the_table_times_the_counts() -> None:
    net = nn.Sequential(nn.Linear(100, 20), nn.Linear(20, 4))
    parameters, macs, moved = 100 * 20 + 20 + 20 * 4 + 4, 100 * 20 + 20 * 4, 20 + 4
    found = energy(net, (100,))
    assert found.arithmetic == pytest.approx(1e-6 * macs * (3.7 + 0.9))
    assert found.weights == pytest.approx(1e-6 * parameters * DRAM_PER_WORD)
    assert found.activations == pytest.approx(1e-6 * 2 * moved * SRAM_PER_WORD)
    assert found.total == pytest.approx(found.arithmetic + found.weights + found.activations)


def test_energy_falls_with_the_bits_and_with_the_bytes_read() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    totals = [energy(net, (3, 8, 8), arithmetic=a).total for a in (FP32, FP16, INT8)]
    assert totals == sorted(totals, reverse=True)
    assert totals[2] < totals[0] / 4
    packed = energy(net, (3, 8, 8), weight_bytes=1000)
    assert packed.weights == pytest.approx(250 * 640e-6)
    assert packed.arithmetic == energy(net, (3, 8, 8)).arithmetic
    with pytest.raises(WalnutError, match="negative"):
        energy(net, (3, 8, 8), weight_bytes=-1)


def test_zeros_save_no_energy_and_the_record_says_where_it_is_from() -> None:
    net = nn.Linear(50, 10)
    before = energy(net, (50,))
    prune(net, 0.1)
    assert energy(net, (50,)) == before
    assert before.json()["source"] == SOURCE
    assert "A zero is multiplied" in LIMITS


# --- sensitivity ----------------------------------------------------------------------------------


def classifier() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Two layers: the first may lose anything but its diagonal, the second nothing."""
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(4) * 5 + 0.01 * torch.rand(4, 4, generator=generator))
        net[1].weight.copy_(torch.eye(4) * torch.tensor([1.0, 1.1, 1.2, 1.3]))
    return net, torch.eye(4).repeat(3, 1), torch.arange(4).repeat(3)


def test_the_scan_is_pruning_one_layer_at_a_time() -> None:
    net, x, y = classifier()
    before = {n: w.clone() for n, w in weights(net).items()}
    told: list[tuple[int, int]] = []
    scan = sensitivity(
        net, x, y, densities=(0.25, 0.125, 0.5), progress=lambda _, d, t: told.append((d, t))
    )
    assert all(torch.equal(w, before[n]) for n, w in weights(net).items())
    assert told[-1] == (6, 6)
    for name, curve in scan.accuracy.items():
        for density, value in zip(scan.densities, curve, strict=True):
            other, _, _ = classifier()
            assert accuracy(prune(other, {name: density}), x, y).value == value
    assert scan.dense == 1.0
    assert scan.for_drop(0.0) == {"0.weight": 0.25, "1.weight": 0.25}
    assert scan.for_drop(0.5) == {"0.weight": 0.125, "1.weight": 0.125}


def test_densities_for_a_total_are_as_few_as_asked_and_no_worse_than_needed() -> None:
    net, x, y = classifier()
    scan = sensitivity(net, x, y, densities=(0.5, 0.25, 0.125))
    chosen = scan.for_density(0.3)
    assert scan.total(chosen) <= 0.3
    assert chosen == {"0.weight": 0.25, "1.weight": 0.25}  # no accuracy is lost for it
    with pytest.raises(WalnutError, match=r"down to a density of 0\.125"):
        scan.for_density(0.01)
    records = scan.json()
    assert [r["layer"] for r in records] == ["0.weight", "1.weight"]
    assert records[0]["density"] == [1.0, 0.5, 0.25, 0.125]


def test_scanning_a_masked_network_and_refusing_a_shared_one() -> None:
    net, x, y = classifier()
    scan = sensitivity(prune(net, 0.9), x, y, densities=(0.25,))
    assert set(scan.accuracy) == {"0.weight", "1.weight"}
    with pytest.raises(WalnutError, match="bake the network"):
        sensitivity(share(classifier()[0], 2), x, y)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"densities": ()}, "densities are shares"),
        ({"densities": (0.0,)}, "densities are shares"),
        ({"names": ["fc9.weight"]}, "no weight is called 'fc9.weight'"),
        ({"names": []}, "no weight of two axes"),
    ],
)
def test_scans_that_cannot_be_are_refused(changes: dict, words: str) -> None:
    net, x, y = classifier()
    with pytest.raises(WalnutError, match=words):
        sensitivity(net, x, y, **changes)


def test_counts_of_a_convolution_are_the_formula() -> None:
    net = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert cost(net, (3, 10, 10)).multiply_adds == 100 * 8 * 3 * 9
