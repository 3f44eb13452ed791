"""Reference networks: their sizes, their names, and what they say to what does not fit."""

import pytest
import torch

from walnut import nets
from walnut.core.errors import WalnutError

PARAMETERS = {  # counted by hand from the papers' tables
    "softmax": 7_850,
    "lenet-300-100": 266_610,
    "lenet-5": 431_080,
    "small-cnn": 166_406,
    "resnet-20": 269_722,
    "resnet-20-b": 272_474,
    "resnet-18": 11_689_512,
    "vgg-11": 9_228_362,
    "vgg-16": 14_724_042,
    "densenet-40": 1_019_722,
    "squeezenet": 1_235_496,
    "mobilenet": 4_231_976,
    "mobilenet-v2": 3_504_872,
    "shufflenet": 1_805_680,
    "shufflenet-v2": 2_278_604,
    "lstm": 4 * 64 * (28 + 64 + 2) + 4 * 64 * (64 + 64 + 2) + 650,
    "vit": 207_946,
    "rbf": 100 * 785 + 1_010,
}
NARROW = {  # the wide ones, narrow, where their size is not what is tested
    "resnet-18": {"width": 8},
    "vgg-11": {"width": 8},
    "vgg-16": {"width": 8},
    "densenet-40": {"blocks": 3},
    "squeezenet": {"width": 16},
    "mobilenet": {"width": 8},
    "mobilenet-v2": {"width": 8},
    "shufflenet": {"width": 64},
    "shufflenet-v2": {"width": 24},
}
PARAMETERS["small-cnn-wide"] = (32 * 16 + 32) + (64 * 32 * 16 + 64) + (3136 * 200 + 200) + 2010


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", nets.names())
def test_parameters_at_the_published_shape(name):
    assert count(nets.build(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", nets.names())
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 17, 20)])
def test_any_image_shape_and_class_count(name, shape):
    narrow = NARROW.get(name, {})
    model = nets.build(
        name, shape=shape, classes=4, mean=[0.3] * shape[0], std=0.2, **narrow
    ).eval()
    assert model(torch.rand(3, *shape)).shape == (3, 4)


@pytest.mark.parametrize("name", ["softmax", "lenet-300-100", "rbf"])
def test_tables(name):
    model = nets.build(name, shape=(7,), classes=3, mean=[0.5] * 7, std=[0.1] * 7)
    assert model(torch.rand(5, 7)).shape == (5, 3)


@pytest.mark.parametrize("name", nets.names())
def test_normalisation_lives_inside_and_not_in_the_state(name):
    shape = (3, 32, 32)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    narrow = NARROW.get(name, {})
    inside = nets.build(name, shape=shape, mean=mean, std=std, **narrow).eval()
    outside = nets.build(name, shape=shape, **narrow).eval()
    outside.load_state_dict(inside.state_dict())
    x = torch.rand(4, *shape)
    by_hand = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(inside(x), outside(by_hand))
    assert not [k for k in inside.state_dict() if "mean" in k and "running" not in k]


@pytest.mark.parametrize("spelt", ["lenet-5", "LeNet-5", "LENET_5", "lenet5"])
def test_names_ignore_case_and_dashes(spelt):
    assert nets.build(spelt).description["net"] == "lenet-5"


@pytest.mark.parametrize("name", nets.names())
def test_the_description_builds_the_same_network_again(name):
    model = nets.build(name, classes=7, **NARROW.get(name, {}))
    again = nets.build(model.description["net"], **model.description["arguments"])
    assert again.description == model.description
    assert [(k, v.shape) for k, v in again.state_dict().items()] == [
        (k, v.shape) for k, v in model.state_dict().items()
    ]


def test_option_a_shortcut_subsamples_and_pads_with_zeros():
    from walnut.nets.resnet import Block

    block = Block(4, 8, stride=2).eval()
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)  # the branch is silent: only the shortcut is left
    x = torch.rand(2, 4, 6, 6)
    y = block(x)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert y[:, :2].abs().sum() == y[:, 6:].abs().sum() == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: nets.build("lenet-6"), "Did you mean lenet-5?.*softmax, lenet-300-100"),
        (lambda: nets.build("alexnet"), "networks are: softmax"),
        (lambda: nets.build("lenet-5", shape=(1, 8, 8)), "at least 16x16.*is 8x8.*small-cnn"),
        (lambda: nets.build("small-cnn", shape=(30,)), "looks at images.*softmax"),
        (lambda: nets.build("small-cnn", width=0), "width must be a whole number from 1"),
        (lambda: nets.build("small-cnn", width=True), "width must be"),
        (lambda: nets.build("small-cnn", hidden=10**9), "hidden must be"),
        (lambda: nets.build("rbf", units=10**6), "units must be a whole number from 1"),
        (lambda: nets.build("lenet-5", width=3), "no argument 'width'.*classes"),
        (lambda: nets.build("softmax", shape=(1, 10**6, 10**6)), "larger than"),
        (lambda: nets.build("softmax", shape="abc"), "shape must be"),
        (lambda: nets.build("softmax", shape=(1, -2, 3)), "shape must be"),
        (lambda: nets.build("softmax", mean=[0.1, 0.2]), "2 numbers.*1 channels"),
        (lambda: nets.build("softmax", mean=float("nan")), "mean must be"),
        (lambda: nets.build("softmax", mean=[10**400]), "mean must be"),
        (lambda: nets.build("softmax", std=0.0), "std positive"),
        (lambda: nets.build("softmax", classes=2.0), "classes must be"),
    ],
)
def test_what_makes_no_sense_is_said(call, says):
    with pytest.raises(WalnutError, match=says):
        call()
