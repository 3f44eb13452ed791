"""The ``.walnut`` file: what the network is, its tensors, and a checksum over everything.

::

    "walnut" version     7 bytes
    header length        variable-length integer
    header               :mod:`.header`: description, and of each record its name, dtype and shape
                         (or kind, arguments and tensors)
    records              the tensors, in order
    checksum             4 bytes of BLAKE2b over all that is above

No code and no pickle is in the file. A reader believes nothing until the checksum holds, and even
then checks every length, count and shape before it reserves memory for it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import WalnutError
from ..core.files import write_bytes
from ..core.types import Packed
from . import header, tensors
from .header import Entry, Expect
from .stream import Reader
from .symbols import ALL, Coder

MAGIC = b"walnut"
VERSION = 3
_CHECK = 4


def _checksum(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECK).digest()


def write(
    path: str | os.PathLike[str],
    description: Mapping[str, Any],
    records: Mapping[str, Packed],
    coders: Sequence[Coder] = ALL,
) -> int:
    """Write a ``.walnut`` file and return its length in bytes.

    ``description``: anything JSON can say, ``{"net": "lenet-5", "arguments": {}}`` say.
    ``records``: what :func:`read` shall return. ``coders``: the entropy coders to choose from.
    The file appears whole or not at all. Raises WalnutError for what cannot be written.
    """
    body = b"".join(
        tensors.encode(t, coders) for packed in records.values() for t in packed.tensors.values()
    )
    data = MAGIC + bytes([VERSION]) + header.write(description, records) + body
    try:
        write_bytes(Path(path), data + _checksum(data))
    except OSError as error:
        raise WalnutError(
            f"{os.fspath(path)} cannot be written ({error.strerror}); what was there is untouched"
        ) from error
    return len(data) + _CHECK


def read(
    path: str | os.PathLike[str], expect: Expect | None = None, *, limit: int | None = None
) -> tuple[dict[str, Any], dict[str, Packed]]:
    """Return the description and the records of a ``.walnut`` file, bit for bit as written.

    ``expect``: the names, shapes and dtypes the caller can use; anything else is refused before a
    tensor is decoded. ``limit``: the most bytes the decoded tensors may take; by default 1000 times
    the file, or 256 MiB where that is more. Raises WalnutError in one line for whatever is wrong.
    """
    with _named(path):
        reader, description, entries = _open(path, expect, limit)
        records: dict[str, Packed] = {}
        for entry in entries:
            packed = records.setdefault(entry.record, Packed(entry.kind, {}, entry.arguments))
            if entry.kind == header.TIED:
                continue
            tensor, _ = tensors.decode(reader, entry.dtype, entry.shape)
            packed.tensors[entry.part] = tensor
        reader.done()
    return description, records


def peek(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, tuple[tuple[int, ...], torch.dtype]]]:
    """Return the description, and ``{name: (shape, dtype)}`` of the weights, decoding none."""
    with _named(path):
        _, description, entries = _open(path, None, None)
    return description, {name: what for name, what in header.decoded(entries).items() if what}


def inspect(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return a row for each tensor of a file.

    Keys: name, shape, dtype, weights, nonzeros, distinct, bits (of the file per weight), bytes (in
    the file), ratio (decoded bytes over bytes in the file), layout, coder.
    """
    with _named(path):
        reader, _, entries = _open(path, None, None)
        rows: list[dict[str, Any]] = []
        for entry in entries:
            row = _tied(entry) if entry.kind == header.TIED else _row(reader, entry)
            if entry.kind == "grid" and rows and rows[-1]["name"] == entry.record:
                row = _together(rows.pop(), row)
            rows.append(row)
        reader.done()
    return rows


def _row(reader: Reader, entry: Entry) -> dict[str, Any]:
    start = reader.at
    tensor, layout = tensors.decode(reader, entry.dtype, entry.shape)
    size, weights = reader.at - start, tensor.numel()
    whole = entry.part == "w" or entry.kind == "grid"
    return {
        "name": entry.record if whole else f"{entry.record}/{entry.part}",
        "shape": list(entry.shape),
        "dtype": str(entry.dtype).removeprefix("torch."),
        "weights": weights,
        "nonzeros": int(tensor.count_nonzero()),
        "distinct": _distinct(tensor),
        "bits": 8 * size / max(weights, 1),
        "bytes": size,
        "ratio": entry.bytes / size,
        "layout": layout,
        "coder": "+".join(reader.met()) or "none",
    }


def _tied(entry: Entry) -> dict[str, Any]:
    numbers = dict.fromkeys(("weights", "nonzeros", "distinct", "bytes"), 0)
    layout = f"the same as {entry.arguments['to']}"
    row = {"name": entry.record, "shape": [0], "dtype": "none", **numbers}
    return row | {"bits": 0.0, "ratio": 0.0, "layout": layout, "coder": "none"}


def _distinct(tensor: Tensor) -> int:
    return len(tensor.reshape(-1).unique())


def _together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return one row for the two tensors of a grid: whole numbers, and their scale."""
    k, scale = (one, other) if one["dtype"] != "float32" else (other, one)
    size = k["bytes"] + scale["bytes"]
    weights = k["weights"]
    return k | {
        "dtype": "float32",
        "bits": 8 * size / max(weights, 1),
        "bytes": size,
        "ratio": 4 * weights / size,
        "layout": f"grid, {k['layout']}",
    }


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name before whatever is wrong with it."""
    try:
        yield
    except WalnutError as error:
        raise WalnutError(f"{os.fspath(path)} cannot be used: {error}") from error


def _open(
    path: str | os.PathLike[str], expect: Expect | None, limit: int | None
) -> tuple[Reader, dict[str, Any], list[Entry]]:
    """Check a file from outside to inside, and return a reader at its first record."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WalnutError(f"{error.strerror}") from error
    if not data.startswith(MAGIC):
        raise WalnutError("it is not a .walnut file: it does not begin with walnut's mark")
    if len(data) < len(MAGIC) + 2 + _CHECK:
        raise WalnutError("it is cut off: copy it again")
    if (version := data[len(MAGIC)]) != VERSION:
        age = "a newer walnut: update" if version > VERSION else "an early walnut: pack it again"
        raise WalnutError(f"it is of version {version}, made by {age}")
    if _checksum(memoryview(data)[:-_CHECK]) != data[-_CHECK:]:
        raise WalnutError("it is damaged or cut off (its checksum does not hold): copy it again")
    reader = Reader(data, len(MAGIC) + 1, len(data) - _CHECK)
    description, entries = header.read(reader)
    header.bound(entries, limit or max(1 << 28, 1000 * len(data)))
    if expect is not None:
        header.compare(entries, expect)
    return reader, description, entries
