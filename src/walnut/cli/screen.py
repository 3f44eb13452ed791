"""What a verb says: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

_EVERY = 5.0  # seconds between two plain progress lines


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
        self._tasks: dict[str, Any] = {}
        self._last: dict[str, float] = {}

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
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index < left else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        width = None if self._out.isatty() else 200
        Console(file=self._out, highlight=False, markup=False, width=width).print(table)

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
            self._live, self._tasks = None, {}

    def _draw(self, what: str, done: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress, TimeElapsedColumn

        if self._live is None:
            columns = (*Progress.get_default_columns()[:3], TimeElapsedColumn())
            self._live = Progress(*columns, console=Console(file=sys.stderr), transient=True)
            self._live.start()
        if what not in self._tasks:
            self._tasks[what] = self._live.add_task(what, total=total)
        self._live.update(self._tasks[what], completed=done, total=total, visible=done < total)

    def _write(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._last.get(what, -_EVERY) < _EVERY:
            return
        self._last[what] = math.inf if done >= total else now
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)


def plain(content: Any) -> Any:
    """Return ``content`` as JSON can hold it: paths as text, tuples as lists, NaN as null."""
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content if isinstance(content, str | int | float | bool | None) else str(content)
