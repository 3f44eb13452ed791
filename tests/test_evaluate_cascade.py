"""What a stage may count: inside the ball at every scale, where runs begin, radii without a box."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from walnut.attacks import odi_pgd
from walnut.core.constraints import l1, l2, linf, rounding
from walnut.core.types import Adversarial, perturbation_norms
from walnut.evaluate import robustness
from walnut.evaluate.cascade import Cascade
from walnut.evaluate.ledger import Ledger
from walnut.evaluate.path import SURE, gradient_path
from walnut.evaluate.soften import Softened
from walnut.evaluate.stage import Setting
from walnut.evaluate.survey import Survey


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


def test_rounding_is_an_ulp_and_no_more() -> None:
    x0 = torch.tensor([[200.0, 3.0], [0.5, 0.25]])
    x = x0 + 5.1
    off = perturbation_norms(x, x0)["linf"] - 5.1
    allowed = rounding(x, float("inf"))
    assert bool((off <= allowed).all())
    assert float(allowed[0]) == pytest.approx(205.1 * 2**-23)
    assert float(rounding(x.double(), 2)[1]) < 1e-14


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
