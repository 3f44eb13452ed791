"""What a stage may count: inside the ball at every scale, where runs begin, radii without a box."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import labelled, small_net
from walnut.attacks import basin_hopping, fgsm, fmn, odi_pgd
from walnut.core.constraints import l1, l2, linf, measured
from walnut.core.types import Adversarial, perturbation_norms
from walnut.evaluate import robustness
from walnut.evaluate.cascade import Cascade
from walnut.evaluate.entrance import enter
from walnut.evaluate.ledger import Ledger
from walnut.evaluate.path import SURE, gradient_path
from walnut.evaluate.soften import Softened
from walnut.evaluate.stage import Setting
from walnut.evaluate.survey import Survey


@pytest.mark.usefixtures("short_queries")
@pytest.mark.parametrize(("norm", "dual"), [(linf, 1), (l2, 2), (l1, float("inf"))])
def test_the_figure_is_exact_on_eight_bit_levels(norm: Any, dual: float) -> None:
    """In float32, x0 + eps - x0 is off by 1e-5 at a level of 200: that is not outside the ball."""
    torch.manual_seed(0)
    net = nn.Linear(3072, 2).eval()
    x = 255 * torch.rand(60, 3072)
    z = net(x).detach()
    slope = torch.linalg.vector_norm((net.weight[0] - net.weight[1]).detach(), dual)
    nearest = (z[:, 0] - z[:, 1]).abs() / slope
    eps = float(nearest.quantile(0.6))
    wide = (-1e3, 1e3)  # so that the closed form holds: the box is never met
    found = robustness(net, (x, z.argmax(1)), norm, eps, bounds=wide, with_curve=False)
    sure = (nearest - eps).abs() > 1e-3 * eps
    standing = found.survey.fell_to == -1
    assert torch.equal(standing[sure], (nearest > eps)[sure])
    assert (
        next(stage.broke for stage in found.stages) > 0
    )  # by the first step, not by luck later on


@pytest.mark.parametrize("order", [float("inf"), 2, 1])
def test_rounding_is_an_ulp_of_each_entry_and_no_more(order: float) -> None:
    torch.manual_seed(2)
    x0 = 10 ** (8 * torch.rand(200, 6) - 2)
    made = torch.full((200, 6), 0.7)
    x = x0 + made
    length = torch.linalg.vector_norm(made, order, dim=1)
    assert bool((measured(x, x0, order) <= length * (1 + 1e-6)).all())
    small = x0.amax(1) < 1e3  # where an ulp is far below the step
    assert bool((measured(x, x0, order) >= 0.999 * length)[small].all())
    assert bool((measured(x.double(), x0.double(), order) >= 0.999 * length)[small].all())


@pytest.mark.usefixtures("short_queries")
def test_one_huge_entry_lends_the_others_no_room() -> None:
    x = torch.tensor([[1e8, 0.0], [1e8, 1.0], [1e8, 2.0]])
    y = torch.zeros(3, dtype=torch.int64)

    def net(v: Tensor) -> Tensor:
        return torch.stack([5 - v[:, 1], v[:, 1] - 5], 1)

    found = robustness(net, (x, y), "linf", 0.5, bounds=None, with_curve=False)
    assert found.robust.correct == 3
    far = fmn(norm=linf, bounds=None, steps=40)
    assert not basin_hopping(0.5, bounds=None, first=far)(net, x, y).success.any()  # type: ignore[arg-type]


def test_what_is_clearly_outside_the_ball_does_not_count() -> None:
    net = nn.Linear(1, 2, bias=False).eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    x, y = torch.tensor([[200.0], [0.5]]), torch.tensor([0, 0])
    cascade = Cascade(net, Setting(linf, 1.0, None), Survey.of(x, y), Ledger(None, {}))

    def outside(model: nn.Module, x: Tensor, y: Tensor) -> Adversarial:
        end, none = x - torch.tensor([[1.001], [1.001]]), torch.zeros(2, dtype=torch.int64)
        return Adversarial(
            end, ~none.bool(), none + 1, none, none, none, perturbation_norms(end, x), 0.0, "far", 0
        )  # fmt: skip

    assert not bool(cascade.attempt(outside, torch.arange(2))["success"].any())


@pytest.mark.parametrize(
    "front",
    [torch.relu, torch.abs, lambda x: nn.functional.hardtanh(x, 0.0, 1.0)],
    ids=["relu", "abs", "hardtanh"],
)
@pytest.mark.parametrize("norm", [linf, l2])
def test_entries_at_an_end_of_the_box_have_a_gradient(front: Any, norm: Any) -> None:
    """The same function on [0, 1], but torch's slope of it at exactly 0 (and 1) is 0."""
    net = nn.Linear(4, 2, bias=False).eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.2], [1.0, 1.0, 1.0, 0.0]]))
    x, y = torch.tensor([[0.0, 0.0, 0.0, 0.5]]), torch.tensor([0])
    eps = 0.1
    assert not odi_pgd(eps, norm=norm, bounds=None)(lambda z: net(front(z)), x, y).success.any()
    found = odi_pgd(eps, norm=norm, steps=4, restarts=1)(lambda z: net(front(z)), x, y)
    assert bool(found.success.all())
    assert float(found.norms["linf" if norm is linf else "l2"]) <= eps + 1e-6
    assert bool((found.x >= 0).all())


def _stopped(net: nn.Module, share: int) -> nn.Module:
    """Return the same function with no gradient in every tenth entry, ``share`` times."""

    class Stopped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.arange(x[0].numel()).reshape(x.shape[1:]) % 10 < share
            return net(torch.where(mask, x.detach(), x))

    return Stopped().eval()


@pytest.mark.usefixtures("short_queries")
def test_a_gradient_that_is_stopped_in_part_gets_a_twin() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(50, 40), nn.Tanh(), nn.Linear(40, 3)).eval()
    x = torch.rand(60, 50)
    y = net(x).argmax(1)
    whole = robustness(net, (x, y), eps=0.03, with_curve=False)
    assert whole.entrance.kind == "direct"
    part = robustness(_stopped(net, 2), (x, y), eps=0.03, with_curve=False)
    assert 0.8 < gradient_path(_stopped(net, 2), x).agreement < SURE
    assert part.entrance.kind == "twin"
    assert "do not predict" in part.entrance.sentence
    assert part.robust.correct == whole.robust.correct < len(x)
    assert Softened(_stopped(net, 2)).softens(x)
    assert not Softened(net).softens(x)


def test_a_twin_without_a_gradient_is_no_help_to_a_network_that_has_one() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(50, 40), nn.Tanh(), nn.Linear(40, 3)).eval()
    x = torch.rand(20, 50)
    y = net(x).argmax(1)
    flat = enter(_stopped(net, 2), x, y, twin=lambda v: net((v * 255).round() / 255))
    assert flat.kind == "direct"

    def by_numpy(v: Tensor) -> Tensor:  # detached for good: no twin can pass a gradient
        held = torch.from_numpy(v.detach().numpy().copy())
        return net(torch.where(torch.arange(50) % 10 < 2, held, v))

    assert not Softened(by_numpy).softens(x)
    assert enter(by_numpy, x, y).kind == "direct"


def test_runs_begin_where_another_attack_ended() -> None:
    net = small_net()
    x, y = labelled(net, 20)
    alone, begun = (
        fgsm(0.06)(net, x, y),
        odi_pgd(0.06, steps=6, restarts=2, first=fgsm(0.06))(net, x, y),
    )
    assert 0 < int(alone.success.sum()) < int(begun.success.sum())
    assert torch.equal(begun.x[alone.success], alone.x[alone.success])
    assert torch.equal(begun.forward[alone.success], alone.forward[alone.success])
    assert bool((begun.forward[~alone.success] > alone.forward[~alone.success]).all())
    wide = odi_pgd(0.03, steps=6, restarts=1, first=fgsm(0.9))(net, x, y)  # drawn into the ball
    assert bool((wide.norms["linf"] <= 0.03 + 1e-6).all())


@pytest.mark.usefixtures("short_queries")
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_without_a_box_wider_radii_are_wider(scale: float) -> None:
    torch.manual_seed(0)
    net = nn.Linear(20, 2, bias=False).eval()
    x = scale * 5 * torch.randn(100, 20)
    y = net(x).argmax(1)
    found = robustness(net, (x, y), "linf", 0.5 * scale, bounds=None, with_curve=False)
    slope = (net.weight[0] - net.weight[1]).detach().abs().sum()
    gap = (net(x)[:, 0] - net(x)[:, 1]).detach().abs()
    assert found.robust.correct == int((gap > 0.5 * scale * slope).sum())
    told = {check.name: check for check in found.checks}
    assert told["unbounded attack"].level == "good"
    shares = [
        int(part.split("%")[0])
        for part in told["larger radius"].sentence.split(": ")[1].split(", ")
    ]
    assert shares[0] < shares[1]
