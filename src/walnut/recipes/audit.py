"""The main job: shrink a network, and measure how easily each form of it is fooled.

One network goes in. Its forms (dense, pruned, shared, and the packed file loaded again) are weighed,
timed, attacked, and attacked with each other's examples; one page shows it all.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from walnut.attacks import fgsm, noise, pgd
from walnut.core.errors import WalnutError
from walnut.core.types import Attack, Progress
from walnut.data import Dataset
from walnut.evaluate import Share, accuracy, cost, latency, predict, robust_accuracy, transfer_table
from walnut.weights import bake

from .compress import CompressResult, compress
from .forms import histograms, rows
from .recipe import Recipe
from .record import Cells, Gallery, Json, drawn_examples, finish, header, identity

STEPS = 20
CURVE = 8


@dataclass(frozen=True)
class _Bench:
    """The forms of one network on one set of examples, and where figures are kept."""

    forms: dict[str, nn.Module]
    x: Tensor
    y: Tensor
    seed: int
    cells: Cells
    tell: Callable[[str], None]

    def robust(self, form: str, method: str, eps: float) -> Json:
        """Return what one attack leaves of one form."""
        made: dict[str, Callable[[], Attack]] = {
            "noise": lambda: noise(eps, seed=self.seed),
            "fgsm": lambda: fgsm(eps),
            "pgd": lambda: pgd(eps, steps=STEPS, seed=self.seed),
        }

        def measure() -> Json:
            self.tell(f"{method} at eps {eps:.3g} on {form}")
            found = robust_accuracy(self.forms[form], self.x, self.y, made[method]())
            return found.json() | {"eps": eps}

        return self.cells(f"{form}-{method}-{eps:.6g}", measure)

    def table(self, eps: float) -> Json:
        """Return the transfer table of one radius."""

        def measure() -> Json:
            self.tell(f"transfer at eps {eps:.3g}")
            return transfer_table(
                self.forms,
                self.x,
                self.y,
                attack=lambda e: pgd(e, steps=STEPS, early_stop=False, seed=self.seed),
                eps=(eps,),
                control=lambda e: noise(e, seed=self.seed),
            )[0].json()

        return self.cells(f"transfer-{eps:.6g}", measure)

    def clean(self, form: str) -> Json:
        """Return the accuracy of one form without an attack."""
        return self.cells(
            f"{form}-clean", lambda: accuracy(self.forms[form], self.x, self.y).json()
        )

    def latencies(self) -> dict[str, Json]:
        """Return the times of all forms, measured in turn."""

        def measure() -> Json:
            self.tell("latency")
            found = latency(self.forms, self.x[:1])
            return {form: times.json() for form, times in found.items()}

        return self.cells("latency", measure)

    def curve(self, form: str, radii: tuple[float, ...]) -> Json:
        """Return robust accuracy under PGD at each radius, from no attack on."""
        shares = [self.clean(form), *(self.robust(form, "pgd", e)["robust"] for e in radii)]
        return {
            "form": form,
            "attack": "pgd",
            "eps": [0.0, *radii],
            "accuracy": [share["value"] for share in shares],
            "low": [share["low"] for share in shares],
            "high": [share["high"] for share in shares],
        }


def audit(
    model: nn.Module,
    dataset: Dataset,
    *,
    out: Path,
    name: str = "network",
    recipe: Recipe | None = None,
    eps: tuple[float, ...] = (0.05, 0.1, 0.2),
    examples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Compress a trained network, attack every form of it, and write the page.

    Args:
        model: trained network from [0, 1] to logits; it is not changed.
        dataset: train and validation splits to compress with; the test split to measure on.
        out: folder for everything. What is done is kept there, and the same call goes on from it.
        name: how the network is called on the page.
        recipe: how to compress; the default recipe unless given.
        eps: radii (L∞), the middle one for the table.
        examples: how many test examples.
        seed: of training, examples and attacks.
        progress: called as work goes on.

    Returns:
        the result, as written to ``out/result.json``.

    Raises:
        WalnutError: the network or the data cannot be used; the message says why.
    """
    if not eps:
        raise WalnutError("an audit needs at least one eps")
    began = time.perf_counter()
    x, y = drawn_examples(dataset, examples, seed)
    dense = bake(copy.deepcopy(model)).eval()
    predict(dense, x[:2])  # what does not fit the data is named before anything is trained
    packed = compress(dense, dataset, recipe=recipe, seed=seed, out=out, progress=progress)
    forms = packed.stages
    eps = tuple(sorted(set(eps)))
    middle = eps[len(eps) // 2]
    radii = tuple(sorted({*eps, *(eps[-1] * (i + 1) / CURVE for i in range(CURVE))}))
    work = len(forms) * (len(radii) + 2) + len(eps) + 1
    done = 0

    def tell(what: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(what, min(done, work), work)

    cells = Cells(out / "cells", identity(forms, dataset, len(y), seed))
    bench = _Bench(forms, x, y, seed, cells, tell)
    result = header("audit", seed, dataset, len(y))
    tables = [bench.table(radius) | {"method": "pgd"} for radius in eps]
    result["network"] = {"name": name, "parameters": cost(dense, dataset.shape).parameters}
    result["rows"] = _rows(bench, packed, dataset, middle, tables[len(eps) // 2])
    result["transfer"] = tables
    result["curves"] = [bench.curve(form, radii) for form in ("dense", "packed")]
    result["histograms"] = histograms(forms)
    result["layers"] = packed.sizes.tensors
    result["history"] = packed.history
    result["seconds"] = round(time.perf_counter() - began, 3)
    return finish(result, _gallery(bench, dataset, middle), out)


def _rows(
    bench: _Bench, packed: CompressResult, dataset: Dataset, eps: float, table: Json
) -> list[Json]:
    """Return the table: a row a form."""
    times = bench.latencies()
    found = []
    for at, row in enumerate(rows(packed.stages, packed.bytes, dataset)):
        form = row["form"]
        attacks = {method: bench.robust(form, method, eps) for method in ("noise", "fgsm", "pgd")}
        reached = table["accuracy"][0][at]
        found.append(
            row
            | {
                "latency": times[form],
                "clean": bench.clean(form),
                "attacks": attacks,
                "transfer_from_dense": _share(reached, len(bench.y)),
            }
        )
    return found


def _share(value: float, total: int) -> Json:
    return Share.count(round(value * total), total).json()


def _gallery(bench: _Bench, dataset: Dataset, eps: float) -> Gallery:
    """Return pictures of the same examples under PGD, dense and packed."""
    gallery = Gallery(dataset.classes)
    shown = {form: bench.forms[form] for form in ("dense", "packed")}
    gallery.compare(shown, "pgd", pgd(eps, steps=STEPS, seed=bench.seed), eps, bench.x, bench.y)
    return gallery
