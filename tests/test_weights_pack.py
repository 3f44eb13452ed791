"""From a network to a file and back: the same bits, and an honest size."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from walnut import codec
from walnut.core.errors import WalnutError
from walnut.core.types import Packed
from walnut.weights import Mask, bake, baked_state, pack, prune, represent, share, unpack
from walnut.weights.representation import as_grid


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10)
    )
    model(torch.rand(20, 1, 8, 8))  # running statistics
    return model


DESCRIPTION = {"net": "small", "arguments": {"shape": [1, 8, 8]}}


@pytest.mark.parametrize("form", ["dense", "pruned", "shared", "baked", "half"])
def test_the_state_comes_back_bit_for_bit(form: str, tmp_path: Path) -> None:
    model = net()
    if form in ("pruned", "shared", "baked"):
        prune(model, 0.1)
    if form in ("shared", "baked"):
        share(model, 3)
    if form == "baked":
        bake(model)
    if form == "half":
        model.bfloat16()
    kinds = [type(m) for m in model.modules()]
    sizes = pack(model, tmp_path / "a.walnut", DESCRIPTION)
    assert [type(m) for m in model.modules()] == kinds
    description, state = unpack(tmp_path / "a.walnut")
    wanted = bake(copy.deepcopy(model)).state_dict()
    assert description == DESCRIPTION
    assert list(state) == list(wanted)
    for name, value in wanted.items():
        assert state[name].dtype == value.dtype
        assert torch.equal(
            state[name].reshape(-1).view(torch.uint8), value.reshape(-1).view(torch.uint8)
        )
    assert sizes.bytes == os.path.getsize(tmp_path / "a.walnut")
    assert sizes.parameter_bytes == 4 * sum(p.numel() for p in net().parameters())
    assert sizes.ratio == sizes.parameter_bytes / sizes.bytes
    assert {row["name"] for row in sizes.tensors} == set(wanted)
    fresh = net()
    fresh.load_state_dict({k: v.to(fresh.state_dict()[k].dtype) for k, v in state.items()})


def test_compressing_makes_the_file_smaller(tmp_path: Path) -> None:
    sizes = []
    model = net()
    for act in (lambda: None, lambda: prune(model, 0.1), lambda: share(model, 2)):
        act()
        sizes.append(pack(model, tmp_path / "a.walnut", DESCRIPTION).bytes)
    assert sizes[0] > 3 * sizes[1]
    assert sizes[1] > 1.2 * sizes[2]


def test_huffman_alone_can_be_asked_for(tmp_path: Path) -> None:
    model = share(prune(net(), 0.1), 3)
    sizes = pack(model, tmp_path / "a.walnut", DESCRIPTION, coders=(codec.FIXED, codec.HUFFMAN))
    assert not any("ans" in row["coder"] or "mixed" in row["coder"] for row in sizes.tensors)


def test_the_networks_own_description_is_the_default(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(WalnutError, match="needs a description"):
        pack(model, tmp_path / "a.walnut")
    model.description = DESCRIPTION
    pack(model, tmp_path / "a.walnut")
    assert unpack(tmp_path / "a.walnut")[0] == DESCRIPTION


def test_tied_weights_come_back_and_count_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    sizes = pack(model, tmp_path / "a.walnut", DESCRIPTION)
    assert sizes.parameter_bytes == 4 * (25 + 5 + 5)
    state = unpack(tmp_path / "a.walnut")[1]
    assert torch.equal(state["1.weight"], model[0].weight)
    assert codec.peek(tmp_path / "a.walnut")[1]["1.weight"] == ((5, 5), torch.float32)
    assert [row["bytes"] for row in sizes.tensors if row["name"] == "1.weight"] == [0]
    model.load_state_dict(state)


def test_a_module_used_twice_is_in_the_file_once(tmp_path: Path) -> None:
    layer = nn.Linear(40, 40)
    once = pack(nn.Sequential(layer), tmp_path / "a.walnut", DESCRIPTION)
    twice = pack(nn.Sequential(layer, nn.ReLU(), layer), tmp_path / "b.walnut", DESCRIPTION)
    assert twice.parameter_bytes == once.parameter_bytes
    assert twice.bytes < once.bytes + 60
    _, state = unpack(tmp_path / "b.walnut")
    assert torch.equal(state["2.weight"], layer.weight)
    assert torch.equal(state["2.bias"], layer.bias)


@pytest.mark.parametrize("to", ["c", "b", 3, None])
def test_a_record_tied_to_nothing_is_refused(to: object, tmp_path: Path) -> None:
    path = tmp_path / "a.walnut"
    records = {"a": Packed("tensor", {"w": torch.ones(3)}), "b": Packed("tied", {}, {"to": to})}
    codec.write(path, {}, records | {"c": Packed("tensor", {"w": torch.ones(3)})})
    with pytest.raises(WalnutError, match="tied to nothing"):
        unpack(path)


def test_a_grid_comes_back_as_the_weight(tmp_path: Path) -> None:
    k = torch.randint(-3, 4, (6, 5))
    for scale in (torch.tensor(0.3), torch.rand(6) + 0.5):
        w = k.float() * (scale.reshape(-1, 1) if scale.ndim else scale)
        packed = as_grid(w, scale)
        assert packed is not None
        codec.write(tmp_path / "a.walnut", {}, {"w": packed})
        assert torch.equal(unpack(tmp_path / "a.walnut")[1]["w"], w)
    assert as_grid(torch.randn(6, 5), 0.3) is None
    assert as_grid(torch.tensor([-0.0, 1.0]), 1.0) is None


@pytest.mark.parametrize(
    "parts",
    [
        {"k": torch.ones(2, 3), "scale": torch.ones(2)},
        {"k": torch.ones(2, 3, dtype=torch.int8), "scale": torch.ones(3)},
        {"k": torch.ones(2, 3, dtype=torch.int8), "scale": torch.ones(2).double()},
        {"k": torch.ones(2, 3, dtype=torch.int8), "scale": torch.ones(0)},
        {"k": torch.ones(2, 3, dtype=torch.int8)},
    ],
)
def test_a_grid_that_does_not_fit_together_is_refused(parts: dict, tmp_path: Path) -> None:
    codec.write(tmp_path / "a.walnut", {}, {"w": Packed("grid", parts)})
    with pytest.raises(WalnutError, match="grid"):
        unpack(tmp_path / "a.walnut")


def test_baked_state_is_the_state_of_the_baked_network() -> None:
    model = represent(net(), {"4.*": Mask(0.3)})
    state = baked_state(model)
    wanted = bake(model).state_dict()
    assert set(state) == set(wanted)
    assert all(torch.equal(state[k], wanted[k]) for k in wanted)


def test_foreign_parametrizations_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(WalnutError, match=r"0\.weight has a parametrization that is not walnut's"):
        pack(model, tmp_path / "a.walnut", DESCRIPTION)


def test_a_record_of_an_unknown_kind_says_so(tmp_path: Path) -> None:
    codec.write(tmp_path / "a.walnut", {}, {"w": Packed("tucker", {"core": torch.ones(2)})})
    with pytest.raises(WalnutError, match="update walnut"):
        unpack(tmp_path / "a.walnut")
