"""Pruning by a density: which weights stay, in one layer and across layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from walnut.core.errors import WalnutError
from walnut.weights import bake, densities, density_schedule, lamp, magnitude, prune, weights
from walnut.weights.mask import _above


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 10))
    with torch.no_grad():
        model[3].weight.mul_(0.01)  # a layer of small weights
    return model


def live(model: nn.Module) -> dict[str, int]:
    return {n: int(w.count_nonzero()) for n, w in weights(model).items() if w.ndim > 1}


@pytest.mark.parametrize("keep", [1, 300, 999])
def test_a_threshold_keeps_what_sorting_keeps(keep: int) -> None:
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    scores[7] = float("nan")
    found = _above(scores, keep)
    assert int(found.sum()) == keep
    assert bool(found[7])
    assert int(_above(torch.full((5,), float("nan")), 3).sum()) == 3
    kept, left = (scores.nan_to_num(9.0)[m] for m in (found, ~found))
    assert kept.min() >= left.max()  # at the threshold: any of them,
    level = found[scores == kept.min()]
    assert torch.equal(level, level.sort(descending=True).values)  # and then the first


def test_lamp_is_its_definition() -> None:
    w = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).double()
    score = lamp(w)
    for i in range(4):
        for j in range(7):
            rest = w.square()[w.abs() >= w[i, j].abs()].sum()
            assert torch.isclose(score[i, j], w[i, j] ** 2 / rest)


def test_lamp_of_zeros_is_zero() -> None:
    assert lamp(torch.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("score", [magnitude, lamp])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.01])
def test_one_density_is_kept_over_all_layers(score: object, density: float) -> None:
    model = prune(net(), density, score=score)
    assert sum(live(model).values()) == pytest.approx(density * 2400, abs=2)


def test_plain_magnitude_empties_a_layer_of_small_weights_and_lamp_does_not() -> None:
    by_size, by_layer = densities(net(), 0.1, score=magnitude), densities(net(), 0.1)
    assert by_size["3.weight"] == 1 / 400
    assert by_layer["3.weight"] > by_layer["0.weight"] > 0.05


def test_densities_by_pattern_are_exact() -> None:
    model = prune(net(), {"0.weight": 0.08, "3.*t": 0.25})
    assert live(model) == {"0.weight": 160, "3.weight": 100}
    assert bool(weights(model)["0.bias"].all())


def test_pruning_again_only_takes_away_and_keeps_the_parameters() -> None:
    model = prune(net(), 0.5)
    before = {n: w != 0 for n, w in weights(model).items()}
    parameters = list(model.parameters())
    with torch.no_grad():  # what is masked would come back, were it looked at
        model[0].parametrizations.weight.original.add_(1.0)
    prune(model, 0.2)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    for name, w in weights(model).items():
        if w.ndim > 1:
            assert not bool((w != 0)[~before[name]].any())
    assert sum(live(model).values()) == 480
    bake(model)
    assert sum(live(model).values()) == 480


def test_the_schedule_prunes_the_same_share_each_round() -> None:
    schedule = density_schedule(0.08, 4)
    ratios = [b / a for a, b in zip([1.0, *schedule], schedule, strict=False)]
    assert schedule[-1] == pytest.approx(0.08)
    assert ratios == pytest.approx([ratios[0]] * 4)


@pytest.mark.parametrize(("final", "rounds"), [(0.0, 3), (1.1, 3), (0.1, 0)])
def test_schedules_that_cannot_be_are_refused(final: float, rounds: int) -> None:
    with pytest.raises(WalnutError, match="cannot be done"):
        density_schedule(final, rounds)


def test_a_network_with_nothing_to_prune_says_so() -> None:
    with pytest.raises(WalnutError, match="no weight of two axes"):
        prune(nn.BatchNorm1d(3), 0.5)
    with pytest.raises(WalnutError, match="share that stays"):
        prune(net(), 0.0)
