"""Winograd: exact matrices, the convolution in float64, the compiled kernel, what is left alone."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from walnut import nets
from walnut.core.errors import WalnutError
from walnut.evaluate import cost
from walnut.weights import (
    Mask,
    WinogradConv2d,
    cook_toom,
    f2,
    f4,
    fastest,
    represent,
    tiles,
    winograd,
    winograd_conv2d,
)
from walnut.weights.winograd_kernel import plan

ROUNDING = {f2: 4e-6, f4: 4e-5}  # of the largest output; float32


@given(m=st.integers(1, 6), r=st.integers(1, 5), data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_matrices_are_exact(m: int, r: int, data: st.DataObject) -> None:
    """y = Aᵀ[(G g) ⊙ (Bᵀ d)] is the correlation, in rational arithmetic: no rounding at all."""
    numbers = st.fractions(-5, 5, max_denominator=7)
    g = data.draw(st.lists(numbers, min_size=r, max_size=r))
    d = data.draw(st.lists(numbers, min_size=m + r - 1, max_size=m + r - 1))
    t = cook_toom(m, r)

    def times(matrix, vector):  # type: ignore[no-untyped-def]
        return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]

    products = [a * b for a, b in zip(times(t.g, g), times(t.b, d), strict=True)]
    assert times(t.a, products) == [sum(g[j] * d[k + j] for j in range(r)) for k in range(m)]


def test_f2_and_f4_are_lavin_and_grays_up_to_the_rows_signs() -> None:
    b4 = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
    b4 += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
    b2 = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]
    for size, known in ((4, b4), (2, b2)):
        for mine, theirs in zip(cook_toom(size, 3).b, known, strict=True):
            assert list(mine) in (theirs, [-v for v in theirs])


@pytest.mark.parametrize("told", [(0, 3), (2, 0), (4, 3, (0, 1, 1, 2, -1))])
def test_impossible_matrices(told: tuple) -> None:  # type: ignore[type-arg]
    with pytest.raises(WalnutError):
        cook_toom(*told)
    for size in (3, 0, True):
        with pytest.raises(WalnutError, match="2 or 4"):
            tiles(size)


@pytest.mark.parametrize("m", [2, 4, 6])
def test_pairs_of_rows_share_their_sums(m: int) -> None:
    for matrix in (cook_toom(m, 3).b, cook_toom(m, 3).a):
        for row, parts in zip(matrix, plan(matrix), strict=True):
            whole = [Fraction(0)] * len(row)
            for k, v in (term for part in parts for term in part):
                whole[k] += v
            assert tuple(whole) == row


@pytest.mark.parametrize("tile", [f2, f4])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_plain_tensors_are_the_convolution_with_its_gradients(tile: tiles, padding: int) -> None:
    x = torch.randn(2, 3, 9, 6, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, dtype=torch.float64)
    mine = winograd_conv2d(x, w, b, padding=padding, tile=tile)
    theirs = F.conv2d(x, w, b, padding=padding)
    torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)
    seed = torch.randn_like(theirs)
    for a, c in zip(
        torch.autograd.grad(mine, (x, w), seed),
        torch.autograd.grad(theirs, (x, w), seed),
        strict=True,
    ):
        torch.testing.assert_close(a, c, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tile", [f2, f4])
@pytest.mark.parametrize(
    ("b", "inputs", "outputs", "h", "w", "padding", "bias"),
    [
        (1, 16, 16, 8, 8, 1, True), (3, 17, 40, 5, 11, 1, True), (2, 64, 33, 3, 3, 0, False),
        (1, 50, 16, 1, 1, 1, True), (2, 31, 31, 14, 7, 2, False), (9, 16, 24, 13, 30, 1, True),
        (40, 128, 128, 8, 8, 1, True), (1, 16, 300, 4, 1, 1, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("last", [True, False])
def test_the_kernel_is_the_convolution(tile, b, inputs, outputs, h, w, padding, bias, last) -> None:  # type: ignore[no-untyped-def]
    net = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=padding, bias=bias)).eval()
    x = torch.randn(b, inputs, h, w)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    exact = copy.deepcopy(net).double()(x.double()).detach()
    assert winograd(net, tile).layers == {"0": tile}
    with torch.no_grad():
        y = net(x)
    assert y.shape == exact.shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert float((y - exact).abs().max() / exact.abs().max()) < ROUNDING[tile]


def test_inputs_of_any_strides_and_repeated_calls() -> None:
    net = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1)).eval()
    direct = copy.deepcopy(net)
    winograd(net)
    whole = torch.randn(4, 48, 20, 20)
    with torch.no_grad():
        for x in (whole[:, 8:40], whole[:, :32, ::2, 1::3], whole[:1, :32].expand(3, -1, -1, -1)):
            first = net(x)
            torch.testing.assert_close(first, direct(x), rtol=1e-4, atol=1e-4)
            assert torch.equal(net(x), first)


@pytest.mark.parametrize("tile", [f2, f4])
def test_multiplications_are_counted_by_the_counter(tile: tiles) -> None:
    net = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 16, 3, padding=1)).eval()
    whole = cost(net, (16, 16, 16)).multiply_adds
    assert whole / cost(winograd(net, tile).model, (16, 16, 16)).multiply_adds == tile.saving


def test_new_weights_are_noticed() -> None:
    net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1)).eval()
    layer = winograd(net).model[0]
    x = torch.randn(1, 16, 8, 8)
    changes = [
        lambda: layer.weight.mul_(2),
        lambda: setattr(layer, "weight", nn.Parameter(torch.randn_like(layer.weight))),
        lambda: layer.load_state_dict({"weight": torch.ones(16, 16, 3, 3), "bias": layer.bias}),
        lambda: setattr(layer.weight, "data", torch.randn_like(layer.weight)),
    ]
    with torch.no_grad():
        for change in changes:
            net(x)
            change()
            want = F.conv2d(x, layer.weight, layer.bias, padding=1)
            torch.testing.assert_close(net(x), want, rtol=1e-4, atol=1e-4)


def test_files_copies_and_gradients_are_those_of_the_convolution(tmp_path: Path) -> None:
    net = nets.build("resnet-20").eval()
    x = torch.rand(2, 3, 32, 32)
    done = winograd(net)
    assert len(done.layers) == 16
    assert set(done.left) == {"conv1", "layer2.0.conv1", "layer3.0.conv1"}
    nets.save(net, tmp_path / "net.safetensors")
    again = nets.load(tmp_path / "net.safetensors")
    assert not any(isinstance(m, WinogradConv2d) for m in again.modules())
    with torch.no_grad():
        torch.testing.assert_close(net(x), again(x), rtol=1e-3, atol=1e-3)
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(other(x), net(x))
    x.requires_grad_()
    mine, theirs = (torch.autograd.grad(n(x).sum(), x)[0] for n in (net, again))
    assert torch.equal(mine, theirs)  # where a gradient is wanted it is the convolution itself


def test_other_precisions_and_transforms_take_the_convolution() -> None:
    net = winograd(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1)).eval()).model
    x = torch.randn(3, 16, 6, 6)
    with torch.no_grad():
        want = F.conv2d(x, net[0].weight, net[0].bias, padding=1)
        torch.testing.assert_close(torch.func.vmap(lambda k: net(k[None])[0])(x), want)
        torch.testing.assert_close(net(x[0]), want[0])
        with torch.autocast("cpu", torch.bfloat16):
            assert net(x).dtype == torch.bfloat16
        assert net(x[:0]).shape == (0, 16, 6, 6)
        with pytest.raises(RuntimeError, match="channels"):
            net(x[:, :5])
        program = torch.export.export(net, (x,)).module()
        torch.testing.assert_close(program(x), want)
        copied = copy.deepcopy(net).double()
        assert copied(x.double()).dtype == torch.float64


class Own(nn.Conv2d):
    """A layer of the user's."""


def test_what_cannot_change_is_left_and_named() -> None:
    net = nn.Sequential(
        nn.Conv2d(16, 16, 3, stride=2), nn.Conv2d(16, 16, 5), nn.Conv2d(16, 16, 3, groups=2),
        nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 16, 3, dilation=2), Own(16, 16, 3), nn.Conv2d(16, 16, 3, padding="same"),
        nn.Conv2d(16, 16, 3).double(), nn.Conv2d(16, 16, 3, padding=1),
    )  # fmt: skip
    represent(net, {"9.weight": Mask(0.5)})
    done = winograd(net)
    assert not done.layers
    assert list(done.left) == [str(k) for k in range(10)]
    assert done.left["6"] == "it is a Own"
    assert "bake" in done.left["9"]


def test_bad_input_is_refused_and_changes_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3))
    with torch.no_grad():
        net[1].weight[0, 0, 0, 0] = torch.inf
    for told, said in (({}, "1 holds values"), ({"tile": {"fc*": f2}}, "no weight is called")):
        with pytest.raises(WalnutError, match=said):
            winograd(net, **told)
        assert type(net[0]) is nn.Conv2d
    with pytest.raises(WalnutError, match="at least one round"):
        fastest(torch.zeros(1), rounds=0)


def test_the_clock_chooses() -> None:
    net = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 16, 3, padding=1)).eval()
    done = winograd(net, fastest(torch.randn(1, 64, 24, 24), rounds=1))
    assert set(done.layers) | set(done.left) == {"0", "1"}
    for name, ms in done.milliseconds.items():
        assert set(ms) == {"direct", "F2", "F4"}
        best = min(ms, key=lambda way: ms[way])
        assert (name in done.left) or best == f"F{done.layers[name].outputs}"
    with pytest.raises(WalnutError, match="does not take the data"):
        winograd(copy.deepcopy(net.append(nn.Conv2d(16, 16, 3))), fastest(torch.randn(1, 3, 8, 8)))
