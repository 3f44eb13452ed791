"""Attacks that may change some entries only, on tabular vectors; and PGD under L0."""

import pytest
import torch

from networks import images, linear_net, small_net
from walnut import WalnutError
from walnut.attacks.apgd import apgd, apgd_t
from walnut.attacks.common import ball, steepest
from walnut.attacks.decision import boundary, hop_skip_jump
from walnut.attacks.gradient import bim, di_fgsm, fgsm, mi_fgsm, pgd
from walnut.attacks.noise import noise
from walnut.attacks.odi import odi_pgd
from walnut.attacks.query import nes, spsa
from walnut.attacks.square import square
from walnut.attacks.transferable import ni_fgsm, si_fgsm, ti_fgsm, vmi_fgsm
from walnut.checks import check_attack
from walnut.core import constraints as c
from walnut.core.draws import Draws

D = 12
MASK = torch.arange(D) % 3 != 0  # eight of twelve entries may change
SEVERAL = {
    "linf": (c.linf, 0.2, (fgsm, bim, pgd, apgd, apgd_t, square, noise, nes, spsa, odi_pgd)),
    "l2": (c.l2, 0.5, (fgsm, bim, pgd, apgd, apgd_t, square, noise, nes, spsa, odi_pgd)),
    "l1": (c.l1, 1.0, (fgsm, bim, pgd, apgd, apgd_t, noise, nes, spsa)),
    "l0": (c.l0, 3, (pgd,)),
}
CASES = [(name, make) for name, (_, _, makes) in SEVERAL.items() for make in makes]
SHORT = {
    bim: {"steps": 5}, pgd: {"steps": 6, "restarts": 2}, apgd: {"steps": 8},
    apgd_t: {"steps": 6, "targets": 2}, square: {"queries": 30}, noise: {"draws": 3},
    nes: {"steps": 4, "pairs": 6}, spsa: {"steps": 4, "pairs": 6}, odi_pgd: {"steps": 6},
}  # fmt: skip


def table(classes=3, n=10, seed=0):
    """Return a linear network on vectors, examples, and the labels it gives them."""
    net = linear_net(d=D, classes=classes)
    x = torch.rand(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return net, x, net(x).argmax(1)


@pytest.mark.parametrize(("name", "make"), CASES, ids=lambda v: getattr(v, "__name__", v))
@pytest.mark.parametrize("bounds", [(0.0, 1.0), None], ids=["box", "open"])
def test_only_masked_entries_change(name, make, bounds):
    norm, eps, _ = SEVERAL[name]
    net, x, y = table()
    found = make(eps, norm=norm, bounds=bounds, mask=MASK, **SHORT.get(make, {}))(net, x, y)
    assert torch.equal(found.x[:, ~MASK], x[:, ~MASK])
    assert (found.x[:, MASK] != x[:, MASK]).any(1).all()
    assert (found.norms[name] <= eps * (1 + 1e-5)).all()
    with torch.no_grad():
        assert torch.equal(net(found.x).argmax(1) != y, found.success)
    if bounds:
        assert found.x.min() >= 0
        assert found.x.max() <= 1


@pytest.mark.parametrize("make", [mi_fgsm, di_fgsm, ni_fgsm, si_fgsm, vmi_fgsm, ti_fgsm])
def test_the_transferable_forms_too(make):
    net, x = small_net(), images()
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:, ::2] = True
    found = make(0.1, steps=4, mask=mask)(net, x, net(x).argmax(1))
    assert torch.equal(found.x[:, ~mask], x[:, ~mask])
    assert (found.x[:, mask] != x[:, mask]).float().mean() > 0.9


@pytest.mark.parametrize("norm", [c.l2, c.linf])
def test_labels_alone_find_the_nearest_point_under_a_mask(norm):
    net, x, y = table(classes=2)
    w = ((net.weight[1] - net.weight[0]).detach() * MASK).abs()
    gap = (net(x)[:, 0] - net(x)[:, 1]).detach().abs()
    dual = w.sum() if norm is c.linf else w.norm()
    free = (-10.0, 10.0)  # no box in the way of the closed form
    found = hop_skip_jump(norm=norm, steps=12, samples=60, bounds=free, mask=MASK)(net, x, y)
    assert bool(found.success.all())
    assert torch.equal(found.x[:, ~MASK], x[:, ~MASK])
    ratio = found.norms[norm.__name__] / (gap / dual)
    assert ratio.min() >= 1 - 1e-6
    assert ratio.median() < 1.3
    walked = boundary(steps=150, mask=MASK, starts=1 - x)(net, x, y)
    assert torch.equal(walked.x[:, ~MASK], x[:, ~MASK])
    wide_mask = torch.ones(8, 8, dtype=torch.bool)  # broadcasts over channels
    picture = images(4)
    seen = small_net()(picture).argmax(1)
    plain, same = (
        hop_skip_jump(steps=2, samples=16, mask=m)(small_net(), picture, seen)
        for m in (None, wide_mask)
    )
    assert torch.allclose(plain.norms["l2"], same.norms["l2"], rtol=1e-4)
    with pytest.raises(WalnutError, match="mask must be bool"):
        boundary(mask=MASK.float())(net, x, y)


@pytest.mark.parametrize("eps", [float("nan"), float("inf")])
def test_a_count_of_entries_is_a_number(eps):
    with pytest.raises(WalnutError, match="eps"):
        pgd(eps, norm=c.l0)


@pytest.mark.parametrize("make", [fgsm, pgd, apgd])
@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
def test_the_whole_radius_is_spent_on_the_entries_that_may_change(name, make):
    norm = SEVERAL[name][0]
    net, x, y = table(classes=2)
    eps = {"linf": 1e-3, "l2": 2e-3, "l1": 4e-3}[name]
    x = 0.25 + x / 2  # no box in the way, and nobody is fooled
    y = net(x).argmax(1)
    more = {"steps": 100} if make is not fgsm else {}
    more |= {"early_stop": False} if make is not fgsm else {}
    found = make(eps, norm=norm, mask=MASK, **more)(net, x, y)
    w = (net.weight[1] - net.weight[0]).detach() * MASK
    dual = {"linf": 1, "l2": 2, "l1": float("inf")}[name]
    gained = torch.where(y == 0, 1.0, -1.0) * ((found.x - x) @ w)
    best = eps * torch.linalg.vector_norm(w, dual)
    assert (gained <= best * (1 + 1e-6)).all()
    assert (gained >= 0.97 * best).all()


@pytest.mark.parametrize("norm", [c.linf, c.l2, c.l1, c.l0])
def test_frozen_entries_take_nothing_from_the_radius(norm):
    eps = 2 if norm is c.l0 else 0.3
    x0 = torch.full((4, D), 0.5, dtype=torch.float64)
    far = x0 + torch.where(MASK, 0.4, 50.0) * Draws.keyed(torch.arange(4)).normal(D)
    limit = ball(norm, eps, (0.0, 1.0), MASK)
    alone = ball(norm, eps, (0.0, 1.0)).project(torch.where(MASK, far, x0), x0)
    assert torch.equal(limit.project(far, x0), alone)
    drawn = limit.sample(x0, Draws.keyed(torch.arange(4)))
    for point in (alone, drawn):
        assert limit.contains(point, x0).all()
        assert torch.equal(point[:, ~MASK], x0[:, ~MASK])
        assert (point != x0).any(1).all()


def test_a_mask_of_everything_changes_no_step():
    net, x, y = table()
    everything = torch.ones(D, dtype=torch.bool)
    for norm, eps in ((c.linf, 0.1), (c.l2, 0.3), (c.l1, 0.6), (c.l0, 2)):
        one, two = (
            pgd(eps, norm=norm, random_start=False, mask=m)(net, x, y) for m in (None, everything)
        )
        assert torch.equal(one.x, two.x)


def test_a_mask_is_bool_and_named():
    with pytest.raises(WalnutError, match="mask must be bool"):
        pgd(0.1, mask=MASK.double())
    assert " at 0x" not in repr(pgd(0.1, mask=MASK))


@pytest.mark.parametrize("name", SEVERAL)
def test_the_contract_with_a_mask(name):
    norm, eps, _ = SEVERAL[name]
    for make in (pgd, apgd) if name != "l0" else (pgd,):
        check_attack(make(eps, norm=norm, steps=5, mask=MASK), shape=(D,), classes=3)


# -- L0 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, D])
def test_l0_moves_the_entries_of_largest_gradient_to_the_edge(count):
    net, x, y = table(classes=2)
    x = x / 2 + 0.25
    y = net(x).argmax(1)
    found = pgd(count, norm=c.l0, steps=1, random_start=False, early_stop=False)(net, x, y)
    w = (net.weight[1] - net.weight[0]).detach()
    up = torch.where(y == 0, 1.0, -1.0)[:, None] * w
    top = up.abs().argsort(1, descending=True)[:, :count]
    moved = torch.zeros_like(x, dtype=torch.bool).scatter(1, top, torch.ones_like(top).bool())
    assert torch.equal(found.x, torch.where(moved, (up > 0).double(), x))
    assert (found.norms["l0"] == count).all()


def test_l0_fools_more_with_more_entries_and_more_than_noise_does():
    net = small_net(seed=3)
    x = images(40)
    y = net(x).argmax(1)
    shares = [
        float(pgd(k, norm=c.l0, steps=10)(net, x, y).success.float().mean()) for k in (1, 4, 16)
    ]
    assert shares == sorted(shares)
    assert shares[-1] > shares[0]
    assert shares[1] > float(noise(4, norm=c.l0, draws=10)(net, x, y).success.float().mean())


def test_l0_counts_are_one_or_more_and_other_directions_have_none():
    with pytest.raises(WalnutError, match="how many entries"):
        pgd(0.1, norm=c.l0)
    with pytest.raises(WalnutError, match="linf, l2, l1"):
        steepest(c.l0)
    check_attack(pgd(3, norm=c.l0, steps=5))
    check_attack(pgd(3, norm=c.l0, steps=5), shape=(D,), classes=2)
