"""Files of other runtimes: what they answer, beside torch and beside the simulation."""

from __future__ import annotations

import builtins
import copy
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from walnut import data
from walnut.cli import main
from walnut.core.errors import WalnutError, WalnutWarning
from walnut.evaluate import accuracy
from walnut.export import (
    CsrLinear,
    compiled,
    dynamic,
    eager,
    executorch,
    gap,
    onnx_runtime,
    openvino,
    qdq,
    simulated,
    to_csr,
    to_onnx,
)
from walnut.export.onnx import operators
from walnut.training import Batches, adam, fit
from walnut.weights import quantise_activations, represent
from walnut.weights.calibrate import entropy, mse, percentile
from walnut.weights.input_grid import without_grids
from walnut.weights.quantised import Quantise

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Digits(nn.Module):
    """A small residual network with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.last = nn.Linear(8 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(x + self.norm2(self.second(x)))
        return self.last(nn.functional.max_pool2d(x, 2).flatten(1))


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, data.Dataset]:
    """A network that reads digits."""
    torch.manual_seed(0)
    digits, net = data.load("digits"), Digits()
    ce = lambda model, x, y: nn.functional.cross_entropy(model(x), y, reduction="none")  # noqa: E731
    fit(net, ce, Batches(digits.train.x, digits.train.y, 50), epochs=8, optimizer=adam(0.01))
    return net, digits


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory) -> dict[str, Path]:
    """Its files."""
    net, digits = trained
    folder, x = tmp_path_factory.mktemp("onnx"), digits.train.x[:200]
    made = {
        "float": to_onnx(net, folder / "float.onnx", x),
        "int8": qdq(net, folder / "int8.onnx", x),
    }
    return {name: record.path for name, record in made.items()}


def test_onnx_answers_as_torch_does_for_any_batch(trained, files) -> None:
    net, digits = trained
    for count in (1, 2, 7, 100):
        x = digits.test.x[:count]
        assert (onnx_runtime(files["float"])(x) - net(x)).abs().max() < 1e-4
    assert operators(files["float"])["Conv"] == 2
    assert "BatchNormalization" not in operators(files["float"])
    assert net.norm.running_mean is not None  # the network itself keeps its layers


def test_represented_weights_are_exported_as_used(trained, tmp_path) -> None:
    net, digits = trained
    twin = represent(copy.deepcopy(net), {"second.weight": Quantise(2), "last.weight": Quantise(4)})
    quantise_activations(twin, digits.train.x[:50])
    made = to_onnx(twin, tmp_path / "net.onnx", digits.test.x[:20])
    assert made.gap.largest < 1e-3
    assert not any(hasattr(m, "input_grid") for m in without_grids(copy.deepcopy(twin)).modules())
    assert gap(without_grids(copy.deepcopy(twin)), twin, digits.test.x[:20]).relative < 0.05
    assert made.bytes == os.path.getsize(made.path)
    assert "parametrizations" in dict(twin.named_modules())["last"]._modules


def test_integers_keep_the_accuracy_and_their_gap_is_told(trained, files) -> None:
    net, digits = trained
    x, y = digits.test.x, digits.test.y
    dense, deployed = accuracy(net, x, y).value, accuracy(onnx_runtime(files["int8"]), x, y).value
    assert dense > 0.9
    assert deployed >= dense - 0.015
    assert operators(files["int8"])["QuantizeLinear"] >= 3
    measured = gap(onnx_runtime(files["int8"]), simulated(files["int8"]), x)
    assert measured.agreement > 0.98
    assert measured.relative < apart()
    again = gap(simulated(files["int8"]), net, x)
    assert 0 < again.relative < 0.2
    assert files["int8"].stat().st_size < files["float"].stat().st_size


@pytest.mark.parametrize(
    ("reach", "kind"), [(percentile(0.9999), torch.uint8), (entropy(), torch.int8)], ids=repr
)
def test_other_ranges_and_types(trained, tmp_path, reach, kind, capfd) -> None:
    net, digits = trained
    made = qdq(net, tmp_path / "q.onnx", digits.train.x[:60], reach=reach, activations=kind)
    assert made.dense is not None
    assert made.dense.agreement > 0.9
    assert json.dumps(made.json())
    assert capfd.readouterr().out == ""
    assert os.listdir(tmp_path) == ["q.onnx"]  # nothing is left beside it


def test_dynamic_integers(trained, tmp_path) -> None:
    net, digits = trained
    made = dynamic(net, tmp_path / "d.onnx", digits.test.x[:50])
    assert operators(made.path)["DynamicQuantizeLinear"] >= 1
    assert made.dense is not None
    assert made.dense.agreement > 0.9
    one = onnx_runtime(made.path)(digits.test.x[:1])
    assert torch.equal(onnx_runtime(made.path)(digits.test.x[:9])[:1], one)


def test_openvino_answers_the_same(trained, files) -> None:
    pytest.importorskip("openvino")
    net, digits = trained
    x = digits.test.x[:64]
    found = openvino(files["float"], 1)
    assert (found.name, found.threads) == ("OpenVINO", 1)
    assert gap(found, net, x).largest < 1e-3
    assert gap(openvino(files["int8"], 1), net, x).agreement > 0.95
    with pytest.raises(WalnutError, match="float32, bfloat16 or float16"):
        openvino(files["float"], precision=torch.int8)
    (broken := files["float"].with_name("broken.onnx")).write_bytes(b"no network")
    with pytest.raises(WalnutError, match="OpenVINO cannot open broken"):
        openvino(broken)
    with pytest.raises(WalnutError, match="ONNX Runtime cannot open broken"):
        onnx_runtime(broken)


def test_bad_calibration_data(trained, tmp_path) -> None:
    net, digits = trained
    x = digits.train.x[:20]
    with pytest.raises(WalnutError, match=r"expects \(n, 1, …, …\), given \(20, 3, 8, 8\)"):
        qdq(net, tmp_path / "q.onnx", x.expand(20, 3, 8, 8))
    spoilt = x.clone()
    spoilt[13, 0, 3, 3] = float("nan")
    with pytest.raises(WalnutError, match="NaN"):
        qdq(net, tmp_path / "q.onnx", spoilt)
    with pytest.raises(WalnutError, match="examples"):
        qdq(net, tmp_path / "q.onnx", x[:0])
    with pytest.raises(WalnutError, match="by min_max"):
        qdq(net, tmp_path / "q.onnx", x, reach=mse())
    with pytest.raises(WalnutError, match=r"torch.uint8 or torch.int8"):
        qdq(net, tmp_path / "q.onnx", x, activations=torch.int16)
    with pytest.raises(WalnutError, match="there is no file"):
        onnx_runtime(tmp_path / "q.onnx")
    with pytest.raises(WalnutError, match="at least one thread"):
        onnx_runtime(tmp_path / "q.onnx", 0)
    assert not any(tmp_path.iterdir())


def test_an_old_file_stays_when_writing_fails(trained, tmp_path, monkeypatch) -> None:
    net, digits = trained
    path = tmp_path / "q.onnx"
    path.write_bytes(b"old")

    def full(self, content):
        if self.parent == tmp_path:
            raise OSError(28, "No space left on device")
        return len(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        to_onnx(net, path, digits.train.x[:4])
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["q.onnx"]


def apart() -> float:
    """Return how far 8-bit kernels may be from their simulation: without VNNI their sums saturate."""
    told = Path("/proc/cpuinfo")
    flags = told.read_text(encoding="utf-8") if told.exists() else "vnni"
    return 0.05 if "vnni" in flags or "avx" not in flags else 0.15


class Odd(nn.Module):
    """A dead channel, a layer of zeros, and a product that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.zeros = nn.Conv2d(4, 4, 1)
        self.matrix = nn.Parameter(torch.randn(4 * 36, 3))
        with torch.no_grad():
            self.conv.weight[1] = 0
            self.norm.running_var[1] = 0  # type: ignore[index]
            self.zeros.weight.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.conv(x))
        return torch.einsum("bi,io->bo", (hidden + self.zeros(hidden)).flatten(1), self.matrix)


def test_dead_channels_layers_of_zeros_and_products_of_ones_own(tmp_path) -> None:
    net, x = Odd().eval(), torch.rand(40, 1, 8, 8)
    with pytest.warns(WalnutWarning, match="left in floating point"):
        made = qdq(net, tmp_path / "odd.onnx", x)
    assert made.gap.relative < apart()
    assert made.dense is not None
    assert made.dense.relative < apart()
    assert len(made.left) == 1
    assert "insum" in made.left[0]


def test_layers_that_stay_in_floating_point_are_named(tmp_path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.last = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.lstm(x[:, 0])[0][:, -1])

    with pytest.warns(WalnutWarning, match=r"left in floating point in r.onnx: .*LSTM"):
        made = qdq(Recurrent().eval(), tmp_path / "r.onnx", torch.rand(20, 1, 8, 8))
    assert len(made.left) == 1


class Shortcut(nn.Module):
    """A convolution beside every second pixel of its input, filled up with channels of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1)
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        beside = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.last(torch.relu(self.conv(x) + beside).mean((2, 3)))


def test_shortcuts_stay_in_integers_and_answer_the_same(tmp_path, monkeypatch) -> None:
    import onnx

    torch.manual_seed(0)
    net, x = Shortcut().eval(), torch.rand(60, 1, 9, 9)
    graph = onnx.load(to_onnx(net, tmp_path / "float.onnx", x).path).graph
    assert [n.op_type for n in graph.node].count("Slice") == 1
    small = qdq(net, tmp_path / "small.onnx", x).path
    for module, step in (("qdq", "integer_pads"), ("onnx", "merge_slices")):
        monkeypatch.setattr(sys.modules[f"walnut.export.{module}"], step, lambda graph: None)
    plain = qdq(net, tmp_path / "plain.onnx", x).path
    before, after = (onnx.load(path).graph for path in (plain, small))
    assert [n.op_type for n in before.node].count("Slice") == 2
    assert len(after.node) < len(before.node) - 2
    pad = next(n for n in after.node if n.op_type == "Pad")
    makers = {name: n.op_type for n in after.node for name in n.output}
    assert makers[pad.input[0]] == "QuantizeLinear"  # what is filled up are integers
    read = {name for n in after.node for name in n.input}
    assert all(t.name in read for t in after.initializer)  # runtimes warn of constants nobody reads
    for run in (onnx_runtime, simulated):
        assert torch.equal(run(small)(x), run(plain)(x))


def test_what_cannot_be_traced_is_said(tmp_path) -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) if float(x.sum()) > 0 else -x.flatten(1)

    with pytest.raises(WalnutError, match="cannot be exported to ONNX"):
        to_onnx(Branches(), tmp_path / "b.onnx", torch.rand(2, 1, 4, 4))
    with pytest.raises(WalnutError, match=r"does not take examples of shape \(3,\)"):
        to_onnx(nn.Linear(4, 2), tmp_path / "b.onnx", torch.rand(2, 3))


def test_missing_runtimes_are_named_with_their_extra(trained, files, tmp_path, monkeypatch) -> None:
    net, digits = trained
    real = builtins.__import__

    def none(name, *rest, **more):
        if name.partition(".")[0] in ("onnxruntime", "openvino", "executorch", "onnx"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(WalnutError, match=r"walnut-nn\[export\]"):
        onnx_runtime(files["float"])
    with pytest.raises(WalnutError, match=r"walnut-nn\[openvino\]"):
        openvino(files["float"])
    with pytest.raises(WalnutError, match="pip install executorch"):
        executorch(files["float"])
    with pytest.raises(WalnutError, match=r"walnut-nn\[export\]"):
        to_onnx(net, tmp_path / "n.onnx", digits.test.x[:4])


def test_eager_is_the_network(trained) -> None:
    net, digits = trained
    found = eager(net)(digits.test.x[:5])
    assert torch.equal(found, net(digits.test.x[:5]))
    assert not found.requires_grad
    assert (
        compiled(net).name == "torch.compile"
    )  # compiled at the first call, which is not made here


@pytest.mark.parametrize("density", [0.0, 0.01, 0.04])
def test_sparse_rows_answer_as_the_dense_layer(density: float) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10, bias=False))
    with torch.no_grad():
        for layer in (net[1], net[3]):
            layer.weight.mul_(torch.rand_like(layer.weight) < density)
    twin = to_csr(net)
    assert [isinstance(m, CsrLinear) for m in twin] == [False, True, False, True]
    assert twin[1].density == pytest.approx(float((net[1].weight != 0).float().mean()))
    for shape in ((1, 1, 8, 8), (9, 1, 8, 8)):
        x = torch.rand(shape)
        assert torch.allclose(twin(x), net(x), atol=1e-6)
    assert torch.allclose(twin[1](torch.ones(2, 3, 64)), net[1](torch.ones(2, 3, 64)), atol=1e-6)
    assert isinstance(net[1], nn.Linear)
    assert torch.equal(copy.deepcopy(twin)(x), twin(x))


def test_sparse_rows_are_exact_where_sums_are() -> None:
    """Whole numbers add up without rounding, in any order: then every bit agrees."""
    net = nn.Linear(200, 30)
    with torch.no_grad():
        net.weight.copy_(torch.randint(-4, 5, (30, 200)) * (torch.rand(30, 200) < 0.05))
        net.bias.copy_(torch.randint(-4, 5, (30,)))
    x = torch.randint(-8, 9, (40, 200)).float()
    assert torch.equal(to_csr(net, 0.1)(x), net(x))


def test_dense_layers_stay_dense() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(1, 1, 1))
    assert not any(isinstance(m, CsrLinear) for m in to_csr(net).modules())
    with pytest.raises(WalnutError, match="density_below"):
        to_csr(net, 0.0)


def test_the_command_line(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--net", "lenet-300-100", "--epochs", "8", "--quiet", "--out", "t"]) == 0
    words = ["export", "--model", "t/model.safetensors", "--to", "a.onnx", "--examples", "200"]
    capsys.readouterr()
    assert main([*words, "--json", "--out", "e"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["form"]: row for row in found["rows"]}
    size = os.path.getsize("a.onnx")
    assert rows["ONNX Runtime int8"]["bytes"] == found["export"]["bytes"] == size
    assert rows["ONNX Runtime int8"]["ratio"] == rows["ONNX Runtime float32"]["bytes"] / size > 3
    assert rows["PyTorch"]["latency"]["ratio_to_dense"] == 1.0
    assert all(
        row["clean"]["value"] > 0.8 and row["latency"]["threads"] == 1 for row in rows.values()
    )
    assert json.loads(Path("e/result.json").read_text())["kind"] == "export"
    assert main([*words, "--quiet", "--form", "float"]) == 0
    said = capsys.readouterr().out
    assert "gap of the deployed to the network in PyTorch" in said
    assert "file a.onnx" in said
    assert main(words[:3]) == 2
    assert "needs --to" in capsys.readouterr().err
    assert main([*words[:4], "a.bin"]) == 2
    assert "call it a.onnx" in capsys.readouterr().err
