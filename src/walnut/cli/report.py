"""``walnut report FOLDER``: write the page of a finished run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

from walnut.core.errors import WalnutError

from .options import Options
from .run import Run, render
from .values import one

FOLDER = False


class Config(Options):
    """Write the page of a finished run again, from its result.json and pictures.npz.

    Example: walnut report runs/audit-1a2b3c4d5e
    """

    folder: Annotated[tyro.conf.Positional[str], one("FOLDER")] = ""
    """The folder of the run."""


def run(config: Config, run: Run) -> None:
    """Render, and say where the page is."""
    if not config.folder:
        raise WalnutError("walnut report needs the folder of a run: walnut report runs/audit-…")
    folder = Path(config.folder)
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except OSError:
        raise WalnutError(f"{folder} holds no result.json; it is written when a run ends") from None
    except ValueError:
        raise WalnutError(f"{folder / 'result.json'} is damaged; run the command again") from None
    page = render(folder, result, config.out)
    run.screen.document({"kind": "report", "page": str(page)})
    run.screen.say(f"page {page}")
