"""Biases and codebooks as float16: what moves, by how much, what stays, and what a file gains."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from walnut import codec
from walnut.weights import bake, pack, share, shorten


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 300), nn.BatchNorm1d(300), nn.Linear(300, 10))
    nn.init.normal_(model[1].bias)
    return model


def test_only_tensors_of_one_axis_move_and_by_half_a_step() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    found = shorten(model)
    assert set(found) == {n for n, w in before.items() if w.ndim == 1}
    for name, w in model.state_dict().items():
        assert w.dtype == before[name].dtype
        if name in found:
            assert torch.equal(w, w.half().float())
            assert bool(((w - before[name]).abs() <= 2**-11 * before[name].abs()).all())
        else:
            assert torch.equal(w, before[name])
    assert not torch.equal(model[0].bias, before["0.bias"])


@pytest.mark.parametrize("value", [1e5, float("nan"), float("inf")])
def test_a_tensor_that_float16_holds_worse_is_left_alone(value: float) -> None:
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.bias[1] = value
    before = layer.bias.detach().clone()
    assert shorten(layer) == []
    assert torch.equal(layer.bias.nan_to_num(7), before.nan_to_num(7))


def test_small_numbers_move_by_little_beside_the_largest() -> None:
    layer = nn.Linear(2, 5)
    before = torch.tensor([0.1, 1e-6, -2e-5, 1e-9, 0.0])
    with torch.no_grad():
        layer.bias.copy_(before)
    assert shorten(layer) == ["bias"]
    assert torch.equal(layer.bias, layer.bias.half().float())
    assert bool(((layer.bias - before)[1:].abs() <= 2**-25).all())


def test_a_tensor_of_small_numbers_alone_is_left_as_it_is() -> None:
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1e-6, 3e-6, 0.0]))
    before = layer.bias.detach().clone()
    assert shorten(layer) == []
    assert torch.equal(layer.bias, before)


def test_codebooks_move_and_zeros_stay_and_files_get_shorter(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    share(model, {"0.weight": 4, "2.weight": 4})
    short = copy.deepcopy(model)
    shorten(short)
    w, exact = (bake(copy.deepcopy(m))[0].weight for m in (short, model))
    assert torch.equal(w, w.half().float())
    assert torch.equal(w == 0, exact == 0)
    assert torch.allclose(w, exact, rtol=2**-11)
    for coders in (codec.ALL, (codec.FIXED, codec.HUFFMAN)):
        long, small = (
            pack(m, tmp_path / "a.walnut", {}, coders=coders).bytes for m in (model, short)
        )
        assert long - small > 610  # a byte each: of two biases and a shift, the rest is constant
