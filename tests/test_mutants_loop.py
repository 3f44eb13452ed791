"""Promises of the loop that the mutation check found nothing else to hold."""

import math

import pytest
import torch
from torch import nn

from networks import labelled, small_net
from walnut.attacks import bim, pgd
from walnut.core.ascend import ascend
from walnut.core.constraints import unconstrained
from walnut.core.directions import normalized
from walnut.core.steps import cosine


class Watching(nn.Module):
    """Notes the inputs that a gradient was asked at."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x):
        if torch.is_grad_enabled():
            self.seen.append(x.detach().clone())
        return self.net(x)


def test_a_random_start_is_a_point_of_the_ball_and_another_one_per_seed_and_restart():
    x, y = labelled(small_net())
    starts = {}
    for name, attack in {
        "none": pgd(0.01, steps=1, random_start=False),
        "seed 0": pgd(0.01, steps=1),
        "seed 1": pgd(0.01, steps=1, seed=1),
    }.items():
        net = Watching(small_net()).eval()
        attack(net, x, y)
        starts[name] = net.seen[0]
    assert torch.equal(starts["none"], x)
    for name in ("seed 0", "seed 1"):
        moved = (starts[name] - x).abs()
        assert 0.003 < moved.mean() < 0.007  # uniform in ±0.01, some of it cut by the box
        assert moved.max() <= 0.01 + 1e-6
    assert not torch.equal(starts["seed 0"], starts["seed 1"])
    net = Watching(small_net()).eval()
    bim(1e-6, steps=1)(net, x, y)
    assert torch.equal(net.seen[0], x)
    pgd(1e-6, steps=1, random_start=False, restarts=2)(net, x, y)
    assert torch.equal(net.seen[1], x)
    assert not torch.equal(net.seen[2], x)


@pytest.mark.parametrize("restarts", [1, 2, 4])
def test_an_example_that_holds_out_is_tried_as_often_as_was_asked(restarts):
    net = small_net()
    x, y = labelled(net)
    found = pgd(1e-6, steps=3, restarts=restarts)(net, x, y)
    assert not found.success.any()
    assert (found.backward == 3 * restarts).all()


def test_a_falling_step_adds_up_to_the_sum_of_its_factors():
    net = nn.Linear(1, 2, bias=False).double().eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    x, y = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([0])
    found = ascend(
        net, x, y, objective=lambda model, z, _: model(z)[:, 1], steps=8, step_size=0.1,
        constraint=unconstrained(), direction=normalized(), decay=cosine(), early_stop=False,
        keep_best=False,
    )  # fmt: skip
    want = 0.1 * sum((1 + math.cos(math.pi * k / 8)) / 2 for k in range(8))
    assert float(found.x) == pytest.approx(want, abs=1e-12)


def test_success_is_what_a_fresh_pass_says_not_what_the_gradients_pass_said():
    class TwoFaced(nn.Module):
        """Gives in where a gradient is asked for, and stands otherwise."""

        def forward(self, x):
            logits = torch.stack([1 + 0 * x.sum(1), x.sum(1)], 1)
            return logits.flip(1) + 5 if torch.is_grad_enabled() else logits

    x = torch.full((4, 2), 0.2)
    found = pgd(0.01, steps=3)(TwoFaced().eval(), x, torch.zeros(4, dtype=torch.int64))
    assert not found.success.any()
    assert (found.prediction == 0).all()


def test_a_success_is_not_given_up_for_a_higher_value():
    class Window(nn.Module):
        """Fooled only between 0.27 and 0.33."""

        def forward(self, x):
            return torch.stack([torch.zeros_like(x[:, 0]), 0.03 - (x[:, 0] - 0.3).abs()], 1)

    found = ascend(
        Window().eval(), torch.tensor([[0.1]]), torch.tensor([0]), steps=5, step_size=0.1,
        objective=lambda model, x, y: x[:, 0] + 0 * model(x)[:, 0], early_stop=False,
    )  # fmt: skip
    assert found.success.all()
    assert float(found.x) == pytest.approx(0.3, abs=1e-6)
    assert found.first_success.tolist() == [2]


def test_each_row_keeps_its_label_when_others_leave():
    net = nn.Linear(12, 6).double().eval()
    x = torch.rand(60, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        net.bias.copy_(net.bias - net(x).mean(0))  # so that labels differ from row to row
        y = net(x).argmax(1)
    assert len(y.unique()) >= 4
    many = pgd(0.06, steps=8, batch_size=60)(net, x, y)
    alone = pgd(0.06, steps=8, batch_size=1)(net, x, y)
    assert 0 < int(many.success.sum()) < 60
    assert torch.equal(many.success, alone.success)
    assert torch.allclose(many.x, alone.x, atol=1e-10)
