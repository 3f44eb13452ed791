"""Promises of single methods that the mutation check found nothing else to hold."""

import pytest
import torch
from torch import nn

from walnut.attacks.apgd import apgd, apgd_t
from walnut.attacks.carlini_wagner import carlini_wagner
from walnut.attacks.ddn import ddn
from walnut.attacks.fmn import fmn
from walnut.attacks.transferable import Tuned
from walnut.core.adaptive import Adaptive, checkpoints
from walnut.core.constraints import box, unconstrained
from walnut.core.directions import normalized
from walnut.core.dlr import dlr, targeted_dlr
from walnut.core.draws import Draws
from walnut.core.objectives import margin
from walnut.core.search import Queries


def test_dlr_is_its_formula_term_by_term():
    z = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, t = torch.arange(40) % 6, (torch.arange(40) + 2) % 6
    falling = z.sort(1, descending=True).values
    own = dlr()(lambda _: z, z, y)
    to_target = targeted_dlr()(lambda _: z, z, torch.stack([y, t], 1))
    for i in range(40):
        others = torch.cat([z[i, : y[i]], z[i, y[i] + 1 :]])
        assert own[i] == pytest.approx(
            float((others.max() - z[i, y[i]]) / (falling[i, 0] - falling[i, 2])), abs=1e-9
        )
        below = (falling[i, 2] + falling[i, 3]) / 2
        assert to_target[i] == pytest.approx(
            float((z[i, t[i]] - z[i, y[i]]) / (falling[i, 0] - below)), abs=1e-9
        )


def test_apgd_settles_on_a_peak_inside_the_ball():
    peak = torch.rand(6, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = (peak + 0.1 * (2 * torch.rand(6, 20, dtype=torch.float64) - 1)).clamp(0, 1)
    net = nn.Linear(20, 2).double().eval()
    rows = dict(zip(map(tuple, x.tolist()), peak, strict=True))
    assert len(rows) == 6

    def height(model, z, y):
        return -(z - peak[y]).square().sum(1) + 0 * model(z)[:, 0]

    # labels 0..5 name the peaks; the network's two classes are never asked about
    attack = apgd(0.2, steps=100, objective=height, early_stop=False)
    found = attack(net, x, torch.arange(6))
    assert (found.x - peak).norm(dim=1).max() < 0.02  # a step of 2·eps that never fell: 0.4·√20


def test_apgd_goes_back_to_its_best_point_at_a_checkpoint():
    steps, eps = 20, 0.5
    method = Adaptive(eps, steps, unconstrained(), normalized())
    x0 = torch.zeros(1, 3, dtype=torch.float64)
    state = method.start(x0, torch.tensor([0]), Draws.of(x0, 0))
    due = int((checkpoints(steps) > 0).nonzero()[0])
    best, gradient = (
        torch.tensor([[1.0, 2.0, 3.0]]).double(),
        torch.tensor([[0.0, 3.0, 4.0]]).double(),
    )
    high = torch.tensor([7.0], dtype=torch.float64)
    state = state._replace(
        best_z=best, best_grad=gradient, best=high, best_then=high, last=high,
        halved=torch.zeros(1, dtype=torch.bool),
    )  # fmt: skip
    before = state.z
    after = method.advance(
        state, torch.ones_like(x0), high - 1, x0, torch.tensor([due / steps]).double(), Draws.of(x0, 0)
    )  # fmt: skip
    size = float(state.size) / 2
    assert float(after.size) == size == eps
    stepped = best + size * gradient / 5
    assert torch.allclose(after.z, best + 0.75 * (stepped - best) + 0.25 * (best - before))


def test_the_tuned_variance_is_the_gradient_around_less_the_gradient_here():
    part = Tuned(0.1, box(), samples=400, radius=0.3)
    x = torch.full((2, 1), 0.4, dtype=torch.float64)
    zero = torch.zeros_like(x)
    _, (grad, variance) = part.evaluate(
        lambda z: (z**3).sum(1), (x, zero, zero, (), ()), Draws.of(x, 0)
    )
    assert torch.allclose(grad, torch.full_like(x, 3 * 0.4**2))
    # E 3(x + r)² − 3x² = 3 E r² = radius²
    assert ((variance - 0.3**2).abs() < 0.04).all()


def test_a_query_is_kept_only_where_it_raises_the_value():
    step = Queries(lambda best, x0, progress, draws: best, box())
    best = torch.tensor([[0.1], [0.2], [0.3]])
    tried = torch.tensor([[0.5], [0.6], [0.7]])
    held, values, proposed = step.advance(
        (best, torch.tensor([1.0, 1.0, 1.0]), tried), None, torch.tensor([0.5, 1.0, 1.5]),
        best, torch.zeros(3), Draws.of(best, 0),
    )  # fmt: skip
    assert held.flatten().tolist() == pytest.approx([0.1, 0.2, 0.7])
    assert values.tolist() == [1.0, 1.0, 1.5]
    assert torch.equal(proposed, held)


def test_the_round_of_targets_goes_on_to_a_class_that_can_be_reached():
    class Two(nn.Module):
        """Class 1 is the likeliest other one and never wins; class 2 is far, and does."""

        def forward(self, x):
            high = x.sum(1) - 6.5
            low = 0 * high
            return torch.stack([low, low - 0.1, high, low - 3, low - 4], 1)

    x, y = torch.full((3, 10), 0.5), torch.zeros(3, dtype=torch.int64)
    one = apgd_t(0.2, steps=10, targets=1)(Two().eval(), x, y)
    both = apgd_t(0.2, steps=10, targets=2)(Two().eval(), x, y)
    assert not one.success.any()
    assert both.success.all()
    assert (both.prediction == 2).all()
    assert (both.first_success >= 10).all()


@pytest.mark.parametrize(
    "attack",
    [
        fmn(steps=150, refine=0, candidates=0),
        ddn(steps=150, refine=0, candidates=0, objective=margin()),
        carlini_wagner(searches=8, steps=60, refine=0, candidates=0),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_without_refining_a_minimal_attack_itself_closes_in_on_the_boundary(attack):
    torch.manual_seed(0)
    net = nn.Linear(20, 3).double().eval()
    x = 0.4 + 0.2 * torch.rand(12, 20, dtype=torch.float64)
    with torch.no_grad():
        z = net(x)
    y, w = z.argmax(1), net.weight.detach()
    least = [
        min(float((z[i, y[i]] - z[i, k]) / (w[y[i]] - w[k]).norm()) for k in range(3) if k != y[i])
        for i in range(12)
    ]
    found = attack(net, x, y)
    assert found.success.all()
    ratio = found.norms["l2"] / torch.tensor(least, dtype=torch.float64)
    assert (ratio > 0.999).all()
    assert float(ratio.mean()) < 1.05
