"""``walnut attack``: attack a network and count the fooled."""

from __future__ import annotations

from typing import Annotated

from .attacks import AttackOptions, Method, attack_of
from .options import ExampleOptions, NetworkOptions, Options
from .run import Run, network_name
from .tables import forms_table
from .values import Eps, one

FOLDER = True


class Config(AttackOptions, ExampleOptions, NetworkOptions, Options):
    """Attack a network with one method and count the examples it is fooled on.

    Example: walnut attack --model lenet.walnut --data mnist --attack pgd --eps 0.1 --steps 40
    """

    attack: Method = "pgd"
    """The method."""
    eps: Eps = 0.1
    """Radius in input units; 8/255 for 8-bit images."""
    targeted: Annotated[str | None, one("LABEL")] = None
    """The label that every example is driven to: a class name, its number, or random."""


def run(config: Config, run: Run) -> None:
    """Attack, and print one row."""
    targeted = config.targeted is not None
    make = attack_of(config.attack, config, seed=config.seed, targeted=targeted)
    model, dataset = run.subject()
    from walnut.recipes.attack import attack

    result = attack(
        model,
        dataset,
        attack=make(config.eps),
        eps=config.eps,
        name=network_name(config.model),
        method=config.attack,
        targeted=config.targeted,
        examples=config.examples,
        seed=config.seed,
        out=run.folder,
        progress=run.screen.progress,
    )
    whole = run.deliver(result)
    forms_table(run.screen, whole["rows"])
    run.screen.say(f"page {run.folder / 'report.html'}")
