"""``walnut compress``: prune, share and pack a network into a small file."""

from __future__ import annotations

from typing import Any

from .options import DataOptions, NetworkOptions, Options
from .recipe import RecipeOptions, recipe
from .run import Run
from .tables import forms_table, size

FOLDER = True


class Config(RecipeOptions, DataOptions, NetworkOptions, Options):
    """Prune a network in steps, share its weights, fine-tune them, and pack it into one file.

    Example: walnut compress --model runs/lenet/model.safetensors --data mnist --density 0.08
    """


def run(config: Config, run: Run) -> None:
    """Compress, and print one row per form."""
    model, dataset = run.subject()
    from walnut.recipes.compress import compress

    result: Any = compress(
        model,
        dataset,
        recipe=recipe(config, model),
        seed=config.seed,
        out=run.folder,
        progress=run.screen.progress,
    )
    whole = run.deliver(run.written())
    forms_table(run.screen, whole.get("rows", []))
    run.screen.say(f"file {result.path} ({size(result.path.stat().st_size)} bytes)")
