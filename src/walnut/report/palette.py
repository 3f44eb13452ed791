"""The page's colours, each with a light and a dark value, shared by the page and its figures.

Figures are drawn in the light values, so that they stand alone in a notebook; :mod:`.svg` turns
each value into its CSS variable, so that on the page they follow the reader's setting.

The series are Okabe and Ito's colours (told apart by colour-blind readers), darkened or lightened
until text in them has a contrast of 4.5 : 1 against both the page and the panel.
Okabe and Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

from collections.abc import Sequence

COLORS: dict[str, tuple[str, str]] = {
    "page": ("#f6f7f8", "#0f1214"),
    "panel": ("#ffffff", "#171b1f"),
    "ink": ("#1a1f25", "#e7eaed"),
    "muted": ("#57616c", "#a2adb8"),
    "line": ("#dce1e6", "#2e363e"),
    "strong-line": ("#8a949e", "#6b7681"),
    "accent": ("#00599a", "#7cc0f2"),
    "heat": ("#d55e01", "#dd6a14"),
    "warn": ("#8a4b00", "#f3b562"),
    "warn-panel": ("#fff6e6", "#2a2115"),
    "good": ("#0b6b45", "#55cf9b"),
    "bad": ("#a8320a", "#ff9b73"),
    "bad-panel": ("#fdf0eb", "#2b1813"),
    "series-0": ("#0068a6", "#64b5ea"),
    "series-1": ("#b84c00", "#f39a5d"),
    "series-2": ("#00745a", "#45c9a0"),
    "series-3": ("#a03b78", "#e796c4"),
    "series-4": ("#726000", "#d8c650"),
    "series-5": ("#4f52b5", "#a8abf5"),
    "series-6": ("#2b6f78", "#7fc7d1"),
    "series-7": ("#6a5a50", "#c4b4aa"),
}
SERIES = 8
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-",
    (0, (6, 2)),
    (0, (2, 2)),
    (0, (6, 2, 2, 2)),
    "-",
    (0, (6, 2)),
    (0, (2, 2)),
    (0, (6, 2, 2, 2)),
)
FORMS = {"dense": 0, "pruned": 1, "shared": 2, "packed": 3}
"""The forms an audit makes keep their colour on every page."""


def light(role: str) -> str:
    """Return a role's colour as figures draw it."""
    return COLORS[role][0]


def css() -> str:
    """Return the colours as CSS: light by default, dark where asked for, always light in print."""
    values = [
        "".join(f"--{role}:{pair[theme]};" for role, pair in COLORS.items()) for theme in (0, 1)
    ]
    return (
        f":root{{color-scheme:light dark;{values[0]}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{values[1]}}}}}"
    )


def series(names: Sequence[str]) -> dict[str, int]:
    """Return a colour's number for each name: fixed for an audit's forms, in order for others.

    >>> series(["dense", "mine", "packed"])
    {'dense': 0, 'mine': 1, 'packed': 3}
    """
    unique = list(dict.fromkeys(names))
    taken = {FORMS[name] for name in unique if name in FORMS}
    free = [number for number in range(SERIES) if number not in taken] or list(range(SERIES))
    others = [name for name in unique if name not in FORMS]
    chosen = {name: free[i % len(free)] for i, name in enumerate(others)}
    return {name: FORMS.get(name, chosen.get(name, 0)) for name in unique}
