"""Attack one network and record what is left of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.files import write_bytes
from walnut.core.types import Adversarial, Attack, Progress
from walnut.data import Dataset
from walnut.evaluate import predict, robust_accuracy

from .record import Gallery, Json, drawn_examples, finish, header, varied


def choose_targets(y: Tensor, targeted: str, classes: tuple[str, ...], seed: int) -> Tensor:
    """Return a target label per example: one class for all, or a random wrong one each.

    Args:
        y: true labels (n,).
        targeted: a class name, a number, or "random".
        classes: the class names.
        seed: of the random choice.
    """
    if targeted == "random":
        generator = torch.Generator().manual_seed(seed)
        return (y + torch.randint(1, len(classes), y.shape, generator=generator)) % len(classes)
    if targeted in classes:
        return torch.full_like(y, classes.index(targeted))
    if targeted.isdigit() and int(targeted) < len(classes):
        return torch.full_like(y, int(targeted))
    known = ", ".join(classes)
    raise WalnutError(f"there is no class {targeted!r}; choose random, or one of: {known}")


def median_change(record: Adversarial, right: Tensor, norm: str) -> float | None:
    """Return the median norm of the change, over the examples that were right before it.

    One that was not fooled counts as beyond all others; None when half of them were not.
    """
    lengths = record.norms[norm].masked_fill(~record.success, float("inf"))[right]
    median = float(lengths.double().quantile(0.5, interpolation="higher")) if len(lengths) else None
    return None if median is None or median == float("inf") else median


def attack(
    model: nn.Module,
    dataset: Dataset,
    *,
    attack: Attack,
    eps: float | None,
    out: Path,
    norm: str = "linf",
    name: str = "network",
    method: str = "attack",
    targeted: str | None = None,
    examples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Run one attack on test examples; write the result, the page and every adversarial example.

    Args:
        model: network from [0, 1] to logits.
        dataset: its test split is used.
        attack: ``(model, x, y) -> Adversarial``; a targeted one gets ``targeted`` labels.
        eps: radius, for the record; None for an attack that seeks the smallest change.
        norm: of the radius, or of the change that is sought: linf, l2, l1 or l0.
        out: folder for result.json, report.html, pictures.npz and adversarial.safetensors.
        name: how the network is called on the page.
        method: how the attack is called on the page.
        targeted: a class, or "random", for a targeted attack.
        examples: how many test examples.
        seed: chooses the examples and random targets.
        progress: called as work goes on.
    """
    began = time.perf_counter()
    x, y = drawn_examples(dataset, examples, seed)
    targets = None if targeted is None else choose_targets(y, targeted, dataset.classes, seed)
    if progress is not None:
        progress(f"{method} on {len(y)} examples", 0, 1)
    found = robust_accuracy(model, x, y, attack, targets)
    clean = predict(model, x).argmax(1)
    if progress is not None:
        progress(f"{method} on {len(y)} examples", 1, 1)
    record = found.adversarial
    result = header("attack", seed, dataset, len(y))
    entry: dict[str, Any] = found.json() | {"eps": eps, "norm": norm}
    if eps is None:
        entry["median_norm"] = median_change(found.adversarial, clean == y, norm)
    if targets is not None:
        entry["reached_target"] = float(record.success.double().mean())
    result["rows"] = [
        {
            "form": name,
            "parameters": sum(p.numel() for p in model.parameters()),
            "clean": found.clean.json(),
            "attacks": {method: entry},
        }
    ]
    result["seconds"] = round(time.perf_counter() - began, 3)
    gallery = Gallery(dataset.classes)
    rows = varied(y, record.success & (clean == y), 12)
    gallery.add(name, method, eps, x, y, clean, record, rows)
    keep(record, y, out / "adversarial.safetensors")
    return finish(result, gallery, out)


def keep(record: Adversarial, y: Tensor, path: Path) -> None:
    """Write every example of a record, with what is known of it."""
    tensors = {
        "x": record.x, "label": y, "prediction": record.prediction, "success": record.success,
        "first_success": record.first_success, "forward": record.forward,
        "backward": record.backward, **{f"norm_{k}": v for k, v in record.norms.items()},
    }  # fmt: skip
    tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
    write_bytes(path, to_bytes(tensors))
