"""Transforms against closed forms: whole turns and pixels, linear ramps, curves, an impulse."""

import itertools
import math

import pytest
import torch

from instances_patch import NEUTRAL, TRANSFORMS, Known
from networks import images, labelled, small_net
from walnut import WalnutError
from walnut.core import transforms as t
from walnut.core import transforms_colour as tc
from walnut.core.draws import Draws

UP = 1.0  # the end of every range


def ramp(height, width, right, down):
    """An image that bilinear interpolation reads exactly: linear in the place."""
    rows = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    return (1000 + right * columns + down * rows[:, None])[None, None]


def check_places(found, source, height, width, right, down):
    """Compare with the ramp's value at ``source(p)`` wherever that lies well inside."""
    compared = 0
    for i, j in itertools.product(range(height), range(width)):
        p = j - (width - 1) / 2, i - (height - 1) / 2
        q = source(*p)
        if abs(q[0]) < (width - 1) / 2 and abs(q[1]) < (height - 1) / 2:
            assert float(found[0, 0, i, j]) == pytest.approx(1000 + right * q[0] + down * q[1])
            compared += 1
    assert compared > height * width / 5


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_transform_is_per_example_differentiable_and_repeatable(name, channels):
    x = torch.rand(5, channels, 7, 10, dtype=torch.float64).requires_grad_()
    change = TRANSFORMS[name]
    whole = change(x, Draws.of(x, 0))
    assert whole.shape == x.shape
    assert torch.equal(whole, change(x, Draws.of(x, 0)))
    assert not torch.allclose(whole, change(x, Draws.of(x, 1)))
    turned = change(x.flip(0), Draws.of(x.flip(0), 0)).flip(0)
    assert torch.allclose(turned, whole, atol=1e-12)
    for i in range(5):
        alone = change(x[i : i + 1], Draws.of(x[i : i + 1], 0))[0]
        assert torch.allclose(alone, whole[i], atol=1e-12)
    (grad,) = torch.autograd.grad(whole.sum(), x)
    assert grad.isfinite().all()
    assert (grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradients_are_those_of_finite_differences(name):
    x = 0.2 + 0.3 * torch.rand(2, 2, 4, 5, dtype=torch.float64).requires_grad_()
    keys = Draws.of(x, 0)  # of the first x: a moved one would draw anew
    change = TRANSFORMS[name]
    assert torch.autograd.gradcheck(lambda z: change(z, keys.fold(0)), x)


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_parameters_change_nothing(name):
    x = torch.rand(3, 2, 6, 9, dtype=torch.float64)
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    assert torch.allclose(NEUTRAL[name](x, Draws.of(x, 0)), x, atol=1e-12)


@pytest.mark.parametrize("size", [4, 7])
def test_a_quarter_turn_is_rot90_and_a_half_turn_flips_both_ways(size):
    x = torch.rand(1, 3, size, size, dtype=torch.float64)
    assert torch.allclose(t.rotate(90)(x, Known(UP)), x.rot90(1, (2, 3)), atol=1e-12)
    assert torch.allclose(t.rotate(90)(x, Known(0.0)), x.rot90(-1, (2, 3)), atol=1e-12)
    wide = torch.rand(1, 2, 4, 9, dtype=torch.float64)
    assert torch.allclose(t.rotate(180)(wide, Known(UP)), wide.flip(2, 3), atol=1e-12)


def test_a_turn_keeps_lengths_in_pixels_also_in_a_wide_image():
    found = t.rotate(30)(ramp(9, 21, 2.0, -3.0), Known(UP))
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    check_places(found, lambda x, y: (cos * x - sin * y, sin * x + cos * y), 9, 21, 2.0, -3.0)


def test_a_shift_by_whole_pixels_moves_entries_and_fills_with_black():
    x = torch.rand(1, 2, 6, 8, dtype=torch.float64)
    moved = t.jitter(2.0)(x, Known(UP, 0.0))  # read two to the right and two up
    want = torch.zeros_like(x)
    want[:, :, 2:, :6] = x[:, :, :4, 2:]
    assert torch.allclose(moved, want, atol=1e-12)


def test_zoom_reads_nearer_the_centre_and_shrinking_leaves_black():
    found = t.zoom(0.5, 2.0)(ramp(8, 12, 1.0, 5.0), Known(UP))
    check_places(found, lambda x, y: (x / 2, y / 2), 8, 12, 1.0, 5.0)
    small = t.zoom(0.5, 2.0)(torch.ones(1, 1, 8, 8, dtype=torch.float64), Known(0.0))
    assert float(small.mean()) == pytest.approx(0.25)
    assert torch.equal(small[0, 0, 2:6, 2:6], torch.ones(4, 4, dtype=torch.float64))


def test_crop_enlarges_the_window_it_draws():
    found = t.crop(0.5)(
        ramp(8, 12, 1.0, 5.0), Known(0.0, 0.0, UP)
    )  # half, at the left, at the bottom
    check_places(found, lambda x, y: (x / 2 - 3, y / 2 + 2), 8, 12, 1.0, 5.0)
    x = 0.5 + 0.5 * torch.rand(200, 1, 9, 9)
    assert t.crop(0.3)(x, Draws.of(x, 0))[:, :, 1:-1, 1:-1].min() > 0.49  # nothing from outside


def test_perspective_divides_by_the_depth():
    found = t.perspective(0.3)(ramp(9, 15, 2.0, 1.0), Known(UP, 0.0))

    def source(x, y):
        depth = 1 + 0.3 * x / 7.5 - 0.3 * y / 4.5
        return x / depth, y / depth

    check_places(found, source, 9, 15, 2.0, 1.0)


def test_ranges_are_filled_evenly():
    x = torch.rand(4000, 1, 2, 2, dtype=torch.float64)
    light = (tc.brightness(0.2)(x, Draws.of(x, 0)) - x).mean((1, 2, 3))
    assert -0.2 <= light.min() < -0.19
    assert 0.19 < light.max() <= 0.2
    assert abs(float(light.mean())) < 0.01
    white = torch.ones_like(x)
    white[:, 0, 0, 0] = 1 - 1e-3 * x[:, 0, 0, 0]  # so that their keys differ
    half = torch.full_like(x, 0.5)
    y = torch.where(white < 1, white, half)
    ratio = (tc.gamma(2.0, 1e-9)(y, Draws.of(y, 0))[:, 0, 1, 1]).log2().neg().log2()
    assert abs(float(ratio.mean())) < 0.03
    assert float(ratio.std()) == pytest.approx(2 / 12**0.5, abs=0.03)


def test_colours_are_what_their_equations_say():
    x = torch.rand(1, 3, 5, 4, dtype=torch.float64)
    assert torch.allclose(tc.brightness(0.2)(x, Known(0.75)), x + 0.1)
    assert torch.allclose(tc.contrast(0.5)(x, Known(0.0)), x.mean() + 0.5 * (x - x.mean()))
    assert torch.allclose(tc.tint(0.1, 0.2)(x, Known(UP, 0.0)), 1.2 * x - 0.1)
    assert torch.allclose(tc.gamma(2.0, 1e-12)(x, Known(UP)), x**2, atol=1e-9)
    assert torch.allclose(tc.gamma(2.0, 1e-12)(x, Known(0.0)), x.sqrt(), atol=1e-5)
    ends = torch.tensor([[[[0.0, 1.0, -0.1]]]], dtype=torch.float64)
    assert torch.allclose(tc.gamma(3.0)(ends, Known(UP)), ends.clamp_min(0))
    assert tc.clip(0.2, 0.6)(x, Known()).aminmax() == x.clamp(0.2, 0.6).aminmax()


def test_tint_colours_each_channel_by_itself():
    x = torch.full((300, 2, 2, 2), 0.5, dtype=torch.float64) + 1e-3 * torch.rand(300, 2, 2, 2)
    moved = tc.tint(0.1, 0.0)(x, Draws.of(x, 0)) - x
    assert torch.allclose(
        moved, moved[:, :, :1, :1].expand_as(moved)
    )  # the same all over a channel
    pair = moved[:, :, 0, 0]
    assert abs(float(torch.corrcoef(pair.T)[0, 1])) < 0.2


def test_blur_is_a_gaussian_of_the_drawn_width_and_keeps_what_is_even():
    x = torch.zeros(1, 2, 11, 13, dtype=torch.float64)
    x[0, 0, 5, 6] = 1
    found = tc.blur(1.2)(x, Known(0.5))
    line = [math.exp(-0.5 * (k / 0.6) ** 2) for k in range(-4, 5)]
    line = torch.tensor(line, dtype=torch.float64) / sum(line)
    assert torch.allclose(found[0, 0, 1:10, 2:11], line[:, None] * line, atol=1e-12)
    assert found[0, 1].abs().max() == 0  # no channel runs into another
    even = torch.full((2, 3, 4, 4), 0.3)
    assert torch.allclose(tc.blur(2.0)(even, Draws.of(even, 0)), even)


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (lambda: t.zoom(0.0, 1.0), "smallest <= largest"),
        (lambda: t.zoom(1.2, 1.0), "smallest <= largest"),
        (lambda: t.crop(1.5), r"\(0, 1\]"),
        (lambda: t.perspective(0.5), "tilt"),
        (lambda: tc.contrast(1.0), "below 1"),
        (lambda: tc.brightness(-0.1), "0 or more"),
        (lambda: tc.blur(float("nan")), "0 or more"),
        (lambda: tc.gamma(0.5), "most >= 1"),
    ],
)
def test_impossible_parameters_are_named(part, sentence):
    with pytest.raises(WalnutError, match=sentence):
        part()


IMAGES_ONLY = ("zoom", "crop", "perspective", "rotate", "jitter", "resize-pad", "tint", "blur")


@pytest.mark.parametrize("name", TRANSFORMS)
def test_vectors_are_refused_or_changed_as_they_are(name):
    x = torch.rand(3, 5)
    if name in (*IMAGES_ONLY, "photographed"):
        with pytest.raises(WalnutError, match="needs images"):
            TRANSFORMS[name](x, Draws.of(x, 0))
    else:
        assert TRANSFORMS[name](x, Draws.of(x, 0)).shape == x.shape


def test_readings_are_each_examples_own_and_what_the_network_says():
    net = small_net()
    x, y = labelled(net)
    still = t.readings(net, x, t.compose(()), Draws.of(x, 0), 2)
    assert torch.equal(still, y[:, None].expand(-1, 2))
    change, draws = t.rotate(60), Draws.of(x, 3)
    read = t.readings(net, x, change, draws, 4, batch_size=5)
    with torch.no_grad():
        assert torch.equal(read[:, 2], net(change(x, draws.fold(2))).argmax(1))
    assert torch.equal(read[4:6], t.readings(net, x[4:6], change, Draws.of(x[4:6], 3), 4))
    with pytest.raises(WalnutError, match="at least one draw"):
        t.readings(net, images(), change, draws, 0)
