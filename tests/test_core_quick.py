"""Quick batch norm: the same function up to rounding, only where a gradient is taken, and put back."""

import copy

import pytest
import torch
from torch import nn

from walnut.attacks import pgd
from walnut.core.quick import quick


def normed(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8, affine=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    for layer in net:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.3, 0.3)
            layer.running_var.uniform_(0.05, 2.0)
    nn.init.uniform_(net[1].weight, 0.5, 2.0)
    nn.init.uniform_(net[1].bias, -1.0, 1.0)
    return net.eval().requires_grad_(False)


def answer(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    logits = net(x)
    (grad,) = torch.autograd.grad(logits[:, 0].sum(), x)
    return logits.detach(), grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_and_gradient_are_the_same_up_to_rounding(dtype):
    net, x = normed().to(dtype), torch.rand(5, 3, 9, 9, dtype=dtype)
    logits, grad = answer(net, x)
    with quick(net):
        quick_logits, quick_grad = answer(net, x)
    close = 1e-5 if dtype is torch.float32 else 1e-12
    assert torch.allclose(quick_logits, logits, rtol=close, atol=close)
    assert torch.allclose(quick_grad, grad, rtol=close, atol=close)


def test_it_is_at_work_where_a_gradient_is_taken_and_only_there():
    net, x = normed(), torch.rand(5, 3, 9, 9)
    own = net(x)
    with quick(net):
        assert torch.equal(net(x), own)
        net[
            1
        ].running_mean += 1.0  # the layer's own forward sees it; scale and shift were made before
        assert not torch.equal(net(x), own)
        assert torch.allclose(answer(net, x)[0], own, atol=1e-5)


def test_everything_is_put_back_also_after_an_exception():
    net = normed()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(KeyError), quick(net):
        raise KeyError
    assert all("forward" not in vars(layer) for layer in net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_other_batch_norms_are_left_alone():
    class Own(nn.BatchNorm2d):
        pass

    layers = [Own(3), nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3).half()]
    patched = nn.BatchNorm2d(3)
    patched.forward = mine = lambda x: x
    with quick(nn.Sequential(*layers, patched)):
        assert all("forward" not in vars(layer) for layer in layers)
        assert patched.forward is mine
    assert patched.forward is mine


def test_hooks_still_see_the_layer():
    net, x, seen = normed(), torch.rand(2, 3, 9, 9, requires_grad=True), []
    net[1].register_forward_hook(lambda layer, inputs, output: seen.append(output.shape))
    with quick(net):
        net(x)
    assert seen == [(2, 8, 9, 9)]


def test_a_verdict_does_not_depend_on_the_batch():
    net, x = normed(), torch.rand(12, 3, 9, 9)
    y = net(x).argmax(1)
    whole = pgd(0.05, steps=8)(net, x, y)
    parts = pgd(0.05, steps=8, batch_size=5)(net, x.flip(0), y.flip(0))
    assert torch.equal(whole.success, parts.success.flip(0))
    assert torch.equal(whole.first_success, parts.first_success.flip(0))
    with torch.no_grad():
        assert torch.equal(whole.success, net(whole.x).argmax(1) != y)
