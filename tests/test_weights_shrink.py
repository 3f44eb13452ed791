"""Structured removal: every build shrinks, answers as it did without the units, and loads again."""

import copy
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from architectures import ZOO, registered
from walnut import nets
from walnut.core.errors import WalnutError
from walnut.evaluate.cost import cost
from walnut.weights import edits, importance, pack
from walnut.weights.couple import couple, masked, take_out
from walnut.weights.shrink import budget, remove, shrink
from walnut.weights.shrink_edit import resize


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ZOO)
def test_half_of_every_group_goes_and_the_rest_answers_the_same(name):
    model, x = ZOO[name]()
    old = copy.deepcopy(model)
    groups = couple(model, x)
    half = {
        g.name: np.arange(len(g)) % 2 == 1 for g in groups.all
    }  # by hand, so that the oracle below shares nothing with shrink's own check
    take_out(model, groups, half)
    with torch.no_grad():
        expected, found = masked(old, groups, half).double()(x.double()), model.double()(x.double())
    assert (expected - found).abs().max() <= 1e-9 * max(1, expected.abs().max())
    assert parameters(model) < 0.8 * parameters(old)
    assert groups.multiply_adds(groups.gone(half)) < groups.multiply_adds()


LOADED = ["lenet-5", "resnet option A", "densenet", "shufflenet-v2", "lstm", "vit"]


@pytest.mark.parametrize("name", LOADED)
def test_a_shrunk_network_loads_from_its_file_bit_for_bit(name, tmp_path):
    model, x = ZOO[name]()
    shrink(model, x, 0.4)
    shrink(model, x, 0.2)  # twice: edits add up
    pack(model, tmp_path / "m.walnut")
    nets.save(model, tmp_path / "m.safetensors")
    for again in (nets.load(tmp_path / "m.walnut"), nets.load(tmp_path / "m.safetensors")):
        assert torch.equal(again(x), model(x))
        assert again.description == model.description
        assert all(
            torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True)
        )


@pytest.mark.parametrize("name", ["vgg-11", "resnet option A", "mobilenet"])
def test_counted_multiply_adds_are_those_of_the_flop_counter(name):
    model, x = ZOO[name]()
    shape = tuple(x.shape[1:])
    before = cost(model, shape).multiply_adds
    done = shrink(model, x, 0.5)
    assert done.multiply_adds == (
        2 * before,
        2 * cost(model, shape).multiply_adds,
    )  # a batch of two
    assert done.parameters[1] == parameters(model) == cost(model, shape).parameters


def test_the_residual_stream_of_option_a_goes_too():
    model, x = ZOO["resnet option A"]()
    done = shrink(model, x, 0.5, only=["conv1"])
    assert done.units == {"conv1": (6, 3)}
    assert model.conv1.out_channels == model.layer1[0].conv2.out_channels == 3
    bridge = model.layer2[0].shortcut
    assert bridge.before + 3 + bridge.after == model.layer2[0].conv2.out_channels


def test_a_budget_is_met_and_not_undercut_by_more_than_a_unit():
    model, x = ZOO["vgg-11"]()
    done = shrink(model, x, budget(0.5), multiple=2)
    assert 0.4 < done.multiply_adds[1] / done.multiply_adds[0] <= 0.5
    assert all(after % 2 == 0 for _, after in done.units.values())
    with pytest.raises(WalnutError, match=r"1% of the multiply-adds cannot.*% are left"):
        shrink(model, x, budget(0.01), least=3)


def test_shares_by_pattern_least_and_multiples():
    model, x = ZOO["vgg-11"]()
    done = shrink(model, x, {"features.0": 0.5, "features.4": 0.9}, least=3, multiple=4)
    assert done.units == {"features.0": (8, 4), "features.4": (16, 4)}
    assert isinstance(model.features[0].weight, nn.Parameter)
    F.cross_entropy(model.train()(x), torch.tensor([0, 1])).backward()  # it trains on


PARTS = {
    "l1": importance.l1(),
    "l2": importance.l2(),
    "norm_scale": importance.norm_scale(),
    "taylor": importance.taylor([(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 3]))]),
    "apoz": importance.apoz([torch.rand(4, 3, 16, 16)]),
    "random": importance.random(3),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_every_importance_ranks_a_silent_unit_last(part):
    model, x = registered("vgg-11", width=8)
    with torch.no_grad():
        for t in (model.features[0].weight, model.features[1].weight, model.features[1].bias):
            t[5] = 0
        model.features[4].weight[:, 5] = 0
    before = {k: v.clone() for k, v in model.state_dict().items()}
    groups = couple(model, x)
    scores = part(model, groups, x)["features.0"]
    assert scores.shape == (8,)
    assert part.__class__ is importance.random or scores.argmin() == 5
    again = part(model, groups, x)["features.0"]
    assert np.array_equal(scores, again)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_importances_in_closed_form():
    net = nn.Sequential(
        nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)
    ).double()
    net[0].weight.data = torch.tensor([[1.0], [-1.0]]).double()
    net[2].weight.data = torch.tensor([[1.0, 3.0], [1.0, -4.0]]).double()
    x = torch.tensor([[1.0], [2.0], [-2.0]]).double()
    groups = couple(net, x)
    assert importance.apoz([x[:2], x[2:]])(net, groups, x)["0"] == pytest.approx([0.5, 0.5])
    assert importance.apoz([x])(net, groups, x)["0"] == pytest.approx([2 / 3, 1 / 3])
    # out: (1, 1), relative (1, 1); in: sums 2 and 7, norms sqrt 2 and 5
    l1 = importance.l1()(net, groups, x)["0"]
    assert l1 == pytest.approx([(1 + 4 / 9) / 2, (1 + 14 / 9) / 2])
    mean = (2**0.5 + 5) / 2
    assert importance.l2()(net, groups, x)["0"] == pytest.approx(
        [(1 + 2**0.5 / mean) / 2, (1 + 5 / mean) / 2]
    )

    def first_logit(model, x, y):
        return model(x)[:, 0]

    # d/dw of relu(w x)·a, times w: at x = 2 the first unit gives 2·1, the second nothing
    found = importance.taylor([(x[1:2], None)], first_logit)(net, groups, x)["0"]
    assert found == pytest.approx([4.0, 0.0])
    assert groups.select(["0"]) == groups.all
    assert importance.norm_scale()(net, groups, x) == {}


def test_a_group_an_importance_has_nothing_to_say_of_is_left_alone():
    model, x = ZOO["squeeze and excite"]()
    done = shrink(model, x, 0.5, importance=importance.norm_scale())
    assert set(done.units) == {"conv"}  # the gate's hidden units have no batch norm
    with pytest.raises(WalnutError, match="at least one batch"):
        importance.taylor([])(model, couple(model, x), x)


class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.c(F.relu(self.b(torch.sort(F.relu(self.a(x)))[0])))


class Numbered(nn.Module):
    """The number of channels is written into the code."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8 * 16, 3)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)).view(-1, 8, 4, 4))).flatten(1))


class Sliced(nn.Module):
    """The first four channels by number: it runs with fewer, and answers otherwise."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x))[:, :4])))


@pytest.mark.parametrize(
    ("net", "shape", "kept", "left", "says"),
    [
        (Sorted(), (6,), ["b"], "a", "aten.sort"),
        (Numbered(), (1, 4, 4), ["b"], "a", "does not run with fewer"),
        (Sliced(), (6,), ["a#2", "b"], "a", "does not run with fewer|others change"),
    ],
)
def test_what_cannot_be_followed_is_left_alone_and_named(net, shape, kept, left, says):
    x = torch.rand(2, *shape)
    before = getattr(net, left).weight.shape
    done = shrink(net, x, 0.5)
    assert list(done.units) == kept  # of what is sliced, the units that are not in the slice
    assert kept == ["a#2", "b"] or getattr(net, left).weight.shape == before
    assert re.search(says, done.left[left])
    assert net(x).shape == (2, 3)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 3)
        self.b.weight = self.a.weight
        self.same = self.c  # one module in two places

    def forward(self, x):
        return self.c(F.relu(self.a(x))) + self.same(F.relu(self.b(x)))


def test_tied_weights_and_shared_modules_stay_tied():
    net, x = Tied(), torch.rand(2, 5)
    done = shrink(net, x, 0.5)
    assert list(done.units.values()) == [(8, 4)]
    assert net.a.weight is net.b.weight
    assert net.same is net.c
    assert net.a.weight.shape == (4, 5)
    assert net.a.bias.shape == net.b.bias.shape == (4,)


def test_batch_norms_without_variance_and_scale():
    model, x = registered("vgg-11", width=8)
    model.features[1].running_var.zero_()
    model.features[5].weight.data.zero_()
    for part in (importance.norm_scale(), importance.l2()):
        net = copy.deepcopy(model)
        assert shrink(net, x, 0.5, importance=part).difference < 1e-9
        assert net(x).isfinite().all()


def test_bad_calls_are_refused_and_change_nothing():
    model, x = ZOO["vgg-11"]()
    before = copy.deepcopy(model)
    bad = [
        (lambda: shrink(model, x, 1.0), r"in \[0, 1\)"),
        (lambda: shrink(model, x, {"nothing": 0.5}), "nothing"),
        (lambda: shrink(model, x, 0.5, only=["fc*"]), "no group of units"),
        (lambda: shrink(model, x[:, :1], 0.5), "does not run on an example of shape"),
        (lambda: shrink(model, x, 0.5, least=0), "at least 1"),
        (lambda: budget(0.0), "share of multiply-adds"),
        (lambda: remove(model, x, {"features.0": np.ones(8, dtype=bool)}), "at least one stays"),
        (lambda: remove(model, x, {"features.0": np.ones(3, dtype=bool)}), "8 units"),
        (lambda: couple(model, x)["conv"], "there are features.0"),
    ]
    for call, says in bad:
        with pytest.raises(WalnutError, match=says):
            call()
    assert model.description == before.description
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)
    )


HOSTILE = [
    ({"shapes": None}, "no shapes"),
    ({"shapes": {"conv9.weight": [1]}}, "no tensor 'conv9.weight'"),
    ({"shapes": {"conv9.*": [1]}}, "no tensor"),
    ({"shapes": {"conv1.weight": [7]}}, "cannot shrink to"),
    ({"shapes": {"conv1.weight": [-1]}}, "cannot shrink to"),
    ({"shapes": {"conv1.weight": [0]}}, "cannot shrink to"),
    ({"shapes": {"conv1.weight": [True]}}, "cannot shrink to"),
    ({"shapes": {"conv1.weight": [2.0]}}, "cannot shrink to"),
    ({"shapes": {"conv1.weight": [1, 1, 1, 1, 1]}}, "cannot shrink to"),
    ({"shapes": {"conv1.weight": "6"}}, "cannot shrink to"),
    ({"shapes": {"conv1.weight": [3]}}, "does not run"),  # its batch norm keeps six
    ({"shapes": {"bn1.weight": [3]}}, "do not fit each other"),
    ({"shapes": {}, "plumbing": []}, "no shapes"),
    ({"shapes": {}, "plumbing": {"layer9": {}}}, "cannot be told"),
    ({"shapes": {}, "plumbing": {"conv1": {"before": 1, "after": 1}}}, "cannot be told"),
    (
        {"shapes": {}, "plumbing": {"layer2.0.shortcut": {"before": -1, "after": 1}}},
        "cannot be pad",
    ),
    (
        {"shapes": {}, "plumbing": {"layer2.0.shortcut": {"before": 99, "after": 1}}},
        "cannot be pad",
    ),
    ({"shapes": {}, "plumbing": {"layer2.0.shortcut": {"before": 1}}}, "cannot be padded"),
    ({"shapes": {}, "plumbing": {"layer2.0.shortcut": {"before": 1, "after": 1}}}, "does not run"),
]


@pytest.mark.parametrize(("edit", "says"), HOSTILE)
def test_hostile_edits_are_refused(edit, says):
    with torch.device("meta"):
        model = nets.build("resnet-20", shape=(3, 8, 8), width=6, blocks=1)
    with pytest.raises(WalnutError, match=says):
        edits.apply(model, [{"kind": "resize", **edit}])


@pytest.mark.parametrize(
    "numbers",
    [{}, {"order": [0], "inputs": -1}, {"order": [5], "inputs": 5}, {"order": "ab", "inputs": 5}],
)
def test_hostile_channel_positions_are_refused(numbers):
    with torch.device("meta"):
        model = nets.build("shufflenet-v2", shape=(3, 8, 8), width=8)
    with pytest.raises(WalnutError, match="cannot be selected"):
        resize(model, {"shapes": {}, "plumbing": {"stage2.1.left": numbers}})
