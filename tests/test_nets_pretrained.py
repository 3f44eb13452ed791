"""Published weights on published test sets: networks, data and normalisation all at once."""

import os
from pathlib import Path

import pytest

from walnut import data, nets
from walnut.evaluate import accuracy

ROOT = Path(os.environ.get("WALNUT_DATA") or "/nowhere")
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CIFAR = {"mean": [0.4914, 0.4824, 0.4467], "std": [0.2471, 0.2435, 0.2616]}
PRETRAINED = [  # file, network, data, arguments, per cent on the test set (MODELS.md of that folder)
    ("mnist_conv_small_nat", "small-cnn", "mnist", {"mean": [0.1307], "std": [0.3081]}, 98.25),
    ("mnist_cnn_a_adv", "small-cnn", "mnist", {}, 96.33),
    ("mnist_cnn_provable_eps0.1", "small-cnn", "mnist", {}, 98.20),
    ("cifar_cnn_a_adv", "small-cnn", "cifar10", CIFAR, 65.63),
    ("resnet20_cifar10", "resnet-20", "cifar10", IMAGENET, 91.73),
]


@pytest.fixture(scope="module")
def loaded():
    return {}


@pytest.mark.data
@pytest.mark.parametrize(("file", "net", "name", "arguments", "percent"), PRETRAINED)
def test_published_accuracy(file, net, name, arguments, percent, loaded):
    path = ROOT / "models" / f"{file}.safetensors"
    if not path.exists() or not (ROOT / name / "test.parquet").exists():
        pytest.skip("WALNUT_DATA is not set, or holds no such network or data")
    if name not in loaded:
        loaded[name] = data.load(name)
    split = loaded[name].test
    model = nets.resolve(net, path, dataset=loaded[name], **arguments)
    assert 100 * accuracy(model, split.x, split.y).value == pytest.approx(percent, abs=0.011)


@pytest.mark.data
def test_the_sets_are_what_they_are_known_to_be():
    if not (ROOT / "mnist" / "train.parquet").exists():
        pytest.skip("WALNUT_DATA is not set, or holds no MNIST")
    mnist = data.load("mnist")
    assert [len(s) for s in (mnist.train, mnist.validation, mnist.test)] == [55000, 5000, 10000]
    counts = mnist.train.y.bincount() + mnist.validation.y.bincount()
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    mean, std = mnist.statistics()
    assert mean[0] == pytest.approx(0.1307, abs=1e-3)
    assert std[0] == pytest.approx(0.3081, abs=1e-3)
