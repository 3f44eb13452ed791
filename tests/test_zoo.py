"""The masked zoo on digits: its networks work, look robust to a plain attack, and are not."""

import warnings

import pytest
import torch

import zoo_nets as z
from masked_zoo import passes
from walnut import data
from walnut.core.constraints import linf
from walnut.evaluate import accuracy
from zoo import ZOO, best_known, naive
from zoo_workshop import Workshop

ENTRIES = {entry.name: entry for entry in ZOO}
MASKS = {  # name: how much more a plain attack leaves than is left, in points
    "input rounding, 4 bits": 40, "sign activations": 30, "int8, dynamic": 40, "int8, static": 40,
    "JPEG-like input": 30, "softmax output": 30, "detached, with a decoy": 40,
    "through numpy": 40, "logits × 1000": 40, "vote of three": 40,
}  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Digits, and trainings long enough for them."""
    return Workshop(data.load("digits"), tmp_path_factory.mktemp("zoo"), epochs=12)


@pytest.mark.parametrize("name", MASKS)
def test_a_plain_attack_is_fooled_and_one_that_knows_the_trick_is_not(shop, name):
    entry = ENTRIES[name]
    x, y = shop.dataset.test.x[:60], shop.dataset.test.y[:60]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # walnut says that a network returns probabilities
        model = entry.make(shop)
        clean = accuracy(model, x, y).value
    plain, says = naive(entry, model, x, y, shop.eps)
    best = best_known(entry, shop.base(), model, x, y, linf, shop.eps)
    assert clean > 0.8
    seems = clean if plain is None else plain.value
    assert (plain is None) == bool(says)
    assert best.value <= seems - MASKS[name] / 100
    assert best.value <= 0.5


def test_there_are_enough_and_each_has_a_name_and_a_line():
    assert len(ENTRIES) == len(ZOO) >= 14
    assert all(entry.trick and "\n" not in entry.trick for entry in ZOO)


def test_a_training_is_kept_and_read_again(shop):
    first = shop.trained("kept", shop.small(), seed=3)
    again = Workshop(shop.dataset, shop.folder, epochs=shop.epochs).trained("kept", shop.small())
    x = shop.dataset.test.x[:20]
    assert torch.equal(first(x), again(x))
    other = shop.trained("other", shop.small(), seed=4)
    assert not torch.equal(first(x), other(x))


def test_a_verdict_is_silent_only_where_it_is_high_and_says_nothing():
    assert passes(0.1, {"robust": 0.12, "flags": []})
    assert passes(0.1, {"robust": 0.9, "flags": ["masked"]})
    assert not passes(0.1, {"robust": 0.13, "flags": []})
    assert not passes(0.1, {"robust": None, "flags": []})


def test_changes_of_the_input_are_what_they_say():
    x = torch.rand(3, 2, 11, 9, generator=torch.Generator().manual_seed(0))
    assert len(z.rounded(4)(x).unique()) == 4
    assert (z.rounded(4)(x) - x).abs().max() <= 1 / 6 + 1e-6
    assert torch.allclose(z.jpeg_like(1e-5)(x), x, atol=1e-4)
    assert 0.01 < (z.jpeg_like(0.2)(x) - x).abs().mean() < 0.3
    flat = torch.full((1, 1, 8, 8), 0.4)
    for change in (z.median, z.gaussian):
        assert torch.allclose(change(flat), flat)
        assert change(x).shape == x.shape
    assert float(z.median(x)[0, 0, 5, 5]) == float(x[0, 0, 4:7, 4:7].median())
    code = z.thermometer(4)(torch.tensor([0.1, 0.5, 0.9]).reshape(1, 1, 1, 3))
    assert code[0, :, 0].T.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    square = x[..., :9, :]
    assert z.resized_and_padded(square).shape == square.shape
    assert not torch.equal(z.resized_and_padded(square), z.resized_and_padded(square))
    assert 0.1 < float((z.dropped(0.3)(x) == 0).float().mean()) < 0.5
    assert (z.upper_half(x)[:, :, 5:] == 0).all()


def test_winners_keep_their_share_and_batch_statistics_depend_on_the_batch():
    kept = z.WinnersTakeAll(0.25)(torch.rand(5, 4, 10) + 0.1)
    assert (kept.flatten(1).count_nonzero(1) == 10).all()
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)).eval()
    x = torch.rand(6, 3)
    twin = z.batch_statistics(net)
    assert torch.allclose(net(x)[:3], net(x[:3]), atol=1e-6)
    assert not torch.allclose(twin(x)[:3], twin(x[:3]), atol=1e-3)
