"""Compressing from end to end on the embedded digits: sizes, forms, choice by validation, resuming."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from walnut import data, nets
from walnut.core.errors import WalnutError
from walnut.data import Dataset, Split
from walnut.evaluate import accuracy
from walnut.recipes.compress import CompressResult, compress
from walnut.recipes.job import Job
from walnut.recipes.recipe import Recipe, recipe_for
from walnut.recipes.train import train
from walnut.weights import matrices, unpack

RECIPE = Recipe(
    density=0.1, rounds=2, epochs=2, bits=3, finetune_epochs=1, shift=0.0, least_steps=60
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits")


@pytest.fixture(scope="module")
def dense(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    folder = tmp_path_factory.mktemp("dense")
    return train("lenet-300-100", digits, epochs=40, seed=0, out=folder).model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compress")


@pytest.fixture(scope="module")
def found(dense: nn.Module, digits: Dataset, folder: Path) -> CompressResult:
    return compress(dense, digits, recipe=RECIPE, out=folder)


def nonzeros(model: nn.Module) -> int:
    return sum(int(model.get_parameter(n).count_nonzero()) for n in matrices(model))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


def test_it_shrinks_and_still_works(found: CompressResult, digits: Dataset) -> None:
    x, y = digits.test.x, digits.test.y
    share = {name: accuracy(net, x, y).value for name, net in found.stages.items()}
    assert list(share) == ["dense", "pruned", "shared", "packed"]
    assert share["dense"] > 0.95
    assert share["packed"] > share["dense"] - 0.05
    assert found.sizes.bytes == os.path.getsize(found.path)
    assert found.sizes.parameter_bytes == 4 * 50_610
    assert found.sizes.ratio > 30
    sizes = [found.bytes[name] for name in found.stages]
    assert sizes == sorted(sizes, reverse=True)
    assert found.bytes["packed"] == found.sizes.bytes


def test_each_form_is_what_its_name_says(found: CompressResult) -> None:
    weights = 64 * 300 + 300 * 100 + 100 * 10
    assert nonzeros(found.stages["dense"]) == weights
    assert nonzeros(found.stages["pruned"]) <= round(0.1 * weights) + 3
    for name in matrices(found.stages["shared"]):
        pruned = found.stages["pruned"].get_parameter(name)
        shared = found.stages["shared"].get_parameter(name)
        assert torch.equal(shared == 0, pruned == 0)
        assert len(shared.unique()) <= 1 + 8
    for form in found.stages.values():
        assert not form.training
        assert {type(m) for m in form.modules()} == {
            type(m) for m in found.stages["dense"].modules()
        }


def test_the_file_is_the_shared_network_bit_for_bit(found: CompressResult) -> None:
    wanted = found.stages["shared"].state_dict()
    assert same(found.stages["packed"].state_dict(), wanted)
    assert same(nets.load(found.path).state_dict(), wanted)
    assert same(unpack(found.path)[1], wanted)


def test_biases_and_codebooks_are_float16_where_that_loses_nothing(
    found: CompressResult, digits: Dataset, tmp_path: Path
) -> None:
    state = unpack(found.path)[1]
    values = [w if w.ndim == 1 else w.unique() for w in state.values()]
    assert all(torch.equal(w, w.half().float()) for w in values)
    coarse = nets.build("lenet-300-100", shape=digits.shape, classes=10)
    x = digits.validation.x

    def mine(model: nn.Module, labels: Tensor) -> bool:
        job = Job(model, model, replace_validation(digits, labels), RECIPE, 0, tmp_path, None)
        before = copy.deepcopy(model.state_dict())
        job.shorten()
        return same(job.model.state_dict(), before)

    right = coarse(x).argmax(1)
    assert not mine(copy.deepcopy(coarse), right)
    with torch.no_grad():  # a bias just above a tie, that float16 has below it
        coarse.get_parameter("fc3.weight").zero_()
        coarse.get_parameter("fc3.bias").zero_()[:2] = torch.tensor([1.0, 1.00001])
    assert mine(coarse, torch.ones_like(right))


def replace_validation(digits: Dataset, labels: Tensor) -> Dataset:
    return dataclasses.replace(digits, validation=Split(digits.validation.x, labels))


def test_the_network_that_went_in_is_as_it_was(
    dense: nn.Module, digits: Dataset, tmp_path: Path
) -> None:
    before = copy.deepcopy(dense.state_dict())
    state = torch.get_rng_state()
    quick = dataclasses.replace(RECIPE, rounds=1, epochs=1, least_steps=1)
    compress(dense, digits, recipe=quick, out=tmp_path)
    assert same(dense.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_written(found: CompressResult, folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert result["kind"] == "compress"
    assert [row["form"] for row in result["rows"]] == list(found.stages)
    for row in result["rows"]:
        assert row["bytes"] == found.bytes[row["form"]]
        assert row["ratio"] == pytest.approx(4 * 50_610 / row["bytes"])
        assert 0 < row["clean"]["value"] <= 1
    assert sum(layer["bytes"] for layer in result["layers"]) < found.sizes.bytes
    assert [row["epoch"] for row in result["history"]] == list(range(1, len(found.history) + 1))
    assert result["history"] == found.history
    for drawn in result["histograms"]:
        size = found.stages["dense"].get_parameter(drawn["layer"]).numel()
        assert sum(drawn["counts"]) + drawn["zeros"] <= size
    assert (folder / "report.html").exists()
    for form in found.stages:
        loaded = nets.load(folder / f"{form}.safetensors")
        assert same(loaded.state_dict(), found.stages[form].state_dict())


def test_the_same_call_goes_on_from_what_is_done(
    dense: nn.Module, digits: Dataset, found: CompressResult, tmp_path: Path
) -> None:
    """Interrupted in the second round, then called again: the same bits as without a stop."""

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("prune 2") and done == total // 2 + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(dense, digits, recipe=RECIPE, out=tmp_path, progress=stop)
    assert not (tmp_path / "packed.walnut").exists()
    told: list[str] = []
    again = compress(
        dense, digits, recipe=RECIPE, out=tmp_path, progress=lambda what, *_: told.append(what)
    )
    assert again.path.read_bytes() == found.path.read_bytes()
    assert not any(what.startswith("prune 1") for what in told)
    assert any(what.startswith("prune 2") for what in told)


def test_the_test_split_is_not_looked_at(
    dense: nn.Module, digits: Dataset, found: CompressResult, tmp_path: Path
) -> None:
    """With other test examples the file is the same, byte for byte."""
    wrong = Split(digits.test.x.flip(0), digits.test.y.roll(1))
    other = dataclasses.replace(digits, test=wrong)
    again = compress(dense, other, recipe=RECIPE, out=tmp_path)
    assert again.path.read_bytes() == found.path.read_bytes()


def test_densities_and_bits_by_pattern(dense: nn.Module, digits: Dataset, tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE,
        density={"fc1.weight": 0.05, "*": 0.2},
        bits={"fc3.weight": 5, "*": 2},
        rounds=1,
        epochs=1,
        least_steps=1,
    )
    found = compress(dense, digits, recipe=recipe, out=tmp_path)
    shared = found.stages["shared"]
    assert int(shared.fc1.weight.count_nonzero()) == round(0.05 * 64 * 300)
    rest = sum(int(w.count_nonzero()) for w in (shared.fc2.weight, shared.fc3.weight))
    assert rest == pytest.approx(0.2 * 31_000, abs=2)
    assert len(shared.fc1.weight.unique()) <= 5
    assert len(shared.fc3.weight.unique()) > 9


class Plain(nn.Module):
    """A network of the user's own, with no description."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


def test_a_network_of_the_users_own(digits: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = Recipe(density=0.3, rounds=1, epochs=1, finetune_epochs=1, least_steps=20)
    found = compress(Plain(), digits, recipe=recipe, out=tmp_path)
    assert isinstance(found.stages["packed"], Plain)
    assert same(found.stages["packed"].state_dict(), found.stages["shared"].state_dict())
    assert "features.1.running_mean" in unpack(found.path)[1]


def test_the_recipe_of_a_network_is_found_by_its_description(dense: nn.Module) -> None:
    assert recipe_for(dense).density == 0.08
    assert recipe_for(Plain()) == Recipe()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"density": 0.0}, "cannot be done"),
        ({"density": {"conv9.*": 0.5}}, r"no weight is called 'conv9.\*'; there are fc1.weight"),
        ({"bits": 30}, "1 to 16 bits"),
    ],
)
def test_recipes_that_cannot_be_are_refused(
    changes: dict, words: str, dense: nn.Module, digits: Dataset, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, rounds=1, epochs=1, least_steps=1, **changes)
    with pytest.raises(WalnutError, match=words):
        compress(dense, digits, recipe=recipe, out=tmp_path)


@pytest.mark.parametrize("changes", [{"rounds": 0}, {"epochs": 0}, {"lr": -1.0}])
def test_numbers_that_cannot_be_are_refused(changes: dict) -> None:
    with pytest.raises(WalnutError, match="must be positive"):
        dataclasses.replace(RECIPE, **changes)
