"""`train` end to end: the documented recipes reach what they say, and the same call goes on."""

import dataclasses
import json
import os

import pytest
import torch

from walnut import data, nets
from walnut.core.errors import WalnutError
from walnut.data.dataset import assemble
from walnut.evaluate import accuracy
from walnut.recipes.train import RECIPES, augmentation, chosen, train
from walnut.training import adam


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_every_network_has_a_recipe():
    assert set(RECIPES) == set(nets.names())


def test_the_recipe_with_what_was_asked_for_instead():
    known = RECIPES["lenet-5"]
    assert chosen("LeNet_5", 55_000) == known
    small = chosen("lenet-5", 1000)
    assert small.epochs * 8 >= known.least_steps > (small.epochs - 1) * 8
    other = chosen("lenet-5", 1000, epochs=3, batch_size=10, lr=0.02)
    assert (other.epochs, other.batch_size, other.optimizer.lr) == (3, 10, 0.02)
    assert other.optimizer == dataclasses.replace(known.optimizer, lr=0.02)
    assert chosen("lenet-5", 9, optimizer=adam(0.1), lr=0.2).optimizer == adam(0.2)
    for bad in ({"epochs": 0}, {"batch_size": 0}, {"lr": -1.0}, {"lr": float("nan")}):
        with pytest.raises(WalnutError, match="positive"):
            chosen("lenet-5", 100, **bad)


def test_augmentation_follows_the_data():
    lenet, resnet = RECIPES["lenet-5"], RECIPES["resnet-20"]
    assert "crop(padding=2)" in repr(augmentation(lenet, (1, 28, 28)))
    assert "crop(padding=1)" in repr(augmentation(lenet, (1, 8, 8)))
    assert "flip" not in repr(augmentation(resnet, (1, 28, 28)))  # a mirrored 3 is no 3
    assert "crop(padding=4), flip()" in repr(augmentation(resnet, (3, 32, 32)))
    assert augmentation(lenet, (9,)) is None
    assert augmentation(RECIPES["softmax"], (1, 28, 28)) is None


@pytest.mark.parametrize("net", ["small-cnn", "lenet-300-100"])
def test_digits_in_seconds(net, digits, tmp_path):
    result = train(net, digits, out=tmp_path)
    assert result.test >= 0.96
    assert result.validation >= 0.96
    again = nets.load(result.path)
    assert torch.equal(again(digits.test.x), result.model(digits.test.x))
    assert accuracy(again, digits.test.x, digits.test.y).value == result.test
    arguments = again.description["arguments"]
    assert arguments["shape"] == [1, 8, 8]
    assert (arguments["mean"], arguments["std"]) == digits.statistics()
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["kind"] == "train"
    assert written["history"] == result.history
    assert set(result.history[0]) == {
        "epoch", "train_loss", "lr", "validation_accuracy", "seconds",
    }  # fmt: skip
    assert written["rows"][0]["clean"]["value"] == result.test
    assert written["rows"][0]["parameters"] == sum(p.numel() for p in again.parameters())
    assert written["config"]["data"] == digits.digest()
    assert {"model.safetensors", "result.json", "report.html"} <= set(os.listdir(tmp_path))


def test_the_same_call_goes_on_where_it_was_stopped(digits, tmp_path):
    def stops(what, done, total):
        if done == 25:
            raise KeyboardInterrupt

    torch.manual_seed(5)
    whole = train("softmax", digits, epochs=3, out=tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train("softmax", digits, epochs=3, out=tmp_path / "b", progress=stops)
    assert not (tmp_path / "b" / "model.safetensors").exists()
    resumed = train("softmax", digits, epochs=3, out=tmp_path / "b")
    whole_state, resumed_state = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(v, resumed_state[k]) for k, v in whole_state.items())
    other = train("softmax", digits, epochs=3, seed=1, out=tmp_path / "c")
    assert not torch.equal(other.model.linear.weight, whole.model.linear.weight)
    with pytest.raises(WalnutError, match="another run"):
        train("softmax", digits, epochs=4, out=tmp_path / "b")


def test_tuning_never_sees_test(digits, tmp_path):
    hidden = dataclasses.replace(digits, test=digits.test.first(3))
    one = train("softmax", digits, epochs=1, out=tmp_path / "a")
    two = train("softmax", hidden, epochs=1, out=tmp_path / "b")
    assert torch.equal(one.model.linear.weight, two.model.linear.weight)
    assert [r["validation_accuracy"] for r in one.history] == [
        r["validation_accuracy"] for r in two.history
    ]


def test_tables_train_too(tmp_path):
    x = torch.rand(200, 5, generator=torch.Generator().manual_seed(0)).numpy()
    y = (x.sum(1) > 2.5).astype("int64")
    table = assemble("t", (x, y), None, classes=("low", "high"), validation=0.2, seed=0)
    result = train("softmax", table, epochs=60, lr=0.5, out=tmp_path)
    assert result.test > 0.9


def test_what_does_not_fit_is_said(digits, tmp_path):
    with pytest.raises(WalnutError, match="at least 16x16"):
        train("lenet-5", digits, out=tmp_path)
    with pytest.raises(WalnutError, match="Did you mean"):
        train("lenet-300-101", digits, out=tmp_path)
    with pytest.raises(WalnutError, match="tells 3 classes apart"):
        train("softmax", digits, arguments={"classes": 3}, out=tmp_path)
    with pytest.raises(WalnutError, match="no argument"):
        train("softmax", digits, arguments={"wdith": 3}, out=tmp_path)
