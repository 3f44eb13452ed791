"""Representations in weights' places: what they make, what they refuse, and taking them out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from walnut.core.errors import WalnutError
from walnut.weights import (
    Codebook,
    Mask,
    Part,
    Representation,
    bake,
    lloyd,
    matrices,
    represent,
    representations,
    select,
    share,
    weights,
)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )


PARTS: list[tuple[str, tuple[Part, ...]]] = [
    ("mask", (Mask(0.3),)),
    ("codebook", (Codebook(bits=2),)),
    ("lloyd", (Codebook(bits=3, cluster=lloyd()),)),
    ("codebook, mask", (Codebook(bits=2), Mask(0.3))),
    ("mask, mask", (Mask(0.5), Mask(0.2))),
    ("all stay", (Mask(1.0),)),
    ("one value", (Codebook(bits=1),)),
]
each = pytest.mark.parametrize("parts", [p for _, p in PARTS], ids=[n for n, _ in PARTS])


@each
def test_right_inverse_then_forward_changes_nothing_the_second_time(
    parts: tuple[Part, ...],
) -> None:
    model = represent(net(), {"4.weight": parts})
    once = model[4].weight.detach().clone()
    model[4].weight = once
    assert torch.equal(model[4].weight, once)


@each
def test_gradients_reach_the_latents(parts: tuple[Part, ...]) -> None:
    model = represent(net(), {"4.weight": parts})
    model[4].weight.square().sum().backward()
    latents = list(model[4].parametrizations.weight.parameters())
    assert latents
    assert all(p.grad is not None and bool(p.grad.any()) for p in latents)


@each
def test_the_state_dict_comes_back(parts: tuple[Part, ...]) -> None:
    first, second = (represent(net(seed), {"*.weight": parts}) for seed in (0, 1))
    second.load_state_dict(first.state_dict())
    for name, w in weights(first).items():
        assert torch.equal(weights(second)[name], w) or "bias" in name


@each
def test_encode_comes_back_bit_for_bit(parts: tuple[Part, ...]) -> None:
    model = represent(net(), {"4.weight": parts})
    last = representations(model)["4.weight"][-1]
    packed = last.encode(model[4].weight)
    assert packed.kind == "tensor"
    assert torch.equal(packed.tensors["w"], model[4].weight)


@each
def test_bake_restores_everything_but_the_values(parts: tuple[Part, ...]) -> None:
    plain = net()
    model = represent(net(), {"*.weight": parts})
    made = {n: w.detach().clone() for n, w in weights(model).items()}
    assert type(model[4]) is not nn.Linear
    bake(model)
    assert [type(m) for m in model] == [type(m) for m in plain]
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(w, made[n]) for n, w in model.named_parameters())
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in model.parameters())
    assert not any(k.startswith("_walnut") for m in model.modules() for k in vars(m))


@each
@pytest.mark.parametrize("trained", [True, False])
def test_baked_weights_are_parameters_whatever_takes_gradients(
    parts: tuple[Part, ...], trained: bool
) -> None:
    model = represent(net(), {"*.weight": parts}).requires_grad_(trained)
    with torch.no_grad():
        bake(model)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in net().named_parameters()]
    assert all(p.requires_grad == trained for p in model.parameters())


@each
def test_copies_are_independent(parts: tuple[Part, ...]) -> None:
    model = represent(net(), {"4.weight": parts})
    twin = copy.deepcopy(model)
    before = model[4].weight.detach().clone()
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1.0)
    assert torch.equal(model[4].weight, before)
    bake(twin)  # torch takes the property off the class, which copies share
    assert torch.equal(model[4].weight, before)
    assert type(twin[4]) is nn.Linear
    third = copy.deepcopy(model)
    bake(model)
    assert torch.equal(third[4].weight, before)


def test_a_mask_keeps_the_largest_and_makes_positive_zeros() -> None:
    model = net()
    w = model[4].weight.detach().clone()
    represent(model, {"4.weight": Mask(0.1)})
    masked = model[4].weight
    kept = masked != 0
    assert int(kept.sum()) == 144
    assert torch.equal(masked[kept], w[kept])
    assert w[kept].abs().min() >= w[~kept].abs().max()
    assert not bool(torch.signbit(masked[~kept]).any())


def test_a_codebook_is_the_nearest_of_its_values_and_keeps_zeros() -> None:
    model = represent(net(), {"4.weight": Mask(0.2)})
    pruned = model[4].weight.detach().clone()
    share(model, 3)
    shared = model[4].weight.detach()
    assert torch.equal(shared == 0, pruned == 0)
    values = shared.unique()
    values = values[values != 0]
    assert len(values) == 8
    live = pruned != 0
    assert torch.allclose(
        (shared - pruned)[live].abs(), (pruned[live][:, None] - values).abs().amin(1)
    )


def test_the_gradient_of_a_centroid_is_the_sum_of_its_weights_gradients() -> None:
    """Eq. 3 of Han et al. 2016."""
    model = share(represent(net().double(), {"4.weight": Mask(0.4)}), {"4.weight": 3})
    x = torch.randn(7, 144, dtype=torch.float64)
    target = torch.randn(7, 10, dtype=torch.float64)
    ((model[4](x) - target) ** 2).sum().backward()
    centroids = model[4].parametrizations.weight.original0
    plain = nn.Linear(144, 10).double()
    plain.load_state_dict({"weight": model[4].weight, "bias": model[4].bias})
    ((plain(x) - target) ** 2).sum().backward()
    for value, grad in zip(centroids.detach(), centroids.grad, strict=True):
        same = plain.weight == value
        assert same.any()
        assert torch.isclose(plain.weight.grad[same].sum(), grad)


def test_zeros_stay_zero_and_shared_values_shared_while_training() -> None:
    model = share(represent(net(), {"4.weight": Mask(0.2)}), {"4.weight": 2})
    zeros = model[4].weight == 0
    adam = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(5):
        adam.zero_grad()
        model(torch.randn(8, 1, 8, 8)).square().sum().backward()
        adam.step()
    assert torch.equal(model[4].weight == 0, zeros)
    assert len(model[4].weight.unique()) == 5
    assert not bool(torch.signbit(model[4].weight[zeros]).any())


def test_second_derivatives_pass_through_a_codebook() -> None:
    model = share(net().double(), {"4.weight": 2})
    x = torch.randn(3, 144, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(model[4](x).square().sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert bool(model[4].parametrizations.weight.original0.grad.any())


def test_an_all_zero_weight_is_shared_without_values() -> None:
    model = net()
    nn.init.zeros_(model[4].weight)
    share(model, {"4.weight": 4})
    assert not bool(model[4].weight.any())


@dataclass(frozen=True)
class Halved:
    """A filter for the test."""

    source: ClassVar[bool] = False

    def build(self, w: Tensor) -> Representation:
        class Half(Representation):
            def forward(self, *latents: Tensor) -> Tensor:
                return latents[0] / 2

            def right_inverse(self, w: Tensor) -> Tensor:
                return w * 2

        return Half()


def test_a_part_of_the_users_own_works() -> None:
    model = net()
    before = model[4].weight.detach().clone()
    represent(model, {"4.weight": Halved()})
    assert isinstance(Halved(), Part)
    assert torch.equal(model[4].weight, before)
    assert torch.equal(bake(model)[4].weight, before)


def untouched(model: nn.Module, act: Callable[[], object], words: str) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    kinds = [type(m) for m in model.modules()]
    with pytest.raises(WalnutError, match=words):
        act()
    assert [type(m) for m in model.modules()] == kinds
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_source_after_a_filter_is_refused_in_our_words() -> None:
    model = net()
    parts = {"0.weight": Mask(0.5), "4.weight": (Mask(0.5), Codebook(2))}
    untouched(model, lambda: represent(model, parts), "makes the weight, so it comes first")


def test_no_part_is_refused() -> None:
    model = net()
    untouched(model, lambda: represent(model, {"4.weight": ()}), "names no part")


def test_tied_weights_are_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    untouched(model, lambda: represent(model, {"*.weight": Mask(0.5)}), "0.weight and 2.weight are")
    represent(model, {"1.weight": Mask(0.5)})
    views = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    views[1].weight = nn.Parameter(views[0].weight.data)  # another parameter on the same memory
    untouched(views, lambda: represent(views, {"1.weight": Mask(0.5)}), "one tensor")


def test_a_pattern_without_a_weight_is_refused_with_the_names() -> None:
    model = net()
    untouched(
        model, lambda: represent(model, {"fc*": Mask(0.5)}), r"'fc\*'; there are 0\.weight, 0"
    )
    with pytest.raises(WalnutError, match="x, y"):
        select(["x", "y"], {"x": 1, "z": 2})


def test_the_first_of_two_patterns_counts() -> None:
    model = represent(net(), {"0.*t": Mask(0.5), "*.weight": Mask(0.25)})
    assert int(model[0].weight.count_nonzero()) == 18
    assert int(model[4].weight.count_nonzero()) == 360


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.5, float("nan")])
def test_densities_out_of_range_are_refused(wrong: float) -> None:
    with pytest.raises(WalnutError, match="share that stays"):
        Mask(wrong)


@pytest.mark.parametrize("wrong", [0, 17])
def test_bits_out_of_range_are_refused(wrong: int) -> None:
    with pytest.raises(WalnutError, match="1 to 16 bits"):
        Codebook(wrong)


def test_other_parametrizations_are_left_alone() -> None:
    model = net()
    parametrize.register_parametrization(model[4], "weight", nn.Softplus(), unsafe=True)
    bake(model)
    assert parametrize.is_parametrized(model[4], "weight")
    assert representations(model) == {}


def test_names_are_the_plain_ones_and_in_order() -> None:
    model = net()
    names = [n for n, _ in model.named_parameters()]
    assert list(weights(model)) == names
    assert matrices(model) == ("0.weight", "4.weight")
    represent(model, {"*.weight": Mask(0.5)})
    assert list(weights(model)) == names
    assert matrices(model) == ("0.weight", "4.weight")
