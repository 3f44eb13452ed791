"""Batch normalisation absorbed: the same network in eval mode, and constants in its state."""

import pytest
import torch
from torch import nn

from walnut import nets
from walnut.core.errors import WalnutError
from walnut.weights.norms import absorb, batch_norms, refreshed


def trained(seed=0):
    """Return a small ResNet whose statistics are not those of its start."""
    torch.manual_seed(seed)
    net = nets.build("resnet-20", shape=(3, 16, 16), classes=5, width=4, blocks=1)
    with torch.no_grad():
        for norm in batch_norms(net).values():
            norm.weight.uniform_(-1.5, 1.5)
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.01, 4.0)
    return net.eval()


def test_the_network_is_the_same_in_eval_mode_and_its_statistics_are_constants():
    net, x = trained(), torch.rand(16, 3, 16, 16)
    double = trained().double()
    with torch.no_grad():
        before = double(x.double())
        assert torch.allclose(absorb(double)(x.double()), before, atol=1e-6)
        wanted = net(x)
        assert absorb(net) is net
        assert torch.allclose(net(x), wanted, atol=2e-5 * float(wanted.abs().max()))
    for norm in batch_norms(net).values():
        assert not norm.running_mean.any()
        assert not norm.num_batches_tracked
        assert len(norm.running_var.unique()) == 1
    state = {k: v.clone() for k, v in net.state_dict().items()}
    absorb(net)  # a second time: nothing is left to absorb
    assert all(torch.allclose(v, state[k], rtol=1e-6) for k, v in net.state_dict().items())


def test_norms_of_one_and_three_axes_and_those_without_factors():
    for norm, shape in [(nn.BatchNorm1d(3), (9, 3)), (nn.BatchNorm3d(3), (4, 3, 2, 2, 2))]:
        x = 3 * torch.randn(shape) + 1
        norm(x)
        wanted = norm.eval()(x)
        assert torch.allclose(absorb(norm)(x), wanted, atol=1e-5)
    plain = nn.BatchNorm2d(3, affine=False)
    plain.running_mean.fill_(2.0)
    assert absorb(plain).running_mean.eq(2.0).all()  # there is nowhere to put it
    assert batch_norms(nn.BatchNorm2d(3, track_running_stats=False)) == {}


def test_a_variance_of_zero_is_named():
    net = nn.Sequential(nn.BatchNorm2d(2, eps=0.0))
    net[0].running_var.zero_()
    with pytest.raises(WalnutError, match="0 divides by a variance"):
        absorb(net)
    net = nn.Sequential(nn.BatchNorm2d(2))
    net[0].running_var.fill_(torch.nan)
    with pytest.raises(WalnutError, match="not a number"):
        absorb(net)


def test_a_channel_that_never_varies_stays_what_it_was():
    net = nn.BatchNorm2d(2).eval()
    net.running_var.zero_()  # eps alone is divided by
    x = torch.rand(3, 2, 4, 4)
    assert torch.allclose(absorb(net)(x), net(x))


def test_refreshed_statistics_are_the_mean_over_batches():
    norm = nn.BatchNorm2d(2).eval()
    norm.running_mean.fill_(50.0)
    batches = list(torch.randn(24, 2, 3, 3).split(8))
    assert refreshed(norm, batches) is norm
    means = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    variances = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    assert torch.allclose(norm.running_mean, means, atol=1e-6)
    assert torch.allclose(norm.running_var, variances, atol=1e-6)
    assert not norm.training
    assert norm.momentum == 0.1
    with pytest.raises(WalnutError, match="no running statistics"):
        refreshed(nn.Linear(2, 2), batches)


def test_a_model_that_raises_is_left_in_its_mode():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.Linear(3, 3)).eval()
    with pytest.raises(RuntimeError):
        refreshed(net, [torch.rand(2, 2, 5, 5)])
    assert not net[0].training
    assert net[0].momentum == 0.1
