"""Expectation over transforms: what success means, closed forms, and that judges are not teachers."""

import dataclasses

import pytest
import torch

from instances_patch import EPS, EXPECTATION, STILL, learned
from networks import images, labelled, small_net
from walnut import WalnutError
from walnut.attacks import noise, pgd
from walnut.attacks.expectation import HELD_OUT, eot, held_out, photographed
from walnut.checks import check_attack
from walnut.core import transforms as t
from walnut.core.draws import Draws
from walnut.core.objectives import margin
from walnut.evaluate.expectation import adversariality

JUDGED = {name: attack.transform for name, attack in EXPECTATION.items()}


class flip:
    """Mirror left and right, or not, each as likely."""

    def __call__(self, x, draws):
        return torch.where(draws.uniform(1)[:, :, None, None] < 0.5, x.flip(3), x)


class recorded:
    """No change; remembers the keys of the draws it was given."""

    def __init__(self):
        self.seen = {"grad": set(), "judge": set()}

    def __call__(self, x, draws):
        kind = "grad" if torch.is_grad_enabled() else "judge"
        self.seen[kind] |= set(draws.keys.tolist())
        return x


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9), (12,)])
@pytest.mark.parametrize("classes", [2, 5])
def test_under_no_change_it_keeps_the_contract_of_any_attack(shape, classes):
    check_attack(STILL, shape=shape, classes=classes)


@pytest.mark.parametrize("name", EXPECTATION)
def test_the_contract_with_success_over_the_distribution(name):
    attack, net = EXPECTATION[name], small_net(channels=3)
    x, y = labelled(net, channels=3)
    before = [p.clone() for p in net.state_dict().values()]
    state = torch.get_rng_state()
    found = attack(net, x, y)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, net.state_dict().values(), strict=True))
    assert attack.constraint.contains(found.x, x).all()
    assert ((found.x - x).flatten(1).abs().amax(1) > 0).all()
    with torch.no_grad():
        assert torch.equal(net(found.x).argmax(1), found.prediction)
    order = torch.randperm(len(x))
    again = attack(net, x[order], y[order])
    assert torch.allclose(again.x, found.x[order], atol=1e-5)
    assert torch.equal(again.success, found.success[order])
    alone = attack(net, x[3:4], y[3:4])
    assert torch.allclose(alone.x, found.x[3:4], atol=1e-5)
    assert found.attack == repr(attack)
    assert " at 0x" not in repr(attack)


@pytest.mark.parametrize("name", EXPECTATION)
def test_success_is_the_share_that_the_evaluation_finds(name):
    attack, (net, _, _, x, y) = EXPECTATION[name], learned()
    found = attack(net, x, y)
    judged = adversariality(net, found.x, y, JUDGED[name], attack.draws, clean=x)
    assert torch.equal(found.success, judged.shares >= attack.survives - 1e-9)
    assert torch.equal(found.first_success, torch.where(found.success, attack.climb.steps, -1))
    assert 0 < int(found.success.sum()) < len(y)


def test_one_draw_and_the_example_itself_would_both_tell_another_story():
    net, _, _, x, y = learned()
    found = pgd(0.1, steps=10)(net, x, y)
    change = t.rotate(30)
    many = t.readings(net, found.x, change, held_out(x, 0), 40)
    share = (many != y[:, None]).double().mean(1)
    assert (found.success & (share < 0.5)).any()
    assert (((many[:, 0] != y) & (share < 0.5)) | ((many[:, 0] == y) & (share > 0.5))).any()


def test_the_draws_that_judge_are_none_that_a_gradient_saw():
    spy, net = recorded(), small_net()
    x, y = labelled(net)
    eot(EPS, spy, steps=6, samples=3, draws=7, seed=4)(net, x, y)
    assert len(spy.seen["grad"]) == 12 * 6 * 3
    assert len(spy.seen["judge"]) == 12 * 7
    assert not spy.seen["grad"] & spy.seen["judge"]
    assert torch.equal(held_out(x, 4).keys, Draws.of(x, 4).fold(HELD_OUT).keys)


def test_passes_are_counted_exactly():
    net = small_net()
    x, y = labelled(net)
    calls = 0

    def counted(z):
        nonlocal calls
        calls += len(z)
        return net(z)

    found = eot(EPS, t.rotate(30), steps=5, samples=3, draws=7)(counted, x, y)
    assert int(found.forward.sum()) == calls
    assert (found.backward == 15).all()


def test_on_a_linear_network_under_mirroring_it_climbs_the_mean_of_both_weights():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).double().eval()
    x = 0.4 + 0.2 * torch.rand(6, 1, 4, 4, dtype=torch.float64)
    y = torch.zeros(6, dtype=torch.int64)
    rise = (net[1].weight[1] - net[1].weight[0]).detach().reshape(1, 4, 4)
    mean = (rise + rise.flip(2)) / 2
    found = eot(0.1, flip(), steps=20, samples=30, objective=margin())(net, x, y)
    clear = (mean.abs() > 0.2 * (rise - rise.flip(2)).abs()).expand(6, -1, -1, -1)
    assert clear.float().mean() > 0.5
    want = x + 0.1 * mean.sign()
    assert torch.allclose(found.x[clear], want[clear], atol=1e-9)
    # plain PGD follows the unmirrored weights, and loses under mirroring
    plain = pgd(0.1, steps=20, objective=margin(), early_stop=False)(net, x, y)
    assert torch.allclose(plain.x, x + 0.1 * rise.sign(), atol=1e-9)
    assert ((found.x - plain.x) * mean).sum() > 0


@pytest.mark.parametrize("targeted", [False, True])
def test_it_survives_more_than_plain_pgd_noise_and_the_clean_examples(targeted):
    net, _, _, x, y = learned()
    x, y = x[:60], y[:60]
    aim = (y + 1) % 10 if targeted else y
    change, eps = t.compose((t.rotate(30), t.zoom(0.8, 1.2))), 0.3
    made = {
        "eot": eot(eps, change, targeted=targeted, steps=20, samples=6),
        "pgd": pgd(eps, targeted=targeted, steps=20, early_stop=False),
        "noise": noise(eps),
    }
    found = {
        name: adversariality(
            net, attack(net, x, y if name == "noise" else aim).x, y, change, 40, clean=x,
            target=aim if targeted else None, seed=9,
        )
        for name, attack in made.items()
    }  # fmt: skip
    assert found["eot"].mean > found["pgd"].mean + 0.02 > found["noise"].mean
    assert found["eot"].mean > found["eot"].clean_mean + 0.3
    assert found["eot"].clean_mean == found["pgd"].clean_mean  # the same transforms for all


def test_adversariality_counts_as_by_hand():
    net = small_net()
    x, y = labelled(net, n=7)
    moved = (x + 0.3 * torch.rand(7, 1, 8, 8)).clamp(0, 1)
    change, target = t.rotate(80), (y + 2) % 5
    found = adversariality(net, moved, y, change, 6, clean=x, target=target, seed=2)
    hits = torch.zeros(7, 2, dtype=torch.float64)
    right = 0
    with torch.no_grad():
        for j in range(6):
            draws = held_out(x, 2)
            hits[:, 0] += net(change(moved, draws.fold(j))).argmax(1) == target
            read = net(change(x, draws.fold(j))).argmax(1)
            hits[:, 1] += read == target
            right += int((read == y).sum())
    assert torch.allclose(found.shares, hits[:, 0] / 6)
    assert torch.allclose(found.clean_shares, hits[:, 1] / 6)
    assert found.clean_accuracy == pytest.approx(right / 42)
    assert found.mean == pytest.approx(float(hits[:, 0].mean()) / 6)
    assert found.deviation == pytest.approx(float((hits[:, 0] / 6).std(correction=0)))
    assert set(found.json()) == {"mean", "deviation", "clean_mean", "clean_accuracy", "draws"}


def test_a_harder_demand_is_met_by_fewer():
    net, _, _, x, y = learned()
    attack = eot(0.1, t.rotate(40), steps=5, samples=2)
    counts = [
        int(dataclasses.replace(attack, survives=share)(net, x, y).success.sum())
        for share in (0.1, 0.5, 0.9, 1.0)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def test_the_photographed_stay_in_the_box_and_have_no_two_alike():
    x = images(20, channels=3)
    seen = photographed()(x, Draws.of(x, 0))
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert not torch.allclose(seen, photographed()(x, Draws.of(x, 1)), atol=0.1)


def test_bad_parameters_are_named():
    with pytest.raises(WalnutError, match="survives"):
        eot(0.1, t.rotate(), survives=0.0)
    with pytest.raises(WalnutError, match="survives"):
        eot(0.1, t.rotate(), draws=0)
    with pytest.raises(WalnutError, match="samples"):
        eot(0.1, t.rotate(), samples=0)
    x = images()
    with pytest.raises(WalnutError, match="originals in order"):
        adversariality(small_net(), x, torch.zeros(12, dtype=torch.int64), t.rotate(), clean=x[:3])


def test_it_works_under_inference_mode():
    net = small_net()
    x, y = labelled(net)
    want = EXPECTATION["rotate"](net, x, y)
    with torch.inference_mode():
        found = EXPECTATION["rotate"](net, x.clone(), y.clone())
    assert torch.equal(found.x, want.x)
    assert torch.equal(found.success, want.success)
