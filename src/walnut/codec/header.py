"""The header of a ``.walnut`` file: what the network is, and the name, dtype and shape of its tensors.

JSON, deflated with a preset dictionary: the words that headers are made of, and the whole listings
of the reference networks, so that a LeNet-5's header takes a few dozen bytes. The dictionary is part
of the format: another one needs another version.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..core.errors import WalnutError
from ..core.types import Packed
from . import tensors
from .stream import Reader, damaged, deflate, inflate, varint
from .tensors import DTYPES

_MOST = 1 << 24

TIED = "tied"
"""The kind of a record without tensors of its own: it is the earlier record ``arguments["to"]``."""

Expect = Mapping[str, tuple[Sequence[int], torch.dtype]]
"""What a reader expects: ``{name: (shape, dtype)}``."""


@dataclass(frozen=True)
class Entry:
    """A tensor of a record, as the header tells of it."""

    record: str
    kind: str
    arguments: dict[str, Any]
    part: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The decoded size."""
        return math.prod(self.shape) * torch.empty((), dtype=self.dtype).element_size()


def listing(records: Mapping[str, Packed]) -> list[list[Any]]:
    """Return a row for each record: [name, dtype, shape], or [name, kind, arguments, parts]."""
    rows: list[list[Any]] = []
    for name, packed in records.items():
        parts = {k: [tensors.dtype_name(t), list(t.shape)] for k, t in packed.tensors.items()}
        plain = packed.kind == "tensor" and list(parts) == ["w"] and not packed.arguments
        rows.append([name, *parts["w"]] if plain else [name, packed.kind, packed.arguments, parts])
    return rows


def _text(description: Any, rows: Iterable[Any]) -> bytes:
    header = {"description": description, "records": list(rows)}
    return json.dumps(header, separators=(",", ":"), allow_nan=False).encode()


@functools.cache
def _dictionary() -> bytes:
    """Return the words of headers, the likeliest last, where a match costs least."""
    norm = ["weight", "bias", "running_mean", "running_var"]
    words = [f'"{dtype}",[' for dtype in DTYPES] + [f".{i}." for i in range(10)]
    words += ["layer", "features.", "classifier.", "linear.", "downsample.0.", "downsample.1."]
    words += [f'["{a}.{b}","float32",[' for a in ("0", "fc", "bn2", "conv3") for b in norm]
    words += ['"num_batches_tracked","int64",[]]', '"edits":[{"kind":"', '"low_rank",{"rank":']
    nets = [
        ("resnet-20", [3, 32, 32], {"width": 16, "blocks": 3}, _resnet()),
        (
            "lenet-300-100",
            [1, 28, 28],
            {},
            _dense("fc1", 300, 784) + _dense("fc2", 100, 300) + _dense("fc3", 10, 100),
        ),
        (
            "lenet-5",
            [1, 28, 28],
            {},
            _dense("conv1", 20, 1, 5, 5)
            + _dense("conv2", 50, 20, 5, 5)
            + _dense("fc1", 500, 800)
            + _dense("fc2", 10, 500),
        ),
    ]
    texts = ["".join(words).encode()]
    for net, shape, more, rows in nets:
        arguments = {"shape": shape, "classes": 10, "mean": None, "std": None, **more}
        grids = [[n, "grid", {}, {"k": ["int8", s], "scale": [t, []]}] for n, t, s in rows]
        for form in (grids, rows):
            texts.append(_text({"net": net, "arguments": arguments}, form))
    return b"".join(texts)


def _dense(name: str, *shape: int) -> list[list[Any]]:
    return [[f"{name}.weight", "float32", list(shape)], [f"{name}.bias", "float32", [shape[0]]]]


def _norm(name: str, width: int) -> list[list[Any]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    rows: list[list[Any]] = [[f"{name}.{part}", "float32", [width]] for part in parts]
    return [*rows, [f"{name}.num_batches_tracked", "int64", []]]


def _resnet() -> list[list[Any]]:
    rows = [["conv1.weight", "float32", [16, 3, 3, 3]], *_norm("bn1", 16)]
    before = 16
    for layer, width in ((1, 16), (2, 32), (3, 64)):
        for block in range(3):
            for i in (1, 2):
                name = f"layer{layer}.{block}"
                rows.append([f"{name}.conv{i}.weight", "float32", [width, before, 3, 3]])
                rows += _norm(f"{name}.bn{i}", width)
                before = width
    return rows + _dense("fc", 10, 64)


def write(description: Mapping[str, Any], records: Mapping[str, Packed]) -> bytes:
    """Return the header as bytes, its length first."""
    rows = listing(records)
    try:
        text = _text(dict(description), rows)
    except (TypeError, ValueError) as error:
        raise WalnutError(f"the description must be plain JSON: {error}") from error
    squeezed = deflate(text, _dictionary())
    return varint(len(squeezed)) + squeezed


def read(reader: Reader) -> tuple[dict[str, Any], list[Entry]]:
    """Return the description and the tensors a file lists, every field checked."""
    squeezed = bytes(reader.take(reader.varint(_MOST)))
    text = inflate(squeezed, min(_MOST, 65536 + 100 * len(squeezed)), _dictionary())
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged("its header is not JSON") from error
    shape = {"description": dict, "records": list}
    if not isinstance(header, dict) or any(
        not isinstance(header.get(key), kind) for key, kind in shape.items()
    ):
        raise damaged("its header lacks a part")
    return header["description"], _entries(header["records"])


def _entries(rows: list[Any]) -> list[Entry]:
    entries: list[Entry] = []
    seen: set[str] = set()
    for row in rows:
        if not isinstance(row, list) or len(row) not in (3, 4) or not isinstance(row[0], str):
            raise damaged("its header has a record without a name")
        if row[0] in seen:
            raise damaged(f"two records are called {row[0]!r}")
        seen.add(row[0])
        kind, arguments, parts = ("tensor", {}, {"w": row[1:]}) if len(row) == 3 else row[1:]
        if not (isinstance(kind, str) and isinstance(arguments, dict) and isinstance(parts, dict)):
            raise damaged(f"the header's record {row[0]!r} is not one")
        if kind == TIED:
            to = arguments.get("to")
            if not isinstance(to, str) or to == row[0] or to not in seen or parts:
                raise damaged(f"the header's record {row[0]!r} is tied to nothing")
            entries.append(Entry(row[0], kind, arguments, "", torch.uint8, (0,)))
        for part, what in parts.items():
            entries.append(Entry(row[0], kind, arguments, part, *_dtype_and_shape(row[0], what)))
    return entries


def _dtype_and_shape(name: str, what: Any) -> tuple[torch.dtype, tuple[int, ...]]:
    if not isinstance(what, list) or len(what) != 2:
        raise damaged(f"{name!r} has no dtype and shape")
    dtype, shape = what
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise damaged(f"{name!r} has a dtype that walnut does not know")
    sizes: list[Any] = shape if isinstance(shape, list) and len(shape) <= 16 else [None]
    if any(type(size) is not int or not 0 <= size < 1 << 40 for size in sizes):
        raise damaged(f"{name!r} has a shape that cannot be")
    if math.prod(max(size, 1) for size in sizes) >= 1 << 48:
        raise damaged(f"{name!r} has a shape that cannot be")
    return DTYPES[dtype], tuple(sizes)


def decoded(entries: list[Entry]) -> dict[str, tuple[tuple[int, ...], torch.dtype] | None]:
    """Return shape and dtype of the weight each record stands for; None where nothing is known.

    Known are the kinds ``"tensor"``, ``"grid"`` (k, of whole numbers, times a float32 scale), and
    ``"tied"`` (the same as an earlier record).
    """
    found: dict[str, tuple[tuple[int, ...], torch.dtype] | None] = {}
    for entry in entries:
        found.setdefault(entry.record, None)
        if (entry.kind, entry.part) == ("tensor", "w"):
            found[entry.record] = entry.shape, entry.dtype
        if (entry.kind, entry.part) == ("grid", "k"):
            found[entry.record] = entry.shape, torch.float32
        if entry.kind == TIED:
            found[entry.record] = found[entry.arguments["to"]]
    return found


def bound(entries: list[Entry], limit: int) -> None:
    """Refuse a file that would take too much memory."""
    total = sum(entry.bytes * (4 if entry.kind == "grid" else 1) for entry in entries)
    if total > limit:
        raise WalnutError(
            f"it would take {total} bytes decoded, more than the limit of {limit}; "
            "pass a larger limit if you trust it"
        )


def compare(entries: list[Entry], expect: Expect) -> None:
    """Refuse a file whose weights are not those the caller expects."""
    have = decoded(entries)
    if missing := sorted(set(expect) - set(have)):
        raise WalnutError(f"it lacks {missing[0]!r}, which the network has")
    if extra := sorted(set(have) - set(expect)):
        raise WalnutError(f"it holds {extra[0]!r}, which the network has not")
    for name, (shape, dtype) in expect.items():
        found = have[name]
        if found is not None and found != (tuple(shape), dtype):
            raise WalnutError(
                f"{name!r} is {found[1]} {found[0]} in it, and {dtype} {tuple(shape)} "
                "in the network"
            )
