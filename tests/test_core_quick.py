"""Quick batch norms and first convolutions: the same up to rounding, only for gradients, and put back."""

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


def thin(**options) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(**({"in_channels": 1, "out_channels": 64, "kernel_size": 3} | options)).eval()


def by_product(conv: nn.Conv2d, x: torch.Tensor) -> bool:
    with quick(nn.Sequential(conv.requires_grad_(False))):
        return "_Product" in type(conv(x.clone().requires_grad_()).grad_fn).__name__


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1, "kernel_size": 4},
        {"padding": 1},
        {"bias": False, "kernel_size": (2, 5), "padding": (0, 2), "stride": (3, 1)},
        {"in_channels": 3, "out_channels": 96},
        {"padding": "valid", "out_channels": 65},
    ],
)
@pytest.mark.parametrize("last", [torch.contiguous_format, torch.channels_last])
def test_a_first_convolution_has_the_gradient_of_the_library(options, last):
    conv = thin(**options)
    x = torch.rand(40, conv.in_channels, 28, 28).to(memory_format=last).requires_grad_()
    assert by_product(conv, x) is (not isinstance(conv.padding, str))
    ways = torch.rand_like(conv(x)).to(memory_format=last)
    (own,) = torch.autograd.grad((conv(x) * ways).sum(), x)
    with quick(nn.Sequential(conv)):
        (grad,) = torch.autograd.grad((conv(x) * ways).sum(), x)
    assert torch.allclose(grad, own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 16}, {"dilation": 2}, {"padding": 1, "padding_mode": "circular"},
        {"dtype": torch.float64}, {"in_channels": 2, "groups": 2}, {"padding": "same"},
    ],
)  # fmt: skip
def test_other_convolutions_are_left_alone(options):
    conv = thin(**options)
    assert not by_product(conv, torch.rand(2, conv.in_channels, 9, 9, dtype=conv.weight.dtype))
    conv, x = thin(), torch.rand(2, 1, 9, 9)
    assert by_product(conv, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not by_product(conv, x)
    for part in (conv.weight, conv.bias):  # it wants a gradient too
        part.requires_grad_()
        with quick(nn.Sequential(conv)):
            conv(x.requires_grad_()).sum().backward()
        assert part.grad is not None
        part.requires_grad_(False)


def test_no_gradient_is_not_a_gradient_of_zero():
    class Silent(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return None

    conv, x = thin().requires_grad_(False), torch.rand(2, 1, 9, 9, requires_grad=True)
    with quick(nn.Sequential(conv)):
        y = Silent.apply(conv(x)).sum()
    assert torch.autograd.grad(y, x, allow_unused=True) == (None,)


def test_a_first_convolution_is_differentiated_twice_and_mapped():
    conv, x = thin(padding=1).requires_grad_(False).double(), torch.rand(3, 1, 6, 6).double()
    own, conv = copy.deepcopy(conv), conv.float()
    x = x.requires_grad_()

    def second(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)[0]

    wanted = second(own, x)
    with quick(nn.Sequential(conv)):
        found = second(conv, x.detach().float().requires_grad_())
        each = torch.func.grad(lambda row: conv(row[None]).square().sum())
        rows = torch.func.vmap(each)(x.detach().float())
    assert torch.allclose(found.double(), wanted, rtol=1e-3)
    (grads,) = torch.autograd.grad(own(x).square().sum(), x)
    assert torch.allclose(rows.double(), grads, rtol=1e-3, atol=1e-5)
