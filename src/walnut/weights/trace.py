"""Follow channels through a network as it runs: which belong together, and which cannot go.

The network is run once on an example, and every ATen operation it performs is looked at (so a
forward may be written in any way). Each axis of each tensor carries an id per position; where two
axes meet, in a sum, a norm or a contraction, their ids become one unit. What an operation without a
rule touches is pinned: left alone, and named.

Where we differ from Torch-Pruning (Fang et al. 2023, "DepGraph"): ids per position in place of
dependencies between layers, so that concatenation, shuffles, zero-padded shortcuts and tied weights
need no cases of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen

from .trace_moves import MOVES
from .trace_ops import RULES, broadcast
from .units import Axes, Ids, Units


@runtime_checkable
class Plumbing(Protocol):
    """A module without weights that can be told which of its channels are left."""

    def recount(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> dict[str, Any]:
        """Return its numbers, as JSON data, when only the channels marked true stay."""
        ...

    def resize(self, numbers: dict[str, Any]) -> None:
        """Take over such numbers, which may come from a hostile file."""
        ...


@dataclass(frozen=True)
class Product:
    """Multiply-adds: ``constant`` · Π of the axes' lengths; an axis without ids has a fixed one."""

    constant: int
    axes: tuple[tuple[int, Ids], ...]


@dataclass
class Trace:
    """What one run showed: ids of every parameter and buffer that took part, by its first name."""

    units: Units
    tensors: dict[str, Axes] = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)
    plumbing: dict[str, tuple[Ids, Ids]] = field(default_factory=dict)
    activations: list[Ids] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)


RECTIFIERS = frozenset({"relu", "relu_", "hardtanh", "hardtanh_", "clamp", "clamp_min"})
"""The operations whose zeros say that a unit is silent."""


def operation(func: Any) -> str:
    """Return an ATen operation's name: ``aten::add.Tensor`` is ``add``."""
    return str(func.name()).partition("::")[2].partition(".")[0]


class Tracer(TorchDispatchMode):
    """The note-book of a run; the rules write into it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.units = Units()
        self.trace = Trace(self.units)
        self.known: dict[int, tuple[Tensor, Axes]] = {}
        self.path: list[str] = []
        self.names: dict[int, str] = {}
        for name, t in named_tensors(model).items():
            self.names.setdefault(id(t), name)

    def axes(self, t: Tensor) -> Axes:
        """Return what is known of a tensor; a parameter gets fresh ids when it is first met."""
        if id(t) in self.known:
            return self.known[id(t)][1]
        if id(t) not in self.names:
            return (None,) * t.ndim
        own = tuple(self.units.fresh(size) if size > 1 else None for size in t.shape)
        self.trace.tensors[self.names[id(t)]] = own
        self.note(t, own)
        return own

    def note(self, t: Tensor, axes: Axes) -> None:
        """Note the axes of a tensor."""
        self.known[id(t)] = (t, axes)  # the tensor is kept, so that its id stays its own

    def product(self, constant: int, *axes: tuple[int, Ids]) -> None:
        """Note multiply-adds."""
        self.trace.products.append(Product(constant, axes))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note what it does to channels."""
        out = func(*args, **(kwargs or {}))
        name = operation(func)
        first = out[0] if isinstance(out, tuple | list) and out else out
        if not isinstance(first, Tensor):
            return out
        rule = RULES.get(name) or MOVES.get(name)
        if rule is None and torch.Tag.pointwise in func.tags:
            rule = broadcast
        if rule is None:
            self._unknown(name, (*args, *(kwargs or {}).values()))
            return out
        axes = rule(self, args, out)
        if name.startswith("_scaled_dot") and (kwargs or {}).get("scale") is None:
            why = "attention's scale follows the number of channels"
            self.units.pin(self.axes(args[0])[-1], why)
        self.note(first, axes)
        if name in RECTIFIERS:
            self.trace.activations.append(axes[-1 if first.ndim == 2 else min(1, first.ndim - 1)])
        return out

    def _unknown(self, name: str, args: Sequence[Any]) -> None:
        """Pin all that enters an operation without a rule."""
        where = self.path[-1] if self.path else ""
        for t in _tensors(args):
            axes = self.axes(t)
            if any(ids is not None and self.units.loose(ids).any() for ids in axes):
                self.trace.unknown[where or "the network"] = f"aten.{name} is not known here"
            self.units.pin_all(axes, f"it enters aten.{name}, of which nothing is known here")


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; what is shared stands under all its names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


@contextmanager
def _watched(model: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Tell the tracer which module runs, and what goes in and out of plumbing."""
    handles = []
    for path, module in model.named_modules():

        def before(module: nn.Module, args: Any, path: str = path) -> None:
            tracer.path.append(path)

        def after(module: nn.Module, args: Any, out: Any, path: str = path) -> None:
            tracer.path.pop()
            if isinstance(module, Plumbing) and args and isinstance(out, Tensor):
                ends = (tracer.axes(args[0])[1], tracer.axes(out)[1])
                if path in tracer.trace.plumbing:  # used twice: one set of numbers for both
                    for mine, other in zip(ends, tracer.trace.plumbing[path], strict=True):
                        tracer.units.join(mine, other)
                tracer.trace.plumbing[path] = ends

        handles += [
            module.register_forward_pre_hook(before),
            module.register_forward_hook(after),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def plain() -> Iterator[None]:
    """Run recurrent layers and attention step by step, not as one fused operation."""
    fast, onednn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)  # the public switch warns about Intel's GPUs
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(onednn)


def trace(model: nn.Module, example: Tensor) -> Trace:
    """Run a network once and return what belongs together.

    Args:
        model: any network that maps a batch to logits; it is not changed.
        example: a batch (b, ...) that it accepts; one row is enough.

    Raises:
        WalnutError: the network does not accept the example, or its weights are represented.

    >>> net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    >>> found = trace(net, torch.zeros(1, 4))
    >>> [int(found.units.loose(ids).sum()) for ids in found.tensors["0.weight"]]
    [6, 0]
    """
    if any("parametrizations." in name for name, _ in model.named_parameters()):
        raise WalnutError(
            "this network's weights are represented (a mask, a codebook): bake it first"
        )
    tracer = Tracer(model)
    with ExitStack() as held:
        held.enter_context(frozen(model))
        held.enter_context(plain())
        held.enter_context(_watched(model, tracer))
        try:
            with tracer:
                out = model(example)
        except WalnutError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            raise WalnutError(
                f"the network does not run on an example of shape {tuple(example.shape)}: "
                f"{error!s:.200}"
            ) from error
    for t in _tensors([out] if isinstance(out, Tensor) else out):
        tracer.units.pin_all(tracer.axes(t), "it is an output of the network")
    return tracer.trace
