"""``walnut audit``: shrink, attack and report."""

from __future__ import annotations

from .options import ExampleOptions, NetworkOptions, Options
from .recipe import RecipeOptions, recipe
from .run import Run, network_name
from .tables import forms_table, transfer_tables
from .values import EpsList

FOLDER = True


class Config(RecipeOptions, ExampleOptions, NetworkOptions, Options):
    """Make a network's compressed forms and compare them: bytes, cost, accuracy, robustness.

    Example: walnut audit --model runs/lenet/model.safetensors --data mnist --eps 0.1

    For one robustness figure with its evidence: walnut audit --robust --help
    """

    eps: EpsList = (0.05, 0.1, 0.2)
    """Radii in input units; the table shows the middle one, the page all of them."""


def run(config: Config, run: Run) -> None:
    """Audit, and print the table."""
    model, dataset = run.subject()
    from walnut.recipes.audit import audit

    result = audit(
        model,
        dataset,
        name=network_name(config.model),
        recipe=recipe(config, model),
        eps=config.eps,
        examples=config.examples,
        seed=config.seed,
        out=run.folder,
        progress=run.screen.progress,
    )
    whole = run.deliver(result)
    forms_table(run.screen, whole["rows"])
    transfer_tables(run.screen, whole.get("transfer", []))
    run.screen.say(f"page {run.folder / 'report.html'}")
