"""The ``.walnut`` file: what the network is, its tensors, and a checksum over everything.

::

    "walnut" 0 version   8 bytes
    header length        variable-length integer
    header               deflated JSON: description, decoded size, and of each record its name,
                         dtype and shape (or kind, arguments and tensors)
    records              the tensors, in order
    checksum             8 bytes of BLAKE2b over all that is above

No code and no pickle is in the file. A reader believes nothing until the checksum holds, and even
then checks every length, count and shape before it reserves memory for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.errors import WalnutError
from ..core.files import write_bytes
from ..core.types import Packed
from . import tensors
from .stream import Reader, damaged, deflate, inflate, varint
from .symbols import ALL, Coder
from .tensors import DTYPES

MAGIC = b"walnut\x00"
VERSION = 1
_CHECK = 8
_HEADER_MOST = 1 << 24

Expect = Mapping[str, tuple[Sequence[int], torch.dtype]]
"""What a reader expects: ``{name: (shape, dtype)}``."""


@dataclass(frozen=True)
class _Entry:
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
    listing: list[list[Any]] = []
    body: list[bytes] = []
    total = 0
    for name, packed in records.items():
        parts = {k: [tensors.dtype_name(t), list(t.shape)] for k, t in packed.tensors.items()}
        plain = packed.kind == "tensor" and list(parts) == ["w"] and not packed.arguments
        listing.append(
            [name, *parts["w"]] if plain else [name, packed.kind, packed.arguments, parts]
        )
        body += [tensors.encode(t, coders) for t in packed.tensors.values()]
        total += sum(t.numel() * t.element_size() for t in packed.tensors.values())
    header = {"description": dict(description), "bytes": total, "records": listing}
    try:
        text = json.dumps(header, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise WalnutError(f"the description must be plain JSON: {error}") from error
    squeezed = deflate(text.encode())
    data = MAGIC + bytes([VERSION]) + varint(len(squeezed)) + squeezed + b"".join(body)
    write_bytes(Path(path), data + _checksum(data))
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
            tensor, _ = tensors.decode(reader, entry.dtype, entry.shape)
            packed = records.setdefault(entry.record, Packed(entry.kind, {}, entry.arguments))
            packed.tensors[entry.part] = tensor
        reader.done()
    return description, records


def peek(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, tuple[tuple[int, ...], torch.dtype]]]:
    """Return the description, and ``{name: (shape, dtype)}`` of plain tensors, decoding none."""
    with _named(path):
        _, description, entries = _open(path, None, None)
    return description, {e.record: (e.shape, e.dtype) for e in entries if e.kind == "tensor"}


def inspect(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return a row for each tensor of a file.

    Keys: name, shape, dtype, weights, nonzeros, distinct, bits (of the file per weight), bytes (in
    the file), ratio (decoded bytes over bytes in the file), layout, coder.
    """
    with _named(path):
        reader, _, entries = _open(path, None, None)
        rows = [_row(reader, entry) for entry in entries]
        reader.done()
    return rows


def _row(reader: Reader, entry: _Entry) -> dict[str, Any]:
    start = reader.at
    tensor, layout = tensors.decode(reader, entry.dtype, entry.shape)
    size, weights = reader.at - start, tensor.numel()
    return {
        "name": entry.record if entry.part == "w" else f"{entry.record}/{entry.part}",
        "shape": list(entry.shape),
        "dtype": str(entry.dtype).removeprefix("torch."),
        "weights": weights,
        "nonzeros": int(tensor.count_nonzero()),
        "distinct": len(tensor.reshape(-1).unique()),
        "bits": 8 * size / max(weights, 1),
        "bytes": size,
        "ratio": entry.bytes / size,
        "layout": layout,
        "coder": "+".join(reader.met()) or "none",
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
) -> tuple[Reader, dict[str, Any], list[_Entry]]:
    """Check a file from outside to inside, and return a reader at its first record."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WalnutError(f"{error.strerror}") from error
    if not data.startswith(MAGIC):
        raise WalnutError("it is not a .walnut file: it does not begin with walnut's mark")
    if len(data) < len(MAGIC) + 2 + _CHECK:
        raise WalnutError("it is cut off: copy it again")
    if data[len(MAGIC)] > VERSION:
        raise WalnutError(f"it is of version {data[len(MAGIC)]}, made by a newer walnut: update")
    if _checksum(memoryview(data)[:-_CHECK]) != data[-_CHECK:]:
        raise WalnutError("it is damaged or cut off (its checksum does not hold): copy it again")
    reader = Reader(data, len(MAGIC) + 1, len(data) - _CHECK)
    header = _header(reader)
    entries = _entries(header)
    _bound(header, entries, limit or max(1 << 28, 1000 * len(data)))
    if expect is not None:
        _compare(entries, expect)
    return reader, header["description"], entries


def _header(reader: Reader) -> dict[str, Any]:
    squeezed = bytes(reader.take(reader.varint(_HEADER_MOST)))
    text = inflate(squeezed, min(_HEADER_MOST, 65536 + 100 * len(squeezed)))
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged("its header is not JSON") from error
    shape = {"description": dict, "bytes": int, "records": list}
    if not isinstance(header, dict) or any(
        not isinstance(header.get(key), kind) for key, kind in shape.items()
    ):
        raise damaged("its header lacks a part")
    return header


def _entries(header: dict[str, Any]) -> list[_Entry]:
    """Return the tensors a header lists, every field checked."""
    entries: list[_Entry] = []
    seen: set[str] = set()
    for row in header["records"]:
        if not isinstance(row, list) or len(row) not in (3, 4) or not isinstance(row[0], str):
            raise damaged("its header has a record without a name")
        if row[0] in seen:
            raise damaged(f"two records are called {row[0]!r}")
        seen.add(row[0])
        kind, arguments, parts = ("tensor", {}, {"w": row[1:]}) if len(row) == 3 else row[1:]
        if not (isinstance(kind, str) and isinstance(arguments, dict) and isinstance(parts, dict)):
            raise damaged(f"the header's record {row[0]!r} is not one")
        for part, what in parts.items():
            entries.append(_Entry(row[0], kind, arguments, part, *_dtype_and_shape(row[0], what)))
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


def _bound(header: dict[str, Any], entries: list[_Entry], limit: int) -> None:
    total = sum(entry.bytes for entry in entries)
    if total != header["bytes"]:
        raise damaged("its shapes do not add up to the size it declares")
    if total > limit:
        raise WalnutError(
            f"it would take {total} bytes decoded, more than the limit of {limit}; "
            "pass a larger limit if you trust it"
        )


def _compare(entries: list[_Entry], expect: Expect) -> None:
    """Refuse a file whose plain tensors are not those the caller expects."""
    have = {entry.record: entry for entry in entries}
    if missing := sorted(set(expect) - set(have)):
        raise WalnutError(f"it lacks {missing[0]!r}, which the network has")
    if extra := sorted(set(have) - set(expect)):
        raise WalnutError(f"it holds {extra[0]!r}, which the network has not")
    for name, (shape, dtype) in expect.items():
        entry = have[name]
        if entry.kind == "tensor" and (entry.shape, entry.dtype) != (tuple(shape), dtype):
            raise WalnutError(
                f"{name!r} is {entry.dtype} {entry.shape} in it, and {dtype} {tuple(shape)} "
                "in the network"
            )
