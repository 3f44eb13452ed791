"""``walnut techniques``: do examples that fool a network also fool trees, neighbours and templates?"""

from __future__ import annotations

from typing import Any

from walnut.core.errors import WalnutError

from .options import DataOptions, Options
from .run import Run
from .tables import percent, transfer_tables
from .values import Count, EpsList, Names, shown

FOLDER = True


class Config(DataOptions, Options):
    """Train ten techniques on the same examples, make adversarial ones on each, try them on all.

    Example: walnut techniques --data mnist --eps 0.1 0.2 --kinds softmax rbf k-nn forest svm-rbf

    Networks are attacked by gradient; the others by asking for classes, 1,300 queries an example.
    """

    kinds: Names = ()
    """softmax, rbf, lenet-300-100, small-cnn, k-nn, tree, forest, boosting, svm-linear, svm-rbf; all."""
    eps: EpsList = (0.05, 0.1, 0.2)
    """Radii in input units."""
    train_examples: Count = 2000
    """How many examples every technique is trained on."""
    examples: Count = 100
    """How many test examples are used."""


def run(config: Config, run: Run) -> None:
    """Train, attack, and print a table per radius and a row per technique."""
    dataset = run.dataset()
    from walnut.recipes.learners import techniques_for
    from walnut.recipes.techniques import techniques

    kinds = chosen(techniques_for(dataset), config.kinds)
    result = techniques(
        dataset,
        out=run.folder,
        kinds=kinds,
        eps=config.eps,
        train_examples=config.train_examples,
        examples=config.examples,
        seed=config.seed,
        progress=run.screen.progress,
    )
    whole = run.deliver(result)
    transfer_tables(run.screen, whole["transfer"])
    radius = shown(whole["rows"][0]["eps"])
    run.screen.table(
        f"accuracy left in % at eps {radius}",
        ["", "clean", "own examples", "all examples", "noise", "best from elsewhere", "queries"],
        map(cells, whole["rows"]),
    )
    run.screen.say(f"page {run.folder / 'report.html'}")


def chosen(known: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the techniques that are asked for, in that order; all unless any are.

    >>> chosen({"tree": 1, "k-nn": 2}, ("k-nn",))
    {'k-nn': 2}
    """
    for name in names:
        if name not in known:
            raise WalnutError(
                f"no technique is called {name!r} for this data; there are: {', '.join(known)}"
            )
    return {name: known[name] for name in names} or known


def cells(row: dict[str, Any]) -> list[str]:
    """Return the row of one technique."""
    best, near = row["best_transfer"], row.get("nearest")
    from_elsewhere = f"{percent(best['accuracy'])} ({best['from']})" if best else percent(None)
    asked = near["queries_per_example"] if near else None
    return [
        row["form"], percent(row["clean"]), percent(row["own"]), percent(row["worst"]),
        percent(row["noise"]), from_elsewhere, percent(None) if asked is None else f"{asked:.0f}",
    ]  # fmt: skip
