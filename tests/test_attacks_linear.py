"""Linear fooling against closed forms and brute force on linear networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instances_linear import LINEAR, OVER
from networks import labelled, linear_net, small_net
from walnut.attacks.last_layer import feature_fooling
from walnut.attacks.linear import linear_fooling, share_along
from walnut.attacks.lines import (
    class_weight,
    class_weights,
    crossing,
    mean_gradient,
    random_line,
    weight_difference,
)
from walnut.checks import check_attack
from walnut.core.errors import WalnutError
from walnut.core.queried import Queried

LINES = {"class-weight": class_weight(), "difference": weight_difference()}


@pytest.mark.parametrize("name", LINEAR)
def test_contract(name):
    check_attack(LINEAR[name])


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
@pytest.mark.parametrize("targeted", [False, True])
def test_contract_on_a_linear_network(lines, targeted):
    net = linear_net(6, 4)
    x = torch.rand(9, 6, dtype=torch.float64)
    y = net(x).argmax(1)
    wanted = (y + 1) % 4 if targeted else y
    attack = linear_fooling(lines, targeted=targeted)
    found = attack(net, x, wanted)
    prediction = net(found.x).argmax(1)
    assert torch.equal(found.prediction, prediction)
    assert torch.equal(found.success, prediction == wanted if targeted else prediction != wanted)
    assert bool((found.x >= 0).all() and (found.x <= 1).all())
    turned = attack(net, x.flip(0), wanted.flip(0))
    assert torch.allclose(turned.x.flip(0), found.x)
    alone = attack(net, x[3:4], wanted[3:4])
    assert torch.allclose(alone.x[0], found.x[3])
    assert torch.allclose(alone.coefficient[0], found.coefficient[3])


def far_net(d: int = 5, classes: int = 3) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear network and examples that the box does not hinder."""
    net = linear_net(d, classes)
    x = 0.5 + 0.02 * torch.randn(20, d, dtype=torch.float64)
    with torch.no_grad():
        net.bias.sub_(net(x).mean(0))
        return net, x, net(x).argmax(1)


def test_two_classes_are_reached_at_the_distance_of_the_boundary():
    net, x, y = far_net(classes=2)
    found = linear_fooling(weight_difference())(net, x, 1 - y)
    with torch.no_grad():
        z = net(x)
    gap = (z[:, 0] - z[:, 1]).abs() / (net.weight[0] - net.weight[1]).norm()
    assert bool(found.success.all())
    assert torch.allclose(found.coefficient, gap.double(), rtol=1e-4)
    assert torch.allclose(found.norms["l2"], gap.double(), rtol=1e-4)


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_coefficient_is_the_smallest_by_brute_force(lines, targeted, classes):
    net, x, y = far_net(classes=classes)
    y = (y + 1) % classes if targeted else y
    found = linear_fooling(lines, targeted=targeted, bounds=None, largest=4.0)(net, x, y)
    with torch.no_grad():
        z = net(x)
        target = y if targeted else z.scatter(1, y[:, None], -1e9).argmax(1)
        step = net.weight[target]
        if lines == weight_difference():
            step = step - net.weight[z.argmax(1)]
        step = step / step.norm(dim=1, keepdim=True)
        grid = torch.linspace(0, 3, 6001, dtype=torch.float64)
        called = torch.stack([net(x + a * step).argmax(1) for a in grid])
    hits = called == y if targeted else called != y
    for row in range(len(x)):
        if bool(hits[:, row].any()):
            first = float(grid[int(hits[:, row].int().argmax())])
            assert bool(found.success[row])
            assert first - 6e-4 <= float(found.coefficient[row]) <= first + 1e-4
        else:
            assert not bool(found.success[row]) or float(found.coefficient[row]) > 3


def test_where_the_box_binds_the_coefficient_is_bisected():
    net = nn.Linear(2, 2, bias=True).double().eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        net.bias.copy_(torch.tensor([0.0, -5.0]))
    x = torch.tensor([[0.5, 0.9]], dtype=torch.float64)  # 3·.5 + 4·.9 − 5 = 0.1: class 1 already
    assert linear_fooling(class_weight())(net, x, torch.tensor([1])).coefficient.tolist() == [0.0]
    x = torch.tensor([[0.1, 0.9]], dtype=torch.float64)
    # the second entry stops at 1: 3(.1 + .6a) + 4 − 5 = 0 at a = 0.7/1.8
    found = linear_fooling(class_weight(), halvings=30)(net, x, torch.tensor([1]))
    assert float(found.coefficient) == pytest.approx(0.7 / 1.8, rel=1e-5)
    assert float(found.x[0, 1]) == 1.0
    assert float(found.x[0, 0]) == pytest.approx(1 / 3, rel=1e-5)
    assert int(found.first_success) > 0
    # three halvings of the step of the grid that it lies in, from √2/4 to √2/2
    coarse = float(
        linear_fooling(class_weight(), halvings=3)(net, x, torch.tensor([1])).coefficient
    )
    assert 0.7 / 1.8 < coarse < 0.7 / 1.8 + 2**0.5 / 32


def test_the_boundary_is_not_taken_for_success():
    z = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    slopes = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    to = crossing(z, slopes, torch.tensor([1]), True)
    away = crossing(z, slopes, torch.tensor([0]), False)
    assert float(to) > 1
    assert float(away) > 1
    assert float(to) == pytest.approx(1)
    assert float(away) == pytest.approx(1)
    # moving the other way never gets there
    assert crossing(z, -slopes, torch.tensor([1]), True).isinf().all()
    assert crossing(z, -slopes, torch.tensor([0]), False).isinf().all()
    # the target overtakes the first class only where the third has already overtaken it
    z = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)
    slopes = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    assert crossing(z, slopes, torch.tensor([1]), True).isinf().all()
    assert float(crossing(z, slopes, torch.tensor([0]), False)) == pytest.approx(0.5)


def test_weights_are_read_through_layers_that_normalise():
    inner = linear_net(4, 3)

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner((x.flatten(1) - 0.3) / 0.5)

    x = torch.rand(5, 1, 2, 2, dtype=torch.float64)
    net = Shifted().eval()
    weights = class_weights(Queried(net), x, net(x).detach())
    assert torch.allclose(weights.flatten(1), inner.weight / 0.5)


def test_a_network_that_is_not_linear_is_refused():
    net = small_net()
    x, y = labelled(net)
    with pytest.raises(WalnutError, match="mean_gradient"):
        linear_fooling(class_weight())(net, x, (y + 1) % 5)


def test_the_mean_gradient_of_a_linear_network_is_its_weight_vector():
    net, x, y = far_net()
    over = torch.rand(7, 5, dtype=torch.float64)
    wanted = (y + 1) % 3
    a = linear_fooling(mean_gradient(over), halvings=40)(net, x, wanted)
    b = linear_fooling(class_weight())(net, x, wanted)
    both = a.success & b.success
    assert torch.equal(a.success, b.success)
    assert bool(both.any())
    assert torch.allclose(a.coefficient[both], b.coefficient[both], rtol=1e-4)


def test_passes_are_counted_exactly():
    net = small_net()
    x, y = labelled(net)
    for lines in (mean_gradient(OVER), random_line()):
        seen: list[tuple[int, bool]] = []
        handle = net[0].register_forward_hook(
            lambda m, i, o, seen=seen: seen.append((len(o), o.requires_grad))
        )
        found = linear_fooling(lines)(net, x, (y + 1) % 5)
        handle.remove()
        assert int(found.forward.sum()) == sum(n for n, _ in seen)
        assert int(found.backward.sum()) == sum(n for n, grad in seen if grad)


def test_one_pattern_for_all_pictures_and_the_control_beside_it():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(100, 4)).eval()
    x = 0.5 + 0.1 * torch.randn(200, 1, 10, 10).clamp(-4, 4)
    y = net(x).argmax(1)
    x, y = x[y != 2], y[y != 2]
    target = torch.full_like(y, 2)
    at = (0.0, 0.5, 1.0, 2.0, 5.0)
    shares = share_along(net, x, target, class_weight(), at)
    by_hand = []
    step = net[1].weight[2].detach().reshape(1, 1, 10, 10)
    for a in at:
        moved = (x + a * step / step.norm()).clamp(0, 1)
        by_hand.append(float((net(moved).argmax(1) == 2).double().mean()))
    assert shares.tolist() == pytest.approx(by_hand)
    assert float(shares[0]) == 0
    assert bool((shares[1:] >= shares[:-1]).all())
    assert float(shares[-1]) == 1
    # a random direction favours one class in four, whichever it is
    control = [float(share_along(net, x, target, random_line(s), at)[-1]) for s in range(20)]
    assert sum(control) / 20 < 0.5


def test_a_mask_holds_the_other_entries():
    net, x, y = far_net(6, 3)
    mask = torch.tensor([True, True, False, True, False, True])
    found = linear_fooling(weight_difference(), mask=mask, largest=3.0)(net, x, (y + 1) % 3)
    assert torch.equal(found.x[:, ~mask], x[:, ~mask])
    assert bool(found.success.any())


def test_a_failed_example_is_the_strongest_attempt():
    net = nn.Linear(2, 2).double().eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        net.bias.copy_(torch.tensor([0.0, -5.0]))  # class 1 is out of reach
    x = torch.tensor([[0.2, 0.5]], dtype=torch.float64)
    found = linear_fooling(class_weight())(net, x, torch.tensor([1]))
    assert found.success.tolist() == [False]
    assert found.coefficient.isinf().all()
    assert found.x.tolist() == [[1.0, 0.5]]


def test_features_of_the_last_layer_move_by_the_closed_form():
    net = small_net()
    x, y = labelled(net)
    target = (y + 1) % 5
    found = feature_fooling(net, x, target)
    assert found.layer == "7"
    with torch.no_grad():
        features = net[:-1](x)
        step = net[-1].weight[target]
        step = step / step.norm(dim=1, keepdim=True)

        def called(share: float) -> Tensor:
            a = torch.where(found.success, share * found.coefficient, 0.0).float()
            return net[-1](features + a[:, None] * step).argmax(1)

        assert bool(found.success.any())
        assert torch.equal(called(1.001)[found.success], target[found.success])
        assert bool((called(0.999) != target)[found.success].all())
    assert torch.allclose(
        found.relative[found.success],
        (found.coefficient / features.norm(dim=1))[found.success],
        rtol=1e-5,
    )
    assert not net[7]._forward_hooks


def test_a_network_without_a_last_linear_layer_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh()).eval()
    with pytest.raises(WalnutError, match="does not end in a linear layer"):
        feature_fooling(net, torch.rand(2, 4), torch.tensor([0, 1]))
    with pytest.raises(WalnutError, match="out of range"):
        feature_fooling(nn.Linear(4, 3).eval(), torch.rand(2, 4), torch.tensor([0, 3]))


def test_without_bounds_the_largest_coefficient_is_asked_for():
    net, x, y = far_net()
    with pytest.raises(WalnutError, match="largest="):
        linear_fooling(class_weight(), bounds=None)(net, x, (y + 1) % 3)
