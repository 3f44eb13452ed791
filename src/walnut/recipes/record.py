"""What every result says of itself: the machine, the versions, the pictures beside it."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from walnut.core.files import write_atomically, write_json
from walnut.core.types import Adversarial, Attack
from walnut.data import Dataset
from walnut.evaluate import predict

Json = dict[str, Any]


def machine() -> Json:
    """Return what the figures were measured on."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        pass
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def header(kind: str, seed: int, dataset: Dataset, examples: int) -> Json:
    """Return the part that all results share."""
    from walnut import __version__

    return {
        "kind": kind,
        "walnut": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "machine": machine(),
        "data": {
            "name": dataset.name,
            "examples": examples,
            "classes": list(dataset.classes),
            "shape": list(dataset.shape),
        },
        "notes": [],
    }


def drawn_examples(dataset: Dataset, examples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return up to ``examples`` of the test split, drawn without order by ``seed``."""
    split = dataset.test
    order = torch.randperm(len(split.y), generator=torch.Generator().manual_seed(seed))
    chosen = order[:examples].sort().values
    return split.x[chosen], split.y[chosen]


def digest(model: nn.Module) -> str:
    """Return a short hash of a network's state, names and values."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        if isinstance(value, Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            found.update(raw.numpy().tobytes())
    return found.hexdigest()[:16]


def identity(
    models: Mapping[str, nn.Module], dataset: Dataset, examples: int, seed: int
) -> dict[str, Any]:
    """Return what figures were measured on: which networks, which data, how much of it."""
    return {
        "models": {name: digest(model) for name, model in models.items()},
        "data": dataset.digest(),
        "examples": examples,
        "seed": seed,
    }


class Cells:
    """Figures kept as they are found, so that an interrupted run goes on from there.

    Each cell is one JSON file in ``folder``. Cells of another ``identity`` (network, data, settings)
    are not believed and are computed again.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.identity = hashlib.sha256(
            json.dumps(identity, sort_keys=True, default=str).encode()
        ).hexdigest()[:16]

    def __call__(self, name: str, compute: Callable[[], Json]) -> Json:
        """Return the cell ``name``, computing and keeping it where it is not there yet."""
        path = self.folder / f"{name}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["identity"] == self.identity:
                return dict(kept["value"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not there, or not whole: computed again
        value = compute()
        write_json(path, {"identity": self.identity, "value": value})
        return value


class Gallery:
    """Pictures of originals, perturbations and results, kept as arrays beside the result."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.entries: list[Json] = []
        self.arrays: dict[str, list[np.ndarray]] = {
            "original": [],
            "perturbation": [],
            "adversarial": [],
        }

    def add(
        self, form: str, attack: str, eps: float | None, x: Tensor, y: Tensor, clean: Tensor,
        found: Adversarial, rows: list[int],
    ) -> None:  # fmt: skip
        """Add the examples of ``rows``, as one form of a network sees them."""
        for row in rows:
            delta = found.x[row] - x[row]
            largest = float(delta.abs().max())
            self.entries.append(
                {
                    "form": form,
                    "attack": attack,
                    "eps": eps,
                    "label": self.classes[int(y[row])],
                    "clean_prediction": self.classes[int(clean[row])],
                    "prediction": self.classes[int(found.prediction[row])],
                    "success": bool(found.success[row]),
                    "magnification": round(0.5 / largest, 2) if largest > 0 else 1.0,
                    "index": int(row),
                    "array": len(self.arrays["original"]),
                }
            )
            for key, value in zip(self.arrays, (x[row], delta, found.x[row]), strict=True):
                self.arrays[key].append(value.detach().cpu().float().numpy())

    def compare(
        self, models: Mapping[str, nn.Module], method: str, attack: Attack, eps: float,
        x: Tensor, y: Tensor, count: int = 6,
    ) -> None:  # fmt: skip
        """Attack the first examples on each network, and add the same ``count`` of them for all."""
        x, y, rows = x[:64], y[:64], list[int]()
        for name, model in models.items():
            found = attack(model, x, y)
            clean = predict(model, x).argmax(1)
            rows = rows or varied(y, found.success & (clean == y), count)
            self.add(name, method, eps, x, y, clean, found, rows)

    def save(self, path: Path) -> dict[str, np.ndarray]:
        """Write the arrays and return them."""
        whole: dict[str, Any] = {key: np.stack(rows) for key, rows in self.arrays.items() if rows}

        def fill(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, **whole)

        write_atomically(path, fill)
        return whole


def varied(y: Tensor, preferred: Tensor, count: int) -> list[int]:
    """Return ``count`` rows, preferred ones first, and among them one of each class before a second."""
    seen: dict[int, int] = {}
    ranked = []
    for row in range(len(y)):
        label = int(y[row])
        turn = seen.get(label, 0) if bool(preferred[row]) else len(y)
        if bool(preferred[row]):
            seen[label] = turn + 1
        ranked.append((turn, row))
    return [row for _, row in sorted(ranked)][:count]


def finish(result: Json, gallery: Gallery | None, out: Path) -> Json:
    """Write result.json, the arrays and the page, and return the result."""
    from walnut.report import render

    arrays = None
    if gallery is not None and gallery.entries:
        result["pictures"] = gallery.entries
        arrays = gallery.save(out / "pictures.npz")
    write_json(out / "result.json", result)
    render(result, arrays, out / "report.html")
    return result
