"""``walnut fooling``: pictures of nothing that a network is sure of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from walnut.core.errors import WalnutError

from .options import ExampleOptions, NetworkOptions, Options
from .run import Run, network_name, resolve
from .tables import forms_table
from .transfer import by_name
from .values import Count, Names, number, one

FOLDER = True

Level = Annotated[float, BeforeValidator(number), Field(gt=0, lt=1), one("P")]


class Config(ExampleOptions, NetworkOptions, Options):
    """Make a picture of nothing for every class that the network is sure of, in four ways.

    Example: walnut fooling --model lenet.walnut --data mnist --ways gradient cppn

    gradient and smooth climb from noise; direct and cppn breed pictures by answers alone.
    """

    ways: Names = ()
    """gradient, smooth (pictures only), direct or cppn; all that the inputs allow unless given."""
    classes: Names = ()
    """Labels that are wanted, by name or number; all unless given."""
    others: Names = ()
    """Other networks that are shown the pictures too, optionally named: B=b.walnut."""
    level: Level = 0.9999
    """Confidence at which a picture is finished."""
    generations: Count = 1000
    """Of the evolved ways, at most."""
    children: Count = 100
    """Pictures bred per generation."""


def run(config: Config, run: Run) -> None:
    """Make them, and print how sure the network is of each way's pictures."""
    model, dataset = run.subject()
    wanted = numbers(config.classes, dataset.classes)
    specs = by_name(config.others).items()
    others = {name: resolve(spec, None, None, (), dataset) for name, spec in specs}
    name = network_name(config.model)
    if name in others:
        raise WalnutError(f"two networks are named {name}; give the other a name of its own")
    from walnut.recipes.fooling import fooling_pictures

    result = fooling_pictures(
        model,
        dataset,
        out=run.folder,
        ways=config.ways or None,
        others=others,
        classes=wanted,
        level=config.level,
        generations=config.generations,
        children=config.children,
        name=name,
        examples=config.examples,
        seed=config.seed,
        progress=run.screen.progress,
    )
    whole = run.deliver(result)
    forms_table(run.screen, whole["rows"])
    run.screen.table(
        "confidence in pictures of nothing, in %",
        ["", "median", "lowest", "as wanted", "forward", "backward"],
        map(way_cells, whole["fooling"]),
    )
    shown = [row for entry in whole["fooling"] for row in carried(entry)]
    if shown:
        run.screen.table("the same pictures, elsewhere", ["", "median", "same class"], shown)
    for net, found in whole["control"].items():
        run.screen.say(f"of plain noise {net} is sure to {sure(found['median_confidence'])} %")
    run.screen.say(f"page {run.folder / 'report.html'}")


def numbers(wanted: Sequence[str], classes: Sequence[str]) -> tuple[int, ...] | None:
    """Return the labels that names or numbers mean, each once; None where none are given.

    >>> numbers(("frog", "0", "frog"), ("cat", "frog"))
    (1, 0)
    """
    found: list[int] = []
    for text in wanted:
        if text in classes:
            label = list(classes).index(text)
        elif text.isdecimal() and int(text) < len(classes):
            label = int(text)
        else:
            raise WalnutError(f"there is no class {text!r}; there are: {', '.join(classes)}")
        found += [] if label in found else [label]
    return tuple(found) or None


def sure(share: float) -> str:
    """Return a confidence in per cent with the digits that tell it from all.

    >>> sure(0.999931), sure(0.5)
    ('99.9931', '50')
    """
    return f"{100 * share:.6g}"


def way_cells(entry: dict[str, Any]) -> list[str]:
    """Return the row of one way."""
    shots = entry["pictures"]
    hit = sum(shot["wanted"] == shot["prediction"] for shot in shots)
    return [
        entry["way"], sure(entry["median_confidence"]), sure(entry["lowest_confidence"]),
        f"{hit} of {len(shots)}", f"{entry['forward']:,}", f"{entry['backward']:,}",
    ]  # fmt: skip


def carried(entry: dict[str, Any]) -> Iterator[list[str]]:
    """Return a row for each other network that saw a way's pictures."""
    for name, found in entry["transfer"].items():
        same = f"{found['same_class']} of {len(entry['pictures'])}"
        yield [f"{entry['way']} on {name}", sure(found["median_confidence"]), same]
