"""Fooling pictures of every class, made in several ways: how sure the network is of nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from walnut.attacks.cppn import cppn
from walnut.attacks.evolve import direct, evolve
from walnut.attacks.rubbish import (
    Classes,
    Fooling,
    fooling,
    judged,
    labels_of,
    noise_pictures,
    smooth_fooling,
)
from walnut.core.errors import WalnutError
from walnut.core.files import write_bytes
from walnut.core.types import Progress
from walnut.data import Dataset
from walnut.evaluate import accuracy, predict

from .record import Gallery, Json, drawn_examples, finish, header

Maker = Callable[[nn.Module, tuple[int, ...], Classes, int], Fooling]

WAYS: dict[str, Callable[[tuple[int, ...], float, int, int], Maker]] = {
    "gradient": lambda shape, level, generations, children: fooling(level=level),
    "smooth": lambda shape, level, generations, children: smooth_fooling(shape[-1], level=level),
    "direct": lambda shape, level, generations, children: evolve(
        direct(), level=level, generations=generations, children=children
    ),
    "cppn": lambda shape, level, generations, children: evolve(
        cppn(), level=level, generations=generations, children=children
    ),
}
"""Ways to make a picture of nothing, by name: from (shape, level, generations, children)."""

TOLD = {
    "gradient": "by the gradient, from noise",
    "smooth": "by the gradient, low frequencies first",
    "direct": "evolved, every pixel a gene",
    "cppn": "evolved, painted by small networks",
}
SHOWN = 20  # classes on the page
CONTROLS = 1000  # pictures of plain noise


def make(
    model: nn.Module,
    shape: tuple[int, ...],
    classes: Classes,
    *,
    ways: tuple[str, ...] = tuple(WAYS),
    level: float = 0.9999,
    generations: int = 1000,
    children: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Fooling]:
    """Return the pictures of each way by its name; see :func:`fooling_pictures` for the rest.

    Raises:
        WalnutError: a way is not known, or needs images and the inputs are none.
    """
    for way in ways:
        if way not in WAYS:
            raise WalnutError(f"no way is called {way!r}; there are: {', '.join(WAYS)}")
        if way == "smooth" and len(shape) != 3:
            raise WalnutError(f"smooth needs images (channels, height, width), not {shape}")
    found = {}
    for at, way in enumerate(ways):
        if progress is not None:
            progress(f"pictures {TOLD[way]}", at, len(ways))
        maker = WAYS[way](shape, level, generations, children)
        found[way] = maker(model, shape, classes, seed)
    return found


def fooling_pictures(
    model: nn.Module,
    dataset: Dataset,
    *,
    out: Path,
    ways: tuple[str, ...] | None = None,
    others: Mapping[str, nn.Module] | None = None,
    classes: tuple[int, ...] | None = None,
    level: float = 0.9999,
    generations: int = 1000,
    children: int = 100,
    name: str = "network",
    examples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Make a picture of nothing for every class in each way; write the result, page and pictures.

    Args:
        model: network from [0, 1] to logits.
        dataset: tells the shape and the classes; its test split the clean accuracy.
        out: folder for result.json, report.html, pictures.npz and fooling.safetensors.
        ways: from :data:`WAYS`; all that the inputs allow unless given.
        others: networks by name that the pictures are tried on as well.
        classes: labels that are wanted, all unless given.
        level: confidence at which a picture is finished.
        generations, children: of the evolved ways, at most.
        name: how the network is called on the page.
        examples: of the test split, for the clean accuracy.
        seed: of everything random.
        progress: called as work goes on.
    """
    began, shape = time.perf_counter(), tuple(dataset.shape)
    wanted = labels_of(len(dataset.classes) if classes is None else classes)
    if max(wanted) >= len(dataset.classes):
        raise WalnutError(f"class {max(wanted)} is none of the {len(dataset.classes)}")
    if ways is None:
        ways = tuple(way for way in WAYS if way != "smooth" or len(shape) == 3)
    found = make(
        model, shape, wanted, ways=ways, level=level, generations=generations, children=children,
        seed=seed, progress=progress,
    )  # fmt: skip
    x, y = drawn_examples(dataset, examples, seed)
    result = header("fooling", seed, dataset, len(y))
    parameters = sum(p.numel() for p in model.parameters())
    clean = accuracy(model, x, y).json()
    result["rows"] = [{"form": name, "parameters": parameters, "clean": clean}]
    result["fooling"] = [
        {"way": way, "level": level} | told(record, dataset.classes, others or {})
        for way, record in found.items()
    ]
    result["control"] = {
        key: control(net, shape, level, seed)
        for key, net in ({name: model} | dict(others or {})).items()
    }
    result["notes"] = notes(result, name)
    result["seconds"] = round(time.perf_counter() - began, 3)
    write_bytes(out / "fooling.safetensors", to_bytes(tensors(found)))
    return finish(result, gallery(found, dataset.classes, name), out)


def told(record: Fooling, classes: tuple[str, ...], others: Mapping[str, nn.Module]) -> Json:
    """Return one way's figures, and what other networks make of its pictures."""
    columns = (record.wanted, record.prediction, record.confidence, record.reached)
    lines = zip(*(column.tolist() for column in columns), strict=True)
    carried = {}
    for name, other in others.items():
        prediction, confidence = judged(other, record.x, record.wanted)
        carried[name] = {
            "median_confidence": float(confidence.quantile(0.5)),
            "same_class": int((prediction == record.wanted).sum()),
        }
    return {
        "attack": record.attack,
        "median_confidence": record.median_confidence,
        "lowest_confidence": float(record.confidence.min()),
        "forward": record.forward,
        "backward": record.backward,
        "seconds": round(record.seconds, 3),
        "pictures": [
            {"wanted": classes[w], "prediction": classes[p], "confidence": c, "reached": r}
            for w, p, c, r in lines
        ],
        "transfer": carried,
    }


def control(model: nn.Module, shape: tuple[int, ...], level: float, seed: int) -> Json:
    """Return how sure a network is of plain noise, whatever it calls it."""
    like = next(model.parameters(), torch.empty(0))
    noise = noise_pictures(shape, CONTROLS, seed).to(like)
    sure = predict(model, noise).double().softmax(1).amax(1)
    return {
        "pictures": CONTROLS,
        "median_confidence": float(sure.quantile(0.5)),
        "at_99": float((sure >= 0.99).double().mean()),
        "at_level": float((sure >= level).double().mean()),
    }


def notes(result: Json, name: str) -> list[str]:
    """Return the figures in sentences, the controls among them."""
    lines = []
    for entry in result["fooling"]:
        shots = entry["pictures"]
        called = sum(p["wanted"] == p["prediction"] for p in shots)
        line = (
            f"Pictures {TOLD[entry['way']]}: median confidence {exact(entry['median_confidence'])}, "
            f"lowest {exact(entry['lowest_confidence'])}, {called} of {len(shots)} called the class wanted; "
            f"{entry['forward']:,} forward and {entry['backward']:,} backward passes."
        )
        for other, carried in entry["transfer"].items():
            line += (
                f" {other} calls {carried['same_class']} of {len(shots)} of them the same class "
                f"(median confidence {exact(carried['median_confidence'])})."
            )
        lines.append(line)
    for net, found in result["control"].items():
        lines.append(
            f"Control, {found['pictures']:,} pictures of plain noise: {net} calls one of them some class "
            f"with a median confidence of {exact(found['median_confidence'])}; "
            f"{exact(found['at_99'])} are called a class with 99 % or more."
        )
    return lines


def exact(share: float) -> str:
    """Return a share in per cent, with the digits that tell it from all.

    >>> exact(0.999931), exact(0.5), exact(1.0)
    ('99.9931 %', '50 %', '100 %')
    """
    return f"{100 * share:.8g} %"


def tensors(found: Mapping[str, Fooling]) -> dict[str, Tensor]:
    """Return every picture and its figures by name."""
    names = ("x", "wanted", "confidence", "prediction", "reached")
    return {
        f"{way}.{key}": getattr(record, key).cpu().contiguous()
        for way, record in found.items()
        for key in names
    }


def gallery(found: Mapping[str, Fooling], classes: tuple[str, ...], name: str) -> Gallery:
    """Return the pictures as the page shows them, beside the plain grey that they all are not."""
    made = Gallery(classes)
    for way, record in found.items():
        for row in range(min(SHOWN, len(record.x))):
            x = record.x[row].cpu().float().numpy()
            sure, read = float(record.confidence[row]), int(record.prediction[row])
            hit = read == int(record.wanted[row])
            made.entries.append(entry_of(name, way, classes[read], sure, hit, row, made))
            for key, value in zip(made.arrays, (0 * x + 0.5, x - 0.5, x), strict=True):
                made.arrays[key].append(value)
    return made


def entry_of(
    form: str, way: str, read: str, sure: float, hit: bool, row: int, made: Gallery
) -> dict[str, Any]:
    """Return what the page says of one picture."""
    return {
        "form": form,
        "attack": f"{way}-fooling",
        "prediction": f"{read}, {exact(sure)}" if hit else read,
        "success": hit,
        "magnification": 1.0,
        "index": row,
        "array": len(made.arrays["original"]),
    }
