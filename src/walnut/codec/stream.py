"""Bytes in and out: variable-length integers, bounded deflate, and a reader that trusts nothing."""

from __future__ import annotations

import zlib

import numpy as np

from ..core.errors import WalnutError


def damaged(what: str) -> WalnutError:
    """Return the error for a file whose content cannot be true."""
    return WalnutError(f"the .walnut file is damaged or was made to mislead: {what}")


def varint(number: int) -> bytes:
    """Return a non-negative integer as 7 bits a byte, lowest first (LEB128).

    >>> varint(300)
    b'\\xac\\x02'
    """
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def deflate(data: bytes, dictionary: bytes = b"") -> bytes:
    """Return ``data`` compressed by raw deflate (RFC 1951), the best of 9 levels.

    dictionary: bytes that may be referred to as if they stood before the data.
    """
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, dictionary)
    return squeeze.compress(data) + squeeze.flush()


def inflate(data: bytes, limit: int, dictionary: bytes = b"") -> bytes:
    """Return what :func:`deflate` was given, which may not be longer than ``limit`` bytes."""
    swell = zlib.decompressobj(-15, dictionary)
    try:
        out = swell.decompress(data, limit + 1)
    except zlib.error as error:
        raise damaged("a deflated part does not inflate") from error
    if len(out) > limit or not swell.eof or swell.unused_data:
        raise damaged("a deflated part is not as long as it says")
    return out


def short(data: bytes) -> bytes:
    """Return bytes whose number the reader knows, deflated where that is shorter."""
    squeezed = deflate(data)
    if len(squeezed) < len(data):
        return varint(len(squeezed)) + squeezed
    return varint(0) + data


class Reader:
    """A place in some bytes. Every read is checked against the end; every number against a bound.

    ``coders`` collects the names of the entropy coders met since :meth:`met` was last called.
    """

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self.data = memoryview(data)
        self.at = start
        self.end = len(data) if end is None else end
        self.coders: list[str] = []
        self._copy: np.ndarray | None = None

    def rest(self) -> np.ndarray:
        """Return all bytes from here to the end, (n,) uint8, without going on.

        The array may be written to (compiled loops are the same for reading and for writing), and
        what is written is lost.
        """
        if self._copy is None:
            self._copy = np.frombuffer(bytearray(self.data), np.uint8)
        return self._copy[self.at : self.end]

    def take(self, count: int) -> memoryview:
        """Return the next ``count`` bytes."""
        if not 0 <= count <= self.end - self.at:
            raise damaged(f"{count} bytes wanted where {self.end - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self, below: int = 256) -> int:
        """Return the next byte, which must be less than ``below``."""
        value = self.take(1)[0]
        if value >= below:
            raise damaged(f"a code of {value} where {below} are known")
        return value

    def varint(self, most: int) -> int:
        """Return the next variable-length integer, at most ``most``."""
        value = shift = 0
        while shift < 70:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if value > most:
            raise damaged(f"a count of {value} where at most {most} can be")
        return value

    def short(self, count: int) -> bytes:
        """Return the ``count`` bytes that :func:`short` wrote."""
        squeezed = self.varint(count)
        if squeezed == 0:
            return bytes(self.take(count))
        out = inflate(bytes(self.take(squeezed)), count)
        if len(out) != count:
            raise damaged(f"a table of {len(out)} bytes where {count} are needed")
        return out

    def met(self) -> list[str]:
        """Return the names of the coders met since the last call, each once, in order."""
        names, self.coders = list(dict.fromkeys(self.coders)), []
        return names

    def done(self) -> None:
        """Raise unless everything has been read."""
        if self.at != self.end:
            raise damaged(f"{self.end - self.at} bytes are left over")
