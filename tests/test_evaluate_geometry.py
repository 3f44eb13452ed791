"""Lines, maps and subspaces against linear networks, where everything is known."""

import math

import pytest
import torch
from torch import nn

from networks import images, labelled, small_net
from walnut.attacks import fgsm, pgd
from walnut.core.constraints import l2, linf
from walnut.core.errors import WalnutError
from walnut.core.objectives import margin
from walnut.evaluate.axes import along, random_normal, random_signs, units
from walnut.evaluate.geometry import cross_section, lines
from walnut.evaluate.subspace import adversarial_subspace, aligned


def linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], len(weight)).to(weight.dtype))
    net[1].weight.data.copy_(weight)
    net[1].bias.data.copy_(bias)
    return net.eval()


def two_classes(d=40, gap=0.7, seed=0):
    """A linear network, an example in the middle of the box, and its margin: gap."""
    w = torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = torch.full((1, d), 0.5, dtype=torch.float64)
    bias = torch.stack([gap - (w @ x[0]), torch.zeros((), dtype=torch.float64)])
    return linear(torch.stack([w, torch.zeros_like(w)]), bias), x, torch.tensor([0]), w


def test_the_logits_of_a_linear_network_are_straight_along_every_direction():
    net, x, y, w = two_classes()
    axes = (along(fgsm(0.1)), random_signs(3))
    for norm, length in ((linf, 40**0.5), (l2, 1.0)):
        adversarial, random = lines(net, x, y, axes, eps=0.3, norm=norm, points=13)
        assert adversarial.t.tolist() == pytest.approx([0.05 * i for i in range(-6, 7)])
        slope = float(w.abs().sum()) / 40**0.5 * length  # of the margin, down the sign direction
        got = adversarial.logits[0, :, 0] - adversarial.logits[0, :, 1]
        assert got.tolist() == pytest.approx([0.7 - slope * t for t in adversarial.t.tolist()])
        assert float(adversarial.l2) == pytest.approx(length)
        assert float(random.l2) == pytest.approx(length)  # no shorter, no longer
        drawn = random_signs(3)(net, x, y)[0] / 40**0.5 * length
        got = random.logits[0, :, 0] - random.logits[0, :, 1]
        assert got.tolist() == pytest.approx(
            [0.7 + float(w @ drawn) * t for t in random.t.tolist()]
        )
        assert adversarial.prediction[0, 6] == 0


def test_a_cross_section_of_a_linear_network_is_a_half_plane():
    net, x, y, w = two_classes()
    u, v = units(net, x, y, (along(fgsm(0.1)), random_normal(1)), l2, apart=True)
    assert float((u * v).sum()) == pytest.approx(0, abs=1e-12)
    assert float(u.norm()) == pytest.approx(1)
    assert float(v.norm()) == pytest.approx(1)
    found = cross_section(
        net, x, y, (along(fgsm(0.1)), random_normal(1)), eps=0.4, norm=l2, points=9
    )
    for i, b in enumerate(found.grid.tolist()):
        for j, a in enumerate(found.grid.tolist()):
            left = 0.7 + a * float(w @ u[0]) + b * float(w @ v[0])
            assert int(found.prediction[0, i, j]) == int(left < 0)
            point = x + a * u + b * v
            assert bool(found.inside[0, i, j]) == bool(((point >= 0) & (point <= 1)).all())
    assert (found.prediction == 1).any()
    assert (found.prediction == 0).any()


def test_the_box_is_marked_not_clipped():
    net, x, y, _ = two_classes(d=4)
    line = lines(net, x, y, (random_signs(0),), eps=1.0, points=5)[0]
    assert line.inside.tolist() == [[False, True, True, True, False]]
    ends = line.logits[0, 4] - line.logits[0, 2], line.logits[0, 3] - line.logits[0, 2]
    assert ends[0].tolist() == pytest.approx((2 * ends[1]).tolist())  # goes on outside


def test_maps_do_not_depend_on_the_batch_and_leave_the_network_alone():
    net = small_net(classes=3).train()
    x, y = images(5), torch.tensor([0, 1, 2, 0, 1])
    axes = (along(fgsm(0.1)), random_signs(1))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.warns(match="train mode"):
        whole = cross_section(net, x, y, axes, eps=0.5, points=7, batch_size=17)
    with pytest.warns(match="train mode"):
        alone = cross_section(net, x[3:4], y[3:4], axes, eps=0.5, points=7)
    assert torch.equal(whole.prediction[3], alone.prediction[0])
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_two_adversarial_axes_and_a_model_without_gradient():
    net = small_net(classes=4)
    x, y = labelled(net, n=3)
    blind = lambda z: net(z).detach()  # noqa: E731
    axes = (along(fgsm(0.2), on=net), along(pgd(0.2, norm=l2, early_stop=False), on=net))
    seen = cross_section(blind, x, y, axes, eps=0.2, points=5)
    assert torch.equal(seen.prediction[:, 2, 2], y)
    assert torch.equal(
        seen.prediction, cross_section(net, x, y, axes, eps=0.2, points=5).prediction
    )


@pytest.mark.parametrize(
    ("axes", "options", "message"),
    [
        ((random_signs(1), random_signs(1)), {}, "span no plane"),
        ((lambda m, x, y: 0 * x, random_signs(1)), {}, "leaves 2 examples where they are"),
        ((random_signs(0), random_signs(1)), {"points": 4}, "odd number"),
        ((random_signs(0), random_signs(1)), {"eps": 0.0}, "eps positive"),
        ((random_signs(0), random_signs(1)), {"norm": lambda e: e}, "linf or l2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(axes, options, message):
    net = small_net()
    with pytest.raises(WalnutError, match=message):
        cross_section(net, images(2), torch.tensor([0, 1]), axes, **{"eps": 0.1, **options})


# -- the subspace ------------------------------------------------------------------------------


def test_aligned_directions_are_orthonormal_and_share_the_gradient_evenly():
    gradient = torch.randn(3, 30, dtype=torch.float64)
    for k in (1, 2, 7, 30):
        basis = torch.linalg.qr(torch.randn(30, k, dtype=torch.float64))[0].T
        r = aligned(gradient, basis)
        eye = torch.eye(k, dtype=torch.float64).expand(3, k, k)
        assert torch.allclose(r @ r.transpose(1, 2), eye, atol=1e-10)
        share = (gradient.norm(dim=1) / math.sqrt(k))[:, None].expand(3, k)
        assert torch.allclose((r @ gradient[:, :, None])[:, :, 0], share)


@pytest.mark.parametrize("eps", [0.3, 0.5, 0.61, 5.0])
def test_the_dimension_of_a_linear_network_is_known(eps):
    net, x, y, w = two_classes(d=40, gap=1.1)
    found = adversarial_subspace(net, x, y, eps=eps, tried=tuple(range(1, 41)))
    known = min(40, math.ceil((eps * float(w.norm()) / 1.1) ** 2) - 1)
    assert (eps == 5.0) == (known == 40)
    assert int(found.complete) == known
    for k, fooled in zip(found.tried, found.fooled[0].tolist(), strict=True):
        assert fooled == (k if k <= known else 0)
    assert found.forward == sum(range(41)) + 1
    seen = []
    counted = lambda z: (seen.append(len(z)), net(z))[1]  # noqa: E731
    assert adversarial_subspace(counted, x, y, eps=eps, tried=(3, 5)).forward == sum(seen) == 9


def test_what_transfers_is_what_fools_both():
    net, x, y, w = two_classes(d=40, gap=1.1)
    same, further = net, linear(*_with_margin(w, x, 2.2))
    other = linear(*_with_margin(torch.flip(w, (0,)), x, 1.1))
    targets = {"same": same, "further": further, "other": other, "never": lambda z: net(z) * 0 + 1}
    k = int((1.5 * float(w.norm()) / 2.2) ** 2)
    found = adversarial_subspace(net, x, y, eps=1.5, targets=targets, tried=(k, k + 1))
    assert found.fooled.tolist() == [[k, k + 1]]
    assert torch.equal(found.transferred["same"], found.fooled)
    assert found.transferred["further"].tolist() == [[k, 0]]  # its margin is twice as wide
    assert int(found.carried("never")) == 0  # it always answers 0
    assert 0 <= int(found.carried("other")) < k
    assert found.json()["transferred"]["same"] == k + 1


def _with_margin(w, x, gap):
    return torch.stack([w, torch.zeros_like(w)]), torch.stack(
        [gap - w @ x[0], torch.zeros((), dtype=torch.float64)]
    )


def test_wrong_examples_count_for_nothing_and_clipping_is_noticed():
    net = small_net(classes=3)
    x, y = labelled(net, n=6)
    y = torch.where(torch.arange(6) == 2, (y + 1) % 3, y)
    free = adversarial_subspace(net, x, y, eps=3.0, tried=(2, 8), objective=margin())
    assert free.right.tolist() == [True, True, False, True, True, True]
    assert free.fooled[2].tolist() == [0, 0]
    assert free.outside > 0.9
    assert free.json()["examples"] == 5
    boxed = adversarial_subspace(
        net, x, y, eps=3.0, tried=(2, 8), objective=margin(), bounds=(0.0, 1.0)
    )
    assert boxed.outside == 0
    alone = adversarial_subspace(net, x[4:5], y[4:5], eps=3.0, tried=(2, 8), objective=margin())
    assert torch.equal(alone.fooled[0], free.fooled[4])
    with pytest.raises(WalnutError, match="from 1 to 64"):
        adversarial_subspace(net, x, y, eps=1.0, tried=(65,))
    with pytest.raises(WalnutError, match="no gradient"):
        adversarial_subspace(lambda z: net(z).detach(), x, y, eps=1.0)


# -- the figures -------------------------------------------------------------------------------
