"""The ``.walnut`` file: entropy coding, tensor layouts, the container and its checksum."""

from __future__ import annotations

from .container import Expect, inspect, peek, read, write
from .symbols import ALL, ANS, FIXED, HUFFMAN, MIXED, Coder

__all__ = [
    "ALL",
    "ANS",
    "FIXED",
    "HUFFMAN",
    "MIXED",
    "Coder",
    "Expect",
    "inspect",
    "peek",
    "read",
    "write",
]
