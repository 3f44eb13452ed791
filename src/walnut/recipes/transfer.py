"""The transfer table as a whole run: any networks, any attacks, a sweep of eps, one page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from walnut.attacks import bim, di_fgsm, fgsm, mi_fgsm, noise, pgd
from walnut.core.errors import WalnutError
from walnut.core.types import Attack, Progress
from walnut.data import Dataset
from walnut.evaluate import accuracy, transfer_table

from .record import Cells, Gallery, Json, drawn_examples, finish, header, identity

TRANSFERS: dict[str, Callable[[float, int], Attack]] = {
    "fgsm": lambda eps, seed: fgsm(eps),
    "bim": lambda eps, seed: bim(eps, early_stop=False),
    "pgd": lambda eps, seed: pgd(eps, early_stop=False, seed=seed),
    "mi-fgsm": lambda eps, seed: mi_fgsm(eps),
    "di-fgsm": lambda eps, seed: di_fgsm(eps, seed=seed),
}
"""Attacks as they are made to transfer: they go on after their own network is fooled."""


def transfer(
    models: Mapping[str, nn.Module],
    dataset: Dataset,
    *,
    out: Path,
    attacks: tuple[str, ...] = ("pgd",),
    eps: tuple[float, ...] = (0.05, 0.1, 0.2),
    examples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Make examples on each network and try them on all, for each attack and each eps.

    Args:
        models: networks by name.
        dataset: its test split is used.
        out: folder for result.json, report.html and pictures.npz; work that is done stays there,
            and the same call goes on from it.
        attacks: names from :data:`TRANSFERS`.
        eps: radii.
        examples: how many test examples.
        seed: chooses the examples and the attacks' draws.
        progress: called as work goes on.
    """
    unknown = [name for name in attacks if name not in TRANSFERS]
    if unknown:
        known = ", ".join(TRANSFERS)
        raise WalnutError(f"no attack to transfer is called {unknown[0]!r}; there are: {known}")
    began = time.perf_counter()
    x, y = drawn_examples(dataset, examples, seed)
    cells = Cells(out / "cells", identity(models, dataset, len(y), seed))
    gallery = Gallery(dataset.classes)
    tables: list[Json] = []
    for method in attacks:
        for at, radius in enumerate(eps):
            if progress is not None:
                progress(f"{method} at eps {radius:.3g}", at, len(eps))

            def table(method: str = method, radius: float = radius) -> Json:
                return transfer_table(
                    models,
                    x,
                    y,
                    attack=lambda e: TRANSFERS[method](e, seed),
                    eps=(radius,),
                    control=lambda e: noise(e, seed=seed),
                )[0].json()

            tables.append(cells(f"{method}-{radius:.6g}", table) | {"method": method})
    if progress is not None:
        progress("pictures", len(eps), len(eps))
    middle = eps[len(eps) // 2]
    gallery.compare(models, attacks[0], TRANSFERS[attacks[0]](middle, seed), middle, x, y)
    result = header("transfer", seed, dataset, len(y))
    result["rows"] = [_row(name, model, x, y) for name, model in models.items()]
    result["transfer"] = tables
    result["seconds"] = round(time.perf_counter() - began, 3)
    return finish(result, gallery, out)


def _row(name: str, model: nn.Module, x: Any, y: Any) -> Json:
    parameters = sum(p.numel() for p in model.parameters())
    return {"form": name, "parameters": parameters, "clean": accuracy(model, x, y).json()}
