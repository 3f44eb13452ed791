"""Schedules, optimisers, augmentation and batches: closed forms and independence."""

import pytest
import torch

from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.training import (
    Batches,
    adam,
    adamw,
    constant,
    cosine,
    crop,
    flip,
    one_cycle,
    sgd,
    steps,
)

X = torch.rand(10, 1, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(10)


def test_schedules_at_known_points():
    assert [constant().factor(i, 9) for i in (0, 8)] == [1.0, 1.0]
    assert cosine().factor(0, 100) == 1.0
    assert cosine().factor(50, 100) == pytest.approx(0.5)
    assert cosine(floor=0.1).factor(50, 100) == pytest.approx(0.55)
    assert steps((0.5,), 0.2).factor(49, 100) == 1.0
    assert steps((0.5,), 0.2).factor(50, 100) == 0.2
    assert one_cycle(0.2, 0.1).factor(0, 100) == pytest.approx(0.1)
    assert one_cycle(0.2, 0.1).factor(20, 100) == 1.0
    assert one_cycle(0.2, 0.1).factor(60, 100) == pytest.approx(0.5)
    assert one_cycle(0.0).factor(0, 4) == 1.0


@pytest.mark.parametrize("schedule", [constant(), cosine(), cosine(0.3), steps(), one_cycle()])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_factors_are_in_the_unit_interval_and_positive(schedule, total):
    values = [schedule.factor(i, total) for i in range(total)]
    assert 0 < min(values) <= max(values) <= 1


@pytest.mark.parametrize(
    ("part", "theirs"),
    [
        (
            sgd(0.1, 0.9, True, 0.01),
            lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.01, nesterov=True),
        ),
        (sgd(0.1, 0.0), lambda p: torch.optim.SGD(p, 0.1)),
        (adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
        (adamw(0.01), lambda p: torch.optim.AdamW(p, 0.01)),
    ],
)
def test_optimisers_are_torchs(part, theirs):
    ours_w, theirs_w = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    ours, reference = part.build([ours_w]), theirs([theirs_w])
    for i in range(5):
        for w, optimizer in ((ours_w, ours), (theirs_w, reference)):
            w.grad = torch.tensor([1.0, -2.0, 0.1 * i])
            optimizer.step()
    assert torch.equal(ours_w, theirs_w)
    assert part.lr in (0.1, 0.01)


def test_batches_cover_every_example_once_and_differ_by_epoch_and_seed():
    batches = Batches(X, Y, 4)
    orders = [torch.cat([y for _, y in batches.epoch(e)]).tolist() for e in (0, 1)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1]
    assert orders[0] != torch.cat([y for _, y in Batches(X, Y, 4, seed=1).epoch(0)]).tolist()
    assert batches.steps == 3
    for x, y in batches.epoch(0):
        assert torch.equal(x, X[y])


@pytest.mark.parametrize("augment", [None, crop(2)])
def test_an_epoch_begun_in_the_middle_is_the_same_epoch(augment):
    batches = Batches(X, Y, 3, augment=augment)
    whole, tail = list(batches.epoch(2)), list(batches.epoch(2, start=2))
    for (x, y), (x2, y2) in zip(whole[2:], tail, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_augmentation_does_not_depend_on_the_batch():
    small, large = (Batches(X, Y, b, augment=crop(2)) for b in (1, 10))
    by_label = {int(y): x[0] for x, y in small.epoch(3)}
    for x, y in large.epoch(3):
        for row, label in zip(x, y.tolist(), strict=True):
            assert torch.equal(row, by_label[label])


def test_batches_leave_the_global_random_state():
    before = torch.get_rng_state()
    list(Batches(X, Y, 4, augment=crop(1)).epoch(0))
    assert torch.equal(before, torch.get_rng_state())


def test_crop_is_a_shift_with_black_moving_in():
    moved = crop(2)(X, Draws.of(X, 0))
    padded = torch.nn.functional.pad(X, [2] * 4)
    for row, source in zip(moved, padded, strict=True):
        windows = [source[:, i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
        assert any(torch.equal(row, w) for w in windows)
    x = X.expand(10, 3, 6, 6) * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1)
    colour = crop(2)(x, Draws.of(x, 0))  # all channels move together
    assert torch.allclose(colour[:, 1], 0.5 * colour[:, 0])


def test_crops_are_uniform_over_places():
    x = torch.zeros(4000, 1, 3, 3)
    x[:, 0, 1, 1] = 1
    moved = crop(1)(x, Draws.keyed(torch.arange(4000)))
    counts = moved.sum(0).flatten()
    assert counts.sum() == 4000
    assert float((counts - 4000 / 9).abs().max()) < 5 * (4000 / 9) ** 0.5


def test_flip_mirrors_half_of_them():
    x = torch.rand(2000, 1, 2, 3)
    moved = flip()(x, Draws.keyed(torch.arange(2000)))
    mirrored = (moved == x.flip(3)).flatten(1).all(1)
    assert bool((mirrored | (moved == x).flatten(1).all(1)).all())
    assert 900 < int(mirrored.sum()) < 1100


def test_batches_that_make_no_sense():
    with pytest.raises(WalnutError, match="10 examples but 9 labels"):
        Batches(X, Y[:9])
    with pytest.raises(WalnutError, match="batch_size"):
        Batches(X, Y, 0)
