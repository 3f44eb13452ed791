"""What a page is made of, before it is HTML: tables, charts, pictures, sections."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

Number = int | float
"""A number out of a JSON file: ``1`` and ``1.0`` are both met there."""


@dataclass(frozen=True)
class Column:
    """A column's head; ``note`` is a second, quieter line."""

    text: str
    note: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell. ``bar`` in [0, 1] draws a quiet bar under the text; ``role`` names its colour.

    ``head`` makes it the head of its row.
    """

    text: str
    note: str = ""
    bar: Number | None = None
    role: str = ""
    head: bool = False


@dataclass(frozen=True)
class Table:
    """A table; ``totals`` says whether its last row is a sum."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    totals: bool = False


@dataclass(frozen=True)
class Chart:
    """A figure as inline SVG, ``width`` pixels wide by nature, with its numbers beside it."""

    title: str
    svg: Markup
    width: int
    table: Table


@dataclass(frozen=True)
class Image:
    """A picture as a ``data:`` address, drawn at ``width`` by ``height`` CSS pixels."""

    source: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Attempt:
    """What an attack did to one form of the network on one example."""

    form: str
    role: str
    perturbation: Image
    adversarial: Image
    reads: str
    outcome: str
    fooled: bool


@dataclass(frozen=True)
class Example:
    """One original and every attempt on it."""

    title: str
    original: Image
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True)
class Group:
    """Examples met by the same attack at the same radius."""

    title: str
    intro: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Flag:
    """One check that was not good: what was seen, on which examples, by which attacks, what to do.

    ``kind`` is "wrong" (a red flag) or "odd"; ``form`` says whose it is where there are several.
    """

    kind: str
    title: str
    sentence: str
    evidence: str = ""
    remedy: str = ""
    form: str = ""


@dataclass(frozen=True)
class Section:
    """A stretch of the page under one heading, ``short`` in the contents; empty parts are left out."""

    id: str
    title: str
    short: str
    intro: str = ""
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[tuple[str, Table], ...] = ()
    flags: tuple[Flag, ...] = ()
    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    code: str = ""
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tile:
    """One large number of the verdict."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the numbers say, in words; ``odd`` holds what should be looked at before believing.

    Red ``flags`` stand above the ``figure``; where there are none, the headline is the figure.
    """

    headline: str = ""
    flags: tuple[Flag, ...] = ()
    figure: str = ""
    sentences: tuple[str, ...] = ()
    tiles: tuple[Tile, ...] = ()
    odd: tuple[str, ...] = ()
