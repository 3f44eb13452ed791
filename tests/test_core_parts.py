"""Transforms, images, gradient estimators, the search loop, saliency."""

import pytest
import torch

from instances import EXPLAINERS, GRADIENTS, TRANSFORMS
from networks import images, labelled, small_net
from walnut import WalnutError
from walnut.checks import check_explainer
from walnut.core import gradients as g
from walnut.core import images as im
from walnut.core import transforms as t
from walnut.core.ascend import ascend
from walnut.core.constraints import unconstrained
from walnut.core.directions import normalized
from walnut.core.draws import Draws
from walnut.core.objectives import margin
from walnut.core.steps import constant, cosine
from walnut.explain import saliency


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_per_example_differentiable_and_repeatable(name):
    x = images(6, channels=2).double().requires_grad_()
    change = TRANSFORMS[name]
    whole = change(x, Draws.of(x, 0))
    assert whole.shape == x.shape
    assert torch.equal(whole, change(x, Draws.of(x, 0)))
    assert not torch.equal(whole, change(x, Draws.of(x, 1)))
    for i in range(6):
        assert torch.allclose(
            change(x[i : i + 1], Draws.of(x[i : i + 1], 0))[0], whole[i], atol=1e-12
        )
    (grad,) = torch.autograd.grad(whole.sum(), x)
    assert grad.isfinite().all()
    assert grad.abs().sum() > 0


def test_transforms_that_do_nothing_do_nothing():
    x = images(4)
    for change in (t.resize_pad(1.0, 1.0), t.jitter(0.0), t.rotate(0.0), t.scale(1), t.noise(0.0)):
        assert torch.allclose(change(x, Draws.of(x, 0)), x, atol=1e-5)


def test_resize_pad_shrinks_and_keeps_black_around():
    x = torch.ones(300, 1, 20, 20) - 0.001 * torch.rand(300, 1, 20, 20)
    small = t.resize_pad(0.5, 1.0)(x, Draws.of(x, 0)).mean((1, 2, 3))
    assert 0.25 * 0.95 < small.min() < 0.35
    assert small.max() > 0.9
    some = t.resize_pad(0.5, 0.3)(x, Draws.of(x, 0))
    assert 0.2 < float((some != x).flatten(1).any(1).float().mean()) < 0.4


def test_vectors_are_refused_by_image_transforms():
    with pytest.raises(WalnutError, match="needs images"):
        t.rotate()(torch.rand(3, 5), Draws.of(torch.rand(3, 5), 0))


@pytest.mark.parametrize("name", GRADIENTS)
def test_an_estimator_is_exact_on_a_linear_value_of_its_mean(name):
    x = images(5).double()
    w = torch.randn(8, 8, dtype=torch.float64)
    values, grad = GRADIENTS[name](lambda z: (z[:, 0] * w).sum((1, 2)), x, Draws.of(x, 0))
    assert values.shape == (5,)
    assert grad.shape == x.shape
    if name in ("plain", "eot"):
        assert torch.allclose(grad[:, 0], w.expand(5, -1, -1))


def test_plain_gradient_agrees_with_finite_differences():
    net = small_net().double()
    x = images(2).double()
    y = torch.tensor([0, 1])
    _, grad = g.plain()(lambda z: margin()(net, z, y), x, Draws.of(x, 0))
    for place in ((0, 0, 3, 4), (0, 0, 7, 0)):
        step = torch.zeros_like(x)
        step[(slice(None), *place[1:])] = 1e-6
        with torch.no_grad():
            slope = (margin()(net, x + step, y) - margin()(net, x - step, y)) / 2e-6
        assert torch.allclose(grad[(slice(None), *place[1:])], slope, atol=1e-5)


def test_averaging_over_noise_nears_the_smoothed_gradient():
    x = torch.full((1, 1), 0.3, dtype=torch.float64)
    many = g.averaged(t.noise(0.5), 600)(lambda z: (z**3).sum(1), x, Draws.of(x, 0))[1]
    assert abs(float(many) - (3 * 0.3**2 + 3 * 0.5**2)) < 0.25


def test_averaged_refuses_no_samples():
    with pytest.raises(WalnutError, match="samples"):
        g.averaged(t.noise(), 0)


def test_tanh_box_paints_what_it_started_from_and_lets_black_and_white_move():
    x = torch.tensor([[0.0, 1.0, 0.25, 0.5]], dtype=torch.float64)
    part = im.tanh_box()
    z = part.start(x).requires_grad_()
    assert torch.allclose(part.paint(z), x, atol=2e-4)
    (grad,) = torch.autograd.grad(part.paint(z).sum(), z)
    assert (grad > 0).all()
    assert (part.paint(100 * torch.randn(50, 4)) <= 1).all()


@pytest.mark.parametrize("width", [7, 8])
def test_fourier_paints_what_it_started_from(width):
    x = torch.rand(2, 3, 6, width, dtype=torch.float64)
    part = im.fourier(width)
    assert torch.allclose(part.paint(part.start(x)), x)
    with pytest.raises(WalnutError, match="wide"):
        part.start(torch.rand(1, 1, 4, width + 1))


@pytest.mark.parametrize("image", [im.tanh_box(), im.fourier(8)])
def test_the_loop_climbs_in_another_variable(image):
    net = small_net()
    x, y = labelled(net)
    found = ascend(
        net, x, y, objective=margin(), steps=20, step_size=0.3, image=image, random_start=False,
        constraint=unconstrained(), direction=normalized(), early_stop=False,
    )  # fmt: skip
    with torch.no_grad():
        assert (margin()(net, found.x, y) > margin()(net, x, y)).all()


def test_step_sizes_fall_as_said():
    at = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert constant()(at).tolist() == [1, 1, 1]
    assert torch.allclose(cosine()(at), torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 4), (7,)])
def test_explainers_keep_their_contract(name, shape):
    check_explainer(EXPLAINERS[name], shape=shape)


def test_saliency_is_the_weight_on_a_linear_network_with_the_maximum_over_channels():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 9, 4))
    x, y = torch.rand(3, 2, 3, 3), torch.tensor([0, 3, 1])
    maps = saliency()(net, x, y)
    want = net[1].weight[y].reshape(3, 2, 3, 3).abs().amax(1, keepdim=True)
    assert torch.allclose(maps, want.expand(-1, 2, -1, -1))
