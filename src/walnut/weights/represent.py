"""Choose which weights exist: put representations in weights' places, and take them out again."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from walnut.core.errors import WalnutError

from .representation import Part, Representation

_Value = TypeVar("_Value")
_ORDER = "_walnut_order"  # a module's parameters in their order, kept while some are represented


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield (name, module, attribute) of each weight, represented or not, under its plain name."""
    for prefix, module in model.named_modules():
        if "parametrizations" in prefix.split("."):
            continue
        held = dict.fromkeys(name for name, p in module._parameters.items() if p is not None)
        if parametrize.is_parametrized(module):
            held |= dict.fromkeys(module.parametrizations)
        order = getattr(module, _ORDER, tuple(held))
        for name in sorted(held, key=lambda n: order.index(n) if n in order else len(order)):
            yield (f"{prefix}.{name}" if prefix else name), module, name


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights by their plain names ("fc1.weight"), as the network uses them now."""
    with torch.no_grad():
        return {name: getattr(module, key) for name, module, key in _places(model)}


def matrices(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the weights worth compressing: those of two axes or more.

    Biases and the weights of normalisation layers have one; they are few, and stay dense.
    """
    return tuple(name for name, w in weights(model).items() if w.ndim >= 2)


def select(names: Iterable[str], by_pattern: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return ``{name: value}`` of the names that match a pattern, the first that does.

    Patterns are shell-style: ``"conv1.weight"``, ``"fc*"``, ``"*.weight"``.
    Raises WalnutError when a pattern matches no name at all.

    >>> select(["conv1.weight", "fc1.weight", "fc1.bias"], {"conv*": 0.5, "*.weight": 0.1})
    {'conv1.weight': 0.5, 'fc1.weight': 0.1}
    """
    names = tuple(names)
    idle = [p for p in by_pattern if not fnmatch.filter(names, p)]
    if idle:
        raise WalnutError(
            f"no weight is called {', '.join(map(repr, idle))}; there are {', '.join(names)}"
        )
    found: dict[str, _Value] = {}
    for name in names:
        for pattern, value in by_pattern.items():
            if fnmatch.fnmatchcase(name, pattern):
                found[name] = value
                break
    return found


def represent(model: nn.Module, parts: Mapping[str, Part | Sequence[Part]]) -> nn.Module:
    """Put representations in the places of weights, in place, and return the network.

    Args:
        model: any network.
        parts: ``{pattern: part or parts}``: at most one source, then filters. What a weight had
            before is baked first; of two patterns that match a weight, the first counts.

    Build the optimiser afterwards: a source makes new parameters.

    Raises:
        WalnutError: a pattern that matches nothing, a source after a filter, a weight that two
            places share; the network is then as it was.

    >>> from walnut.weights import Codebook, Mask
    >>> net = represent(nn.Linear(20, 5), {"weight": (Codebook(bits=2), Mask(density=0.1))})
    >>> int(net.weight.count_nonzero()), len(net.weight.unique()) <= 5
    (10, True)
    """
    places = {name: (module, key) for name, module, key in _places(model)}
    chosen = select(places, {k: _chain(k, v) for k, v in parts.items()})
    _refuse_tied(places, chosen)
    for name, chain in chosen.items():
        module, key = places[name]
        _bake(module, key)
        w = getattr(module, key).detach()
        if not hasattr(module, _ORDER):
            setattr(module, _ORDER, tuple(module._parameters))
        for part in chain:
            parametrize.register_parametrization(module, key, part.build(w))
            w = getattr(module, key).detach()
    return model


def _chain(pattern: str, parts: Part | Sequence[Part]) -> tuple[Part, ...]:
    chain = (parts,) if isinstance(parts, Part) else tuple(parts)
    if not chain:
        raise WalnutError(f"{pattern!r} names no part")
    for part in chain[1:]:
        if part.source:
            raise WalnutError(
                f"{pattern!r}: {part!r} makes the weight, so it comes first, before what filters "
                f"it: ({part!r}, {chain[0]!r})"
            )
    return chain


def _refuse_tied(places: Mapping[str, tuple[nn.Module, str]], chosen: Iterable[str]) -> None:
    """Refuse weights that live in two places: representing one would part them in silence."""
    by_memory: dict[tuple[Any, int], str] = {}
    tied: dict[str, str] = {}
    for name, (module, key) in places.items():
        p = module._parameters.get(key)
        if p is None or p.numel() == 0 or p.is_meta:
            continue
        first = by_memory.setdefault((p.device, p.data_ptr()), name)
        if first != name:
            tied |= {name: first, first: name}
    for name in chosen:
        if name in tied:
            raise WalnutError(
                f"{name} and {tied[name]} are one tensor; representing it would untie them: "
                "leave both out of the patterns, or give each its own copy"
            )


def is_represented(module: nn.Module, key: str) -> bool:
    """Say whether a module's tensor has one of our representations in its place."""
    return parametrize.is_parametrized(module, key) and any(
        isinstance(step, Representation)
        for step in module.parametrizations[key]  # type: ignore[index]
    )


def representations(model: nn.Module) -> dict[str, tuple[Representation, ...]]:
    """Return the representations of each represented weight, source first."""
    found = {}
    for name, module, key in _places(model):
        if is_represented(module, key):
            chain = module.parametrizations[key]  # type: ignore[index]
            found[name] = tuple(step for step in chain if isinstance(step, Representation))
    return found


def latents(model: nn.Module) -> dict[str, tuple[Representation, tuple[Tensor, ...]]]:
    """Return the source of each represented weight that has one, with the latents it is made of."""
    found = {}
    for name, module, key in _places(model):
        if is_represented(module, key):
            chain = module.parametrizations[key]  # type: ignore[index]
            if isinstance(chain[0], Representation) and chain[0].source:
                names = ["original"]
                if not chain.is_tensor:  # type: ignore[union-attr]
                    names = [f"original{i}" for i in range(chain.ntensors)]  # type: ignore[union-attr]
                found[name] = (chain[0], tuple(getattr(chain, n) for n in names))
    return found


def _bake(module: nn.Module, key: str) -> None:
    if not is_represented(module, key):
        return
    # torch deletes the property from the class, which copies of the module share: part them first.
    kind = type(module)
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, own)
    chain = module.parametrizations[key]  # type: ignore[index]
    held = list(chain.parameters(recurse=False))  # type: ignore[union-attr]
    parametrize.remove_parametrizations(module, key, leave_parametrized=True)
    w = getattr(module, key)
    if held and not isinstance(w, nn.Parameter):  # torch makes a buffer of what takes no gradient
        del module._buffers[key]
        trained = any(p.requires_grad for p in held)
        module.register_parameter(key, nn.Parameter(w.detach(), requires_grad=trained))
    order = getattr(module, _ORDER, ())
    for name in [n for n in order if n in module._parameters]:
        module._parameters[name] = module._parameters.pop(name)
    if not parametrize.is_parametrized(module) and hasattr(module, _ORDER):
        delattr(module, _ORDER)


def bake(model: nn.Module) -> nn.Module:
    """Make every represented weight an ordinary dense parameter again, in place.

    Values, classes and the order of parameters are as if nothing had ever been represented.
    """
    for _, module, key in list(_places(model)):
        _bake(module, key)
    return model
