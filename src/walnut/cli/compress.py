"""``walnut compress``: prune, share and pack a network into a small file, or find how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from walnut.core.errors import WalnutError

from .options import DataOptions, NetworkOptions, Options
from .recipe import RecipeOptions, recipe
from .run import Run
from .search import refuse, run_search, wanted
from .tables import forms_table, size
from .values import Count, Flag, OptionalMost, OptionalShare, OptionalTime, RobustEps

FOLDER = True


class Config(RecipeOptions, DataOptions, NetworkOptions, Options):
    """Prune a network in steps, share its weights, fine-tune them, and pack it into one file.

    Example: walnut compress --model runs/lenet/model.safetensors --data mnist --density 0.08

    With a goal (--min-accuracy, --min-robust, --max-bytes, --max-latency) the recipe is searched
    for, on validation data, and the front is shown. Exit code 2 when the file gets no smaller, or
    when the goal is out of reach: the nearest is shown.
    """

    robust: RobustEps = None
    """Also attack every form, at this radius (L∞, input units): 8/255."""
    examples: Count = 1000
    """How many test examples are attacked."""
    controls: Flag = False
    """Also train a random mask and fresh weights as long, and print them beside the pruned network."""
    min_accuracy: OptionalShare = None
    """Search: the least accuracy, such as 0.98."""
    min_robust: OptionalShare = None
    """Search: the least robust accuracy, at the radius of --robust."""
    max_bytes: OptionalMost = None
    """Search: the longest file."""
    max_latency: OptionalTime = None
    """Search: the slowest forward pass of one example, in milliseconds, on this machine."""
    trials: Count = 20
    """Search: how many cheap candidates; the best of them are made in full."""


def run(config: Config, run: Run) -> int:
    """Compress, and print one row per form; or search."""
    if wanted(config):
        return run_search(config, run)
    if config.drop is not None and config.density:
        raise WalnutError("--drop picks the densities by a scan: leave --density out")
    model, dataset = run.subject()
    from walnut.recipes.compress import compress
    from walnut.recipes.controls import CONTROLS

    result: Any = compress(
        model,
        dataset,
        recipe=recipe(config, model),
        robust=config.robust,
        examples=config.examples,
        controls=CONTROLS if config.controls else None,
        given_bytes=_given(config),
        seed=config.seed,
        out=run.folder,
        progress=run.screen.progress,
    )
    whole = run.deliver(run.written())
    forms_table(run.screen, whole.get("rows", []))
    run.screen.say(f"file {result.path} ({size(result.path.stat().st_size)} bytes)")
    return refuse(run, result.grown) if result.grown else 0


def _given(config: Config) -> int | None:
    """Return the length of the file that the network comes in, where it is one file."""
    path = Path(config.weights or config.model)
    return path.stat().st_size if path.is_file() else None
