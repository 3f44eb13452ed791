"""Fooling pictures: the optimum of a linear softmax, champions that are never lost, CPPNs by hand."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from networks import small_net
from walnut import data, nets
from walnut.attacks.common import check_box
from walnut.attacks.cppn import INPUTS, Nets, activate, canvas, coordinates, cppn, evaluate
from walnut.attacks.evolve import direct, evolve
from walnut.attacks.rubbish import (
    confident,
    fooling,
    judged,
    log_odds,
    noise_pictures,
    smooth_fooling,
    squashed,
)
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.images import fourier
from walnut.recipes.fooling import fooling_pictures, make

SHAPE = (1, 8, 8)


def softmax_net(d: int = 12, classes: int = 3, scale: float = 1.0) -> nn.Module:
    net = nn.Linear(d, classes).double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        net.weight.copy_(scale * torch.randn(classes, d, generator=generator, dtype=torch.float64))
        net.bias.copy_(torch.randn(classes, generator=generator, dtype=torch.float64))
    return net


def sharp_net(**shape: int) -> nn.Module:
    """A random network whose answers differ enough to be sure of something."""
    net = small_net(**shape)
    with torch.no_grad():
        net[-1].weight.mul_(30)
    return net


MAKERS = {
    "gradient": fooling(level=0.99, steps=60),
    "gradient-penalty": fooling(level=0.99, steps=60, penalty=2.0),
    "gradient-runs": fooling(level=0.99, steps=60, runs=2),
    "smooth": smooth_fooling(8, level=0.99, steps=60),
    "direct": evolve(level=0.99, generations=60, children=40),
    "cppn": evolve(cppn(hidden=6), level=0.99, generations=60, children=40),
}


def states() -> list:
    # not Python's: beartype, which checks annotations here, draws the items it looks at from it
    return [torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()]


def same(a: list, b: list) -> bool:
    return torch.equal(a[0], b[0]) and bool((a[1] == b[1]).all())


@pytest.mark.parametrize("name", MAKERS)
def test_the_record_is_what_a_fresh_pass_says(name):
    net, before = sharp_net(), states()
    found = MAKERS[name](net, SHAPE, 5, 3)
    assert same(before, states())
    with torch.no_grad():
        p = net(found.x).double().softmax(1)
    assert found.wanted.unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(found.prediction, p.argmax(1))
    wanted = p[torch.arange(len(p)), found.wanted]
    assert torch.allclose(found.confidence.double(), wanted, atol=1e-6)
    assert bool((found.x >= 0).all() and (found.x <= 1).all() and found.x.isfinite().all())
    assert torch.equal(found.reached >= 0, found.confidence >= 0.99 - 1e-6)
    again = MAKERS[name](net, SHAPE, 5, 3)
    assert torch.equal(found.x, again.x)
    assert not torch.equal(found.x, MAKERS[name](net, SHAPE, 5, 4).x)


@pytest.mark.parametrize("name", MAKERS)
def test_the_network_is_as_it_was_also_when_it_raises(name):
    net = sharp_net().train()
    weight = net[0].weight.detach().clone()
    mean = net[1].running_mean.clone()
    MAKERS[name](net, SHAPE, 5, 0)
    assert net.training
    assert net[0].weight.requires_grad
    calls = []

    def stop(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("probe")

    before = states()
    with net[0].register_forward_hook(stop), pytest.raises(WalnutError, match="probe"):
        MAKERS[name](net, SHAPE, 5, 0)
    assert same(before, states())
    assert net.training
    assert torch.equal(weight, net[0].weight)
    assert torch.equal(mean, net[1].running_mean)
    assert net[0].weight.grad is None


@pytest.mark.parametrize("name", ["gradient", "direct", "cppn"])
@pytest.mark.parametrize("shape", [(6,), (5, 7), (3, 6, 4), (2, 5, 5)])
@pytest.mark.parametrize("classes", [2, 3])
def test_any_shape_and_any_number_of_classes(name, shape, classes):
    d = math.prod(shape)
    inner = softmax_net(d, classes, 8.0).float()
    net = nn.Sequential(nn.Flatten(), inner).eval()
    found = MAKERS[name](net, shape, classes, 0)
    assert found.x.shape == (classes, *shape)
    assert found.confidence.min() > 0.7
    assert torch.equal(found.prediction, torch.arange(classes))


@pytest.mark.parametrize("name", ["gradient", "direct"])
def test_a_linear_softmax_is_climbed_to_its_known_optimum(name):
    # two classes: p_c is largest in the corner of the box where w_c - w_k is positive
    net = softmax_net(12, 2, 0.2)
    way = {
        "gradient": fooling(level=1.0, steps=1000),
        "direct": evolve(direct(rate=0.3, strength=3), level=1.0, generations=400, children=60),
    }[name]
    found = way(net, (12,), 2)
    for c in (0, 1):
        difference = net.weight[c] - net.weight[1 - c]
        corner = (difference > 0).double()
        with torch.no_grad():
            best = net(corner[None]).softmax(1)[0, c]
        assert float(found.confidence[c]) == pytest.approx(float(best), abs=2e-3)
        weighty = difference.abs() > 0.1  # the others hardly count, and are reached last
        assert int(weighty.sum()) >= 6
        assert (found.x[c] - corner)[weighty].abs().max() < 0.05


def test_confidence_does_not_round_and_agrees_with_softmax():
    z = torch.tensor([[1.0, 2.0, 0.5], [40.0, 0.0, -40.0]], dtype=torch.float64)
    odds = log_odds(z)
    p = z.softmax(1)
    assert torch.allclose(odds[0], (p / (1 - p)).log()[0])
    assert float(odds[1, 0]) == pytest.approx(40.0, abs=1e-9)
    assert confident(0.5)(z, torch.tensor([1, 0])).tolist() == [True, True]
    assert confident(0.99)(z, torch.tensor([1, 0])).tolist() == [False, True]


def test_gradient_passes_are_counted_exactly():
    net, seen = sharp_net(), []
    net[0].register_forward_hook(lambda m, i, o: seen.append((len(o), o.requires_grad)))
    found = fooling(level=0.99, steps=30)(net, SHAPE, 5)
    assert found.forward == sum(n for n, _ in seen)
    assert found.backward == sum(n for n, grad in seen if grad)


@pytest.mark.parametrize("encoding", [direct(), cppn(hidden=4)], ids=["direct", "cppn"])
def test_evolution_asks_one_pass_per_child_and_no_gradient(encoding):
    net, seen = sharp_net(), []
    net[0].register_forward_hook(lambda m, i, o: seen.append(len(o)))
    found = evolve(encoding, level=1.0, generations=7, children=30)(net, SHAPE, 5)
    assert seen == [30] * 8 + [5]
    assert (found.forward, found.backward) == (245, 0)


@pytest.mark.parametrize("encoding", [direct(), cppn(hidden=4)], ids=["direct", "cppn"])
def test_no_champion_is_ever_lost(encoding):
    net = sharp_net()
    runs = [
        evolve(encoding, level=1.0, generations=g, children=20)(net, SHAPE, 5)
        for g in range(0, 30, 3)
    ]
    for earlier, later in pairwise(runs):
        assert bool((later.confidence >= earlier.confidence - 1e-6).all())
    assert bool((runs[-1].confidence > runs[0].confidence).any())


def test_a_child_counts_for_every_class_it_does_best():
    # with one child in one generation, the same picture is champion of all classes
    found = evolve(level=1.0, generations=0, children=1)(sharp_net(), SHAPE, 5)
    assert bool((found.x == found.x[:1]).all())
    # and of several children each class has the one of highest probability
    net = sharp_net()
    found = evolve(level=1.0, generations=0, children=50)(net, SHAPE, 5)
    rows = Draws.keyed(torch.arange(50)).fold(0).fold(0)
    noise = direct().start(SHAPE, torch.empty(0), rows)
    with torch.no_grad():
        best = net(noise).softmax(1).argmax(0)
    assert torch.equal(found.x, noise[best])


def test_direct_mutation_is_the_polynomial_one_at_the_rate_of_the_paper():
    draws = Draws.keyed(torch.arange(200))
    grey = torch.full((200, 400), 0.5)
    made = direct().mutate(grey, 0, draws.fold(1))
    assert float((made != grey).double().mean()) == pytest.approx(0.1, abs=0.005)
    later = direct().mutate(grey, 2500, draws.fold(2))
    assert float((later != grey).double().mean()) == pytest.approx(0.025, abs=0.003)
    every = direct(rate=1.0).mutate(grey, 0, draws.fold(3)) - grey
    # |delta| has distribution function 1 - (1 - t)^16, so its mean is 1/17 and its median 1 - 2^(-1/16)
    inside = every.abs()
    assert float(inside.mean()) == pytest.approx(1 / 17, abs=1e-3)
    assert float(inside.median()) == pytest.approx(1 - 0.5 ** (1 / 16), abs=1e-3)
    assert float(every.mean()) == pytest.approx(0.0, abs=2e-3)
    edge = direct(rate=1.0).mutate(torch.zeros(200, 400), 0, draws.fold(4))
    assert float(edge.min()) == 0.0


def by_hand(nets: Nets, row: int, node: int, place: list[float]) -> float:
    """Evaluate one node of one network at one place by recursion."""
    if node < INPUTS:
        return place[node]
    total = 0.0
    for source in range(nets.depth.shape[1]):
        if bool(nets.links[row, node, source]):
            total += float(nets.weights[row, node, source]) * by_hand(nets, row, source, place)
    kind = int(nets.kinds[row, node])
    if kind == 0:
        return math.sin(total)
    if kind == 1:
        return 2 / (1 + math.exp(-total)) - 1
    return 2 * math.exp(-(total**2)) - 1 if kind == 2 else max(-1.0, min(1.0, total))


def grown(encoding: cppn, shape: tuple[int, ...], count: int, generations: int) -> tuple:
    draws = Draws.keyed(torch.arange(count))
    genomes = encoding.start(shape, torch.empty(0), draws.fold(0))
    for g in range(generations):
        genomes = encoding.mutate(genomes, g, draws.fold(g + 1))
    return genomes


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 4, 3), (5,)])
def test_a_cppn_is_what_recursion_makes_of_it(shape):
    encoding = cppn(hidden=7, add_node=0.6, add_link=0.6)
    nets = Nets(*grown(encoding, shape, 6, 25))
    assert bool(((nets.depth > 0) & (nets.depth < 1)).sum(1).eq(7).any())
    channels, height, width = canvas(shape)
    places = coordinates(height, width, torch.empty(0, dtype=torch.float64))
    made = evaluate(nets, channels, places)
    for row in range(6):
        for c in range(channels):
            for p in range(places.shape[1]):
                wanted = by_hand(nets, row, INPUTS + c, places[:, p].tolist())
                assert float(made[row, c, p]) == pytest.approx(wanted, abs=1e-9)
    painted = encoding.paint(nets.genomes(), shape)
    assert torch.allclose(painted.double().reshape(made.shape), (made + 1) / 2, atol=1e-5)


def test_coordinates_are_those_of_the_pixels_centres():
    places = coordinates(2, 4, torch.empty(0, dtype=torch.float64))
    assert places[0].tolist() == [-0.75, -0.25, 0.25, 0.75] * 2
    assert places[1].tolist() == [-0.5] * 4 + [0.5] * 4
    assert torch.allclose(places[2], (places[0] ** 2 + places[1] ** 2).sqrt())
    assert places[3].tolist() == [1.0] * 8


def test_a_cppn_grows_without_circles_and_stays_in_reach():
    encoding = cppn(hidden=9, add_node=0.5, add_link=0.5, reach=2.0)
    nets = Nets(*grown(encoding, (1, 4, 4), 40, 60))
    to, source = nets.depth[:, :, None], nets.depth[:, None, :]
    assert bool((~nets.links | (to > source)).all())
    assert bool((~nets.links | ((to < 2) & (source < 2))).all())
    assert not bool(nets.links[:, :INPUTS].any())
    assert float(nets.weights.abs().max()) <= 2.0
    assert bool((nets.weights[~nets.links] == 0).all())
    used = (nets.depth[:, INPUTS + 1 :] < 2).sum(1)
    assert int(used.max()) == 9


def test_splitting_a_link_keeps_both_ends_and_mutation_leaves_the_parent_alone():
    encoding = cppn(hidden=3, perturb=0, add_node=1.0, add_link=0, switch=0)
    parents = encoding.start((1, 2, 2), torch.empty(0), Draws.keyed(torch.arange(30)))
    kept = [t.clone() for t in parents]
    nets = Nets(*encoding.mutate(parents, 0, Draws.keyed(torch.arange(30)).fold(1)))
    assert all(torch.equal(a, b) for a, b in zip(kept, parents, strict=True))
    new, output = INPUTS + 1, INPUTS
    assert bool((nets.depth[:, new] == 0.5).all())
    assert bool((nets.links.flatten(1).sum(1) == INPUTS + 1).all())
    for row in range(30):
        source = int(nets.links[row, new].nonzero()[0, 0])
        assert float(nets.weights[row, new, source]) == 1.0
        assert nets.weights[row, output, new] == parents[0][row, output, source]
        assert not bool(nets.links[row, output, source])
    # a linear node of weight 1 before a link changes nothing where it does not clip
    nets.kinds[:, new] = 3
    places = 0.5 * coordinates(3, 3, torch.empty(0, dtype=torch.float64))
    assert torch.allclose(evaluate(nets, 1, places), evaluate(Nets(*parents), 1, places))


def test_activations_stay_between_minus_one_and_one():
    x = torch.linspace(-9, 9, 101).expand(4, -1)
    made = activate(torch.arange(4), x)
    assert float(made.abs().max()) <= 1
    assert torch.allclose(made[0], x[0].sin())
    assert torch.allclose(made[1], 2 * x[1].sigmoid() - 1, atol=1e-6)
    assert torch.allclose(made[2], 2 * (-(x[2] ** 2)).exp() - 1)


def test_large_pictures_are_painted_in_pieces_and_the_same(monkeypatch):
    encoding = cppn(hidden=5)
    genomes = grown(encoding, (2, 9, 9), 4, 10)
    whole = encoding.paint(genomes, (2, 9, 9))
    monkeypatch.setattr("walnut.attacks.cppn.LARGEST", 300)
    assert torch.allclose(encoding.paint(genomes, (2, 9, 9)), whole, atol=1e-6)


def test_a_squashed_image_paints_what_it_started_from():
    x = torch.rand(3, 2, 6, 7)
    image = squashed(fourier(7), -1.0, 2.0)
    assert torch.allclose(image.paint(image.start(3 * x - 1)), 3 * x - 1, atol=1e-3)


def test_other_boxes_and_chosen_classes():
    net = nn.Sequential(nn.Flatten(), softmax_net(4, 4, 3.0)).eval()
    for maker in (fooling(bounds=(-2.0, 3.0), level=0.9), evolve(bounds=(-2.0, 3.0), level=0.9)):
        found = maker(net, (4,), [3, 1], 0)
        assert found.wanted.tolist() == [3, 1]
        assert found.prediction.tolist() == [3, 1]
        assert float(found.x.min()) < 0
        assert float(found.x.min()) >= -2
        assert float(found.x.max()) <= 3
        assert found.x.dtype == torch.float64


def test_a_penalty_keeps_pictures_near_grey():
    net = sharp_net()
    plain = fooling(level=1.0, steps=80)(net, SHAPE, 5)
    held = fooling(level=1.0, steps=80, penalty=2000.0)(net, SHAPE, 5)
    spread = [(f.x - 0.5).square().mean() for f in (plain, held)]
    assert spread[1] < 0.25 * spread[0]


@pytest.mark.parametrize("maker", [fooling(), evolve()], ids=["gradient", "evolve"])
def test_what_does_not_fit_is_said(maker):
    net = sharp_net()
    with pytest.raises(WalnutError, match="label 5 is out of range"):
        maker(net, SHAPE, 6)
    with pytest.raises(WalnutError, match="which classes are wanted"):
        maker(net, SHAPE, [])
    with pytest.raises(WalnutError, match="does not take"):
        maker(net, (1, 5, 5), 5)
    with torch.no_grad():
        net[-1].bias.fill_(float("nan"))
    with pytest.raises(WalnutError, match="not a number"):
        maker(net, SHAPE, 5)


def test_settings_that_cannot_be_are_refused():
    for wrong in (lambda: fooling(level=0), lambda: evolve(level=1.5), lambda: evolve(children=0),
                  lambda: direct(rate=0), lambda: cppn(hidden=99)):  # fmt: skip
        with pytest.raises(WalnutError):
            wrong()
    for preset in (fooling, smooth_fooling, evolve):
        with pytest.raises(WalnutError, match="the lower one first"):
            preset(**({"width": 8} if preset is smooth_fooling else {}), bounds=(1.0, 0.0))
    with pytest.raises(WalnutError, match="fill a box"):
        check_box(None)
    with pytest.raises(WalnutError, match="channels, height, width"):
        evolve(cppn())(sharp_net(), (1, 2, 3, 4), 5)


def test_the_recipe_writes_pictures_figures_and_controls(tmp_path):
    digits = data.load("digits")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    with torch.no_grad():
        net[1].weight.mul_(20)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    said = []
    result = fooling_pictures(
        net, digits, out=tmp_path, others={"other": other}, level=0.99, generations=30, children=30,
        examples=100, progress=lambda *told: said.append(told),
    )  # fmt: skip
    assert [e["way"] for e in result["fooling"]] == ["gradient", "smooth", "direct", "cppn"]
    assert len(said) == 4
    kept = json.loads((tmp_path / "result.json").read_text())
    assert kept["fooling"] == result["fooling"]
    gradient = result["fooling"][0]
    assert gradient["median_confidence"] >= 0.99
    assert len(gradient["pictures"]) == 10
    assert set(gradient["transfer"]) == {"other"}
    assert set(result["control"]) == {"network", "other"}
    assert 0 <= result["control"]["other"]["at_99"] <= 1
    page = (tmp_path / "report.html").read_text()
    assert "plain noise" in page
    assert "Smooth-fooling" in page
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "fooling.safetensors")
    prediction, confidence = judged(net, stored["cppn.x"], stored["cppn.wanted"])
    assert torch.equal(prediction, stored["cppn.prediction"])
    assert torch.allclose(confidence, stored["cppn.confidence"])
    with pytest.raises(WalnutError, match="no way is called"):
        make(net, digits.shape, 10, ways=("magic",))
    with pytest.raises(WalnutError, match="needs images"):
        make(net, (64,), 10, ways=("smooth",))


def test_noise_pictures_fill_the_box_and_repeat():
    a = noise_pictures((3, 5), 400, seed=1, bounds=(-1.0, 1.0))
    assert torch.equal(a, noise_pictures((3, 5), 400, seed=1, bounds=(-1.0, 1.0)))
    assert float(a.mean()) == pytest.approx(0, abs=0.03)
    assert float(a.var()) == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.data
def test_mnist_is_fooled_beyond_doubt(data_folder):
    """Nguyen et al. 2015, Fig. 4 and 5: median confidence 99.99 %, within some hundred generations."""
    path = data_folder / "models" / "mnist_conv_small_nat.safetensors"
    if not path.exists():
        pytest.skip("the folder of data holds no such network")
    mnist = data.load("mnist")
    net = nets.resolve("small-cnn", path, dataset=mnist, mean=[0.1307], std=[0.3081])
    ways = {
        "gradient": fooling(),
        "smooth": smooth_fooling(28),
        "direct": evolve(generations=200),
        "cppn": evolve(cppn(), generations=60),
    }
    for way, maker in ways.items():
        found = maker(net, (1, 28, 28), 10)
        assert found.median_confidence >= 0.9999, way
        assert torch.equal(found.prediction, found.wanted), way
    _, sure = judged(net, noise_pictures((1, 28, 28), 300), torch.zeros(300, dtype=torch.int64))
    assert float((sure >= 0.99).double().mean()) < 0.01
