"""``walnut attack``: attack a network and count the fooled."""

from __future__ import annotations

from typing import Annotated

from walnut.core.errors import WalnutError

from .attacks import WITHIN, AttackOptions, Method, attack_of
from .options import ExampleOptions, NetworkOptions, Options
from .run import Run, network_name
from .tables import forms_table
from .values import OptionalEps, one

FOLDER = True
RADIUS = 0.1


class Config(AttackOptions, ExampleOptions, NetworkOptions, Options):
    """Attack a network with one method and count the examples it is fooled on.

    Example: walnut attack --model lenet.walnut --data mnist --attack pgd --eps 0.1 --steps 40

    Within a radius: noise (the control), fgsm, bim, pgd, odi-pgd, basin-hopping, apgd, apgd-t.

    Made to transfer: mi-fgsm, ni-fgsm, di-fgsm, ti-fgsm, si-fgsm, vmi-fgsm.

    By queries alone: nes, spsa, square; seeking the smallest change: boundary, hop-skip-jump.

    Seeking the smallest change: deepfool, ddn, fmn, carlini-wagner, lbfgs, jsma, smallest (of pgd).
    """

    attack: Method = "pgd"
    """The method."""
    eps: OptionalEps = None
    """Radius in input units; 8/255 for 8-bit images."""
    targeted: Annotated[str | None, one("LABEL")] = None
    """The label that every example is driven to: a class name, its number, or random."""


def run(config: Config, run: Run) -> None:
    """Attack, and print one row."""
    targeted = config.targeted is not None
    chosen = attack_of(config.attack, config, seed=config.seed, targeted=targeted)
    if chosen.seeks and config.eps is not None:
        raise WalnutError(
            f"--eps means nothing to {config.attack}, which seeks the smallest change; it does to "
            f"{', '.join(WITHIN)}"
        )
    eps = None if chosen.seeks else RADIUS if config.eps is None else config.eps
    made = chosen.make() if eps is None else chosen.make(eps)
    model, dataset = run.subject()
    from walnut.recipes.attack import attack

    result = attack(
        model,
        dataset,
        attack=made,
        eps=eps,
        norm=chosen.norm,
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
