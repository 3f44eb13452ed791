import pytest
import torch
import torch.nn.functional as F

from instances import OBJECTIVES
from networks import images, small_net
from walnut import WalnutError
from walnut.checks import check_objective
from walnut.core import objectives as o
from walnut.core.features import activations


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_contract(name):
    check_objective(OBJECTIVES[name])


def test_cross_entropy_is_torchs_and_so_is_its_gradient():
    z = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)
    y = torch.randint(0, 7, (50,))
    mine, theirs = o.cross_entropy()(lambda x: x, z, y), F.cross_entropy(z, y, reduction="none")
    assert torch.allclose(mine, theirs)
    a, b = (torch.autograd.grad(v.sum(), z, retain_graph=True)[0] for v in (mine, theirs))
    assert torch.allclose(a, b)


def test_cross_entropy_keeps_its_gradient_where_the_usual_form_loses_it():
    z = torch.tensor([[40.0, 1.0, 0.0]])
    wide = z.double().requires_grad_()
    y = torch.tensor([0])
    (truth,) = torch.autograd.grad(o.cross_entropy()(lambda x: x, wide, y).sum(), wide)
    narrow = z.clone().requires_grad_()
    (mine,) = torch.autograd.grad(o.cross_entropy()(lambda x: x, narrow, y).sum(), narrow)
    (usual,) = torch.autograd.grad(F.cross_entropy(narrow, y), narrow)
    assert torch.allclose(mine.double(), truth, rtol=1e-5, atol=0)
    assert usual[0, 0] == 0


def test_soft_targets():
    z, y = torch.randn(5, 3), torch.rand(5, 3).softmax(1)
    assert torch.allclose(
        o.cross_entropy()(lambda x: x, z, y), F.cross_entropy(z, y, reduction="none")
    )


def test_margins_by_hand():
    z, y = torch.tensor([[2.0, 5.0, 1.0], [4.0, 0.0, 3.0]]), torch.tensor([0, 0])
    assert o.margin()(lambda x: x, z, y).tolist() == [3.0, -1.0]
    p = z.softmax(1)
    want = torch.stack([p[0, 1] - p[0, 0], p[1, 2] - p[1, 0]])
    assert torch.allclose(o.probability_margin()(lambda x: x, z, y), want)
    assert o.misclassified()(z, y).tolist() == [True, False]
    assert o.classified_as()(z, torch.tensor([1, 1])).tolist() == [True, False]


def test_kl_is_zero_for_the_teacher_itself_and_torchs_otherwise():
    net, other, x = small_net(seed=0), small_net(seed=1), images()
    assert o.kl_divergence(net)(net, x).abs().max() < 1e-6
    t, z = other(x) / 3, net(x) / 3
    want = 9 * F.kl_div(z.log_softmax(1), t.log_softmax(1), reduction="none", log_target=True).sum(
        1
    )
    assert torch.allclose(o.kl_divergence(other, 3.0)(net, x), want, atol=1e-5)


def test_feature_distance_is_the_distance_of_features():
    net, x, target = small_net(), images(seed=0), images(seed=1)
    want = (net[0](x) - net[0](target)).flatten(1).square().sum(1)
    assert torch.allclose(o.feature_distance("0")(net, x, target), want)
    assert not any(m._forward_hooks for m in net.modules())


def test_features_of_an_unknown_layer_are_named_and_hooks_go_also_on_error():
    net = small_net()
    with pytest.raises(WalnutError, match="no layer 'conv'; it has: 0"), activations(net, ["conv"]):
        pass
    with pytest.raises(KeyError), activations(net, ["0"]):
        raise KeyError
    assert not any(m._forward_hooks for m in net.modules())


def test_weighted_sums_add_up():
    net, x, y = small_net(), images(), torch.zeros(12, dtype=torch.int64)
    want = 0.5 * o.cross_entropy()(net, x, y) + 2 * o.margin()(net, x, y)
    assert torch.allclose(OBJECTIVES["weighted"](net, x, y), want)
    with pytest.raises(WalnutError, match="at least one"):
        o.weighted(())
