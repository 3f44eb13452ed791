"""Universal patterns: closed forms on linear networks, exact counting, controls, independence."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from instances_patch import learned
from networks import images, labelled, linear_net, small_net
from walnut import WalnutError
from walnut.attacks import pgd
from walnut.attacks.deepfool import deepfool
from walnut.attacks.universal import apply, universal
from walnut.attacks.universal_sgd import clipped, universal_sgd
from walnut.core import constraints as c
from walnut.core.errors import WalnutWarning
from walnut.core.objectives import cross_entropy
from walnut.evaluate.universal import fooling_rate, learning_curve, shuffled, target_rate

MAKERS = {
    "rounds": universal(0.2, rounds=2),
    "rounds-l2": universal(1.0, norm=c.l2, rounds=2),
    "rounds-l1": universal(6.0, norm=c.l1, rounds=1),
    "rounds-linf-inner": universal(
        0.2, rounds=1, inner=deepfool(norm=c.linf, bounds=None, steps=5)
    ),
    "rounds-target": universal(0.2, rounds=1, target=2),
    "sgd": universal_sgd(0.2, epochs=3, pictures=5),
    "sgd-l2": universal_sgd(1.0, norm=c.l2, epochs=2, pictures=5),
    "sgd-l1": universal_sgd(6.0, norm=c.l1, epochs=2),
    "sgd-target": universal_sgd(0.2, epochs=2, pictures=5, target=2),
}


class Counting(nn.Module):
    """A network that counts the rows it is asked about, and the rows a gradient comes back through."""

    def __init__(self, net):
        super().__init__()
        self.net, self.forward_rows, self.backward_rows = net, 0, 0

    def forward(self, x):
        self.forward_rows += len(x)
        z = self.net(x)
        if z.requires_grad:
            self.backward_rows += len(x)
        return z


def separated(n=40, d=6):
    """Return two classes split by sum(x) = d/2 in [0, 1]^d: all the first class, and the network."""
    x = 0.15 + 0.3 * torch.rand(n, d, generator=torch.Generator().manual_seed(3)).double()
    net = nn.Linear(d, 2).double().eval()
    with torch.no_grad():
        net.weight.copy_(
            torch.tensor([[-1.0], [1.0]]).double() * torch.linspace(0.5, 1.5, d).double()
        )
        net.bias.copy_(
            torch.tensor([1.0, -1.0]).double() * float(torch.linspace(0.5, 1.5, d).sum() / 2)
        )
    return net, x, torch.zeros(n, dtype=torch.int64)


# -- the record ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_the_record_is_what_a_fresh_pass_says(name):
    make, net = MAKERS[name], small_net()
    x, y = labelled(net, 13)
    made = make(net, x, y)
    with torch.no_grad():
        read = net((x + made.pattern).clamp(0, 1)).argmax(1)
    assert torch.equal(made.x, (x + made.pattern).clamp(0, 1))
    assert torch.equal(made.prediction, read)
    assert torch.equal(made.success, read == 2 if make.target is not None else read != y)
    assert bool(make.ball.contains(made.pattern[None], torch.zeros_like(made.pattern)[None]))
    assert float(made.pattern.abs().max()) > 0
    assert bool((made.first_success[made.success] >= 0).all())
    assert made.history
    assert made.attack == repr(make)


@pytest.mark.parametrize("name", MAKERS)
def test_passes_are_counted_to_the_last(name):
    net = Counting(small_net()).eval()
    x, y = labelled(net.net, 9)
    made = MAKERS[name](net, x, y)
    assert int(made.forward.sum()) == net.forward_rows
    if name.startswith("sgd"):  # DeepFool goes back once a class through one forward pass
        assert int(made.backward.sum()) == net.backward_rows
    assert int(made.backward.sum()) >= net.backward_rows > 0


@pytest.mark.parametrize("name", MAKERS)
def test_order_and_batch_size_change_nothing(name):
    net = small_net().double()
    x, y = labelled(net.float(), 12)
    net, x = net.double(), x.double()
    made = MAKERS[name](net, x, y)
    turn = torch.arange(12).flip(0)
    assert torch.allclose(MAKERS[name](net, x[turn], y[turn]).pattern, made.pattern, atol=1e-9)
    small = replace(MAKERS[name], batch_size=5)(net, x, y)
    assert torch.allclose(small.pattern, made.pattern, atol=1e-9)
    assert torch.equal(small.forward, made.forward)


@pytest.mark.parametrize("name", ["rounds", "sgd", "sgd-target"])
def test_nothing_of_the_network_changes_even_when_it_raises(name):
    net = small_net().train()
    x, y = images(6), torch.arange(6) % 2
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    hook = net[-1].register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyError("stop")))
    with pytest.raises(KeyError), pytest.warns(WalnutWarning, match="train mode"):
        MAKERS[name](net, x, y)
    hook.remove()
    with pytest.warns(WalnutWarning, match="train mode"):
        MAKERS[name](net, x, y)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("make", [universal(0.3, rounds=2), universal_sgd(0.3, epochs=2)])
@pytest.mark.parametrize(("shape", "classes"), [((6,), 2), ((6,), 3), ((3, 5, 4), 4)])
def test_any_shape_and_number_of_classes(make, shape, classes):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), classes)).eval()
    x = torch.rand(7, *shape)
    made = make(net, x, net(x).argmax(1))
    assert made.pattern.shape == shape
    with torch.inference_mode():
        assert torch.equal(make(net, x, net(x).argmax(1)).pattern, made.pattern)


# -- closed forms ----------------------------------------------------------------------------------


def test_on_a_linear_network_the_gradient_pattern_is_the_sign_of_the_weight_difference():
    net, x, y = separated()
    w = (net.weight[1] - net.weight[0]).detach()
    made = universal_sgd(0.1, epochs=12)(net, x, y)  # the box is nowhere reached
    assert torch.allclose(made.pattern, 0.1 * w.sign())
    back = universal_sgd(0.1, epochs=12, target=1)(net, x, y)
    assert torch.allclose(back.pattern, 0.1 * w.sign())
    round_ball = universal_sgd(0.3, norm=c.l2, epochs=12)(net, x, y)
    assert torch.allclose(round_ball.pattern, 0.3 * w / w.norm(), atol=1e-6)


def test_on_a_linear_network_the_rounds_go_along_the_weight_difference_and_stop_at_the_rate():
    net, x, y = separated()
    w = (net.weight[1] - net.weight[0]).detach()
    z = net(x).detach()
    far = float(((z[:, 0] - z[:, 1]) / w.norm()).max())  # the farthest picture's distance
    made = universal(1.5 * far, norm=c.l2, rate=1.0, rounds=9, bounds=None)(net, x, y)
    assert made.history == (1.0,)  # each picture is visited once and none comes back
    assert bool(made.success.all())
    assert float(torch.cosine_similarity(made.pattern, w, 0)) > 1 - 1e-6
    assert far <= float(made.pattern.norm()) <= 1.03 * far
    half = universal(0.5 * far, norm=c.l2, rate=1.0, rounds=2, bounds=None)(net, x, y)
    assert float(half.pattern.norm()) == pytest.approx(0.5 * far, rel=1e-6)  # on the sphere
    expected = ((z[:, 1] - z[:, 0]) / w.norm() + 0.5 * far > 0).double().mean()
    assert half.history[-1] == pytest.approx(float(expected))


def test_the_inner_attack_sees_the_picture_as_it_is_shown():
    """The entry with the larger weight is at its limit in every picture: only the other can help."""
    net = nn.Linear(2, 2).double().eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 1.0]]))
        net.bias.copy_(torch.tensor([3.5, 0.0]))
    x = torch.tensor([[1.0, 0.1], [1.0, 0.2]]).double()
    made = universal(0.9, rounds=9, rate=1.0)(net, x, torch.zeros(2, dtype=torch.int64))
    assert bool(made.success.all())
    assert float(made.pattern[1]) >= 0.4


def test_the_loss_is_clipped_and_lost_pictures_pull_no_more():
    net, x = linear_net(), torch.rand(5, 6).double()
    y = torch.arange(5) % 3
    plain = cross_entropy()(net, x, y).detach()
    cut = clipped(cross_entropy(), float(plain.median()))
    assert torch.equal(cut(net, x, y).detach(), plain.clamp_max(float(plain.median())))
    lost = universal_sgd(0.2, epochs=3, ceiling=0.0)(net, x, y)
    assert float(lost.pattern.abs().max()) == 0.0


# -- on networks that learned something ---------------------------------------------------------------


@pytest.mark.parametrize("make", [universal(0.3, rounds=2), universal_sgd(0.3, epochs=15)])
def test_it_fools_on_pictures_it_was_not_made_from_and_a_shuffled_one_does_not(make):
    net, x, y, held, _ = learned()
    made = make(net, x[:100], y[:100])
    rate = fooling_rate(net, made.pattern, held)
    assert rate.low > fooling_rate(net, shuffled(made.pattern), held).high + 0.1


def test_the_loss_climbs_with_the_pattern_more_than_against_it():
    net, x, y, _, _ = learned()
    made = universal_sgd(0.1, epochs=15)(net, x[:100], y[:100])

    def loss(v):
        return float(cross_entropy()(net, apply(v, x[:100], (0.0, 1.0)), y[:100]).mean())

    assert loss(made.pattern) > 1.3 * loss(-made.pattern)  # the opposite harms as well, but less
    assert loss(made.pattern) > 3 * loss(0 * made.pattern)
    assert made.history[-1] > made.history[0]


@pytest.mark.parametrize("pair", [
    (universal(0.3, rounds=1), universal(0.3, rounds=1, target=3)),
    (universal_sgd(0.3, epochs=15), universal_sgd(0.3, epochs=15, target=3)),
], ids=["rounds", "sgd"])  # fmt: skip
def test_with_a_target_it_reaches_the_target_more_often(pair):
    net, x, y, held, _ = learned()
    free, aimed = (make(net, x[:40], y[:40]) for make in pair)
    reached = target_rate(net, aimed.pattern, held, 3)
    assert reached.low > target_rate(net, free.pattern, held, 3).high
    assert reached.value > 0.3


def test_the_learning_curve_counts_and_rises():
    net, x, y, held, _ = learned()
    few, many = learning_curve(universal_sgd(0.3, epochs=15), net, x, (1, 200), held, y)
    assert (few.count, many.count, many.seen.total, many.held_out.total) == (1, 200, 200, 120)
    assert many.held_out.value > few.held_out.value
    assert many.forward == 200 * (15 + 2)
    assert many.backward == 200 * 15
    assert many.json()["control"]["total"] == 120


def test_shuffled_has_the_same_size_in_every_norm():
    v = torch.randn(3, 4, 5)
    w = shuffled(v, 1)
    assert torch.equal(v.abs().flatten().sort().values, w.abs().flatten().sort().values)
    assert not torch.equal(v.abs(), w.abs())
    assert not torch.equal(w, shuffled(v, 2))
    assert 10 < int((shuffled(torch.ones(60)) > 0).sum()) < 50


# -- words -------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_said():
    net, x = small_net(), images(4)
    y = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(WalnutError, match="bounds=None"):
        universal(0.1, inner=deepfool())
    with pytest.raises(WalnutError, match="targeted"):
        universal(0.1, target=1, inner=deepfool(bounds=None))
    with pytest.raises(WalnutError, match="rate"):
        universal(0.1, rate=0.0)
    with pytest.raises(WalnutError, match="eps is 8"):
        universal_sgd(8)
    with pytest.raises(WalnutError, match="out of range"):
        universal_sgd(0.1, target=7)(net, x, y)
    read = int(net(x[:1]).argmax(1))
    with pytest.raises(WalnutError, match="target class already"):
        universal_sgd(0.1, target=read)(net, x[:1], y[:1])
    with pytest.raises((WalnutError, TypeError), match="pattern"):  # the shape check is on in tests
        apply(torch.zeros(3), x, (0.0, 1.0))
    with pytest.raises(WalnutError, match="counts"):
        learning_curve(universal(0.1), net, x, (5,), x)


def test_another_inner_attack_can_be_given():
    net, x, y = separated()
    inner = pgd(0.05, steps=3, random_start=False, bounds=None)
    made = universal(0.3, inner=inner, rounds=2)(net, x, y)
    assert float(made.pattern.abs().max()) <= 0.3 + 1e-9
