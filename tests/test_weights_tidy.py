"""Tidying and sorting keep the function; what is dead goes, what is constant folds."""

import copy

import pytest
import torch
from torch import nn

from architectures import ZOO, registered
from walnut import nets
from walnut.weights import pack
from walnut.weights.tidy import arrange, nonzeros, silence, tidy


def close(a, b, x):
    with torch.no_grad():
        one, two = a(x), b(x)
    return torch.equal(one.argmax(1), two.argmax(1)) and torch.allclose(
        one, two, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", [n for n in ZOO if n not in ("shufflenet-v2", "mobilenet-v2")])
def test_sorting_units_keeps_the_function(name):
    model, x = ZOO[name]()
    old = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(torch.rand(p.shape) < 0.5)
                p.mul_((torch.rand(p.shape[0]) < 0.7).reshape(-1, *[1] * (p.ndim - 1)))
    pruned = copy.deepcopy(model)
    arrange(model, x)
    assert close(model, pruned, x)
    changed = [
        not torch.equal(a, b) for a, b in zip(model.parameters(), pruned.parameters(), strict=True)
    ]
    assert any(changed)
    assert [p.shape for p in model.parameters()] == [p.shape for p in old.parameters()]


def test_sorted_units_fall_in_their_number_of_non_zero_weights():
    model, x = registered("lenet-300-100", (1, 8, 8))
    for p in model.parameters():
        p.data *= torch.rand(p.shape) < torch.rand(len(p)).reshape(-1, *[1] * (p.ndim - 1))
    arrange(model, x)
    live = (model.fc1.weight != 0).sum(1) + (model.fc2.weight != 0).sum(0) + (model.fc1.bias != 0)
    assert (live.diff() <= 0).all()
    assert nonzeros() == nonzeros()


def dying(model, layers, seed=0):
    """Zero whole rows and whole columns of some layers."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers:
            w = layer.weight
            w[torch.rand(w.shape[0], generator=draws) < 0.4] = 0
            w[:, torch.rand(w.shape[1], generator=draws) < 0.3] = 0
    return model


def test_dead_and_constant_units_go_and_the_file_loads(tmp_path):
    model, x = registered("lenet-300-100", (1, 8, 8))
    dying(model, [model.fc1, model.fc2])
    model.fc3.weight.data[:, 40:] = 0
    old = copy.deepcopy(model)
    done = tidy(model, x)
    assert close(model, old, torch.rand(50, 1, 8, 8))
    assert done["fc1"][1] < 300 * 0.7
    assert done["fc2"][1] <= 40
    assert tidy(model, x) == {}
    assert not (model.fc1.weight == 0).all(1).any()
    pack(model, tmp_path / "m.walnut")
    assert torch.equal(nets.load(tmp_path / "m.walnut")(x), model(x))


@pytest.mark.parametrize("name", ["vgg-11", "resnet option A", "mobilenet", "lstm", "u-net"])
def test_convolutional_and_recurrent_networks_are_tidied_where_exact(name):
    model, x = ZOO[name]()
    dying(model, [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == 1][1:])
    if name == "lstm":
        model.linear.weight.data[:, :3] = 0
        for k in range(2):  # of units that nothing reads
            getattr(model.lstm, f"weight_hh_l{k}").data[:, :3] = 0
        model.lstm.weight_ih_l1.data[:, :3] = 0
    old = copy.deepcopy(model)
    done = tidy(model, x)
    assert done
    assert close(model, old, torch.rand(20, *x.shape[1:]))


def test_a_constant_unit_before_a_padded_convolution_stays():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 2)
    )
    net[0].weight.data[0] = 0
    net[0].bias.data[0] = 1.0  # a constant one: at the border the padding shows
    assert tidy(net, torch.rand(2, 1, 4, 4)) == {}
    net[0].bias.data[0] = -1.0  # silent: it may go
    assert tidy(net, torch.rand(2, 1, 4, 4)) == {"0": (4, 3)}


def test_one_unit_stays_where_all_are_dead():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    net[2].weight.data.zero_()
    x = torch.rand(5, 3)
    before = net(x)
    assert tidy(net, x) == {"0": (4, 1)}
    assert torch.equal(net(x), before)


def test_silencing_zeroes_what_nothing_reads_and_keeps_shapes():
    model, x = registered("vgg-11", width=8)
    model.features[4].weight.data[:, :3] = 0
    old = copy.deepcopy(model)
    assert silence(model, x) == 3
    assert (model.features[0].weight[:3] == 0).all()
    assert close(model, old, x)
    assert [p.shape for p in model.parameters()] == [p.shape for p in old.parameters()]
