"""The difference vector: linear networks where every answer is known."""

import json

import pytest
import torch
from torch import nn

from instances_patch import learned
from walnut import WalnutError
from walnut.attacks.deepfool import deepfool
from walnut.evaluate.difference import difference_table


def threshold():
    """Return a network on [0, 1]^3 that answers 1 where the first entry is above one half."""
    net = nn.Linear(3, 2).double().eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
        net.bias.copy_(torch.tensor([1.0, -1.0]))
    return net


def test_every_cell_is_what_arithmetic_says():
    net = threshold()
    x = torch.tensor([[0.4, 0.5, 0.5], [0.9, 0.5, 0.5], [0.1, 0.0, 0.0]]).double()
    adversarial = x + torch.tensor([[0.2, 0, 0], [-0.6, 0, 0], [0.1, 0, 0]]).double()
    pictures = torch.tensor([[0.4, 0.5, 0.5], [0.2, 0.1, 0.1], [0.35, 0, 1], [0.8, 1, 1]]).double()
    found = difference_table(net, x, adversarial, pictures)
    up, down = found.rows  # the third changes no answer and is left out
    assert (up.index, up.source, up.adversarial, down.index) == (0, 0, 1, 1)
    assert up.l2 == pytest.approx(0.2)
    assert down.l2 == pytest.approx(0.6)
    assert found.prediction[:, 0].tolist() == [1, 0, 1, 1]
    assert found.prediction[:, 1].tolist() == [0, 0, 0, 0]
    assert found.others[:, 0].tolist() == [False, True, True, True]  # its own picture
    assert (up.changed.correct, up.changed.total) == (1, 3)
    assert (up.became.correct, up.became.total) == (1, 2)  # the last is of that class already
    assert (down.changed.correct, down.changed.total) == (1, 4)
    assert (down.became.correct, down.became.total) == (1, 1)
    assert found.mean("changed") == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert json.loads(json.dumps(found.json()))["mean"]["became"] == pytest.approx(0.75)


def test_the_sum_is_cut_to_the_box():
    """Two entries count; a difference that leaves the box in the first is worth nothing there."""
    net = nn.Linear(2, 2).double().eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        net.bias.copy_(torch.tensor([1.5, 0.0]))
    x = torch.tensor([[0.4, 0.8]]).double()
    moved = torch.tensor([[1.0, 0.8]]).double()
    pictures = torch.tensor([[1.0, 0.3], [0.8, 0.6]]).double()
    inside = difference_table(net, x, moved, pictures)
    assert inside.prediction[:, 0].tolist() == [0, 1]
    free = difference_table(net, x, moved, pictures, bounds=None)
    assert free.prediction[:, 0].tolist() == [1, 1]


def test_on_digits_the_difference_does_more_than_a_random_vector_of_equal_size():
    net, _, _, x, y = learned()
    made = deepfool(overshoot=0.5, refine=0)(net, x[:12], y[:12])
    found = difference_table(net, x[:12], made.x, x)
    assert all(row.changed.total == 119 for row in found.rows)
    assert found.mean("changed") > 2 * found.mean("random_changed")
    assert found.mean("became") > found.mean("random_became")
    assert found.json() == difference_table(net, x[:12], made.x, x).json()


def test_what_does_not_fit_is_said():
    net, x = threshold(), torch.rand(3, 3).double()
    with pytest.raises(WalnutError, match="attack harder"):
        difference_table(net, x, x, x)
    with pytest.raises(
        (WalnutError, TypeError), match="adversarial"
    ):  # shapes are checked in tests
        difference_table(net, x, x[:2], x)
    one, moved = torch.tensor([[0.4, 0, 0]]).double(), torch.tensor([[0.6, 0, 0]]).double()
    with pytest.raises(WalnutError, match="other than"):
        difference_table(net, one, moved, one)
