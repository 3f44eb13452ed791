"""FAB: the contract, closed forms, the projection against brute force, torchattacks' norms."""

import dataclasses
import itertools

import pytest
import torch

import peers
from networks import images, labelled, linear_net, small_net
from walnut import WalnutError
from walnut.attacks.approach import size
from walnut.attacks.fab import cross, fab
from walnut.attacks.fmn import fmn
from walnut.checks import check_attack
from walnut.core import constraints as c
from walnut.evaluate.stage import Setting
from walnut.evaluate.stages import AUTOATTACK

NORMS = {"linf": c.linf, "l2": c.l2, "l1": c.l1}
DUALS = {"linf": 1, "l2": 2, "l1": float("inf")}
FORMS = {
    **{name: fab(norm=norm, steps=12, targets=3) for name, norm in NORMS.items()},
    "nearest": fab(norm=c.l2, steps=12, targets=0),
    "restarted": fab(norm=c.linf, steps=8, targets=2, restarts=2),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_contract(name):
    check_attack(FORMS[name])
    check_attack(FORMS[name], shape=(12,), classes=2)
    check_attack(FORMS[name], shape=(3, 6, 4), classes=3)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("targets", [0, 1, 9])
@pytest.mark.parametrize("name", NORMS)
def test_on_a_linear_network_the_norm_is_the_closed_form(name, targets, classes):
    net = linear_net(d=30, classes=classes)
    x = torch.rand(20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    found = fab(norm=NORMS[name], steps=20, targets=targets, bounds=None)(net, x, y)
    z, w = net(x).detach(), net.weight.detach()
    length = torch.linalg.vector_norm(w[None] - w[y][:, None], DUALS[name], dim=2)
    away = (z.gather(1, y[:, None]) - z) / length.clamp_min(1e-12)
    least = away.scatter(1, y[:, None], float("inf")).amin(1)
    reached = found.norms[name]
    assert found.success.all()
    assert (reached >= least - 1e-9).all()
    if targets == 1 and classes > 2:  # the likeliest class need not be the nearest
        likeliest = z.scatter(1, y[:, None], float("-inf")).argmax(1, keepdim=True)
        least = away.gather(1, likeliest)[:, 0]
    assert (reached <= 1.01 * least).all()


@pytest.mark.parametrize("name", NORMS)
def test_in_the_box_a_linear_network_gives_the_projection_itself(name):
    net = linear_net(d=10, classes=2)
    x = torch.rand(40, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).round(
        decimals=1
    )
    y = net(x).argmax(1)
    w = (net.weight[1] - net.weight[0]).detach()
    gap = (net(x)[:, 0] - net(x)[:, 1]).detach()
    d = cross(x, w.expand_as(x), gap, NORMS[name], (0.0, 1.0))
    crossed = ((d @ w) - gap).abs() < 1e-9
    assert crossed.float().mean() > 0.5
    found = fab(norm=NORMS[name])(net, x, y)
    least, reached = size(d, NORMS[name])[crossed], size(found.x - x, NORMS[name])[crossed]
    assert found.success[crossed].all()
    assert (reached >= least - 1e-9).all()
    assert (reached <= 1.01 * least + 1e-4).all()


def corners_and_edges(x, w, gap, d):
    """Return the points of {w·δ = gap} ∩ box on a fine grid of all but one coordinate."""
    ticks = torch.linspace(0, 1, 201 if d == 2 else 81, dtype=torch.float64)
    found = []
    for free in range(d):  # solve for one coordinate, walk over the others
        if abs(float(w[free])) < 1e-9:
            continue
        others = [i for i in range(d) if i != free]
        walk = torch.tensor(list(itertools.product(ticks.tolist(), repeat=d - 1)))
        walk = torch.cat([walk.double(), x[others].expand(1, -1)])
        if d == 3:  # lines on which one of the others stays where it is
            stays = x[others].expand(len(ticks), -1).clone()
            for j in range(2):
                line = stays.clone()
                line[:, j] = ticks
                walk = torch.cat([walk, line])
        delta = torch.zeros(len(walk), d, dtype=torch.float64)
        delta[:, others] = walk - x[others]
        delta[:, free] = (gap - delta @ w) / w[free]
        inside = ((x + delta >= -1e-12) & (x + delta <= 1 + 1e-12)).all(1)
        found.append(delta[inside])
    return torch.cat(found)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("name", NORMS)
def test_the_projection_is_the_best_point_of_a_grid(name, d):
    generator = torch.Generator().manual_seed(d)
    x = torch.rand(25, d, dtype=torch.float64, generator=generator)
    w = torch.randn(25, d, dtype=torch.float64, generator=generator)
    w[::7, 0] = 0
    x[::5, 1] = 1.0
    target = torch.rand(25, d, dtype=torch.float64, generator=generator)
    gap = (w * (target - x)).sum(1)  # of both signs, and it can be reached
    delta = cross(x, w, gap, NORMS[name], (0.0, 1.0))
    assert torch.allclose((w * delta).sum(1), gap)
    assert ((x + delta >= -1e-12) & (x + delta <= 1 + 1e-12)).all()
    length = size(delta, NORMS[name])
    for row in range(25):
        best = size(corners_and_edges(x[row], w[row], gap[row], d), NORMS[name]).amin()
        assert length[row] <= best + 1e-9
        assert length[row] >= best - 0.05


@pytest.mark.parametrize("name", NORMS)
def test_a_boundary_out_of_reach_gives_the_nearest_corner(name):
    x = torch.tensor([[0.2, 0.9, 0.5]], dtype=torch.float64)
    w = torch.tensor([[1.0, -2.0, 0.0]], dtype=torch.float64)
    delta = cross(x, w, torch.tensor([50.0], dtype=torch.float64), NORMS[name], (0.0, 1.0))
    assert torch.allclose(x + delta, torch.tensor([[1.0, 0.0, 0.5]], dtype=torch.float64))
    back = cross(x, w, torch.tensor([-50.0], dtype=torch.float64), NORMS[name], (0.0, 1.0))
    assert torch.allclose(x + back, torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64))
    still = cross(x, 0 * w, torch.tensor([1.0], dtype=torch.float64), NORMS[name], None)
    assert torch.equal(still, torch.zeros_like(x))


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


@pytest.mark.parametrize("name", FORMS)
def test_the_passes_are_counted_exactly(name):
    net = Counting(small_net(seed=3)).eval()
    x, y = labelled(net.net, n=7)
    y[0] = (y[0] + 1) % 5  # wrong from the start: one pass
    found = dataclasses.replace(FORMS[name], batch_size=3)(net, x, y)
    assert int(found.forward.sum()) == net.forwards
    assert int(found.backward.sum()) == net.backwards
    assert (int(found.forward[0]), int(found.backward[0])) == (1, 0)


def test_rounds_are_at_most_the_other_classes():
    net = small_net(classes=3, seed=3)
    x, y = labelled(net, n=5)
    two, nine = (fab(steps=10, targets=n)(net, x, y) for n in (2, 9))
    assert torch.equal(two.x, nine.x)
    assert (nine.backward == 20).all()
    assert (fab(steps=10, targets=1)(net, x, y).backward == 10).all()
    assert (fab(steps=10, targets=0)(net, x, y).backward == 20).all()


@pytest.mark.parametrize("name", NORMS)
def test_more_rounds_restarts_and_steps_do_not_lengthen(name):
    net = small_net(seed=3)
    x, y = labelled(net, n=12)
    norm = NORMS[name]
    one, all_ = (fab(norm=norm, steps=20, targets=n, refine=0)(net, x, y) for n in (1, 4))
    again = fab(norm=norm, steps=20, targets=4, restarts=2, refine=0)(net, x, y)
    for less, more in ((one, all_), (all_, again)):
        assert (more.norms[name] <= less.norms[name] + 1e-9).all()
    assert (again.backward == 2 * all_.backward).all()
    long = fab(norm=norm, steps=60, targets=4, refine=0)(net, x, y)
    assert (long.norms[name] <= all_.norms[name] + 1e-9).all()


@pytest.mark.parametrize("name", NORMS)
def test_only_masked_entries_change(name):
    net = small_net(seed=3)
    x, y = labelled(net, n=6)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:, ::2] = True
    for targets in (0, 2):
        attack = fab(norm=NORMS[name], steps=12, targets=targets, restarts=2, mask=mask)
        found = attack(net, x, y)
        assert torch.equal(found.x[:, ~mask], x[:, ~mask])
        assert found.success.any()


@pytest.mark.parametrize("targets", [0, 9])
@pytest.mark.parametrize("name", ["linf", "l2"])
def test_the_mean_norm_is_torchattacks(name, targets):
    package = peers.torchattacks()
    if package is None:
        pytest.skip("torchattacks is not installed")
    net = small_net(seed=3)
    x, y = labelled(net, n=12)
    found = fab(norm=NORMS[name], targets=targets)(net, x, y)
    theirs = package.FAB(
        net, norm={"linf": "Linf", "l2": "L2"}[name], eps=1e9, steps=100, n_classes=5,
        multi_targeted=bool(targets),
    )  # fmt: skip
    other = theirs(x, y)
    with torch.no_grad():
        ok = net(other).argmax(1) != y
    assert (found.success | ~ok).all()
    both = found.success & ok
    ours = size(found.x - x, NORMS[name])[both].mean()
    assert ours <= 1.02 * size(other - x, NORMS[name])[both].mean()


@pytest.mark.parametrize("seed", [0, 3])
def test_the_mean_l1_norm_is_near_that_of_fmn(seed):
    net = small_net(seed=seed)
    x, y = labelled(net, n=20)
    ours, theirs = (a(net, x, y) for a in (fab(norm=c.l1), fmn(norm=c.l1)))
    assert ours.success.all()
    assert ours.norms["l1"].mean() <= 1.05 * theirs.norms["l1"].mean()


def test_the_stage_of_the_standard_protocol_runs():
    stage = next(s for s in AUTOATTACK if s.name == "fab-t")
    net = small_net(classes=2, seed=3)
    x, y = labelled(net, n=4)
    found = stage.make(Setting(c.l1, 2.0, (0.0, 1.0), 1, 4))(net, x, y)
    assert found.success.all()
    assert found.attack.startswith(
        "fab(targeted=False, refine=8, bounds=(0.0, 1.0), seed=1, norm=l1"
    )
    assert (found.backward == 100).all()


def test_a_second_start_finds_points_of_its_own():
    net = small_net(seed=0)
    x, y = labelled(net, n=12)
    one, two = (fab(norm=c.l1, steps=30, targets=1, restarts=n)(net, x, y) for n in (1, 2))
    assert (two.norms["l1"] < one.norms["l1"] - 1e-4).any()


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"norm": c.l0}, "linf, l2, l1"),
        ({"targeted": True}, "no targeted form"),
        ({"steps": 0}, "steps and restarts"),
        ({"targets": -1}, "targets"),
        ({"eta": 0.5}, "eta"),
        ({"beta": 0.0}, "beta"),
    ],
)
def test_bad_arguments_are_named(told, sentence):
    with pytest.raises(WalnutError, match=sentence):
        fab(**told)


def test_inputs_out_of_the_box_are_named():
    with pytest.raises(WalnutError, match="divide by 255"):
        fab()(small_net(), images() * 255, torch.zeros(12, dtype=torch.int64))
