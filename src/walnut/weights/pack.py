"""A network's weights to a ``.walnut`` file and back, bit for bit."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from walnut import codec
from walnut.core.errors import WalnutError
from walnut.core.types import Packed

from .represent import bake, representations, weights
from .representation import decode


@dataclass(frozen=True)
class Sizes:
    """What a file weighs.

    ``bytes``: its length; ``parameter_bytes``: four bytes for each parameter of the network;
    ``ratio``: the one by the other; ``tensors``: a row each, as ``codec.inspect`` gives them.
    """

    bytes: int
    parameter_bytes: int
    ratio: float
    tensors: list[dict[str, Any]]


def baked_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict that the network would have if it were baked; it stays as it is."""
    state = bake(copy.deepcopy(model)).state_dict()
    for key, value in state.items():
        head, mark, tail = key.partition("parametrizations.")
        if mark:
            raise WalnutError(
                f"{head}{tail.split('.')[0]} has a parametrization that is not walnut's: take it out "
                "before packing (torch.nn.utils.parametrize.remove_parametrizations)"
            )
        if not isinstance(value, Tensor):
            raise WalnutError(f"{key} in the network's state is no tensor: it cannot be packed")
    return dict(state)


def pack(
    model: nn.Module,
    path: str | os.PathLike[str],
    description: Mapping[str, Any] | None = None,
    *,
    coders: Sequence[codec.Coder] = codec.ALL,
) -> Sizes:
    """Write a network to a ``.walnut`` file, and say what it weighs.

    Args:
        model: any network; its represented weights go in as they are used. It is not changed.
        path: the file; it appears whole or not at all.
        description: how to build the network again, ``{"net": "lenet-5", "arguments": {}}``; by
            default ``model.description``.
        coders: the entropy coders to choose from; ``(codec.FIXED, codec.HUFFMAN)`` is the choice of
            Han et al. 2016.
    """
    if description is None:
        description = getattr(model, "description", None)
    if not isinstance(description, Mapping):
        raise WalnutError("pack needs a description of the network, or one in model.description")
    represented = representations(model)
    records: dict[str, Packed] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, w in baked_state(model).items():
        place = (w.device, w.data_ptr(), w.shape, w.stride(), w.dtype)
        chain = represented.get(name)
        if (
            w.numel() and place in first
        ):  # tied, or of a module that is used twice: once in the file
            records[name] = Packed("tied", {}, {"to": first[place]})
        else:
            records[name] = chain[-1].encode(w) if chain else Packed("tensor", {"w": w})
            first[place] = name
    size = codec.write(path, description, records, coders)
    parameters = 4 * sum(w.numel() for w in _distinct(model))
    return Sizes(size, parameters, parameters / size, codec.inspect(path))


def _distinct(model: nn.Module) -> list[Tensor]:
    """Return the parameters, dense, each shared one once."""
    found: dict[tuple[torch.device, int], Tensor] = {}
    for w in weights(model).values():
        found[(w.device, w.data_ptr())] = w
    return list(found.values())


def unpack(
    path: str | os.PathLike[str], expect: codec.Expect | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description and the state dict in a ``.walnut`` file.

    ``expect``: ``{name: (shape, dtype)}`` of the network that shall take it; anything else is
    refused before a tensor is decoded.
    """
    description, records = codec.read(path, expect)
    state: dict[str, Tensor] = {}
    for name, packed in records.items():
        state[name] = state[packed.arguments["to"]] if packed.kind == "tied" else decode(packed)
    return description, state
