"""Attacks that only ask: contracts, closed forms on linear networks, exact counts, other toolkits."""

import warnings
from dataclasses import replace

import pytest
import torch

import peers
from instances_query import EPS, QUERY
from networks import images, labelled, linear_net, small_net
from test_attacks_apgd import trained
from walnut import WalnutError
from walnut.attacks import noise, pgd
from walnut.attacks.decision import boundary, hop_skip_jump
from walnut.attacks.query import bpda, nes, spsa
from walnut.attacks.square import _hill, _pair, _sides, square, squares_l2, squares_linf
from walnut.checks import check_attack
from walnut.core import constraints as c
from walnut.core import estimators as e
from walnut.core.draws import Draws
from walnut.core.objectives import margin

SHAPES = [(12,), (3, 10, 6), (5, 4), (2, 3, 4, 5), (1,)]


@pytest.mark.parametrize("name", QUERY)
def test_the_contract_on_images(name):
    check_attack(QUERY[name])


@pytest.mark.parametrize("name", QUERY)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_contract_on_any_shape_and_few_classes(name, shape):
    attack = QUERY[name]
    if shape == (1,) and "l2" in name:  # one entry: no ball of radius 0.5 but the whole box
        attack = {"nes-l2": nes, "square-l2": square}[name](0.3, norm=c.l2)
        attack = replace(attack, **({"queries": 20} if name == "square-l2" else {"steps": 3}))
    check_attack(attack, shape=shape, classes=3 if len(shape) > 1 else 2)


@pytest.mark.parametrize("name", QUERY)
def test_rows_do_not_depend_on_the_batch_in_float64(name):
    net, x, y = trained(n=16)
    whole = QUERY[name](net, x, y)
    small = replace(QUERY[name], batch_size=5)(net, x, y)
    assert (whole.x - small.x).abs().max() <= 1e-10
    assert torch.equal(whole.forward, small.forward)
    assert torch.equal(whole.first_success, small.first_success)
    order = torch.arange(15, -1, -1)
    turned = QUERY[name](net, x[order], y[order])
    assert (turned.x[order] - whole.x).abs().max() <= 1e-10


class Hard(torch.nn.Module):
    """A network that says its class and nothing more, without a gradient."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return torch.nn.functional.one_hot(self.net(x).argmax(1), 5).to(x.dtype) * 9


@pytest.mark.parametrize("name", QUERY)
def test_no_gradient_is_needed(name):
    net = Hard(small_net()).eval()
    x, y = labelled(net, n=6)
    found = QUERY[name](net, x, y)
    assert (found.backward == 0).all()
    assert found.attack == repr(QUERY[name])
    assert " at 0x" not in found.attack


@pytest.mark.parametrize("name", [n for n in QUERY if n not in ("boundary", "hsj", "hsj-linf")])
def test_inside_the_constraint_and_better_than_noise(name):
    net, x, y = trained()
    net, x = net.float(), x.float()
    found = QUERY[name](net, x, y)
    assert QUERY[name].constraint.contains(found.x, x).all()
    control = noise(0.5, norm=c.l2) if "l2" in name else noise(EPS)
    with torch.no_grad():
        gain = margin()(net, found.x, y) - margin()(net, control(net, x, y).x, y)
    assert gain.mean() > 0


# -- estimators ------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [e.nes(1000, 0.1), e.spsa(1000, 0.1)], ids=["nes", "spsa"])
def test_finite_differences_come_to_the_gradient(part):
    x = torch.rand(3, 5, dtype=torch.float64)
    w = torch.randn(5, dtype=torch.float64)

    def value(z):
        return z @ w + 0.5 * z.square().sum(1)

    values, grad = part(value, x, Draws.of(x, 0))
    assert torch.equal(values, value(x))
    exact = w + x
    deviation = (
        exact.norm(dim=1) * (6 / 1000) ** 0.5
    )  # of one entry; the quadratic cancels in pairs
    assert ((grad - exact).abs() <= 4 * deviation[:, None]).all()


def test_spsa_in_one_dimension_is_the_central_difference():
    x = torch.tensor([[0.3], [0.7]], dtype=torch.float64)
    _, grad = e.spsa(1, 0.1)(lambda z: z[:, 0] ** 3, x, Draws.of(x, 0))
    assert torch.allclose(grad, 3 * x**2 + 0.1**2)


def test_an_estimate_belongs_to_its_example():
    x = torch.rand(6, 4, dtype=torch.float64)
    for part in (e.nes(5), e.spsa(5), e.scale_copies(3)):
        whole = part(lambda z: z.sin().sum(1), x, Draws.of(x, 0))[1]
        alone = part(lambda z: z.sin().sum(1), x[2:3], Draws.of(x[2:3], 0))[1]
        assert torch.allclose(whole[2:3], alone, atol=1e-12)


def test_scaled_copies_are_the_mean_gradient():
    x = torch.rand(4, 3, dtype=torch.float64)
    values, grad = e.scale_copies(3)(lambda z: z.square().sum(1), x, Draws.of(x, 0))
    assert torch.allclose(values, x.square().sum(1))
    assert torch.allclose(grad, 2 * x * (1 + 1 / 4 + 1 / 16) / 3)


def test_estimators_name_what_they_cannot_use():
    for make in (lambda: e.nes(0), lambda: e.spsa(3, 0.0), lambda: e.scale_copies(0)):
        with pytest.raises(WalnutError):
            make()


def test_straight_through_answers_as_the_network_and_differentiates_the_twin():
    net, twin = small_net(seed=1), small_net(seed=2)
    x, y = images(), torch.arange(12) % 5
    both = e.straight_through(twin)(net)
    assert torch.equal(both(x), net(x))
    a = x.clone().requires_grad_()
    mine = torch.autograd.grad(margin()(both, a, y).sum(), a)[0]
    b = x.clone().requires_grad_()
    rest = net(x).scatter(1, y[:, None], float("-inf")).argmax(1)
    z = twin(b)
    chosen = z.gather(1, rest[:, None]) - z.gather(1, y[:, None])
    assert torch.allclose(mine, torch.autograd.grad(chosen.sum(), b)[0], atol=1e-6)


class Rounded(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x * 15).round() / 15)


def test_bpda_breaks_a_network_that_rounds_its_input():
    net, x, y = trained()
    net, x = net.float(), x.float()
    real = Rounded(net).eval()
    blind = pgd(0.2, steps=20)(real, x, y)
    found = bpda(pgd(0.2, steps=20), net)(real, x, y)
    with torch.no_grad():
        assert torch.equal(real(found.x).argmax(1) != y, found.success)
    assert found.success.sum() > 2 * blind.success.sum() + 5
    assert (found.backward <= 20).all()
    assert found.attack.startswith("BorrowedAttack(attack=GradientAttack(")
    same = bpda(pgd(0.2, steps=20), net)(net, x, y)
    assert (same.x - pgd(0.2, steps=20)(net, x, y).x).abs().max() <= 1e-6


def test_a_twin_with_other_classes_is_named():
    with pytest.raises(WalnutError, match="same classes"):
        bpda(pgd(0.1), small_net(4))(small_net(5), images(), torch.zeros(12, dtype=torch.int64))


@pytest.mark.parametrize("attack", [nes, spsa])
def test_estimated_gradients_reach_the_closed_form_and_count_their_queries(attack):
    net = linear_net(classes=2)
    x = torch.rand(10, 6, dtype=torch.float64) * 0.3 + 0.35
    with torch.no_grad():
        y = net(x).argmax(1)
        found = replace(attack(0.1, steps=20, pairs=40), early_stop=False)(net, x, y)
        reached = margin()(net, found.x, y) - margin()(net, x, y)
        best = 0.1 * (net.weight[0] - net.weight[1]).abs().sum()
    assert (reached >= 0.97 * best).all()
    at_end = 20 * 81 + 1  # and a check where an earlier point is returned
    assert ((found.forward == at_end) | (found.forward == at_end + 1)).all()
    assert (found.backward == 0).all()


# -- Square ----------------------------------------------------------------------------------------


def test_the_window_falls_as_in_autoattack():
    # p_selection of the authors' code at 10,000 queries
    for query, p in ((5, 0.8), (11, 0.4), (51, 0.2), (201, 0.1), (1001, 0.025), (8001, 0.8 / 512)):
        assert _sides(query / 10000, 0.8, 28, 28, 1)[0] == max(round((p * 784) ** 0.5), 1)
    assert _sides(0.0, 0.8, 1, 20, 1) == (1, 16)
    assert _sides(0.9, 0.8, 1, 20, 1) == (1, 1)
    assert _sides(0.9, 0.8, 28, 28, 3) == (3, 3)


def test_hills_are_the_authors():
    torchattacks = peers.torchattacks()
    if torchattacks is None:
        pytest.skip("torchattacks is not installed")
    theirs = torchattacks.Square(small_net())
    for h, w in ((3, 3), (2, 5), (4, 7), (1, 1)):
        want = theirs.eta_rectangles(h, w).double()
        assert torch.allclose(_hill(h, w), want, atol=1e-6)
    for s in (3, 5, 8):
        mine, found = _pair(s, s, True), theirs.eta(s).double()
        assert torch.allclose(mine, found, atol=1e-6) or torch.allclose(mine.T, found, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_proposals_are_as_long_as_they_may_be(shape):
    x = torch.rand(9, *shape, dtype=torch.float64)
    draws = Draws.of(x, 0)
    best = {"linf": x, "l2": x}
    for step in range(12):
        progress = torch.full((9,), step / 12, dtype=torch.float64)
        for name, propose in (("linf", squares_linf(0.1)), ("l2", squares_l2(0.3))):
            best[name] = propose(best[name], x, progress, draws.fold(step))
        assert torch.allclose((best["linf"] - x).abs(), torch.full_like(x, 0.1))
        length = (best["l2"] - x).flatten(1).norm(dim=1)
        assert torch.allclose(length, torch.full_like(length, 0.3))


@pytest.mark.parametrize(("norm", "dual", "share"), [(c.linf, 1, 0.999), (c.l2, 2, 0.9)])
def test_square_on_a_linear_network_comes_to_the_closed_form(norm, dual, share):
    net = linear_net(classes=2)
    x = torch.rand(10, 6, dtype=torch.float64) * 0.3 + 0.35
    with torch.no_grad():
        y = net(x).argmax(1)
        found = square(0.1, norm=norm, queries=500, early_stop=False)(net, x, y)
        reached = margin()(net, found.x, y) - margin()(net, x, y)
        best = 0.1 * torch.linalg.vector_norm(net.weight[0] - net.weight[1], dual)
    assert (reached <= best + 1e-9).all()
    assert (reached >= share * best).all()
    assert ((found.forward == 501) | (found.forward == 502)).all()


def test_square_agrees_with_torchattacks():
    torchattacks = peers.torchattacks()
    if torchattacks is None:
        pytest.skip("torchattacks is not installed")
    robust = {"mine": [0, 0], "theirs": [0, 0]}
    for seed in range(2):
        net, x, y = trained(seed)
        net, x = net.float(), x.float()
        for i, (norm, name, eps) in enumerate(((c.linf, "Linf", 0.17), (c.l2, "L2", 1.2))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wide = torch.nn.functional.interpolate
                big = torch.nn.Sequential(_Shrink(), net).eval()
                z = wide(x, scale_factor=2)
                attack = torchattacks.Square(big, norm=name, eps=eps * (1, 2)[i], n_queries=200)
                with torch.no_grad():
                    robust["theirs"][i] += int((big(attack(z, y)).argmax(1) == y).sum())
            mine = square(eps * (1, 2)[i], norm=norm, queries=200)(big, z, y)
            robust["mine"][i] += int((~mine.success).sum())
    for mine, theirs in zip(robust["mine"], robust["theirs"], strict=True):
        assert 5 < theirs < 115, robust
        assert abs(mine - theirs) <= 12, robust


class _Shrink(torch.nn.Module):
    """Means of 2 × 2 pixels: torchattacks' L2 start fails below 10 pixels."""

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x, 2)


def test_square_names_other_norms():
    with pytest.raises(WalnutError, match="linf or l2"):
        square(0.1, norm=c.l1)


# -- labels only -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "norm", "dual", "within"),
    [
        (hop_skip_jump(steps=12), "l2", 2, 1.03),
        (hop_skip_jump(norm=c.linf, steps=12), "linf", 1, 1.2),
        (boundary(steps=800), "l2", 2, 1.05),
    ],
    ids=["hsj", "hsj-linf", "boundary"],
)
def test_the_nearest_example_of_a_linear_network(attack, norm, dual, within):
    net = linear_net(d=6, classes=2)
    x = torch.rand(40, 6, dtype=torch.float64) * 0.2 + 0.4
    with torch.no_grad():
        w, b = net.weight[0] - net.weight[1], net.bias[0] - net.bias[1]
        net.bias[0] -= (x @ w + b).mean()
        y = net(x).argmax(1)
        least = margin()(net, x, y).abs() / torch.linalg.vector_norm(w, dual)
    found = attack(net, x, y)
    assert found.success.all()
    assert (found.norms[norm] >= least - 1e-9).all()
    assert (found.norms[norm] / least).median() <= within
    assert (found.norms[norm] / least).max() <= within + 0.3


def test_hard_label_queries_are_counted():
    net, x, y = trained(n=12)
    for attack in (boundary(steps=60), hop_skip_jump(steps=2, samples=30)):
        asked = torch.zeros(1)

        class Counted(torch.nn.Module):
            def forward(self, z, asked=asked):
                asked += len(z)
                return net(z)

        found = attack(Counted().eval(), x, y)
        assert int(asked) == int(found.forward.sum())
        assert (found.backward == 0).all()
    walk = boundary(steps=60)(net, x, y)
    tries = walk.first_success
    assert (walk.forward == 1 + tries + 10 + 60 + 12 + 1).all()


def test_what_is_wrong_already_is_returned_and_what_cannot_be_found_says_so():
    net, x, y = trained(n=12)
    for attack in (boundary(steps=10), hop_skip_jump(steps=1, samples=10)):
        wrong = attack(net, x, (y + 1) % 4)
        assert torch.equal(wrong.x, x)
        assert (wrong.first_success == 0).all()
        assert (wrong.forward == 2).all()

        def always(z):
            return torch.tensor([[3.0, 0.0]], dtype=z.dtype).expand(len(z), 2)

        never = replace(attack, tries=3)(always, x, torch.zeros_like(y))
        assert not never.success.any()
        assert (never.first_success == -1).all()
        assert (never.forward == 5).all()
        assert (never.norms["l2"] > 0).all()


def test_starts_and_targets():
    net, x, y = trained(n=16)
    target = (y + 1) % 4
    found = hop_skip_jump(steps=3, samples=30, targeted=True, starts=x)(net, x, target)
    assert found.success.all()
    assert torch.equal(found.prediction, target)
    near = (x[:, None] - x).flatten(2).norm(dim=2)
    near = near.masked_fill(y[None] != target[:, None], float("inf")).amin(1)
    assert (found.norms["l2"] < near).all()


def test_hop_skip_jump_is_as_near_as_foolbox():
    foolbox = peers.foolbox()
    if foolbox is None:
        pytest.skip("foolbox is not installed")
    net, x, y = trained(n=12)
    net, x = net.float(), x.float()
    mine = hop_skip_jump(steps=8)(net, x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = foolbox.PyTorchModel(net, bounds=(0, 1))
        attack = foolbox.attacks.HopSkipJumpAttack(steps=8)
        theirs = attack(wrapped, x, y, starting_points=_other(x, y), epsilons=None)[1]
    gap = (theirs - x).flatten(1).norm(dim=1)
    assert mine.success.all()
    assert mine.norms["l2"].median() <= 1.1 * gap.median()


def _other(x, y):
    return torch.stack([x[(y != label).nonzero()[0, 0]] for label in y])


def test_bad_input_is_named():
    x, y = images(), torch.arange(12)
    for attack in (boundary(steps=2), hop_skip_jump(steps=1), square(0.1, queries=3)):
        with pytest.raises(WalnutError, match="the network has 5 classes"):
            attack(small_net(), x, y)
        with pytest.raises(WalnutError, match="divide by 255"):
            attack(small_net(), x * 255, y % 5)
        with pytest.raises(WalnutError, match="12 examples but 3 labels"):
            attack(small_net(), x, y[:3])
    with pytest.raises(WalnutError, match="not a number"):
        boundary(steps=2)(lambda z: z.flatten(1)[:, :5] / 0, x, y % 5)
    with pytest.raises(WalnutError, match="l2 or linf"):
        hop_skip_jump(norm=c.l1)
