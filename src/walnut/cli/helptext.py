"""``python -m walnut.cli.helptext docs/cli.md``: write every verb's ``--help`` into the page.

A block follows a line ``<!-- help: VERB -->``; a test holds that the page is up to date.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from unittest import mock

from .entry import VERBS, main

_BLOCK = re.compile(r"<!-- help:(?P<verb>[a-z ]*)-->\n+```text\n.*?```\n", re.DOTALL)


def helptext(verb: str = "") -> str:
    """Return what ``walnut VERB --help`` prints, 100 columns wide and without colour."""
    said = io.StringIO()
    plain = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    with mock.patch.dict(os.environ, plain), contextlib.redirect_stdout(said):
        main([verb, "--help"] if verb else ["--help"])
    lines = [line.rstrip() for line in said.getvalue().splitlines()]
    return "\n".join(lines).strip() + "\n"


def regenerated(page: str) -> str:
    """Return ``page`` with every help block as it is now."""

    def block(match: re.Match[str]) -> str:
        verb = match["verb"].strip()
        return f"<!-- help: {verb} -->\n\n```text\n{helptext(verb)}```\n".replace("  -->", " -->")

    return _BLOCK.sub(block, page)


def fresh() -> str:
    """Return a whole page: a heading and a block for every verb."""
    blocks = ["<!-- help: -->\n\n```text\n```\n"]
    blocks += [f"## walnut {verb}\n\n<!-- help: {verb} -->\n\n```text\n```\n" for verb in VERBS]
    return regenerated("\n".join(blocks))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(regenerated(target.read_text(encoding="utf-8")), encoding="utf-8")
