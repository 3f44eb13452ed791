"""The float copy of a quantised network: module by module, tensor by tensor, node by node."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen

_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
_SHARED = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout")


def dequantized(model: nn.Module) -> nn.Module | None:
    """Return a float32 copy of a network with its quantised parts undone; None where it has none.

    Weights keep their quantised values, as floats; activations are not rounded any more. Known are the
    modules of ``torch.ao.nn.quantized`` (linear, convolutions, their fusions with ReLU, recurrent
    layers, normalisations), FX and PT2E graphs, torchao tensors, float16 and bfloat16.

    Raises:
        WalnutError: a quantised part that is not known, or a network that cannot be copied.
    """
    with frozen(model):  # a new layer draws random weights before it gets its own
        twin = _copy(model)
        replaced = _tensors(twin) + _modules(twin) + _graphs(twin)
        half = any(p.dtype in (torch.float16, torch.bfloat16) for p in twin.parameters())
        if not replaced and not half:
            return None
        return (_FLOATS[type(twin).__name__](twin) if _is_quantized(twin) else twin).float()


def _copy(model: nn.Module) -> nn.Module:
    try:
        with warnings.catch_warnings():  # exported graphs warn about torch's own pytrees
            warnings.simplefilter("ignore", FutureWarning)
            return copy.deepcopy(model)
    except Exception as error:  # whatever a user's module raises
        raise WalnutError(f"the network cannot be copied to build a twin: {error}") from error


# -- torchao: tensors ---------------------------------------------------------------------------------
def _tensors(model: nn.Module) -> int:
    count = 0
    for module in model.modules():
        for place in (module._parameters, module._buffers):
            for name, value in place.items():
                if value is None or not is_traceable_wrapper_subclass(value):
                    continue
                weight = getattr(value, "original_weight_tensor", value)
                plain = weight.dequantize().detach().float()
                held = nn.Parameter(plain, requires_grad=False)
                place[name] = held if place is module._parameters else plain
                count += 1
    return count


# -- torch.ao: modules --------------------------------------------------------------------------------
def _is_quantized(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_QUANTIZED)


def _modules(model: nn.Module) -> int:
    count = int(_is_quantized(model))
    for name, module in list(model.named_children()):
        if not _is_quantized(module):
            count += _modules(module)
            continue
        kind = type(module).__name__
        if kind not in _FLOATS:
            raise WalnutError(
                f"no float twin is known for {type(module).__module__}.{kind} ({name!r}): give the "
                "float network as the twin"
            )
        setattr(model, name, _FLOATS[kind](module).train(module.training))
        count += 1
    return count


def _plain(value: Tensor) -> Tensor:
    value = value.dequantize() if value.is_quantized else value
    return value.detach().float()


def _fill(twin: Any, weight: Tensor, bias: Tensor | None) -> None:
    twin.weight = nn.Parameter(_plain(weight), requires_grad=False)
    twin.bias = None if bias is None else nn.Parameter(_plain(bias), requires_grad=False)


def _linear(module: Any) -> nn.Module:
    twin = nn.Linear(module.in_features, module.out_features)
    _fill(twin, module.weight(), module.bias())
    return twin


def _convolution(kind: type[nn.Module]) -> Callable[[Any], nn.Module]:
    def build(module: Any) -> nn.Module:
        options = {name: getattr(module, name) for name in _SHARED}
        if module.transposed:
            options["output_padding"] = module.output_padding
        twin = kind(**options, padding_mode=module.padding_mode)
        _fill(twin, module.weight(), module.bias())
        return twin

    return build


def _with_relu(build: Callable[[Any], nn.Module]) -> Callable[[Any], nn.Module]:
    return lambda module: nn.Sequential(build(module), nn.ReLU())


def _recurrent(kind: type[nn.Module]) -> Callable[[Any], nn.Module]:
    def build(module: Any) -> nn.Module:
        options = {name: getattr(module, name) for name in _RECURRENT}
        twin = kind(**options, bidirectional=module.bidirectional)
        held = {**module.get_weight(), **module.get_bias()}
        twin.load_state_dict({name: _plain(value) for name, value in held.items()})
        return twin.requires_grad_(False)

    return build


def _nothing(module: Any) -> nn.Module:
    return nn.Identity()


def _functional(module: Any) -> nn.Module:
    return torch.ao.nn.quantized.FloatFunctional()


def _batch_norm(kind: type[nn.Module]) -> Callable[[Any], nn.Module]:
    def build(module: Any) -> nn.Module:
        twin = kind(module.num_features, eps=module.eps)
        twin.load_state_dict({n: getattr(module, n) for n in twin.state_dict()})
        return twin

    return build


_CONVOLUTIONS: dict[str, type[nn.Module]] = {
    f"{stem}{d}d": getattr(nn, f"{stem}{d}d") for stem in ("Conv", "ConvTranspose") for d in (1, 2, 3)
}  # fmt: skip
_FLOATS: dict[str, Callable[[Any], nn.Module]] = {
    "Linear": _linear,
    "LinearReLU": _with_relu(_linear),
    **{name: _convolution(kind) for name, kind in _CONVOLUTIONS.items()},
    **{f"ConvReLU{d}d": _with_relu(_convolution(_CONVOLUTIONS[f"Conv{d}d"])) for d in (1, 2, 3)},
    "LSTM": _recurrent(nn.LSTM),
    "GRU": _recurrent(nn.GRU),
    "BatchNorm2d": _batch_norm(nn.BatchNorm2d),
    "BatchNorm3d": _batch_norm(nn.BatchNorm3d),
    "BNReLU2d": _with_relu(_batch_norm(nn.BatchNorm2d)),
    "ReLU6": lambda module: nn.ReLU6(),
    "Hardswish": lambda module: nn.Hardswish(),
    "LeakyReLU": lambda module: nn.LeakyReLU(module.negative_slope),
    "ELU": lambda module: nn.ELU(module.alpha),
    "Sigmoid": lambda module: nn.Sigmoid(),
    "Softmax": lambda module: nn.Softmax(module.dim),
    "Dropout": lambda module: nn.Dropout(module.p),
    "Quantize": _nothing,
    "DeQuantize": _nothing,
    "QFunctional": _functional,
}


# -- FX and PT2E: graphs ------------------------------------------------------------------------------
def _graphs(model: nn.Module) -> int:
    return sum(_graph(m) for m in model.modules() if isinstance(m, torch.fx.GraphModule))


def _graph(module: torch.fx.GraphModule) -> int:
    """Let activations pass where they are quantised or dequantised; constants stay dequantised."""
    count = 0
    for node in list(module.graph.nodes):
        name = _operation(node)
        constant = name.startswith("dequantize_per") and node.args[0].op == "get_attr"
        if name.startswith(("quantize_per", "dequantize")) and not constant:
            through = node.args[0]
        elif name in _ARITHMETIC:
            with module.graph.inserting_before(node):
                through = module.graph.call_function(_ARITHMETIC[name], node.args[:2])
        elif name.startswith("quantized."):
            raise WalnutError(
                f"no float twin is known for the operation {name} ({node.name!r}): give the float "
                "network as the twin"
            )
        else:
            continue
        node.replace_all_uses_with(through)
        module.graph.erase_node(node)
        count += 1
    if count:
        module.graph.eliminate_dead_code()
        module.recompile()
    return count


def _operation(node: torch.fx.Node) -> str:
    """Return a name such as quantize_per_tensor, dequantize, quantized.add_relu; else ''."""
    if node.op == "call_method":
        return str(node.target) if node.target == "dequantize" else ""
    if node.op != "call_function":
        return ""
    name = str(node.target) if "torch._ops" in str(type(node.target)) else node.target.__name__  # type: ignore[union-attr]
    if name.startswith("quantized_decomposed."):
        return name.split(".")[1]
    return name.removesuffix(".default") if name.startswith("quantized.") else name


def _add_relu(a: Tensor, b: Tensor) -> Tensor:
    return torch.relu(torch.add(a, b))


def _mul_relu(a: Tensor, b: Tensor) -> Tensor:
    return torch.relu(torch.mul(a, b))


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "quantized.add": torch.add,
    "quantized.mul": torch.mul,
    "quantized.add_relu": _add_relu,
    "quantized.mul_relu": _mul_relu,
}
