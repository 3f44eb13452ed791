"""The continuous batch: an example's path is its own, and the count of passes is exact."""

import pytest
import torch
from torch import nn

from networks import labelled, small_net
from walnut.attacks import GradientAttack, basin_hopping, di_fgsm, mi_fgsm, noise, pgd
from walnut.core.ascend import ascend
from walnut.core.constraints import box, intersection, linf
from walnut.core.objectives import cross_entropy

FIELDS = ("success", "prediction", "first_success")
RUNS = {
    "pgd": dict(attack=pgd(0.05, steps=8, restarts=2)),
    "pgd-full": dict(attack=pgd(0.05, steps=8, early_stop=False)),
    "mi": dict(attack=mi_fgsm(0.05, steps=6, early_stop=True)),
    "di": dict(attack=di_fgsm(0.05, steps=6, decay=1.0)),
    "noise": dict(attack=noise(0.1, draws=4)),
}


def run(attack, net, x, y, batch_size, drop=True):
    parts = {name: getattr(attack, name) for name in attack.__dataclass_fields__}
    return type(attack)(**{**parts, "batch_size": batch_size, "drop": drop})(net, x, y)


@pytest.mark.parametrize("name", RUNS)
def test_verdicts_do_not_depend_on_batch_order_or_dropping_in_float64(name):
    net = small_net().double()
    x, y = labelled(net.float(), n=24)
    net, x = net.double(), x.double()
    attack = RUNS[name]["attack"]
    want = run(attack, net, x, y, 64)
    assert 0 < want.success.sum() < len(x)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(5))
    for batch_size in (1, 7, 1000):
        for drop in (True, False):
            found = run(attack, net, x, y, batch_size, drop)
            assert (found.x - want.x).abs().max() <= 1e-10
            for field in FIELDS:
                assert torch.equal(getattr(found, field), getattr(want, field))
    turned = run(attack, net, x[order], y[order], 7)
    assert (turned.x - want.x[order]).abs().max() <= 1e-10
    for field in FIELDS:
        assert torch.equal(getattr(turned, field), getattr(want, field)[order])


def test_restarts_side_by_side_give_the_answers_of_one_after_the_other():
    net = small_net()
    x, y = labelled(net, n=24)
    net, x = net.double(), x.double()
    passes = {}

    class Counting(nn.Module):
        def forward(self, x):
            passes[size] = passes.get(size, 0) + 1
            rows[size] = rows.get(size, 0) + len(x)
            return net(x)

    rows, found = {}, {}
    for size in (24, 72, 1000):  # one lane, three, and one for each restart
        attack = pgd(0.15, steps=2, restarts=6, seed=3, batch_size=size)
        found[size] = attack(Counting().eval(), x, y)
    alone = found[24]
    assert bool((alone.first_success > 2).any())  # some fell to a later restart
    assert 0 < int(alone.success.sum()) < len(x)
    for size in (72, 1000):
        assert (found[size].x - alone.x).abs().max() <= 1e-10
        for field in FIELDS:
            assert torch.equal(getattr(found[size], field), getattr(alone, field))
        assert torch.equal(found[size].forward[~alone.success], alone.forward[~alone.success])
        assert int(found[size].forward.sum()) == rows[size]
    assert passes[1000] < passes[72] < passes[24]


def test_after_another_attack_all_restarts_go_side_by_side_at_once():
    net = small_net()
    x, y = labelled(net, n=24)
    net, x = net.double(), x.double()
    first = pgd(0.1, steps=1)
    sizes = []

    class Counting(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return net(x)

    found = {}
    for size in (24, 1000):
        attack = basin_hopping(
            0.1, steps=3, hops=1, restarts=4, first=first, seed=1, batch_size=size
        )
        found[size] = attack(Counting().eval(), x, y)
    alone, beside = found[24], found[1000]
    fell = first(net, x, y).success
    assert max(sizes) == 4 * int((~fell).sum())
    late = alone.success & ~fell & (alone.first_success > 4)
    assert bool(late.any())  # some fell to a later restart
    assert not bool(alone.success.all())
    assert (beside.x - alone.x).abs().max() <= 1e-10
    for field in FIELDS:
        assert torch.equal(getattr(beside, field), getattr(alone, field))
    assert torch.equal(beside.forward[~alone.success], alone.forward[~alone.success])


def test_passes_are_counted_exactly():
    calls = {"rows": 0}

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()

        def forward(self, x):
            calls["rows"] += len(x)
            return self.net(x)

    net = Counting().eval()
    x, y = labelled(net.net, n=30)
    for attack in (
        pgd(0.03, steps=6),
        pgd(0.03, steps=3, restarts=3),
        mi_fgsm(0.03),
        noise(0.1, draws=3),
    ):
        calls["rows"] = 0
        found = attack(net, x, y)
        assert int(found.forward.sum()) == calls["rows"]
    calls["rows"] = 0
    found = di_fgsm(0.03, steps=4)(net, x, y)
    assert int(found.forward.sum()) == calls["rows"]


def test_a_run_without_success_costs_one_pass_per_step_and_one_to_check():
    net = small_net()
    x, y = labelled(net)
    found = pgd(1e-6, steps=7, keep_best=False)(net, x, y)
    assert not found.success.any()
    assert (found.backward == 7).all()
    assert (found.forward == 10).all()
    assert (found.first_success == -1).all()
    to_the_end = pgd(1e-6, steps=7, keep_best=False, early_stop=False)(net, x, y)
    assert (to_the_end.forward == 8).all()


def test_a_look_saves_passes_and_changes_nothing(monkeypatch):
    net = small_net()
    x, y = labelled(net, n=30)
    net, x = net.double(), x.double()
    attack = pgd(0.1, steps=8, random_start=False)
    looked = attack(net, x, y)
    monkeypatch.setattr("walnut.core.ascend._LOOK", 0)
    plain = attack(net, x.double(), y)
    assert torch.equal(looked.x, plain.x)
    assert torch.equal(looked.success, plain.success)
    assert torch.equal(looked.first_success, plain.first_success)
    soon = (looked.first_success == 1) | (looked.first_success == 2)
    assert soon.sum() >= 5
    assert (looked.backward[soon] < plain.backward[soon]).all()
    assert (looked.forward[soon] + looked.backward[soon]).sum() < (
        plain.forward[soon] + plain.backward[soon]
    ).sum()


def test_an_example_fooled_at_once_leaves_at_once():
    net = small_net()
    x, y = labelled(net)
    found = pgd(0.1, steps=50, random_start=False)(net, x, (y + 1) % 5)
    assert (found.forward == 2).all()  # one step that decided it, one fresh check
    assert (found.first_success == 0).all()


def test_the_batch_stays_full_so_cost_is_the_sum_of_what_examples_need():
    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()

        def forward(self, x):
            if torch.is_grad_enabled():
                seen.append(len(x))
            return self.net(x)

    net = Watching().eval()
    x, y = labelled(net.net, n=200)
    run(pgd(0.1, steps=20), net, x, y, 16)
    until_last = seen[: len(seen) // 2]
    assert all(size == 16 for size in until_last)


def test_a_failed_example_returns_its_strongest_attempt():
    net = small_net()
    x, y = labelled(net, n=50)
    attack = pgd(0.02, steps=9, step_size=0.02)
    values = []

    def watched(model, z, labels):
        value = cross_entropy()(model, z, labels)
        values.append((z.detach().clone(), value.detach().clone()))
        return value

    parts = {name: getattr(attack, name) for name in attack.__dataclass_fields__}
    found = GradientAttack(**{**parts, "objective": watched})(net, x, y)
    failed = (~found.success).nonzero()[:, 0]
    assert len(failed) > 0
    for row in failed.tolist():
        near = [
            v[i] for z, v in values for i in range(len(z)) if (z[i] - x[row]).abs().max() <= 0.0201
        ]
        with torch.no_grad():
            mine = cross_entropy()(net, found.x[row : row + 1], y[row : row + 1])[0]
        assert mine >= max(near) - 1e-5


def test_progress_of_one_row_is_that_of_the_bare_loop():
    net = small_net().double()
    x, y = labelled(net.float(), n=10)
    net, x = net.double(), x.double()
    eps, size, steps = 0.05, 0.01, 7
    z = x.clone()
    for _ in range(steps):
        z.requires_grad_()
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(z), y, reduction="sum"), z)
        z = z.detach() + size * grad.sign()
        z = (x + (z - x).clamp(-eps, eps)).clamp(0, 1)
    found = ascend(
        net, x, y, objective=cross_entropy(), steps=steps, step_size=size, early_stop=False,
        constraint=intersection((linf(eps), box())), keep_best=False,
    )  # fmt: skip
    assert (found.x - z).abs().max() < 1e-12
