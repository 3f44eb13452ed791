"""``walnut robust``, and ``walnut audit --robust``: one figure that can be defended, or a red flag."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from .options import ExampleOptions, NetworkOptions, Options
from .run import Run, network_name, resolve
from .tables import forms_table, percent
from .transfer import by_name
from .values import Flag, Names, OptionalRadius, OptionalText, choice
from .verdict import flag_lines, flagged, verdict_tables

FOLDER = True
FLAGGED = 3
RADII = {"linf": 0.1, "l2": 0.5, "l1": 5.0}
"""The radius of each norm unless one is given."""


class Config(ExampleOptions, NetworkOptions, Options):
    """Attack a network until nothing more falls: one figure, its evidence, and what speaks against it.

    Example: walnut robust --model runs/lenet/model.safetensors --data mnist --eps 0.1

    The same as walnut audit --robust. Exit code 3 when a red flag says that the figure is too high.
    """

    norm: Annotated[Literal["linf", "l2", "l1"], choice("linf", "l2", "l1")] = "linf"
    """The norm that eps is measured in."""
    eps: OptionalRadius = None
    """Radius in input units, such as 8/255; unless given 0.1 in linf, 0.5 in l2, 5 in l1."""
    effort: Annotated[Literal["standard", "autoattack"], choice("standard", "autoattack")] = (
        "standard"
    )
    """standard: expensive attacks only where they may matter; autoattack: that protocol in full."""
    no_curve: Flag = False
    """Leave the curve against eps out."""
    certify: Flag = False
    """Also prove, in linf, what no attack can break: tens to hundreds of passes an example more."""
    twin: OptionalText = None
    """A differentiable twin of a network without a gradient: a name or a file, as for --model."""
    surrogates: Names = ()
    """Other networks whose adversarial examples are tried too, optionally named: float=a.walnut."""


def run(config: Config, run: Run) -> int:
    """Measure; print the flags, then the figure and what stands behind it."""
    model, dataset = run.subject()
    twin = resolve(config.twin, None, None, (), dataset) if config.twin else None
    others = by_name(config.surrogates).items()
    surrogates = {name: resolve(spec, None, None, (), dataset) for name, spec in others}
    from walnut.core import constraints
    from walnut.recipes.robust import robust

    result = robust(
        model,
        dataset,
        name=network_name(config.model),
        norm=getattr(constraints, config.norm),
        eps=RADII[config.norm] if config.eps is None else config.eps,
        effort=config.effort,
        curve=not config.no_curve,
        certify=config.certify,
        examples=config.examples,
        seed=config.seed,
        out=run.folder,
        twin=twin,
        surrogates=surrogates or None,
        progress=run.screen.progress,
    )
    whole: dict[str, Any] = run.deliver(result)
    for line in flag_lines(whole["verdict"]):
        run.screen.say(line)
    forms_table(run.screen, whole["rows"])
    for entry in whole["verdict"]:
        if entry.get("certified"):
            proven, left = percent(entry["certified"]), percent(entry["robust"])
            run.screen.say(
                f"{entry['form']}: {proven} % proven; the truth is from there to {left} %"
            )
    verdict_tables(run.screen, whole["verdict"])
    run.screen.say(f"page {run.folder / 'report.html'}")
    return FLAGGED if flagged(whole["verdict"]) else 0
