"""Networks off the disk: every kind of file, and every way it can be wrong."""

import json
import os
import pickle
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from walnut import nets
from walnut.core.errors import WalnutError
from walnut.weights import pack

X = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
WIDE = {"resnet-18", "vgg-11", "vgg-16", "mobilenet", "mobilenet-v2", "squeezenet", "shufflenet"}


@dataclass
class Data:
    name: str = "some data"
    shape: tuple = (1, 28, 28)
    classes: tuple = tuple("0123456789")


def made(name="small-cnn", **arguments):
    torch.manual_seed(1)
    return nets.build(name, **arguments).eval()


def save_state(path, model, metadata=None):
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata)
    return path


@pytest.mark.parametrize("name", nets.names())
def test_save_and_load_are_bit_exact_and_leave_the_random_state(name, tmp_path):
    narrow = {"width": 8 * (name != "shufflenet") or 64} if name in WIDE else {}
    model = made(name, shape=(3, 32, 32), mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], **narrow)
    nets.save(model, tmp_path / "m.safetensors")
    before = torch.get_rng_state()
    again = nets.load(tmp_path / "m.safetensors")
    assert torch.equal(before, torch.get_rng_state())
    assert again.description == model.description
    assert not again.training
    x = torch.rand(3, 3, 32, 32)
    assert torch.equal(model(x), again(x))
    assert all(p.requires_grad and p.device.type == "cpu" for p in again.parameters())
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.parametrize("name", ["lenet-5", "resnet-20"])
def test_walnut_files(name, tmp_path):
    model = made(name, mean=[0.2], shape=(1, 28, 28))
    pack(model, tmp_path / "m.walnut", model.description)
    again = nets.load(tmp_path / "m.walnut")
    assert torch.equal(model(X), again(X))
    assert again.description == model.description
    assert torch.equal(nets.resolve(tmp_path / "m.walnut", dataset=Data())(X), model(X))


def test_a_walnut_file_whose_description_asks_for_more_than_it_holds(tmp_path):
    model = made("softmax")
    for arguments, says in (
        ({"classes": 100_000, "shape": [1, 4000, 4000]}, "cannot be used|do not fit"),
        ({"classes": 10**12}, "classes must be"),
        ({"nonsense": 1}, "no argument"),
    ):
        pack(model, tmp_path / "m.walnut", {"net": "softmax", "arguments": arguments})
        with pytest.raises(WalnutError, match=says):
            nets.load(tmp_path / "m.walnut")
    pack(model, tmp_path / "m.walnut", {"net": 3})
    with pytest.raises(WalnutError, match="names no network"):
        nets.load(tmp_path / "m.walnut")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("softmax", {"classes": 4}),
        ("softmax", {"shape": (64,), "classes": 4}),
        ("lenet-300-100", {"shape": (3, 32, 32)}),
        ("lenet-5", {"shape": (3, 32, 32), "classes": 7}),
        ("small-cnn", {"width": 8, "padding": 0, "hidden": 30}),
        ("small-cnn-wide", {"shape": (3, 32, 32)}),
        ("resnet-20", {"width": 4, "blocks": 2, "classes": 3}),
        ("resnet-20-b", {"width": 4, "blocks": 2, "classes": 3}),
        ("resnet-18", {"shape": (3, 32, 32), "width": 4, "classes": 3}),
        ("resnet-18", {"shape": (3, 224, 224), "width": 4, "classes": 3}),
        ("vgg-11", {"width": 4, "classes": 3}),
        ("vgg-16", {"width": 4}),
        ("densenet-40", {"blocks": 2, "width": 3}),
        ("squeezenet", {"shape": (3, 32, 32), "width": 8, "classes": 3}),
        ("mobilenet", {"shape": (3, 32, 32), "width": 4, "classes": 3}),
        ("mobilenet-v2", {"shape": (3, 32, 32), "width": 4, "classes": 3}),
        ("shufflenet", {"shape": (3, 32, 32), "width": 64, "groups": 2, "classes": 3}),
        ("shufflenet-v2", {"shape": (3, 32, 32), "width": 8, "classes": 3}),
        ("lstm", {"width": 8, "classes": 3}),
        ("vit", {"width": 8, "blocks": 2}),
    ],
)
def test_arguments_are_read_off_the_tensor_shapes(name, arguments, tmp_path):
    model = made(name, **arguments)
    path = save_state(tmp_path / "s.safetensors", model)
    shape = tuple(model.description["arguments"]["shape"])
    classes = tuple(str(i) for i in range(model.description["arguments"]["classes"]))
    again = nets.resolve(name, path, dataset=Data(shape=shape, classes=classes))
    assert again.description == model.description
    x = torch.rand(2, *shape)
    assert torch.equal(again(x), model(x))
    if shape != (64,):  # without data, the sizes of MNIST, digits and CIFAR-10 are tried
        assert torch.equal(nets.resolve(path, net=name)(x), model(x))


def test_given_arguments_win_over_the_file(tmp_path):
    model = made("softmax", mean=[0.1])
    nets.save(model, tmp_path / "m.safetensors")
    again = nets.resolve(tmp_path / "m.safetensors", mean=[0.4])
    assert again.description["arguments"]["mean"] == [0.4]


def test_pickles_only_where_they_hold_nothing_but_weights(tmp_path):
    model = made()
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}},
               tmp_path / "ok.pth")  # fmt: skip
    assert torch.equal(nets.resolve("small-cnn", tmp_path / "ok.pth")(X), model(X))
    torch.save(model, tmp_path / "whole.pt")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(os.getcwd))
    (tmp_path / "noise.pt").write_bytes(os.urandom(500))
    for bad in ("whole.pt", "evil.pt", "noise.pt"):
        with pytest.raises(WalnutError, match=r"weights_only=True.*safetensors"):
            nets.resolve("small-cnn", tmp_path / bad)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WalnutError, match="no state dict"):
        nets.resolve("small-cnn", tmp_path / "list.pt")


def test_half_precision_weights_are_widened(tmp_path):
    model = made("softmax").half().float()
    save_file({k: v.half() for k, v in model.state_dict().items()}, tmp_path / "h.safetensors")
    again = nets.resolve("softmax", tmp_path / "h.safetensors")
    assert torch.equal(again(X), model(X))


def test_what_does_not_fit_is_named_at_most_five_at_a_time(tmp_path):
    path = save_state(tmp_path / "s.safetensors", made("resnet-20"))
    with pytest.raises(WalnutError) as caught:
        nets.resolve("lenet-5", path)
    text = str(caught.value)
    assert "missing: conv1.bias, conv2.weight" in text
    assert "and 110 more" in text
    assert "conv1.weight is (16, 3, 3, 3), not (20, 1, 5, 5)" in text
    assert len(text) < 900


def test_integers_where_floats_belong(tmp_path):
    state = made("softmax").state_dict()
    state["linear.bias"] = torch.zeros(10, dtype=torch.int32)
    save_file(state, tmp_path / "i.safetensors")
    with pytest.raises(WalnutError, match=r"kinds: linear\.bias is I32"):
        nets.resolve("softmax", tmp_path / "i.safetensors")


@pytest.mark.parametrize("metadata", ["{", "[]", '{"net": 1}', "[" * 100_000, '{"net": "lenet-6"}'])
def test_hostile_descriptions(metadata, tmp_path):
    path = save_state(tmp_path / "s.safetensors", made("softmax"), {"walnut": metadata})
    with pytest.raises(WalnutError):
        nets.load(path)


def test_a_hostile_description_allocates_nothing(tmp_path):
    huge = {"net": "lenet-300-100", "arguments": {"shape": [1, 4096, 4096], "classes": 100_000}}
    path = save_state(tmp_path / "s.safetensors", made("softmax"), {"walnut": json.dumps(huge)})
    with pytest.raises(WalnutError, match="do not fit"):  # 20 GB, were it built
        nets.load(path)


def test_missing_wrong_and_damaged_files(tmp_path):
    path = save_state(tmp_path / "s.safetensors", made("softmax"))
    whole = path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-7])
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "readme.txt").write_text("hello")
    cases = {
        "none.safetensors": "there is no file",
        "none.walnut": "there is no file",
        "cut.safetensors": "not a sound safetensors file",
        "text.safetensors": "not a sound safetensors file",
        "folder.safetensors": "is a folder",
        "s.safetensors": "does not say which network",
        "readme.txt": "is no network",
    }
    for name, says in cases.items():
        with pytest.raises(WalnutError, match=says):
            nets.resolve(tmp_path / name)
    with pytest.raises(WalnutError, match="has no weights yet"):
        nets.resolve("lenet-5")
    with pytest.raises(WalnutError, match="Did you mean"):
        nets.resolve("lenet-55")
    with pytest.raises(WalnutError, match="holds its own weights"):
        nets.resolve(path, path)
    with pytest.raises(WalnutError, match="weights come as"):
        nets.resolve("softmax", tmp_path / "readme.txt")


def test_a_network_for_other_data_is_refused(tmp_path):
    model = made("softmax")
    nets.save(model, tmp_path / "m.safetensors")
    with pytest.raises(WalnutError, match=r"inputs of shape \(1, 28, 28\).*has \(3, 32, 32\)"):
        nets.resolve(tmp_path / "m.safetensors", dataset=Data(shape=(3, 32, 32)))
    with pytest.raises(WalnutError, match="tells 10 classes apart"):
        nets.resolve(tmp_path / "m.safetensors", dataset=Data(classes=("a", "b")))


def test_a_represented_network_is_not_saved_half(tmp_path):
    model = made("softmax")
    torch.nn.utils.parametrize.register_parametrization(model.linear, "weight", nn.Identity())
    with pytest.raises(WalnutError, match="bake it first"):
        nets.save(model, tmp_path / "m.safetensors")
    assert os.listdir(tmp_path) == []


FACTORY = """
import torch
from torch import nn

def net(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

def wrong():
    return 3

def raises():
    raise RuntimeError("no licence")
"""


def test_factories(tmp_path, monkeypatch):
    (tmp_path / "zoo_n.py").write_text(FACTORY)
    spec = f"{tmp_path}/zoo_n.py"
    model = nets.resolve(f"{spec}:net", width=6)
    assert model[1].out_features == 6
    assert not model.training
    nets.save(model, tmp_path / "w.safetensors")
    again = nets.resolve(f"{spec}:net", tmp_path / "w.safetensors", width=6)
    assert torch.equal(model(X), again(X))
    monkeypatch.chdir(tmp_path)
    assert nets.resolve("zoo_n:net")[1].out_features == 4
    for factory, says in (
        (f"{spec}:wrong", "returned int"),
        (f"{spec}:raises", "raised RuntimeError: no licence"),
        (f"{spec}:absent", "no callable 'absent'"),
        ("no.such.module:net", "cannot be imported"),
        (f"{tmp_path}/none.py:net", "there is no file"),
        (f"{spec}:net", "do not fit"),
    ):
        weights = tmp_path / "w.safetensors" if says == "do not fit" else None
        with pytest.raises(WalnutError, match=says):
            nets.resolve(factory, weights)
    (tmp_path / "broken.py").write_text("1 +")
    with pytest.raises(WalnutError, match="raised SyntaxError"):
        nets.resolve(f"{tmp_path}/broken.py:net")


@pytest.mark.parametrize("dynamic", [False, True])
def test_exported_programs(dynamic, tmp_path):
    model = made("softmax", mean=[0.1], std=[0.3])
    batch = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(model, (X[:4],), dynamic_shapes=batch)
    torch.export.save(program, tmp_path / "m.pt2")
    again = nets.resolve(tmp_path / "m.pt2", dataset=Data())
    assert again.shape == (1, 28, 28)
    assert again.batch == (None if dynamic else 4)
    x = X.clone().requires_grad_()
    assert torch.allclose(again(x), model(x), atol=1e-6)
    ours, theirs = (torch.autograd.grad(m(x)[:, 3].sum(), x)[0] for m in (again, model))
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not again.eval().training
    with pytest.raises(WalnutError, match="exported for inputs of shape"):
        again(torch.rand(2, 1, 8, 8))
    with pytest.raises(WalnutError, match="inputs of shape"):
        nets.resolve(tmp_path / "m.pt2", dataset=Data(shape=(1, 8, 8)))
    with pytest.raises(WalnutError, match="leave width out"):
        nets.resolve(tmp_path / "m.pt2", width=3)


def test_pt2_files_that_are_none(tmp_path):
    (tmp_path / "a.pt2").write_text("hello")
    with pytest.raises(WalnutError, match=r"not a torch\.export program"):
        nets.resolve(tmp_path / "a.pt2")
    torch.save(made("softmax"), tmp_path / "b.pt2")  # a zip with a pickle in it
    with pytest.raises(WalnutError, match="holds pickles"):
        nets.resolve(tmp_path / "b.pt2")


def test_safetensors_carry_the_description_as_metadata(tmp_path):
    from safetensors import safe_open

    model = made("softmax")
    nets.save(model, tmp_path / "m.safetensors")
    with safe_open(str(tmp_path / "m.safetensors"), "pt") as file:
        assert json.loads(file.metadata()["walnut"]) == model.description
    assert torch.equal(load_file(tmp_path / "m.safetensors")["linear.bias"], model.linear.bias)


def test_a_factory_in_train_mode_is_put_in_eval_mode_with_a_word(tmp_path):
    code = "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Dropout())\n"
    (tmp_path / "made.py").write_text(code)
    with pytest.warns(UserWarning, match="train mode"):
        model = nets.resolve(f"{tmp_path / 'made.py'}:make")
    assert not model.training
