"""Model-based optimisation, on a problem whose truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from walnut.attacks.design import design, ensemble, trust_curve, verdict
from walnut.core.constraints import linf
from walnut.core.errors import WalnutError

D = 30


def truth(x: Tensor) -> Tensor:
    """A property with its best design inside the box: beyond |x − ½| = 1/6 it falls again."""
    z = x - 0.5
    return torch.sin(3 * math.pi * z).mean(1) + 0.5 * (z[:, ::2] * z[:, 1::2]).mean(1)


def sample(seed: int, n: int = 4000) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + 0.1 * torch.randn(n, D, generator=generator)).clamp(0, 1)


def trained(seed: int, steps: int = 400) -> nn.Module:
    """A network fitted to samples of the truth."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(D, 32), nn.ReLU(), nn.Linear(32, 1))
    with torch.no_grad():  # as if inputs had been normalised: 10 · (x − ½)
        net[0].weight.mul_(10)
        net[0].bias.sub_(0.5 * net[0].weight.sum(1))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    x = sample(seed)
    y = truth(x)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (128,), generator=generator)
        loss = (net(x[rows])[:, 0] - y[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained(0)


@pytest.fixture(scope="module")
def best_known() -> Tensor:
    x = sample(0)
    return x[truth(x).topk(8).indices]


def test_the_network_predicts_well_where_it_has_data(net):
    x = sample(77)
    with torch.no_grad():
        error = (net(x)[:, 0] - truth(x)).square().mean()
    assert float(error / truth(x).var()) < 0.3


def test_without_limits_the_answer_is_an_adversarial_example(net, best_known):
    found = design()(net, best_known, truth)
    assert found.verdict == "adversarial example"
    assert bool((found.predicted_gain > 0.5).all())
    assert bool((found.true_gain < -0.2).all())
    assert found.json()["adversarial_examples"] == 8
    assert found.json()["radius"] is None


def test_in_a_small_trust_region_it_is_an_improvement(net, best_known):
    found = design(0.2)(net, best_known, truth)
    assert found.verdicts == ("improvement",) * 8
    assert bool((found.true_gain > 0.05).all())
    assert bool(((found.x - best_known).norm(dim=1) <= 0.2 + 1e-5).all())
    assert bool((found.x >= 0).all() and (found.x <= 1).all())


def test_promise_grows_with_the_radius_and_truth_does_not(net, best_known):
    radii = (0.1, 0.4, 0.8, 1.6, 2.4)
    curve = trust_curve(design, net, best_known, truth, radii)
    assert [d.radius for d in curve] == list(radii)
    promised = [d.json()["mean_predicted"] for d in curve]
    true = [d.json()["mean_true"] for d in curve]
    assert promised == sorted(promised)
    assert true[1] > true[0]
    assert true[-1] < true[1] - 0.3
    assert curve[0].verdict == "improvement"
    assert curve[-1].verdict == "adversarial example"


def test_an_ensemble_far_from_its_data_can_share_the_mistake(net, best_known):
    judges = ensemble((trained(1), trained(2)))
    far = design()(net, best_known, judges)
    assert far.verdict == "improvement"  # and is none: the docstring of ensemble() says so
    assert float(truth(far.x).max()) < float(truth(best_known).min())
    near = design(0.2)(net, best_known, judges)
    assert near.verdict == "improvement"
    assert float(truth(near.x).min()) > float(truth(best_known).min())


def test_the_values_are_those_of_a_fresh_pass_and_of_the_oracle(net, best_known):
    found = design(0.3)(net, best_known, truth)
    with torch.no_grad():
        assert torch.allclose(found.predicted.float(), net(found.x)[:, 0], atol=1e-6)
        assert torch.allclose(found.predicted_start.float(), net(best_known)[:, 0], atol=1e-6)
    assert torch.allclose(found.true.float(), truth(found.x))
    assert torch.allclose(found.true_start.float(), truth(best_known))
    assert found.best == int(found.predicted.argmax())


def test_a_linear_property_is_maximised_exactly():
    net = nn.Linear(4, 1).eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -2.0, 0.5, -1.0]]))
    x = torch.full((1, 4), 0.5)
    w = net.weight.detach()[0]
    found = design(0.2, steps=200)(net, x, lambda p: net(p)[:, 0])
    assert torch.allclose(found.x[0], x[0] + 0.2 * w / w.norm(), atol=5e-3)
    found = design(0.2, norm=linf)(net, x, lambda p: net(p)[:, 0])
    assert torch.allclose(found.x[0], x[0] + 0.2 * w.sign(), atol=1e-6)
    found = design(steps=600, step_size=0.05)(net, x, lambda p: net(p)[:, 0])
    assert torch.allclose(found.x[0], (w > 0).float(), atol=1e-6)


def test_minimising_several_outputs_and_flat_answers():
    net = nn.Linear(4, 2).eval()
    x = torch.full((2, 4), 0.5)
    w = net.weight.detach()
    found = design(0.1, norm=linf, weights=(-1.0, 0.5))(net, x, lambda p: p.sum(1))
    assert torch.allclose(found.x, x + 0.1 * (0.5 * w[1] - w[0]).sign(), atol=1e-6)
    flat = design(0.1, norm=linf)(lambda p: p.sum(1), x, lambda p: p.sum(1))
    assert torch.allclose(flat.x, x + 0.1, atol=1e-6)


def test_the_verdict_needs_more_than_the_tolerance():
    assert verdict(1.0, 0.05, 0.1) == "adversarial example"
    assert verdict(1.0, 0.15, 0.1) == "improvement"
    assert verdict(0.05, 0.0, 0.1) == "no gain"


def test_nothing_of_the_network_changes_and_passes_are_counted():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)).eval()
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.rand(5, 4)
    state, seen = torch.get_rng_state(), []
    net[0].register_forward_hook(lambda m, i, o: seen.append((len(o), o.requires_grad)))
    found = design(0.1, steps=7)(net, x, lambda p: p.sum(1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in kept.items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not net.training
    assert found.forward == sum(n for n, _ in seen)
    assert found.backward == sum(n for n, grad in seen if grad)
    alone = design(0.1, steps=7)(net, x[2:3], lambda p: p.sum(1))
    assert torch.allclose(alone.x[0], found.x[2], atol=1e-6)


def test_what_does_not_fit_is_said():
    net = nn.Linear(4, 2).eval()
    x = torch.rand(3, 4)
    with pytest.raises(WalnutError, match="2 outputs"):
        design(0.1)(net, x, lambda p: p.sum(1))
    with pytest.raises(WalnutError, match="oracle must give"):
        design(0.1, weights=(1.0, 0.0))(net, x, lambda p: p)
    with pytest.raises(WalnutError, match="oracle must give"):
        design(0.1, weights=(1.0, 0.0))(net, x, lambda p: p.sum(1) * float("nan"))
    with pytest.raises(WalnutError, match="radius above 0"):
        design(0.0)
    with pytest.raises(WalnutError, match="the lower one first"):
        design(bounds=(1.0, 0.0))
    with pytest.raises(WalnutError, match="255"):
        design(0.1, weights=(1.0, 0.0))(net, 255 * x, lambda p: p.sum(1))
