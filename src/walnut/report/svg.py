"""A matplotlib figure as inline SVG: text stays text, colours follow the page, ids are its own."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

from .palette import COLORS, light

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
ROLE_OF = {pair[0]: role for role, pair in COLORS.items()}
COLOR = re.compile("|".join(ROLE_OF), re.IGNORECASE)
FONT = re.compile(r"font-family:[^;]*;?\s*")
REFERENCE = re.compile(r"url\(#([\w-]+)\)")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "walnut",
    "text.parse_math": False,  # a network may be called "$x$"
    "axes.unicode_minus": True,
    "font.family": "sans-serif",
    "font.size": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "figure.dpi": 72,  # so that a point is a pixel of the page
    "figure.facecolor": light("panel"),
    "axes.facecolor": light("panel"),
    "axes.edgecolor": light("strong-line"),
    "axes.labelcolor": light("muted"),
    "text.color": light("ink"),
    "xtick.color": light("strong-line"),
    "ytick.color": light("strong-line"),
    "xtick.labelcolor": light("muted"),
    "ytick.labelcolor": light("muted"),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "grid.color": light("line"),
    "grid.linewidth": 1.0,
    "axes.axisbelow": True,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.5,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the page's style; a glyph that matplotlib's font lacks is the browser's to find."""
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        yield


def raw_svg(figure: Figure) -> str:
    """Return the figure as an SVG document, the same for equal figures."""
    stream = io.StringIO()
    dateless = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with styled():
        figure.savefig(stream, format="svg", transparent=True, metadata=dateless)
    return stream.getvalue()


def inline_svg(figure: Figure, *, prefix: str, title: str, description: str) -> Markup:
    """Return the figure as an ``<svg role="img">`` element to put into a page.

    ``prefix`` begins every id, so that figures do not borrow each other's clip paths. ``title`` and
    ``description`` are what a screen reader says.
    """
    root = ElementTree.fromstring(raw_svg(figure))
    strip(root)
    referenced = set()
    for element in root.iter():
        if LINK in element.attrib:
            element.attrib["href"] = element.attrib.pop(LINK)
            referenced.add(element.attrib["href"].lstrip("#"))
        referenced.update(REFERENCE.findall(" ".join(element.attrib.values())))
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        restyle(element, referenced, prefix)
    inside = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    width, height = root.attrib["viewBox"].split()[2:]
    head = Markup(
        '<svg role="img" aria-labelledby="{0}-title {0}-desc" viewBox="0 0 {1} {2}" '
        'width="{1}" height="{2}"><title id="{0}-title">{3}</title><desc id="{0}-desc">{4}</desc>'
    ).format(prefix, width, height, title, description)
    return head + Markup(inside) + Markup("</svg>")


def strip(root: ElementTree.Element) -> None:
    """Take out what would reach beyond the figure: its style sheet (``*`` is the page), metadata."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}style", f"{SVG}metadata"):
                parent.remove(child)
        parent.tail = None
        if parent.text is not None and not parent.text.strip():
            parent.text = None


def restyle(element: ElementTree.Element, referenced: set[str], prefix: str) -> None:
    """Make one element the page's: its ids prefixed, its colours variables, its font inherited."""
    attributes = element.attrib
    if attributes.get("id") in referenced:
        attributes["id"] = f"{prefix}-{attributes['id']}"
    else:
        attributes.pop("id", None)
    if "href" in attributes:
        attributes["href"] = f"#{prefix}-{attributes['href'].lstrip('#')}"
    for name, value in attributes.items():
        attributes[name] = REFERENCE.sub(rf"url(#{prefix}-\1)", value)
    if "style" in attributes:
        style = FONT.sub("", attributes["style"])
        attributes["style"] = COLOR.sub(lambda hit: variable(hit.group()), style)
    if "d" in attributes:
        attributes["d"] = shorter(attributes["d"])
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]


def variable(color: str) -> str:
    """Return a light colour's CSS variable."""
    return str(escape(f"var(--{ROLE_OF[color.lower()]})"))


def shorter(path: str) -> str:
    """Return a path with hundredths of a pixel, which nobody sees, and no line breaks."""
    rounded = re.sub(r"-?\d+\.\d+", lambda hit: f"{float(hit.group()):.2f}", path)
    return " ".join(rounded.split())
