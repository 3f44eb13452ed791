"""One HTML file that shows a result: offline, light and dark, on a phone, on paper."""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import WalnutError

if TYPE_CHECKING:
    import jinja2

LARGE = 2_000_000  # bytes above which a page says that it is large
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
RECORDS = (
    "rows", "verdict", "geometry", "transfer", "curves", "histograms", "layers", "pictures", "history",
    "front", "sensitivity",
)  # fmt: skip
VERBS = {
    "audit": "Compressed and attacked",
    "transfer": "What transfers",
    "attack": "Attacked",
    "robustness": "Attacked until nothing more fell",
    "train": "Trained",
    "compress": "Compressed",
    "search": "Searched for the smallest",
}


def render(
    result: dict[str, Any], pictures: dict[str, np.ndarray] | None, path: str | os.PathLike[str]
) -> Path:
    """Write a result as one self-contained HTML page and return its path.

    Every section is left out whose key is missing from ``result`` (the content of a result.json);
    all text in it is escaped. ``pictures`` holds the arrays of pictures.npz: "original",
    "perturbation" and "adversarial", each (n, c, h, w) or (n, d) in [0, 1]. The page needs no
    network and no script, and equal input gives an equal file. It is written to a temporary name
    first, so that ``path`` is the old page or the whole new one.

    Raises ``WalnutError`` when the result is not plain JSON or a part of it has the wrong form.

    >>> import tempfile
    >>> page = render({"kind": "train"}, None, Path(tempfile.mkdtemp()) / "report.html")
    >>> page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    True
    """
    target = Path(path)
    clean = plain(result)
    text = html(clean, pictures)
    stored = len(text.encode())
    if stored > LARGE:
        notes = clean.get("notes") or []
        warning = f"This page is large: {stored / 1e6:.1f} MB."
        text = html({**clean, "notes": [*notes, warning]}, pictures)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, target)
    except OSError as error:
        raise WalnutError(f"the page cannot be written to {target}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result as JSON would give it back, without characters no page can hold."""
    try:
        copy = json.loads(json.dumps(result))
    except (TypeError, ValueError, RecursionError) as error:
        raise WalnutError(f"the result is not plain JSON: {error}") from error
    if not isinstance(copy, dict):
        raise WalnutError("the result is not a JSON object")
    for key in RECORDS:
        value = copy.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise WalnutError(f"the result's {key} must be a list of objects, as walnut writes it")
    if not all("form" in row for row in copy.get("rows") or []):
        raise WalnutError("the result's rows must each name their form, as walnut writes them")
    if not isinstance(copy.get("notes") or [], list):
        raise WalnutError("the result's notes must be a list of sentences, as walnut writes it")
    return printable(copy)


def printable(value: Any) -> Any:
    """Replace characters that break a page or turn its text around, at any depth."""
    if isinstance(value, str):
        return UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [printable(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return value


def html(result: dict[str, Any], pictures: dict[str, np.ndarray] | None) -> str:
    """Return the page's text."""
    # here, not above: matplotlib takes half a second, and most commands draw nothing
    from . import palette, sections, tables, verdict

    below = sections.sections(result, pictures)
    rows = result.get("rows") or []
    try:
        top = {
            "verdict": verdict.verdict(result),
            "table": tables.results(rows) if rows else None,
            "counts": tables.counts(rows) if rows else None,
        }
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        key = "verdict" if result.get("verdict") else "rows"
        raise WalnutError(
            f"the result's {key} cannot be read ({told}): was result.json edited by hand?"
        ) from error
    template = environment().get_template("page.html.j2")
    return template.render(**title(result), **top, sections=below, colors=palette.css())


def title(result: dict[str, Any]) -> dict[str, str]:
    """Return the page's title and what stands around it."""
    kind = str(result.get("kind") or "result")
    network, data = result.get("network"), result.get("data")
    name = str(network.get("name") or "") if isinstance(network, dict) else ""
    rows = result.get("rows") or []
    if not name and len(rows) == 1 and isinstance(rows[0], dict):
        name = str(rows[0].get("form") or "")
    if not name and kind == "transfer" and rows:
        name = f"{len(rows)} networks"
    where = str(data.get("name") or "") if isinstance(data, dict) else ""
    verb = VERBS.get(kind, kind.capitalize())
    subject = " on ".join(filter(None, (name, where)))
    return {
        "title": f"walnut {kind}: {subject}" if subject else f"walnut {kind}",
        "kind": kind,
        "heading": subject or verb,
        "verb": verb if subject else "",
        "created": str(result.get("created") or "")[:10],
        "version": str(result.get("walnut") or ""),
    }


def environment() -> jinja2.Environment:
    """Return what fills the page in: every value escaped, a missing one an error."""
    import jinja2

    def read(name: str) -> str:
        return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
