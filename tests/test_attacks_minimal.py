"""Minimal attacks: the contract, the closed form on linear networks, and other toolkits' norms."""

import dataclasses
import warnings
from functools import partial

import pytest
import torch

import peers
from instances_minimal import CLASSES_2, FULL, MINIMAL, TARGETED
from networks import images, labelled, linear_net, small_net
from walnut import WalnutError
from walnut.attacks import bim, fgsm
from walnut.attacks.approach import NAMES, size
from walnut.attacks.carlini_wagner import carlini_wagner
from walnut.attacks.ddn import ddn
from walnut.attacks.deepfool import deepfool
from walnut.attacks.fmn import fmn, project
from walnut.attacks.jsma import jsma
from walnut.attacks.lbfgs import lbfgs
from walnut.attacks.minimal import Line
from walnut.attacks.smallest import smallest
from walnut.checks import check_attack
from walnut.core import constraints as c
from walnut.core.draws import Draws


@pytest.mark.parametrize("name", MINIMAL)
def test_the_contract_on_images(name):
    check_attack(MINIMAL[name])


@pytest.mark.parametrize("name", MINIMAL)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_contract_on_vectors_and_few_classes(name, classes):
    check_attack(MINIMAL[name], shape=(12,), classes=classes)


@pytest.mark.parametrize("name", MINIMAL)
def test_three_channels_and_another_size(name):
    check_attack(MINIMAL[name], shape=(3, 6, 4), classes=3)


def boundary(net, x, y, dual):
    """The distance to the nearest of a linear network's boundaries."""
    z, w = net(x).detach(), net.weight.detach()
    gaps = z.gather(1, y[:, None]) - z
    length = torch.linalg.vector_norm(w[None] - w[y][:, None], dual, dim=2)
    return (gaps / length.clamp_min(1e-12)).scatter(1, y[:, None], float("inf")).amin(1)


@pytest.mark.parametrize("name", FULL)
def test_on_a_linear_network_the_norm_is_the_closed_form(name):
    attack, dual = FULL[name]
    net = linear_net(d=30, classes=2 if name in CLASSES_2 else 3)
    n = 4 if name == "lbfgs" else 20
    x = torch.rand(n, 30, dtype=torch.float64) * 0.3 + 0.35
    y = net(x).argmax(1)
    found = attack(net, x, y)
    least = boundary(net, x, y, dual)
    reached = found.norms[NAMES[attack.norm]]
    assert found.success.all()
    assert (reached >= least - 1e-9).all()
    assert (reached <= 1.05 * least).all()


@pytest.mark.parametrize("bias", [0.5, 1.0])
def test_l0_on_a_linear_network_is_the_fewest_entries_that_can_do_it(bias):
    net = linear_net(d=30, classes=2)
    with torch.no_grad():
        net.bias += bias * torch.tensor([1.0, -1.0])
    x = torch.rand(20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    w = (net.weight[1] - net.weight[0]).detach()
    room = torch.where(w > 0, 1 - x, x) * w.abs()  # what an entry can add to the other side
    gap = (net(x)[:, 0] - net(x)[:, 1]).detach()
    enough = room.sort(1, descending=True).values.cumsum(1) > gap[:, None]
    assert (y == 0).all()
    assert enough.any(1).all()
    least = enough.double().argmax(1) + 1  # 4 and 18 on average
    found = fmn(norm=c.l0)(net, x, y)
    assert found.success.all()
    assert (found.norms["l0"] >= least).all()
    assert found.norms["l0"].mean() <= 1.05 * least.double().mean()


@pytest.mark.parametrize("name", TARGETED)
def test_a_targeted_attack_reaches_a_near_target(name):
    net = small_net(seed=3)
    x, y = labelled(net, n=4 if name == "lbfgs" else 12)
    with torch.no_grad():
        target = net(x).scatter(1, y[:, None], float("-inf")).argmax(1)
    found = TARGETED[name](net, x, target)
    with torch.no_grad():
        assert torch.equal(net(found.x).argmax(1) == target, found.success)
    assert found.success.float().mean() >= (0.7 if name in ("jsma", "fmn-l0") else 0.99)
    assert not torch.equal(found.x, x)


@pytest.mark.parametrize("name", TARGETED)
def test_a_target_that_is_the_answer_already_costs_one_pass(name):
    net = small_net(seed=3)
    x, y = labelled(net, n=3)
    found = TARGETED[name](net, x, y)
    assert torch.equal(found.x, x)
    assert found.success.all()
    assert (found.forward == 1).all()
    assert (found.backward == 0).all()
    assert (found.first_success == 0).all()


@pytest.mark.parametrize("name", [n for n in MINIMAL if n != "smallest"])
def test_only_masked_entries_change(name):
    net = small_net(seed=3)
    x, y = labelled(net, n=6)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:, ::2] = True
    found = dataclasses.replace(MINIMAL[name], mask=mask)(net, x, y)
    assert torch.equal(found.x[:, ~mask], x[:, ~mask])
    assert not torch.equal(found.x, x)


def test_pixels_at_the_ends_of_the_box_move():
    net = small_net(seed=3)
    x = images(12).round()
    with torch.no_grad():
        y = net(x).argmax(1)
    for norm in (c.l2, c.linf):
        found = carlini_wagner(norm=norm)(net, x, y)
        assert found.success.all()
        assert ((found.x - x).abs() > 1e-3).float().mean() > 0.1
        assert (found.x >= 0).all()
        assert (found.x <= 1).all()


class Counting(torch.nn.Module):
    """Counts the rows that pass forward and backward."""

    def __init__(self, net):
        super().__init__()
        self.net, self.forwards, self.backwards = net, 0, 0

    def forward(self, x):
        z = self.net(x)
        self.forwards += len(x)
        if z.requires_grad:
            z.register_hook(self.back)
        return z

    def back(self, grad):
        self.backwards += len(grad)


@pytest.mark.parametrize("name", MINIMAL)
def test_the_passes_are_counted_exactly(name):
    net = Counting(small_net(seed=3)).eval()
    x, y = labelled(net.net, n=7)
    found = MINIMAL[name](net, x, y)
    assert int(found.forward.sum()) == net.forwards
    assert int(found.backward.sum()) == net.backwards


def test_confidence_is_kept():
    net = small_net(seed=3)
    x, y = labelled(net, n=6)
    attack = carlini_wagner(confidence=0.05)
    found = attack(net, x, y)
    with torch.no_grad():
        sure = attack.margin(net(found.x), y) > 0.05
    assert sure.float().mean() > 0.8  # not every margin can be reached
    assert (found.norms["l2"] > carlini_wagner()(net, x, y).norms["l2"])[sure].all()


def test_refining_never_lengthens_and_more_steps_never_hurt_much():
    net = small_net(seed=3)
    x, y = labelled(net, n=20)
    for attack, key in ((deepfool(), "l2"), (ddn(), "l2"), (fmn(norm=c.linf), "linf")):
        rough = dataclasses.replace(attack, refine=0)(net, x, y)
        fine = attack(net, x, y)
        assert (fine.norms[key] <= rough.norms[key] + 1e-9).all()
    for short, long in ((20, 100), (100, 300)):
        few, many = (fmn(steps=n)(net, x, y).norms["l2"].mean() for n in (short, long))
        assert many <= 1.01 * few


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
def test_the_search_on_a_line_comes_to_where_the_margin_passes_zero(power):
    root = torch.tensor([0.3, 0.6, 0.9, 0.97, 0.99, 0.999], dtype=torch.float64)

    def margin(t):
        return t**power - root**power

    asked, halving = Line(margin(0 * root)), Line(margin(0 * root), bisect=True)
    for _ in range(8):
        for search in (asked, halving):
            search.tell(margin(search.share))
            assert (search.low < root).all()
            assert (search.high >= root).all()
    assert (asked.high / root <= (1.1 if power == 4 else 1.003)).all()
    assert (asked.high / root <= 1.003)[1:].all()
    assert torch.allclose(halving.high - halving.low, torch.full_like(root, 2.0**-8))


class Hollows(torch.nn.Module):
    """The nearest linearised boundary (the first entry's) recedes; the second entry's does not."""

    def forward(self, x):
        u, v = (x - 0.1).unbind(1)
        near = 4 * u.clamp(max=0.1) + (u - 0.1).clamp(min=0) - 1  # seems 0.25 away and is 0.7
        return torch.stack([0 * u, near, 3 * v - 1], 1)


def test_a_second_start_finds_the_hollow_that_the_first_misses():
    x, y = torch.full((1, 2), 0.1), torch.zeros(1, dtype=torch.int64)
    one, two, skipped = (
        fmn(starts=n, skip=skip)(Hollows().eval(), x, y)
        for n, skip in ((1, float("inf")), (2, float("inf")), (2, 0.4))
    )
    assert one.norms["l2"].item() == pytest.approx(0.7, rel=0.01)
    assert two.norms["l2"].item() == pytest.approx(1 / 3, rel=0.01)
    assert skipped.norms["l2"].item() == pytest.approx(0.7, rel=0.01)


def test_a_short_run_takes_forty_passes_and_comes_near_the_long_one():
    net = small_net(seed=3)
    x, y = labelled(net, n=20)
    for norm in (c.l2, c.linf):
        short = fmn(norm=norm, steps=16, starts=2, skip=2.0, refine=4)(net, x, y)
        assert ((short.forward + short.backward) <= 40).all()
        key = NAMES[norm]
        assert short.norms[key].mean() <= 1.05 * fmn(norm=norm)(net, x, y).norms[key].mean()


def test_smallest_is_warm_and_agrees_with_a_grid_of_radii():
    net = small_net(seed=3)
    x, y = labelled(net, n=20)
    attack = partial(bim, steps=6)
    found = smallest(attack, refine=0)(net, x, y)
    for eps in (0.01, 0.03, 0.1):
        fooled = attack(eps)(net, x, y).success
        assert (found.norms["linf"][fooled] <= eps * 1.03 + 1e-6).all()
    warm = smallest(attack, first=fmn(norm=c.linf))(net, x, y)
    assert (warm.norms["linf"] <= found.norms["linf"] + 1e-6).all()
    assert found.backward.double().mean() < 0.7 * 8 * 7


@pytest.mark.parametrize("norm", [c.linf, c.l2, c.l1, c.l0])
def test_the_projection_is_the_constraints_with_a_radius_for_each_row(norm):
    draws = Draws.keyed(torch.arange(5))
    delta = draws.normal(3, 4)
    radius = torch.tensor([0.5, 1.0, 2.0, 3.0, 50.0], dtype=torch.float64)
    want = [
        norm(float(r)).project(d[None], torch.zeros_like(d[None]))
        for d, r in zip(delta, radius, strict=True)
    ]
    radius = radius.floor() if norm is c.l0 else radius
    assert torch.allclose(project(delta, radius, norm), torch.cat(want))
    assert (size(project(delta, radius, norm), norm) <= radius + 1e-9).all()


def test_jsma_takes_the_best_pair():
    net = linear_net(d=8, classes=3)
    x = torch.full((1, 8), 0.5, dtype=torch.float64)
    y = net(x).argmax(1)
    target = (y + 1) % 3
    found = jsma(targeted=True, theta=0.01, share=0.25)(net, x, target)
    w = net.weight.detach()
    alpha, beta = w[target[0]], w.sum(0) - w[target[0]]
    best = max(
        ((p, q) for p in range(8) for q in range(p)),
        key=lambda pq: (
            -(alpha[pq[0]] + alpha[pq[1]]) * (beta[pq[0]] + beta[pq[1]])
            * float(alpha[pq[0]] + alpha[pq[1]] > 0 > beta[pq[0]] + beta[pq[1]])
        ),
    )  # fmt: skip
    moved = (found.x != x)[0].nonzero()[:, 0].tolist()
    assert sorted(best) == moved


PEERS = {
    "deepfool-l2": (deepfool(), lambda a: a.L2DeepFoolAttack(), "l2"),
    "deepfool-linf": (deepfool(norm=c.linf), lambda a: a.LinfDeepFoolAttack(), "linf"),
    "ddn": (ddn(), lambda a: a.DDNAttack(steps=100), "l2"),
    "fmn-l2": (fmn(), lambda a: a.L2FMNAttack(steps=100), "l2"),
    "fmn-linf": (fmn(norm=c.linf), lambda a: a.LInfFMNAttack(steps=100), "linf"),
    "fmn-l1": (fmn(norm=c.l1), lambda a: a.L1FMNAttack(steps=100), "l1"),
    "fmn-l0": (fmn(norm=c.l0), lambda a: a.L0FMNAttack(steps=100), "l0"),
    "carlini-wagner": (
        carlini_wagner(),
        lambda a: a.L2CarliniWagnerAttack(binary_search_steps=5, steps=200, initial_const=1.0),
        "l2",
    ),
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("seed", [0, 3])
def test_the_mean_norm_is_foolboxs_or_less(name, seed):
    foolbox = peers.foolbox()
    if foolbox is None:
        pytest.skip("foolbox is not installed")
    attack, make, key = PEERS[name]
    net = small_net(seed=seed)
    x, y = labelled(net, n=30)
    found = attack(net, x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        _, other, ok = make(foolbox.attacks)(theirs, x, y, epsilons=None)
    assert (found.success | ~ok).all()
    both = ok & found.success
    length = {"l2": c.l2, "linf": c.linf, "l1": c.l1, "l0": c.l0}[key]
    assert size(found.x - x, length)[both].mean() <= 1.02 * size(other - x, length)[both].mean()


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (images() * 255, None, "divide by 255"),
        (images() * float("nan"), None, "NaN"),
        (images(), torch.arange(12), "out of range: the network has 5 classes"),
        (images(), torch.zeros(3, dtype=torch.int64), "12 examples but 3 labels"),
        (images(channels=3), None, "does not take a batch of shape"),
        (images()[:0], torch.zeros(0, dtype=torch.int64), "no examples"),
    ],
)
@pytest.mark.parametrize("name", ["deepfool", "fmn", "lbfgs", "jsma", "smallest"])
def test_bad_input_is_named_with_its_remedy(name, x, y, sentence):
    y = torch.zeros(12, dtype=torch.int64) if y is None else y
    with pytest.raises(WalnutError, match=sentence):
        MINIMAL[name](small_net(), x, y)


def test_bad_arguments_are_named():
    with pytest.raises(WalnutError, match="no targeted form"):
        deepfool(targeted=True)
    with pytest.raises(WalnutError, match="linf, l2, l1, l0"):
        fmn(norm=lambda eps: c.l2(eps))
    with pytest.raises(WalnutError, match="starts >= 1"):
        fmn(starts=0)
    with pytest.raises(WalnutError, match="inside a box"):
        carlini_wagner(bounds=None)
    with pytest.raises(WalnutError, match="theta"):
        jsma(theta=0.0)
    with pytest.raises(WalnutError, match="lower < upper"):
        smallest(fgsm, lower=2.0)
    with pytest.raises(WalnutError, match="searches"):
        lbfgs(searches=0)


class Detached(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_net()

    def forward(self, x):
        return self.net(x).detach()


@pytest.mark.parametrize("name", ["deepfool", "ddn", "fmn", "carlini-wagner", "lbfgs", "jsma"])
def test_a_network_without_a_gradient_is_named(name):
    net = Detached().eval()
    x, y = labelled(net)
    with pytest.raises(WalnutError, match="no gradient reaches the input"):
        MINIMAL[name](net, x, y)


@pytest.mark.parametrize("name", MINIMAL)
def test_the_record_has_no_addresses_and_holds_under_no_grad(name):
    attack = MINIMAL[name]
    assert " at 0x" not in repr(attack)
    net = small_net(seed=3)
    x, y = labelled(net, n=3)
    want = attack(net, x, y)
    assert want.attack == repr(attack)
    with torch.no_grad():
        assert torch.equal(attack(net, x, y).x, want.x)
    with torch.inference_mode():
        assert torch.equal(attack(net, x, y).x, want.x)
