"""From what a user names to a network that is ready: files, registered names, foreign code."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from walnut import codec
from walnut.core.errors import WalnutError, WalnutWarning
from walnut.weights import edits, unpack

from . import foreign, registry
from .small_cnn import padding_of
from .states import StateFile, check_description, check_file, fill, held, open_state

_BY_CHANNELS = {1: (1, 28, 28), 3: (3, 32, 32)}  # MNIST's and CIFAR-10's, where nothing says more
_BY_FEATURES = {64: (1, 8, 8), 784: (1, 28, 28), 3072: (3, 32, 32)}
_STATE_SUFFIXES = (".safetensors", ".pt", ".pth")


@runtime_checkable
class Data(Protocol):
    """What a network must fit: the shape of an input, and the names of the classes."""

    @property
    def name(self) -> str:
        """Return the data set's name."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one input."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        ...


def load(path: str | Path) -> nn.Module:
    """Return the network in a ``.walnut`` file, or in a .safetensors file that names its network.

    The description in the file is checked and built without memory first, and its names and shapes
    are held against the file's, before any weight is read.

    Returns:
        the network in eval mode, its weights bit for bit those that were written.

    Raises:
        WalnutError: no such file, a damaged file, or weights that do not fit the description.
    """
    path = check_file(path)
    if path.suffix == ".walnut":
        return _load_walnut(path)
    file = open_state(path)
    if file.description is None:
        raise WalnutError(f"{path} does not say which network it is: name it (--net lenet-5, say)")
    return fill(_described(file.description, path), file)


def resolve(
    spec: str | Path,
    weights: str | Path | None = None,
    *,
    net: str | None = None,
    dataset: Data | None = None,
    **arguments: Any,
) -> nn.Module:
    """Return the network that ``spec`` names, with its weights, in eval mode.

    Args:
        spec: a registered name (with ``weights``), a ``.walnut`` file, a ``.safetensors``, ``.pt``
            or ``.pth`` file, a ``.pt2`` program, or ``package.module:factory`` /
            ``file.py:factory``. The last two are code: name only what you trust.
        weights: the file of weights of a registered name or of a factory's network.
        net: the registered name, for a file of weights that does not carry it.
        dataset: what the network must fit; gives ``shape`` and ``classes`` where nothing else does.
        arguments: the network's own, such as ``width=`` or ``mean=``; those not given come from the
            file's description, else from the shapes of its tensors. Normalisation cannot be read
            off shapes: give ``mean`` and ``std``, or there is none.

    Raises:
        WalnutError: nothing of that name, a damaged file, or what does not fit.
    """
    spec = str(spec)
    if registry.is_name(spec):
        if weights is None:
            raise WalnutError(f"{spec} has no weights yet: give a file of weights, or train it")
        model = _from_state(open_state(weights), spec, arguments, dataset)
    elif Path(spec).suffix in (".walnut", ".pt2", *_STATE_SUFFIXES):
        model = _from_file(Path(spec), weights, net, arguments, dataset)
    elif foreign.is_factory(spec):
        model = foreign.call_factory(spec, arguments)
        _note_mode(model, spec)
        model = model.eval() if weights is None else fill(model, open_state(weights))
    else:
        registry.canonical(spec) if not Path(spec).exists() else None
        raise WalnutError(
            f"{spec} is no network: give a registered name, a .walnut, .safetensors or .pt2 file, "
            "or package.module:factory"
        )
    if dataset is not None:
        check_data(model, dataset)
    return model


def _note_mode(model: nn.Module, spec: str) -> None:
    """Say it when a factory's network would have been run with dropout on or batch norm moving."""
    moved = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    if any(isinstance(module, moved) and module.training for module in model.modules()):
        warnings.warn(
            f"{spec} gives a network in train mode (dropout on, batch norm moving); it is put in eval "
            "mode: call model.eval() in the factory",
            WalnutWarning,
            stacklevel=3,
        )


def check_data(model: nn.Module, dataset: Data) -> None:
    """Hold a described network against a data set.

    Raises:
        WalnutError: another input shape or another number of classes.
    """
    described = getattr(model, "description", {}).get("arguments", {})
    shape = tuple(described.get("shape", getattr(model, "shape", dataset.shape)))
    if shape != tuple(dataset.shape):
        raise WalnutError(
            f"the network takes inputs of shape {shape}, but {dataset.name} has "
            f"{tuple(dataset.shape)}: train it on this data, or take other data"
        )
    classes = described.get("classes", len(dataset.classes))
    if classes != len(dataset.classes):
        raise WalnutError(
            f"the network tells {classes} classes apart, but {dataset.name} has "
            f"{len(dataset.classes)}"
        )


def _from_file(
    path: Path,
    weights: str | Path | None,
    net: str | None,
    arguments: dict[str, Any],
    dataset: Data | None,
) -> nn.Module:
    check_file(path)
    if weights is not None:
        raise WalnutError(f"{path} holds its own weights: leave the other file of weights out")
    if path.suffix in _STATE_SUFFIXES:
        return _from_state(open_state(path), net, arguments, dataset)
    if arguments or net:
        said = ", ".join([*arguments, *(["net"] if net else [])])
        raise WalnutError(f"{path} is a whole network: leave {said} out")
    return _load_walnut(path) if path.suffix == ".walnut" else foreign.load_exported(path)


def _from_state(
    file: StateFile, net: str | None, arguments: dict[str, Any], dataset: Data | None
) -> nn.Module:
    """Build a registered network round a file of weights."""
    if file.description is not None:
        described = file.description["net"]
        if net is None or registry.canonical(net) == registry.canonical(described):
            complete = {**file.description["arguments"], **arguments}
            return fill(_described({**file.description, "arguments": complete}, file.path), file)
    if net is None:
        raise WalnutError(
            f"{file.path} does not say which network it is: name it (--net lenet-5, say); the "
            f"networks are {', '.join(registry.names())}"
        )
    complete = _inferred(net, file.shapes, arguments, dataset)
    return fill(_on_meta(net, complete, file.path), file)


def _inferred(
    net: str, shapes: Mapping[str, tuple[int, ...]], given: dict[str, Any], dataset: Data | None
) -> dict[str, Any]:
    """Return a network's arguments: the given ones, and what data and tensor shapes show."""
    try:
        seen = registry.family(net).infer(shapes)
    except (KeyError, IndexError, ValueError):
        seen = {}  # other keys than the network's: comparing names says which
    shape = given.get("shape")
    if shape is None and dataset is not None:
        shape = tuple(dataset.shape)
    if shape is None and "channels" in seen:
        shape = _BY_CHANNELS.get(seen["channels"])
    if shape is None and "features" in seen:
        shape = _BY_FEATURES.get(seen["features"], (seen["features"],))
    known = registry.accepted(net)
    found = {key: value for key, value in seen.items() if key in known}
    if shape is not None:
        found["shape"] = shape
        if "area" in seen and len(shape) == 3:
            padding = padding_of(shape, seen["area"])
            found |= {} if padding is None else {"padding": padding}
    return {**found, **given}


def _on_meta(net: str, arguments: dict[str, Any], path: Path) -> nn.Module:
    """Build a network without memory for its weights, and without drawing random numbers."""
    try:
        with torch.device("meta"):
            return registry.build(net, **arguments)
    except WalnutError as error:
        raise WalnutError(f"{path}: {error}") from error


def _described(description: dict[str, Any], path: Path) -> nn.Module:
    """Build the network that a file's description tells of, on the meta device, and edit it."""
    model = _on_meta(description["net"], description["arguments"], path)
    try:
        return edits.apply(model, description["edits"])
    except WalnutError as error:
        raise WalnutError(f"{path}: {error}") from error


def _load_walnut(path: Path) -> nn.Module:
    description, _ = codec.peek(path)
    model = _described(check_description(description, path), path)
    expect = {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
    _, state = unpack(path, expect)
    return fill(model, held(path, state))
