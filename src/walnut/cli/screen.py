"""What a verb says: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, TextIO

_EVERY = 5.0  # seconds between two plain progress lines on the same work
_APART = 1.0  # and between any two


class Screen:
    """Where a verb's words go.

    With ``as_json``, one document is all that reaches standard output. Progress and notes go to
    standard error: live on a terminal, as plain lines elsewhere, not at all when ``quiet``.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.notes: list[str] = []
        self._out: TextIO = sys.stdout
        self._live: Any = None
        self._last: tuple[str, float] = ("", -_EVERY)

    def say(self, text: str = "") -> None:
        """Print a line for people on standard output."""
        if not self.as_json:
            self.settle()
            print(text, file=self._out, flush=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1
    ) -> None:
        """Print a table for people; all but the ``left`` first columns are aligned to the right."""
        if self.as_json:
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table

        self.settle()
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index < left else "right", no_wrap=True)
        cells = [[str(cell) for cell in row] for row in rows]
        for row in cells:
            table.add_row(*row)
        # wide enough for all cells: a terminal may fold a line, a figure must not be cut short
        widths = (max(map(len, column)) for column in zip_longest(columns, *cells, fillvalue=""))
        width = sum(widths) + 2 * len(columns)
        console = Console(file=self._out, highlight=False, markup=False, width=width)
        with console.capture() as drawn:
            console.print(table)
        lines = [line.rstrip() for line in drawn.get().splitlines()]
        text = "\n".join(line for line in lines if line)
        print(f"{title}\n{text}\n" if title else f"{text}\n", file=self._out, flush=True)

    def document(self, content: Any) -> None:
        """Print the one JSON document."""
        if self.as_json:
            text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
            print(text, file=self._out, flush=True)

    def note(self, text: str) -> None:
        """Say something that should be known before the result is believed; repeated only once."""
        if text in self.notes:
            return
        self.notes.append(text)
        if not self.quiet:
            self.settle()
            print(f"walnut: note: {text}", file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """Draw how far some work is: a :data:`walnut.core.types.Progress`."""
        if self.quiet:
            return
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._draw(what, done, total)
        else:
            self._write(what, done, total)

    def settle(self) -> None:
        """Take the live display away, so that lines can be printed."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, what: str, done: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress, TimeElapsedColumn

        if self._live is None:
            columns = (*Progress.get_default_columns()[:3], TimeElapsedColumn())
            self._live = Progress(*columns, console=Console(file=sys.stderr), transient=True)
            self._live.start()
            self._live.add_task(what, total=total)
        self._live.update(self._live.task_ids[0], description=what, completed=done, total=total)

    def _write(self, what: str, done: int, total: int) -> None:
        now, line = time.monotonic(), f"{what}: {done}/{total}"
        before, when = self._last
        soon = now - when < (_EVERY if before.startswith(f"{what}: ") else _APART)
        if line != before and (done >= total or not soon):
            self._last = (line, now)
            print(line, file=sys.stderr, flush=True)


def plain(content: Any) -> Any:
    """Return ``content`` as JSON can hold it: paths as text, tuples as lists, NaN as null."""
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content if isinstance(content, str | int | float | bool | None) else str(content)
