"""``walnut attack``: attack a network and count the fooled."""

from __future__ import annotations

from typing import Annotated, Literal

from .attacks import ATTACKS, AttackOptions, attack_of
from .options import DataOptions, NetworkOptions, Options
from .run import Run
from .tables import forms_table
from .values import Eps, choice, one

FOLDER = True


class Config(AttackOptions, DataOptions, NetworkOptions, Options):
    """Attack a network with one method and count the examples it is fooled on.

    Example: walnut attack --model lenet.walnut --data mnist --attack pgd --eps 0.1 --steps 40
    """

    attack: Annotated[Literal["noise", "fgsm", "bim", "pgd", "mi-fgsm", "di-fgsm"], choice(*ATTACKS)] = "pgd"  # fmt: skip
    """The method."""
    eps: Eps = 0.1
    """Radius in input units; 8/255 for 8-bit images."""
    targeted: Annotated[str | None, one("LABEL")] = None
    """The label that every example is driven to: a class name, its number, or random."""


def run(config: Config, run: Run) -> None:
    """Attack, and print one row."""
    from walnut import recipes

    dataset = run.dataset()
    model = run.network(dataset)
    result = recipes.attack(
        model,
        dataset,
        attack=make(config.attack, config, config.eps),
        eps=config.eps,
        name=config.model,
        targeted=config.targeted,
        examples=config.examples,
        seed=config.seed,
        out=run.folder,
        progress=run.screen.progress,
    )
    whole = run.finish(result)
    forms_table(run.screen, whole["rows"])
    run.screen.say(f"page {run.folder / 'report.html'}")
