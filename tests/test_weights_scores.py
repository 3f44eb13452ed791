"""Scores from data, N:M masks, schedules and controls: against closed forms and by brute force."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from walnut.core.errors import WalnutError
from walnut.core.objectives import cross_entropy
from walnut.training import Batches, constant, fit, sgd
from walnut.weights import (
    Fixed,
    Gradual,
    Mask,
    Movement,
    NofM,
    bake,
    cubic,
    energy,
    geometric,
    masks,
    matrices,
    one_shot,
    prune,
    prune_n_of_m,
    random_mask,
    random_scores,
    ranked,
    reinitialised,
    represent,
    share,
    taylor,
    weights,
)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def examples(count: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 6, generator=generator), torch.arange(count) % 3


def kept(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weights(model)[name] != 0 for name in matrices(model)}


# --- scores of the weights alone ----------------------------------------------------------------


def test_energy_is_the_loss_of_removing_a_weight() -> None:
    w = torch.randn(4, 5)
    without = w.clone()
    without[1, 2] = 0
    lost = (w - without).double().norm() ** 2 / w.double().norm() ** 2
    assert float(energy(w)[1, 2]) == pytest.approx(float(lost))
    assert float(energy(w).sum()) == pytest.approx(1)


def test_a_layer_of_zeros_or_of_equal_weights_has_finite_scores() -> None:
    for score in (energy, ranked):
        assert bool(score(torch.zeros(3, 3)).isfinite().all())
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        model[1].weight.zero_()
        model[2].weight.fill_(0.5)
    pruned = prune(model, 0.25)
    found = {name: int(mask.sum()) for name, mask in masks(pruned).items()}
    assert found["0.weight"] > 0
    assert found["2.weight"] > 0
    assert bool(torch.isfinite(pruned(torch.rand(2, 8))).all())


def test_ranks_keep_the_same_share_of_every_layer() -> None:
    model = prune(net(), 0.4, score=ranked)
    assert {n: int(k.sum()) for n, k in kept(model).items()} == {"0.weight": 12, "3.weight": 6}


# --- scores from data ----------------------------------------------------------------------------


def test_taylor_is_the_weight_times_its_slope() -> None:
    """Against the slope of the loss by finite differences, batch by batch."""
    model, (x, y) = net().double(), examples()
    x = x.double()
    batches = [(x[:12], y[:12]), (x[12:], y[12:])]
    found = taylor(model, cross_entropy(), batches)["0.weight"]
    w, step, total = model[0].weight, 1e-6, 0.0
    model.eval()
    for rows, labels in batches:
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                w[2, 3] += sign * step
                ends.append(float(cross_entropy()(model, rows, labels).mean()))
                w[2, 3] -= sign * step
        total += abs(float(w.detach()[2, 3]) * (ends[0] - ends[1]) / (2 * step))
    assert float(found[2, 3]) == pytest.approx(total / 2, rel=1e-5)


def test_taylor_leaves_the_network_as_it_was() -> None:
    model, (x, y) = net().train(), examples()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    taylor(model, cross_entropy(), [(x, y)])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_on_a_linear_loss_taylor_finds_the_best_weights_to_keep() -> None:
    """L = c·w is its own expansion: the kept weights are those whose removal changes it most."""
    model = nn.Linear(6, 1, bias=False)
    c = torch.tensor([3.0, -0.1, 2.0, 0.2, -4.0, 0.05])

    def linear(m: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return m(x)[:, 0]

    pruned = prune(model, 0.5, score=taylor(model, linear, [(c[None], torch.zeros(1))]))
    mine = kept(pruned)["weight"][0]
    moved = (model.parametrizations.weight.original.detach()[0] * c).abs()  # type: ignore[union-attr]
    best = max(itertools.combinations(range(6), 3), key=lambda s: float(moved[list(s)].sum()))
    assert tuple(mine.nonzero()[:, 0].tolist()) == best


def test_scores_of_another_network_and_of_nothing_are_refused() -> None:
    with pytest.raises(WalnutError, match="score this network"):
        prune(net(), 0.5, score=random_scores(nn.Linear(3, 3)))
    with pytest.raises(WalnutError, match="at least one batch"):
        taylor(net(), cross_entropy(), [])
    with pytest.raises(WalnutError, match=r"examples of shape \(4, 7\)"):
        taylor(net(), cross_entropy(), [(torch.rand(4, 7), torch.zeros(4, dtype=torch.int64))])
    bad = (torch.full((4, 6), torch.nan), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(WalnutError, match="not a number"):
        taylor(net(), cross_entropy(), [bad])
    nothing = {n: torch.full_like(w, torch.nan) for n, w in weights(net()).items()}
    with pytest.raises(WalnutError, match="not a number"):
        prune(net(), 0.5, score=nothing)


def test_movement_is_the_sum_over_the_steps() -> None:
    """Plain gradient descent by hand beside ``fit``."""
    model, (x, y) = net(), examples()
    by_hand = net()
    movement = Movement(model)
    recipe = sgd(0.1, momentum=0.0, nesterov=False)
    fit(model, cross_entropy(), Batches(x, y, 24), epochs=3, optimizer=recipe,
        schedule=constant())  # fmt: skip
    expected = torch.zeros_like(by_hand[0].weight)
    by_hand.train()
    for _ in range(3):
        by_hand.zero_grad()
        cross_entropy()(by_hand, x, y).mean().backward()
        with torch.no_grad():
            expected -= by_hand[0].weight * by_hand[0].weight.grad
            for p in by_hand.parameters():
                p -= 0.1 * p.grad
    assert torch.allclose(movement.scores()["0.weight"], expected, atol=1e-6)
    movement.stop()
    before = movement.scores()["0.weight"]
    cross_entropy()(model, x, y).mean().backward()
    assert torch.equal(movement.scores()["0.weight"], before)


def test_movement_prunes_what_is_gone_first() -> None:
    """Under masks, weights that are zero stay zero, whatever their old score."""
    model, (x, y) = net(), examples()
    movement = Movement(model)
    cross_entropy()(model, x, y).mean().backward()
    prune(model, 0.5)
    first = kept(model)
    prune(model, 0.25, score=movement.scores())
    for name, mask in kept(model).items():
        assert not bool((mask & ~first[name]).any())
    assert sum(int(m.sum()) for m in kept(model).values()) == round(0.25 * 45)


def test_movement_of_shared_weights_is_refused() -> None:
    with pytest.raises(WalnutError, match="bake it"):
        Movement(share(net(), 2))


# --- N of M ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (3, 3)])
@pytest.mark.parametrize("shape", [(5, 24), (3, 24, 3, 3)])
def test_every_group_keeps_its_n_largest(n: int, m: int, shape: tuple[int, ...]) -> None:
    w = torch.randn(shape)
    mask = NofM(n, m).build(w).mask
    rows = w.movedim(1, -1).reshape(-1, m).abs()
    chosen = mask.movedim(1, -1).reshape(-1, m)
    assert mask.shape == w.shape
    for row, some in zip(rows, chosen, strict=True):
        assert sorted(row[some].tolist()) == sorted(row.tolist())[m - n :]


def test_layers_without_whole_groups_are_left_alone_and_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6, 2))
    assert prune_n_of_m(model) == ("0.weight", "3.weight")
    assert bool(kept(model)["0.weight"].all())
    assert float(kept(model)["1.weight"].double().mean()) == 0.5
    with pytest.raises(WalnutError, match="no whole groups"):
        represent(nn.Linear(6, 2), {"weight": NofM()})
    with pytest.raises(WalnutError, match="cannot be kept"):
        NofM(5, 4)
    with pytest.raises(WalnutError, match="no weight of this network"):
        prune_n_of_m(nn.Linear(5, 2))


# --- schedules ------------------------------------------------------------------------------------


def test_the_cubic_is_the_equation() -> None:
    part = cubic(0.1, begin=0.2, end=0.7)
    for t in (0.0, 0.2, 0.3, 0.45, 0.6, 0.7, 1.0):
        tau = min(max((t - 0.2) / 0.5, 0), 1)
        sparsity = 0.9 + (0.0 - 0.9) * (1 - tau) ** 3
        assert part(t) == pytest.approx(1 - sparsity)


@pytest.mark.parametrize("part", [one_shot(0.2), geometric(0.2), cubic(0.2)])
def test_schedules_fall_and_end_where_they_should(part) -> None:
    values = [part(i / 20) for i in range(21)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0.2


@pytest.mark.parametrize(
    "wrong", [lambda: cubic(0.0), lambda: geometric(1.5), lambda: cubic(0.5, begin=0.8, end=0.5)]
)
def test_schedules_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(WalnutError):
        wrong()


@pytest.mark.parametrize("by", ["lamp", "movement"])
def test_gradual_pruning_in_fit_ends_at_its_density(by: str) -> None:
    model, (x, y) = net(), examples()
    scores = Movement(model).scores if by == "movement" else None
    gradual = Gradual(model, cubic(0.2), steps=12, every=2, scores=scores)
    seen: list[int] = []

    def count(step: int) -> None:
        gradual(step)
        seen.append(sum(int(k.sum()) for k in kept(model).values()))

    before = list(model.parameters())
    fit(model, cross_entropy(), Batches(x, y, 6), epochs=3, after_step=[count])
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(0.2 * 45, abs=1)
    assert [id(p) for p in model.parameters()] == [id(p) for p in before]


def test_gradual_pruning_goes_on_after_a_kill(tmp_path) -> None:
    """A checkpoint holds the masks: stopped and resumed gives the same bits."""
    x, y = examples()

    def train(stop: int | None, where) -> nn.Module:
        model = net()
        gradual = Gradual(model, cubic(0.2), steps=12, every=2)

        def hook(step: int) -> None:
            gradual(step)
            if step == stop:
                raise KeyboardInterrupt

        fit(model, cross_entropy(), Batches(x, y, 6), epochs=3, after_step=[hook],
            checkpoint=where)  # fmt: skip
        return model

    whole = train(None, tmp_path / "a.safetensors")
    with pytest.raises(KeyboardInterrupt):
        train(10, tmp_path / "b.safetensors")
    again = train(None, tmp_path / "b.safetensors")
    for name, w in weights(whole).items():
        assert torch.equal(w, weights(again)[name])


# --- controls -------------------------------------------------------------------------------------


def test_a_random_mask_keeps_the_counts_and_the_dense_weights() -> None:
    dense, pruned = net(), prune(net(), 0.3)
    control = random_mask(dense, pruned, seed=3)
    mine, theirs = masks(control), masks(pruned)
    assert {n: int(m.sum()) for n, m in mine.items()} == {
        n: int(m.sum()) for n, m in theirs.items()
    }
    assert any(not torch.equal(mine[n], theirs[n]) for n in mine)
    for name, w in weights(control).items():
        if name in mine:
            assert torch.equal(w[mine[name]], weights(dense)[name][mine[name]])
    again = masks(random_mask(dense, pruned, seed=3))
    assert all(torch.equal(again[n], mine[n]) for n in mine)


def test_fresh_weights_under_the_same_masks() -> None:
    pruned = prune(net(), 0.3)
    state = torch.get_rng_state()
    control = reinitialised(pruned, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, mask in masks(pruned).items():
        w = weights(control)[name]
        assert torch.equal(w != 0, mask)
        assert not torch.equal(w, weights(pruned)[name])


def test_controls_that_cannot_be_made_are_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.rand(3, 3))

    with pytest.raises(WalnutError, match="prune it first"):
        random_mask(net(), net())
    with pytest.raises(WalnutError, match="reset_parameters"):
        reinitialised(prune(Odd(), 0.5))
    with pytest.raises(WalnutError, match="does not fit"):
        represent(nn.Linear(3, 3), {"weight": Fixed(torch.ones(2, 2, dtype=torch.bool))})


# --- networks that are not as simple ---------------------------------------------------------------


def test_tied_weights_are_refused_in_words() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    for verb in (partial(prune, density=0.5), partial(share, bits=2), prune_n_of_m):
        with pytest.raises(WalnutError, match="are one tensor"):
            verb(model)
    assert bool(kept(model)["0.weight"].all())


def test_a_shared_module_is_pruned_once() -> None:
    one = nn.Linear(8, 8)
    model = nn.Sequential(one, nn.ReLU(), one)
    prune(model, 0.25)
    assert list(masks(model)) == ["0.weight"]
    assert int(one.weight.count_nonzero()) == 16
    bake(model)
    assert model[0] is model[2]


class Custom(nn.Module):
    """A layer of the user's own: a bilinear form, with a tensor of three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.form = nn.Parameter(torch.randn(3, 4, 4))
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * torch.einsum("bi,oij,bj->bo", x, self.form, x)


def test_a_custom_layer_is_pruned_like_any_other_and_its_vectors_left() -> None:
    model = prune(Custom(), 0.25)
    assert int(model.form.count_nonzero()) == 12
    assert bool(model.gain.all())
    assert bool(model(torch.rand(2, 4)).isfinite().all())


def test_the_same_density_twice_changes_nothing() -> None:
    model = represent(net(), {"0.weight": Mask(0.3)})
    before = masks(model)["0.weight"].clone()
    prune(model, {"0.weight": 0.3})
    assert torch.equal(masks(model)["0.weight"], before)
