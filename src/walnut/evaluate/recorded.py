"""A network written down as a graph of affine parts, ReLUs and max-pools, by watching it answer once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.grad import conv2d_input
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.types import Model

_WEIGHTED = {"linear", "conv1d", "conv2d"}
# affine in the network's values where the rest is fixed; each output entry of these either depends on
# one entry of a parent or has only weights of one sign, so |f(r) − f(0)| is how far r reaches
_PLAIN = {
    "add", "sub", "rsub", "mul", "div", "neg", "flatten", "reshape", "view", "batch_norm", "dropout",
    "avg_pool2d", "adaptive_avg_pool2d", "pad", "getitem", "permute", "transpose", "mean", "squeeze",
    "unsqueeze", "contiguous", "float", "addcmul", "identity",
}  # fmt: skip
_SHAPES = {"size", "dim", "get", "is_floating_point", "len", "numel", "stride", "is_contiguous"}
_RESHAPES = {"reshape", "view", "flatten"}


class NotApplicable(WalnutError):
    """A network that cannot be bounded; the message says which part of it."""


@dataclass(frozen=True)
class Node:
    """One value of the network, from its parents (positions in the graph).

    ``kind`` is ``input``, ``affine``, ``relu`` or ``pool``; ``call`` takes the parents' values, ``reach``
    the parents' radii (None: as ``call``, without its constant part), ``back`` a gradient of this value and
    the shape of the parent (None: by autograd).
    """

    kind: str
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    call: Callable[..., Tensor]
    reach: Callable[..., Tensor] | None = None
    back: Callable[[Tensor, tuple[int, ...]], Tensor] | None = None
    settings: tuple[Any, ...] = ()


def record(model: Model, x: Float[Tensor, " n *d"]) -> tuple[Node, ...]:
    """Return a network's graph, the input first and the logits last.

    Every torch function that touches the input's descendants is seen. The graph is replayed on fresh
    inputs and must give the network's own logits.

    Raises:
        NotApplicable: a part is neither affine nor ReLU nor max-pool, or depends on the values in
            another way, or the replay differs.
    """
    x = x[:2] if len(x) > 1 else x.expand(2, *x.shape[1:]).clone()
    watch = _Watch(x)
    with torch.no_grad(), frozen(model):
        try:
            with watch:
                logits = model(x)
        except WalnutError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            line = str(error).strip().partition("\n")[0]
            raise NotApplicable(f"the network cannot be watched: {line}") from error
        if id(logits) not in watch.at:
            raise NotApplicable("the network's answer does not come from torch functions")
        graph = tuple(watch.nodes[: watch.at[id(logits)] + 1])
        for shift in (0.0, 0.1, -0.2):
            other = (x + shift).abs()
            if not torch.allclose(replay(graph, other), model(other), rtol=1e-3, atol=1e-4):
                raise NotApplicable("the network does more than was seen of it")
    return graph


def replay(graph: tuple[Node, ...], x: Float[Tensor, " n *d"]) -> Float[Tensor, " n k"]:
    """Return the logits that a graph gives."""
    values = [x]
    for node in graph[1:]:
        values.append(node.call(*(values[at] for at in node.parents)))
    return values[-1]


class _Watch(TorchFunctionMode):
    """Writes down every torch function that is handed a descendant of the input."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.nodes = [Node("input", (), tuple(x.shape[1:]), lambda value: value)]
        self.at = {id(x): 0}
        self.kept: list[Tensor] = [x]  # an id is only good while its tensor lives

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the function, and make a node of what it returns."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = [t for t in _tensors((args, kwargs)) if id(t) in self.at]
        if not given:
            return out
        name = getattr(func, "__name__", str(func)).strip("_")
        if not isinstance(out, Tensor):
            if name not in _SHAPES:
                raise NotApplicable(f"{name} looks at the network's values")
            return out
        if id(out) in self.at and name in ("get", "contiguous", "float", "dropout"):
            return out  # the very same tensor
        self.nodes.append(self._node(name, func, args, kwargs, given, out))
        self.at[id(out)] = len(self.nodes) - 1
        self.kept.append(out)
        return out

    def _node(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
        given: list[Tensor], out: Tensor,
    ) -> Node:  # fmt: skip
        parents = tuple(dict.fromkeys(self.at[id(t)] for t in given))
        shape = tuple(out.shape[1:])
        if out.dtype != self.kept[0].dtype or len(out) != 2:
            raise NotApplicable(f"{name} changes the type or mixes examples")
        if name == "relu":
            return Node("relu", parents, shape, torch.relu)
        if name in ("max_pool2d", "max_pool2d_with_indices"):
            settings = _pooling(args, kwargs)
            pool = torch.nn.functional.max_pool2d
            return Node("pool", parents, shape, lambda h: pool(h, *settings), settings=settings)
        if name not in _WEIGHTED | _PLAIN:
            raise NotApplicable(f"{name} is neither affine nor a ReLU nor a max-pool")
        node = Node("affine", parents, shape, self._again(func, args, kwargs))
        if name in _RESHAPES:
            node = replace(node, call=lambda h: h.reshape(len(h), *shape))
        if name in _WEIGHTED:
            if id(args[0]) not in self.at or id(args[1]) in self.at:
                raise NotApplicable(f"{name} is not affine here")
            back = _transposed(args, kwargs) if name == "conv2d" else None
            node = replace(node, reach=_absolute(func, args, kwargs), back=back)
        _check_affine(name, node, [tuple(self.nodes[p].shape) for p in parents], self.kept[0])
        return node

    def _again(self, func: Any, args: Any, kwargs: Any) -> Callable[..., Tensor]:
        """Return the function of its parents alone, everything else as it was."""
        places = list(
            dict.fromkeys(self.at[id(t)] for t in _tensors((args, kwargs)) if id(t) in self.at)
        )
        at = dict(self.at)

        def call(*values: Tensor) -> Tensor:
            def swap(leaf: Any) -> Any:
                if isinstance(leaf, Tensor) and id(leaf) in at:
                    return values[places.index(at[id(leaf)])]
                return leaf

            again, more = tree_map(swap, (args, kwargs))
            return func(*again, **more)

        return call


def _tensors(content: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, content)
    return found


def _absolute(func: Any, args: Any, kwargs: Any) -> Callable[..., Tensor]:
    """Return a layer with |weights| and no bias: how far radii of its input reach."""
    if len(args) < 2 or not isinstance(args[1], Tensor):
        raise NotApplicable("a layer's weights could not be found")
    rest = args[3:]
    options = {k: v for k, v in kwargs.items() if k != "bias"}
    return lambda h: func(h, args[1].abs(), None, *rest, **options)


def _transposed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return a convolution's gradient in its input, without the pass that autograd would make first."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    found: dict[str, Any] = dict(zip(names, args, strict=False)) | kwargs
    if isinstance(found.get("padding"), str):
        return None
    rest = {key: found[key] for key in names[3:] if key in found}
    weight = found["weight"]

    def back(form: Tensor, shape: tuple[int, ...]) -> Tensor:
        return conv2d_input((len(form), *shape), weight, form.contiguous(), **rest)

    return back


def _pooling(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return kernel, stride, padding and dilation of a max-pool."""
    given = inspect.signature(torch.nn.functional.max_pool2d_with_indices).bind(*args, **kwargs)
    given.apply_defaults()
    found = given.arguments
    if found.get("ceil_mode"):
        raise NotApplicable("a max-pool that rounds up")
    return found["kernel_size"], found["stride"], found["padding"], found["dilation"]


def _check_affine(name: str, node: Node, shapes: list[tuple[int, ...]], like: Tensor) -> None:
    """Hold a part to what is believed of it: affine, and one example at a time."""
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(3, *shape, generator=generator).to(like) for shape in shapes]
    try:
        zero = node.call(*(0 * t[:1] for t in draw))
        whole = node.call(*draw)
        double = node.call(*(2 * t for t in draw))
        alone = node.call(*(t[1:2] for t in draw))
    except (RuntimeError, ValueError, IndexError) as error:
        raise NotApplicable(f"{name} mixes examples") from error
    near = 1e-3 * float(whole.abs().max().clamp_min(1e-3))
    if not torch.allclose(double - whole, whole - zero, rtol=1e-3, atol=near):
        raise NotApplicable(f"{name} is not affine here")
    if not torch.allclose(whole[1:2], alone, rtol=1e-3, atol=near):
        raise NotApplicable(f"{name} mixes examples")
