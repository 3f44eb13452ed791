"""The reference networks by name, and what their arguments may be."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from walnut.core.errors import WalnutError

from . import (
    densenet,
    lenet,
    mobilenet,
    rbf,
    resnet,
    resnet18,
    sequence,
    shufflenet,
    small_cnn,
    softmax,
    squeezenet,
    vgg,
)

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of a state dict by name."""


@dataclass(frozen=True)
class Family:
    """A network: what builds it, and what reads its arguments off the shapes of a state dict."""

    build: Callable[..., nn.Module]
    infer: Callable[[Shapes], dict[str, Any]]


_FAMILIES = {
    "softmax": Family(softmax.Softmax, softmax.infer),
    "lenet-300-100": Family(lenet.LeNet300, lenet.infer_300),
    "lenet-5": Family(lenet.LeNet5, lenet.infer_5),
    "small-cnn": Family(small_cnn.SmallCnn, small_cnn.infer),
    "small-cnn-wide": Family(small_cnn.SmallCnnWide, small_cnn.infer),
    "resnet-20": Family(resnet.ResNet, resnet.infer),
    "resnet-20-b": Family(resnet.ResNetB, resnet.infer),
    "resnet-18": Family(resnet18.ResNet18, resnet18.infer),
    "vgg-11": Family(vgg.Vgg11, vgg.infer),
    "vgg-16": Family(vgg.Vgg16, vgg.infer),
    "densenet-40": Family(densenet.DenseNet, densenet.infer),
    "squeezenet": Family(squeezenet.SqueezeNet, squeezenet.infer),
    "mobilenet": Family(mobilenet.MobileNet, mobilenet.infer),
    "mobilenet-v2": Family(mobilenet.MobileNetV2, mobilenet.infer_v2),
    "shufflenet": Family(shufflenet.ShuffleNet, shufflenet.infer),
    "shufflenet-v2": Family(shufflenet.ShuffleNetV2, shufflenet.infer_v2),
    "lstm": Family(sequence.Lstm, sequence.infer_lstm),
    "vit": Family(sequence.Vit, sequence.infer_vit),
    "rbf": Family(rbf.Rbf, rbf.infer),
}

# Arguments may come from a file, so every number has bounds; generous ones, for they only keep a
# hostile description from asking for absurd sizes.
_BOUNDS = {
    "classes": (1, 100_000),
    "width": (1, 4096),
    "padding": (0, 1),
    "hidden": (1, 65_536),
    "blocks": (1, 64),
    "groups": (1, 64),
    "heads": (1, 64),
    "units": (1, 65_536),
}
_LARGEST_SIDE, _LARGEST_INPUT = 1 << 20, 1 << 24


def _key(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def names() -> tuple[str, ...]:
    """Return the names of the reference networks.

    >>> names()[:6]
    ('softmax', 'lenet-300-100', 'lenet-5', 'small-cnn', 'small-cnn-wide', 'resnet-20')
    >>> names()[6:12]
    ('resnet-20-b', 'resnet-18', 'vgg-11', 'vgg-16', 'densenet-40', 'squeezenet')
    >>> names()[12:]
    ('mobilenet', 'mobilenet-v2', 'shufflenet', 'shufflenet-v2', 'lstm', 'vit', 'rbf')
    """
    return tuple(_FAMILIES)


def is_name(name: str) -> bool:
    """Say whether ``name`` is a reference network, whatever its case and dashes."""
    return any(_key(known) == _key(name) for known in _FAMILIES)


def canonical(name: str) -> str:
    """Return the name as it is registered: ``LeNet_5`` is ``lenet-5``.

    Raises:
        WalnutError: there is no such network; the message lists those there are.
    """
    by_key = {_key(known): known for known in _FAMILIES}
    if _key(name) in by_key:
        return by_key[_key(name)]
    near = difflib.get_close_matches(_key(name), by_key, n=1)
    hint = f" Did you mean {by_key[near[0]]}?" if near else ""
    known = ", ".join(_FAMILIES)
    raise WalnutError(f"there is no network {name[:80]!r}.{hint} The networks are: {known}")


def family(name: str) -> Family:
    """Return what builds the network ``name``."""
    return _FAMILIES[canonical(name)]


def accepted(name: str) -> tuple[str, ...]:
    """Return the names of the arguments that ``build(name, ...)`` takes."""
    return tuple(inspect.signature(family(name).build).parameters)


def build(name: str, **arguments: Any) -> nn.Module:
    """Build a reference network with fresh weights (torch's global random numbers).

    Args:
        name: one of :func:`names`; case, dashes and underscores do not matter.
        arguments: ``shape=(C, H, W)``, ``classes=``, ``mean=``, ``std=`` (per channel, in units of
            the [0, 1] input), and the network's own, such as ``width=``.

    Returns:
        the network; its ``description`` attribute, a plain dictionary, builds it again.

    Raises:
        WalnutError: no such network, no such argument, or a value that makes no sense.

    >>> sum(p.numel() for p in build("LeNet-5").parameters())
    431080
    """
    name = canonical(name)
    known = accepted(name)
    for argument in arguments:
        if argument not in known:
            raise WalnutError(
                f"{name} has no argument {str(argument)[:80]!r}: it takes {', '.join(known)}"
            )
    signature = inspect.signature(family(name).build)
    defaults = {key: p.default for key, p in signature.parameters.items()}
    complete = {
        key: _checked(key, arguments.get(key, default)) for key, default in defaults.items()
    }
    model = family(name).build(**complete)
    model.description = {"net": name, "arguments": complete}  # type: ignore[assignment]
    return model


def _checked(key: str, value: Any) -> Any:
    """Return an argument as plain JSON data, or raise."""
    if key == "shape":
        return _checked_shape(value)
    if key in ("mean", "std"):
        return _checked_statistics(key, value)
    low, high = _BOUNDS[key]
    if not _is_int(value) or not low <= value <= high:
        raise WalnutError(f"{key} must be a whole number from {low} to {high}, not {value!r:.80}")
    return int(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _checked_shape(value: Any) -> list[int]:
    good = isinstance(value, Sequence) and not isinstance(value, str) and len(value) in (1, 3)
    if not good or not all(_is_int(side) and 1 <= side <= _LARGEST_SIDE for side in value):
        raise WalnutError(
            f"shape must be (channels, height, width) or (columns,), not {value!r:.80}"
        )
    if math.prod(value) > _LARGEST_INPUT:
        raise WalnutError(f"shape {tuple(value)} is larger than {_LARGEST_INPUT} numbers an input")
    return [int(side) for side in value]


def _checked_statistics(key: str, value: Any) -> list[float] | None:
    if value is None:
        return None
    listed = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    fine = (isinstance(v, int | float) and not isinstance(v, bool) for v in listed)
    if not listed or not all(fine) or not all(abs(v) < 1e6 for v in listed):
        raise WalnutError(f"{key} must be one number or one per channel, not {value!r:.80}")
    return [float(v) for v in listed]
