import math

import pytest
import torch

from networks import images
from walnut.core.draws import Draws, _mix, _mix_signed, _mixed, content_keys


def test_a_row_draws_the_same_whatever_batch_it_is_in():
    x = images(20)
    whole = Draws.of(x, 3).fold(1)
    for rows in ([4], [19, 0, 7], list(range(19, -1, -1))):
        part = Draws.of(x[rows], 3).fold(1)
        assert torch.equal(part.normal(5), Draws.of(x, 3).fold(1).normal(5)[rows])
    first, second = whole.uniform(4), whole.uniform(4)
    assert not torch.equal(first, second)


def test_keys_agree_across_precisions_and_differ_between_examples():
    x = (torch.randint(0, 256, (500, 1, 5, 5)).double() / 255).float()
    assert torch.equal(content_keys(x), content_keys(x.double()))
    assert len(content_keys(x).unique()) == 500
    moved = x.clone()
    moved[:, 0, 0, 0] = (moved[:, 0, 0, 0] + 0.5) % 1
    assert (content_keys(x) != content_keys(moved)).all()


def test_keys_depend_on_where_a_value_stands():
    x = torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    assert len(content_keys(x).unique()) == 2


def test_every_form_of_the_hash_gives_the_same_words():
    z = torch.randint(-(2**63), 2**63 - 1, (40, 3))
    kept = z.clone()
    mixed = _mix(z.T)  # strides of any kind
    assert torch.equal(mixed, _mix_signed(z.T))
    assert mixed.flatten().tolist() == [_mixed(n) for n in z.T.flatten().tolist()]
    assert torch.equal(z, kept)


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_uniform_numbers_are_uniform_and_independent(fold):
    u = Draws.of(images(200), 0).fold(fold).uniform(500)
    assert u.min() >= 0
    assert u.max() < 1
    n = u.numel()
    counts = torch.histc(u, 64, 0, 1)
    chi2 = float(((counts - n / 64) ** 2 / (n / 64)).sum())
    assert chi2 < 63 + 6 * math.sqrt(2 * 63)
    pairs = torch.corrcoef(u[:50])
    off = pairs - torch.eye(50)
    assert off.abs().max() < 6 / math.sqrt(500)
    lagged = torch.corrcoef(torch.stack([u[:, :-1].flatten(), u[:, 1:].flatten()]))[0, 1]
    assert abs(float(lagged)) < 6 / math.sqrt(n)


def test_normal_numbers_have_the_moments_of_a_normal():
    z = Draws.of(images(100), 1).normal(2000).flatten()
    assert abs(float(z.mean())) < 6 / math.sqrt(len(z))
    assert abs(float(z.var()) - 1) < 6 * math.sqrt(2 / len(z))
    assert abs(float((z**4).mean()) - 3) < 6 * math.sqrt(96 / len(z))


def test_integers_cover_their_range():
    drawn = Draws.of(images(100), 1).integers(7, 100)
    assert drawn.unique().tolist() == list(range(7))


def test_fold_takes_one_number_per_row():
    draws = Draws.of(images(3), 0)
    mixed = draws.fold(torch.tensor([5, 6, 5])).uniform(2)
    assert torch.equal(mixed[0], draws.fold(5).uniform(2)[0])
    assert torch.equal(mixed[1], draws.fold(6).uniform(2)[1])
