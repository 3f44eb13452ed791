"""Auto-PGD and the transfer presets: contracts, closed forms, the authors' arithmetic, other toolkits."""

import warnings
from dataclasses import replace

import pytest
import torch

import peers
from instances_query import ADAPTIVE, EVERYTHING, IMAGES_ONLY, TARGETED, TRANSFER
from networks import images, labelled, linear_net, small_net
from walnut import WalnutError
from walnut.attacks import mi_fgsm, pgd
from walnut.attacks.apgd import apgd, apgd_t
from walnut.attacks.transferable import ni_fgsm, si_fgsm, ti_fgsm, transferable, vmi_fgsm
from walnut.checks import check_attack, check_objective
from walnut.core import constraints as c
from walnut.core.adaptive import checkpoints, nearest_in_l1_box
from walnut.core.directions import blurred
from walnut.core.dlr import dlr, targeted_dlr
from walnut.core.objectives import cross_entropy, margin

BOTH = {**ADAPTIVE, **TRANSFER}
BOUNDED = {name: attack for name, attack in BOTH.items() if name != "apgd-unbounded"}
VECTORS = {name: attack for name, attack in BOUNDED.items() if name not in IMAGES_ONLY}


def trained(seed=0, n=60):
    """Return a small trained network, float64, with examples around its classes."""
    torch.manual_seed(seed)
    centres = torch.rand(4, 1, 8, 8).double()
    y = torch.arange(n) % 4
    x = (centres[y] + 0.3 * torch.randn(n, 1, 8, 8)).clamp(0, 1)
    net = small_net(classes=4, seed=seed).double()
    descent = torch.optim.Adam(net.parameters(), 0.003)
    for _ in range(60):
        descent.zero_grad()
        cross_entropy()(net, x, y).mean().backward()
        descent.step()
    net.zero_grad()
    return net, x, y


@pytest.mark.parametrize("name", BOUNDED)
def test_the_contract_on_images(name):
    check_attack(BOUNDED[name])


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_contract_on_vectors_and_few_classes(name, classes):
    check_attack(VECTORS[name], shape=(12,), classes=classes)


@pytest.mark.parametrize("name", BOUNDED)
def test_three_channels_and_another_size(name):
    check_attack(BOUNDED[name], shape=(3, 10, 6), classes=3)


@pytest.mark.parametrize("name", BOTH)
def test_inside_the_constraint_and_a_record_without_addresses(name):
    net = small_net()
    x, y = labelled(net)
    found = BOTH[name](net, x, y)
    assert BOTH[name].constraint.contains(found.x, x).all()
    assert found.attack == repr(BOTH[name])
    assert " at 0x" not in found.attack


@pytest.mark.parametrize("name", TARGETED)
def test_a_targeted_attack_moves_towards_its_target(name):
    net = small_net()
    x, y = labelled(net, n=40)
    target = (y + 1) % 5
    found = TARGETED[name](net, x, target)
    with torch.no_grad():
        assert torch.equal(net(found.x).argmax(1) == target, found.success)
        before, after = (margin()(net, z, target) for z in (x, found.x))
    assert (after < before).float().mean() > 0.95


@pytest.mark.parametrize("name", BOTH)
def test_rows_do_not_depend_on_the_batch_in_float64(name):
    net, x, y = trained(n=24)
    attack = BOTH[name]
    whole = attack(net, x, y)
    small = replace(attack, batch_size=5)(net, x, y)
    assert (whole.x - small.x).abs().max() <= 1e-10
    assert torch.equal(whole.forward, small.forward)
    assert torch.equal(whole.first_success, small.first_success)
    idle = replace(attack, drop=False, batch_size=7)(net, x, y)
    assert (whole.x - idle.x).abs().max() <= 1e-10


# -- Auto-PGD --------------------------------------------------------------------------------------


def test_checkpoints_are_the_paper_s():
    at = checkpoints(100).nonzero()[:, 0].tolist()
    assert at == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("norm", "eps", "dual"),
    [(c.linf, 0.1, 1), (c.l2, 0.2, 2), (c.l1, 0.3, float("inf"))],
)
def test_apgd_on_a_linear_network_reaches_the_closed_form(norm, eps, dual):
    net = linear_net(classes=2)
    x = torch.rand(20, 6, dtype=torch.float64) * 0.3 + 0.35
    with torch.no_grad():
        y = net(x).argmax(1)
        found = apgd(eps, norm=norm, steps=60, early_stop=False)(net, x, y)
        reached = margin()(net, found.x, y) - margin()(net, x, y)
        best = eps * torch.linalg.vector_norm(net.weight[0] - net.weight[1], dual)
    assert (reached <= best + 1e-9).all()
    assert (reached >= 0.995 * best).all()


@pytest.mark.parametrize(("norm", "eps"), [(c.linf, 0.15), (c.l2, 1.0), (c.l1, 4.0)])
def test_apgd_is_no_weaker_than_pgd_at_equal_steps(norm, eps):
    fooled, climbed = {"pgd": 0, "apgd": 0}, {}
    for seed in range(2):
        net, x, y = trained(seed)
        for name, attack in (("pgd", pgd), ("apgd", apgd)):
            fooled[name] += int(attack(eps, norm=norm, steps=40)(net, x, y).success.sum())
            found = attack(eps, norm=norm, steps=40, early_stop=False)(net, x, y)
            with torch.no_grad():
                climbed.setdefault(name, []).append(margin()(net, found.x, y))
    assert 0 < fooled["pgd"] < 120
    assert fooled["apgd"] >= fooled["pgd"]
    gain = torch.cat(climbed["apgd"]) - torch.cat(climbed["pgd"])
    assert gain.mean() > -0.01


def test_pass_counts_are_exact():
    net, x, y = trained(n=10)
    found = apgd(1e-4, steps=7, restarts=2)(net, x, y)
    assert not found.success.any()
    # each restart: the points before each step and the last; then the check of a point seen with a gradient
    assert ((found.forward >= 16) & (found.forward <= 17)).all()
    assert (found.backward == 14).all()
    turn = apgd_t(1e-4, steps=7, targets=2)(net, x, y)
    assert (turn.backward == 14).all()
    assert ((turn.forward >= 1 + 2 * 9) & (turn.forward <= 1 + 2 * 10)).all()


def test_the_round_of_targets_leaves_what_is_wrong_as_it_is_and_tries_every_class():
    net = small_net()
    x, y = labelled(net, n=40)
    wrong = apgd_t(0.1, steps=3)(net, x, (y + 1) % 5)
    assert wrong.success.all()
    assert torch.equal(wrong.x, x)
    assert (wrong.forward == 1).all()
    assert (wrong.backward == 0).all()
    one, all_four = (apgd_t(0.05, steps=10, targets=t)(net, x, y) for t in (1, 4))
    assert all_four.success.sum() >= one.success.sum()
    assert torch.equal(all_four.success & one.success, one.success)


def test_the_projection_on_the_l1_ball_in_the_box_is_the_nearest_point():
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(30, 3, dtype=torch.float64, generator=generator)
    x = x0 + torch.randn(30, 3, dtype=torch.float64, generator=generator)
    found = nearest_in_l1_box(x, x0, 0.5, 0.0, 1.0)
    assert (found - x0).abs().sum(1).max() <= 0.5 + 1e-12
    assert found.min() >= 0
    assert found.max() <= 1
    size, low, high = (x - x0).abs(), torch.zeros(30, 1), torch.full((30, 1), 10.0)
    room = torch.where(x > x0, 1 - x0, x0)
    for _ in range(100):  # the multiplier, by bisection
        middle = (low + high) / 2
        long = torch.minimum((size - middle).clamp_min(0), room).sum(1, keepdim=True) > 0.5
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    want = x0 + (x - x0).sign() * torch.minimum((size - high).clamp_min(0), room)
    assert (found - want).abs().max() <= 1e-6
    near = x0 + 0.01 * (0.5 - x0)
    assert torch.allclose(nearest_in_l1_box(near, x0, 0.5, 0.0, 1.0), near)


def test_apgd_agrees_with_torchattacks():
    torchattacks = peers.torchattacks()
    if torchattacks is None:
        pytest.skip("torchattacks is not installed")
    total = {"mine": 0, "theirs": 0, "mine-l2": 0, "theirs-l2": 0, "mine-dlr": 0, "theirs-dlr": 0}
    for seed in range(3):
        net, x, y = trained(seed)
        net, x = net.float(), x.float()
        for tag, norm, name, eps, loss, kind in (
            ("", c.linf, "Linf", 0.15, cross_entropy(), "ce"),
            ("-l2", c.l2, "L2", 1.0, cross_entropy(), "ce"),
            ("-dlr", c.linf, "Linf", 0.15, dlr(), "dlr"),
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                attack = torchattacks.APGD(net, norm=name, eps=eps, steps=30, loss=kind)
                found = attack(x, y)
            with torch.no_grad():
                total["theirs" + tag] += int((net(found).argmax(1) == y).sum())
            mine = apgd(eps, norm=norm, steps=30, objective=loss)(net, x, y)
            total["mine" + tag] += int((~mine.success).sum())
    for tag in ("", "-l2", "-dlr"):
        assert total["mine" + tag] <= total["theirs" + tag] + 2, total
        assert total["mine" + tag] >= total["theirs" + tag] - 4, total


# -- the difference of logits ratio ----------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_dlr_is_finite_bounded_and_blind_to_scale(classes):
    check_objective(dlr())
    net, x, y = small_net(classes), images(), torch.arange(12) % classes
    values = dlr()(net, x, y)
    if classes > 2:
        assert (values >= -1).all()
        assert torch.allclose(dlr()(lambda z: 1000 * net(z) + 5, x, y), values, atol=1e-3)
    assert torch.equal(values > 0, margin()(net, x, y) > 0)
    pairs = torch.stack([y, (y + 1) % classes], 1)
    values = targeted_dlr()(net, x, pairs)
    z = net(x)
    gap = (z.gather(1, pairs[:, 1:]) - z.gather(1, pairs[:, :1]))[:, 0]
    assert torch.equal(values > 0, gap > 0)
    flat = torch.zeros(3, classes)
    assert dlr()(lambda _: flat, flat, torch.zeros(3, dtype=torch.int64)).isfinite().all()


def test_targeted_dlr_says_what_it_needs():
    with pytest.raises(WalnutError, match="side by side"):
        targeted_dlr()(small_net(), images(), torch.zeros(12, dtype=torch.int64))


@pytest.mark.parametrize("attack", [apgd(0.1), apgd_t(0.1)], ids=["apgd", "apgd-t"])
def test_labels_that_do_not_fit_are_named(attack):
    with pytest.raises(WalnutError, match="the network has 5 classes"):
        attack(small_net(), images(), torch.arange(12))
    with pytest.raises(WalnutError, match="12 examples but 3 labels"):
        attack(small_net(), images(), torch.zeros(3, dtype=torch.int64))


# -- made to transfer ------------------------------------------------------------------------------


def test_without_tricks_the_chain_is_momentum_fgsm():
    net = small_net().double()
    x, y = images().double(), torch.arange(12) % 5
    mine = transferable(0.1, steps=6)(net, x, y).x
    assert (mine - mi_fgsm(0.1, steps=6)(net, x, y).x).abs().max() <= 1e-12
    assert torch.equal(
        ni_fgsm(0.1, steps=6, decay=0.0)(net, x, y).x,
        transferable(0.1, steps=6, decay=0.0)(net, x, y).x,
    )
    assert torch.equal(si_fgsm(0.1, steps=6, copies=1)(net, x, y).x, mine)
    assert torch.equal(vmi_fgsm(0.1, steps=6, samples=0)(net, x, y).x, mine)


def test_on_a_linear_network_the_variance_is_nothing_and_every_trick_is_fgsm():
    net = linear_net(classes=2)
    x = torch.rand(20, 6, dtype=torch.float64) * 0.3 + 0.35
    y = net(x).argmax(1)
    w = net.weight[0] - net.weight[1]
    want = x - 0.1 * (1 - 2 * y.double())[:, None] * w.sign()
    for attack in (ni_fgsm(0.1), si_fgsm(0.1), vmi_fgsm(0.1, samples=5, objective=margin())):
        assert torch.allclose(attack(net, x, y).x, want.detach(), atol=1e-9)


@pytest.mark.parametrize("name", ["NIFGSM", "SINIFGSM"])
def test_look_ahead_and_scale_are_torchattacks(name):
    torchattacks = peers.torchattacks()
    if torchattacks is None:
        pytest.skip("torchattacks is not installed")
    net = small_net(seed=3).double()
    x, y = images(n=30).double(), torch.arange(30) % 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(torchattacks, name)(net, eps=0.1, alpha=0.01, steps=10, decay=1.0)(x, y)
    chain = ni_fgsm(0.1, steps=10)
    if name == "SINIFGSM":
        chain = replace(si_fgsm(0.1, steps=10), method=replace(si_fgsm(0.1).method, look_ahead=1.0))
    assert ((chain(net, x, y).x - theirs).abs().flatten(1).amax(1) <= 1e-8).float().mean() >= 0.95


def test_translation_invariant_is_torchattacks_on_three_channels():
    torchattacks = peers.torchattacks()
    if torchattacks is None:
        pytest.skip("torchattacks is not installed")
    net = small_net(channels=3, seed=3)
    x, y = images(n=20, channels=3), torch.arange(20) % 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack = torchattacks.TIFGSM(
            net, eps=0.1, alpha=0.01, steps=5, diversity_prob=0.0, len_kernel=7, nsig=3
        )
        theirs = attack(x, y)
    mine = ti_fgsm(0.1, steps=5, step_size=0.01, size=7, sigma=1.0)(net, x, y).x
    assert ((mine - theirs).abs() < 1e-5).float().mean() > 0.98


def test_transfer_passes_are_counted():
    net, x, y = trained(n=6)
    for attack, forward, backward in (
        (ni_fgsm(0.1, steps=5), 11, 5),
        (si_fgsm(0.1, steps=5, copies=3), 16, 15),
        (vmi_fgsm(0.1, steps=5, samples=4), 26, 25),
        (transferable(0.1, steps=5, smooth=blurred(3)), 6, 5),
    ):
        found = attack(net, x, y)
        assert (found.forward == forward).all(), (attack, found.forward)
        assert (found.backward == backward).all()
    assert EVERYTHING(net, x, y).success.shape == (6,)


def test_a_tuned_gradient_transfers_no_worse_than_momentum():
    x = torch.cat([trained(s)[1] for s in range(2)])
    source, twin = trained(0)[0], trained(0)[0]
    torch.manual_seed(5)
    for p in twin.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    with torch.no_grad():
        y = source(x).argmax(1)
    count = {}
    for name, attack in (("mi", mi_fgsm(0.1)), ("vmi", vmi_fgsm(0.1))):
        with torch.no_grad():
            count[name] = int((twin(attack(source, x, y).x).argmax(1) != y).sum())
    assert count["vmi"] >= count["mi"] - 3
