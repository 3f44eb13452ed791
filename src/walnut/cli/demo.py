"""``walnut demo``: the whole bench on the digits that come along."""

from __future__ import annotations

import time
from typing import Any

from .options import Options
from .run import Run
from .tables import forms_table, percent, transfer_tables
from .values import Count, EpsList

FOLDER = True
NETWORKS = {
    "N_A": ("lenet-300-100", 0),
    "N_A'": ("lenet-300-100", 1),
    "N_B": ("small-cnn", 0),
    "N_B'": ("small-cnn", 1),
}
"""Two architectures, two seeds each: what transfers within one, and what across."""


class Config(Options):
    """Train four small networks on the digits, fool each with the others' examples, audit one.

    Example: walnut demo --out runs/demo

    Two architectures, two seeds each: N_A, N_A', N_B, N_B'. It takes a few minutes and no download.
    """

    eps: EpsList = (0.05, 0.1, 0.2)
    """Radii in input units."""
    examples: Count = 400
    """How many test examples are used."""


def run(config: Config, run: Run) -> None:
    """Train, transfer, audit; end with the path of the page."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are tiny: threads would wait for each other
    try:
        _bench(config, run)
    finally:
        torch.set_num_threads(threads)


def _bench(config: Config, run: Run) -> None:
    from walnut import data
    from walnut.recipes.audit import audit
    from walnut.recipes.transfer import transfer

    began = time.perf_counter()
    dataset = data.load("digits")
    trained = _train(dataset, config, run)
    models = {name: result.model for name, result in trained.items()}
    common: dict[str, Any] = {
        "eps": config.eps,
        "examples": config.examples,
        "seed": config.seed,
        "progress": run.screen.progress,
    }
    folder = run.folder / "transfer"
    table = run.finish(transfer(models, dataset, out=folder, **common), folder)
    transfer_tables(run.screen, table["transfer"])
    folder = run.folder / "audit"
    report = run.finish(audit(models["N_A"], dataset, name="N_A", out=folder, **common), folder)
    forms_table(run.screen, report["rows"], "N_A, shrunk and attacked")
    tests = {name: {"net": NETWORKS[name][0], "test": r.test} for name, r in trained.items()}
    run.deliver(
        {
            "kind": "demo",
            "networks": tests,
            "transfer": table["transfer"],
            "rows": report["rows"],
            "page": str(folder / "report.html"),
            "seconds": round(time.perf_counter() - began, 1),
        }
    )
    run.screen.say(f"transfer page {run.folder / 'transfer' / 'report.html'}")
    run.screen.say(f"page          {folder / 'report.html'}")


def _train(dataset: Any, config: Config, run: Run) -> dict[str, Any]:
    """Train the four networks, or load those that are there, and print their table."""
    from walnut.recipes.train import train

    seeds = {name: config.seed + offset for name, (_, offset) in NETWORKS.items()}
    trained = {}
    for name, (net, _) in NETWORKS.items():
        folder = run.folder / name.replace("'", "2")

        def progress(what: str, done: int, total: int, name: str = name) -> None:
            run.screen.progress(f"{what} {name}", done, total)

        trained[name] = train(net, dataset, seed=seeds[name], out=folder, progress=progress)
    run.screen.table(
        "four networks, trained on digits",
        ["", "architecture", "seed", "test accuracy in %"],
        [(name, NETWORKS[name][0], seeds[name], percent(r.test)) for name, r in trained.items()],
        left=2,
    )
    return trained
