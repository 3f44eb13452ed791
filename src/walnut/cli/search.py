"""``walnut compress`` with a goal: find the recipe, show the front."""

from __future__ import annotations

import sys
from typing import Any

from walnut.core.errors import WalnutError

from .recipe import recipe
from .run import Run
from .tables import forms_table, front_table, size

UNREACHED = 2
GOALS = ("min_accuracy", "min_robust", "max_bytes", "max_latency")


def wanted(config: Any) -> bool:
    """Say whether a configuration asks for a goal, and so for a search."""
    return any(getattr(config, name) is not None for name in GOALS)


def run_search(config: Any, run: Run) -> int:
    """Search, print the front and the answer; exit 2 where the goal is out of reach."""
    if config.controls or config.drop is not None or config.density or config.bits:
        raise WalnutError(
            "a search picks density and bits itself: leave --density, --bits, --drop and "
            "--controls out, or the goal (--min-…, --max-…)"
        )
    model, dataset = run.subject()
    from walnut.recipes.candidates import Goal
    from walnut.recipes.search import search

    goal = Goal(
        accuracy=config.min_accuracy,
        robust=config.min_robust,
        bytes=config.max_bytes,
        latency_ms=config.max_latency,
        eps=config.robust,
    )
    result = search(
        model,
        dataset,
        goal,
        recipe=recipe(config, model),
        trials=config.trials,
        examples=config.examples,
        seed=config.seed,
        out=run.folder,
        progress=run.screen.progress,
    )
    whole = run.deliver(result)
    front_table(run.screen, whole)
    forms_table(run.screen, whole["rows"], "on the test set, read once")
    path = run.folder / whole["file"]
    run.screen.say(f"file {path} ({size(path.stat().st_size)} bytes)")
    run.screen.say(f"page {run.folder / 'report.html'}")
    return 0 if whole["met"] else refuse(run, whole["notes"][0])


def refuse(run: Run, text: str) -> int:
    """Say on standard error why a run that is done did not do what was asked; return exit code 2."""
    run.screen.settle()
    print(f"walnut: {text}", file=sys.stderr, flush=True)
    return UNREACHED
