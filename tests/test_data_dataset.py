"""Splits: exact, stratified, disjoint, the same every time."""

import numpy as np
import pytest
import torch

from walnut import data
from walnut.core.errors import WalnutError
from walnut.data.dataset import assemble, slices


@pytest.mark.parametrize("seed", [0, 1])
def test_slices_are_exact_stratified_and_disjoint(seed):
    y = np.repeat([0, 1, 2, 3], [70, 50, 33, 7])
    parts = slices(y, {"a": 40, "b": 0.25}, seed)
    assert [len(parts[k]) for k in ("a", "b", None)] == [40, 40, 80]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(160))
    counts = np.bincount(y[parts["a"]], minlength=4)
    assert np.abs(counts - 40 * np.array([70, 50, 33, 7]) / 160).max() < 1


def test_slices_follow_the_seed_and_nothing_else():
    y = np.arange(100) % 5
    first, again, other = (slices(y, {"a": 20}, seed)["a"] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert len(set(y[first[:10]])) > 2  # shuffled: the first examples are of several classes


def test_digits_are_the_embedded_default():
    from sklearn.datasets import load_digits

    digits = data.load("digits")
    assert digits.shape == (1, 8, 8)
    assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [1079, 359, 359]
    for split in (digits.train, digits.validation, digits.test):
        assert split.x.dtype == torch.float32
        assert split.y.dtype == torch.int64
        counts = split.y.bincount().double()
        assert float(counts.max() / counts.min()) < 1.1
        assert float(split.x.min()) == 0.0
        assert float(split.x.max()) == 1.0
    together = torch.cat([s.x for s in (digits.train, digits.validation, digits.test)])
    found = torch.from_numpy(load_digits().images).float()[:, None] / 16
    assert torch.equal(together.flatten(1).sum(1).sort()[0], found.flatten(1).sum(1).sort()[0])


def test_the_digest_is_of_what_is_in_it():
    digits, again = data.load("digits"), data.load("Digits")
    assert digits.digest() == again.digest()
    assert digits.digest() != data.load("digits", seed=1).digest()
    again.test.x[0, 0, 0, 0] += 0.5
    assert digits.digest() != again.digest()


def test_statistics_are_those_of_train():
    digits = data.load("digits")
    mean, std = digits.statistics()
    assert mean == [pytest.approx(float(digits.train.x.double().mean()), abs=1e-4)]
    assert std == [pytest.approx(float(digits.train.x.double().std()), abs=1e-3)]
    table = np.zeros((20, 3), np.float32)
    table[:, 1] = np.arange(20) / 20
    flat = assemble(
        "t", (table, np.arange(20) % 2), None, classes=("a", "b"), validation=0.2, seed=0
    )
    assert flat.shape == (3,)
    assert flat.statistics()[1][0] == 1.0  # a column that never changes


def test_uint8_becomes_the_unit_interval():
    x = np.arange(256, dtype=np.uint8).reshape(64, 1, 2, 2)
    d = assemble("t", (x, np.arange(64) % 2), None, classes=("a", "b"), validation=0.2, seed=0)
    values = torch.cat([s.x.flatten() for s in (d.train, d.validation, d.test)]).sort()[0]
    assert torch.equal(values, torch.arange(256).float() / 255)


def test_splits_know_their_size():
    digits = data.load("digits")
    assert len(digits.test.first(7)) == 7
    assert digits.test.first(None) is digits.test
    assert "Split(359 examples)" in repr(digits)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("minst", "Did you mean mnist"),
        ("imagenet", "digits, mnist, fashion_mnist, cifar10, folder:PATH"),
        ("folder:/nowhere?size=big", "size must be a whole number"),
        ("folder:/nowhere", "there is no folder"),
        ("npz:/nowhere", "there is no file"),
    ],
)
def test_unknown_names(spec, says):
    with pytest.raises(WalnutError, match=says):
        data.load(spec)


def test_too_few_examples():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(WalnutError, match="too few"):
        assemble("t", (x, np.array([0, 1, 0])), None, classes=("a", "b"), validation=0.1, seed=0)
