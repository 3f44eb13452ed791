"""One small trained network in every form that a network is shipped in, made on the spot."""

from __future__ import annotations

import copy
import functools
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from walnut.data import load
from walnut.weights import Codebook, Mask, represent


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Return the digits as (n, 1, 8, 8) in [0, 1] and their labels; the first 1,200 train."""
    data = load("digits")
    x, y = torch.cat([data.train.x, data.test.x]), torch.cat([data.train.y, data.test.y])
    return x, y


@functools.cache
def _trained() -> nn.Module:
    x, y = digits()
    x, y = x[:1200], y[:1200]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(8):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
    return net.eval().requires_grad_(False)


def trained() -> nn.Module:
    """Return a fresh copy of the trained float network, in eval mode."""
    return copy.deepcopy(_trained()).requires_grad_(True)


def _quietly(make: Callable[[], Any]) -> Any:
    """Run a constructor whose library warns that it is going away."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


class Sign(nn.Module):
    """Binary weights, with the straight-through gradient for them (parametrisation)."""

    def forward(self, w: Tensor) -> Tensor:
        """Return sign(w) · mean |w| of each output."""
        scale = w.detach().abs().flatten(1).mean(1).reshape(-1, *[1] * (w.ndim - 1))
        return w + (w.sign() * scale - w).detach()


def _binary() -> nn.Module:
    net = trained()
    nn.utils.parametrize.register_parametrization(net[4], "weight", Sign())
    return net


def _dynamic_int8() -> nn.Module:
    make = torch.ao.quantization.quantize_dynamic
    return _quietly(lambda: make(trained(), {nn.Linear}, dtype=torch.qint8))


class Recurrent(nn.Module):
    """Rows of the picture as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True, bidirectional=True)
        self.last = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.last(self.lstm(x[:, 0])[0].mean(1))


def dynamic_lstm() -> nn.Module:
    """Return an untrained recurrent network, dynamically quantised."""
    torch.manual_seed(0)
    net, kinds = Recurrent().eval(), {nn.Linear, nn.LSTM}
    make = torch.ao.quantization.quantize_dynamic
    return _quietly(lambda: make(net, kinds, dtype=torch.qint8))


def _static_eager() -> nn.Module:
    def make() -> nn.Module:
        q = torch.ao.quantization
        net = nn.Sequential(q.QuantStub(), *trained(), q.DeQuantStub()).eval()
        net.qconfig = q.get_default_qconfig("x86")
        q.fuse_modules(net, [["1", "2"], ["5", "6"]], inplace=True)
        q.prepare(net, inplace=True)
        net(digits()[0][:200])
        return q.convert(net, inplace=True)

    return _quietly(make)


class Residual(nn.Module):
    """The trained network with a skip: FX turns it into ``quantized.add_relu``."""

    def __init__(self) -> None:
        super().__init__()
        net = trained()
        self.body, self.skip, self.rest = net[0], nn.Conv2d(1, 8, 1), net[1:]
        nn.init.zeros_(self.skip.bias)
        self.skip.weight.data.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.rest(self.body(x) + self.skip(x))


def _static_fx() -> nn.Module:
    def make() -> nn.Module:
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        x = digits()[0][:200]
        torch.manual_seed(0)
        net = prepare_fx(Residual().eval(), get_default_qconfig_mapping("x86"), (x,))
        net(x)
        return convert_fx(net)

    return _quietly(make)


def _pt2e() -> nn.Module:
    pytest.importorskip("torchao", reason="needs torchao (extra quant)")

    def make() -> nn.Module:
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as q

        x = digits()[0][:200]
        quantizer = q.X86InductorQuantizer().set_global(
            q.get_default_x86_inductor_quantization_config()
        )
        batch = ({0: torch.export.Dim("batch")},)
        graph = torch.export.export(trained(), (x,), dynamic_shapes=batch).module()
        graph = prepare_pt2e(graph, quantizer)
        graph(x)
        return convert_pt2e(graph)

    return _quietly(make)


def _torchao(config: str) -> nn.Module:
    pytest.importorskip("torchao", reason="needs torchao (extra quant)")

    def make() -> nn.Module:
        from torchao import quantization

        net = trained()
        quantization.quantize_(net, getattr(quantization, config)())
        return net

    return _quietly(make)


def _exported(batch: int | None) -> Any:
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    x = digits()[0][: batch or 4]
    return _quietly(lambda: torch.export.export(trained(), (x,), dynamic_shapes=shapes))


def _torchscript(frozen: bool = False) -> Any:
    def make() -> Any:
        traced = torch.jit.trace(trained(), digits()[0][:4])
        return torch.jit.freeze(traced) if frozen else traced

    return _quietly(make)


@functools.cache
def onnx_file(kind: str) -> Path:
    """Return the path of the network as an .onnx file: float, fixed (batch of 4), qdq or dynamic."""
    pytest.importorskip("onnxscript", reason="needs onnxscript to write the file")
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (extra export)")
    folder = Path(tempfile.mkdtemp())
    path, x = folder / "float.onnx", digits()[0]

    def write() -> None:
        shapes = None if kind == "fixed" else ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            trained(), (x[:4],), path, dynamo=True, dynamic_shapes=shapes, verbose=False
        )  # fmt: skip

    _quietly(write)
    if kind in ("float", "fixed"):
        return path
    return _quietly(lambda: _quantized_onnx(path, kind, x))


def _quantized_onnx(path: Path, kind: str, x: Tensor) -> Path:
    import onnx
    from onnxruntime import quantization as q

    out = path.with_name(f"{kind}.onnx")
    graph = onnx.load(path)
    del graph.graph.value_info[
        :
    ]  # the exporter's shapes of transposed weights confuse the quantiser
    onnx.save(graph, path)
    if kind == "dynamic":
        q.quantize_dynamic(path, out, weight_type=q.QuantType.QInt8, reduce_range=True)
        return out

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(x[:200].split(50))

        def get_next(self) -> Any:
            rows = next(self.rows, None)
            return None if rows is None else {name: rows.numpy()}

    name = graph.graph.input[0].name
    # 7 bits: sums of 8-bit products saturate on processors without VNNI
    q.quantize_static(
        path, out, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True, reduce_range=True
    )
    return out


FORMS: dict[str, tuple[Callable[[], Any], str]] = {
    "fp32": (trained, "direct"),
    "fp64": (lambda: trained().double(), "direct"),
    "fp16": (lambda: trained().half(), "direct"),
    "bf16": (lambda: trained().bfloat16(), "direct"),
    "pruned": (lambda: represent(trained(), {"4.weight": Mask(0.3)}), "direct"),
    "codebook": (lambda: represent(trained(), {"4.weight": Codebook(bits=3)}), "direct"),
    "binary": (_binary, "direct"),
    "dynamic-int8": (_dynamic_int8, "none"),
    "static-int8-eager": (_static_eager, "none"),
    "static-int8-fx": (_static_fx, "none"),
    "static-int8-pt2e": (_pt2e, "none"),
    "torchao-weight-only": (lambda: _torchao("Int8WeightOnlyConfig"), "direct"),
    "torchao-dynamic": (lambda: _torchao("Int8DynamicActivationInt8WeightConfig"), "none"),
    "torch.export": (lambda: _exported(None), "direct"),
    "torch.export-fixed": (lambda: _exported(4), "direct"),
    "torch.export-module": (lambda: _exported(4).module(), "direct"),
    "torchscript": (_torchscript, "direct"),
    "torchscript-frozen": (lambda: _torchscript(frozen=True), "direct"),
    "onnx": (lambda: onnx_file("float"), "none"),
    "onnx-fixed": (lambda: str(onnx_file("fixed")), "none"),
    "onnx-qdq": (lambda: onnx_file("qdq"), "none"),
    "onnx-dynamic": (lambda: onnx_file("dynamic"), "none"),
}
"""How each form is made, and what its gradient path is."""
