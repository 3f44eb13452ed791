"""Make a patch, print it, and record how often it works on pictures it was not made on."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from walnut.attacks.patch import Patch
from walnut.attacks.patch import patch as patch_attack
from walnut.core.errors import WalnutError
from walnut.core.files import write_bytes
from walnut.core.placement import Placement, Shape, circle
from walnut.core.types import Progress
from walnut.data import Dataset
from walnut.evaluate import predict, robust_accuracy
from walnut.evaluate.patch import PatchPoint, patch_success

from .attack import choose_targets
from .record import Gallery, Json, drawn_examples, finish, header, varied

SIZE = 64  # texels at most, unless told otherwise


def patch(
    model: nn.Module,
    dataset: Dataset,
    *,
    out: Path,
    target: str | None = None,
    areas: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3),
    shape: Shape = circle(),
    size: int | None = None,
    placement: Placement = Placement(),
    steps: int = 300,
    pictures: int = 64,
    step_size: float = 0.05,
    training: int = 5000,
    examples: int = 1000,
    millimetres: float = 50.0,
    dpi: int = 300,
    border: float = 0.0,
    name: str = "network",
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Make a universal patch on training pictures and try it on test pictures.

    Args:
        model: network from [0, 1] to logits.
        dataset: of pictures; made on its training split, tried on its test split.
        out: folder for result.json, report.html, pictures.npz, patch.png and patch.safetensors
            (``pattern`` and ``mask``).
        target: a class's name or number; any wrong one unless given.
        areas: shares of the picture to cover, each in (0, 1); the patch is made for all between the
            smallest and the largest.
        shape: ``circle()``, ``square()`` or ``sticker(mask)``.
        size: texels of the longer side; the pixels of the largest area, 64 at most, unless given.
        placement: angles and places; its scale is set by ``areas``.
        steps, pictures, step_size: of :func:`walnut.attacks.patch.patch`.
        training: how many training pictures.
        examples: how many test pictures.
        millimetres, dpi, border: of patch.png.
        name: how the network is called on the page.
        seed: chooses the pictures and the places.
        progress: called as work goes on.
    """
    began = time.perf_counter()
    if len(dataset.shape) != 3 or not areas:
        raise WalnutError(f"a patch needs pictures and an area; {dataset.name} is {dataset.shape}")
    split = dataset.train.first(training)
    wanted = None if target is None else choose_targets(split.y[:1], target, dataset.classes, seed)
    areas, trial = tuple(sorted(set(areas))), shape(SIZE)
    scales = [placement.covering(area, trial, dataset.shape).scale[0] for area in areas]
    longest = max(4, min(SIZE, round(scales[-1] * min(dataset.shape[1:]))))
    made = patch_attack(
        None if wanted is None else int(wanted[0]), shape=shape, size=size or longest,
        placement=replace(placement, scale=(scales[0], scales[-1])), steps=steps,
        pictures=pictures, step_size=step_size, seed=seed,
    )(model, split.x, split.y, progress)  # fmt: skip
    x, y = drawn_examples(dataset, examples, seed)
    places = {a: placement.covering(a, made.mask, dataset.shape) for a in areas}
    points = patch_success(model, made, x, y, list(places.values()), seed)
    result = header("patch", seed, dataset, len(y))
    result["rows"] = [_row(name, model, made, x, y, places)]
    result["patch"] = _told(made, dataset, points, len(split))
    result["notes"] = [
        *_sentences(made, dataset, points),
        *_written(made, out, millimetres, dpi, border),
    ]
    gallery = Gallery(dataset.classes)
    middle = areas[len(areas) // 2]
    _show(gallery, name, _label(middle), model, replace(made, placement=places[middle]), x, y)
    result["seconds"] = round(time.perf_counter() - began, 3)
    return finish(result, gallery, out)


def _label(area: float) -> str:
    """Return the attack's name, one word for the page: patch-20-percent."""
    return f"patch-{100 * area:.4g}-percent".replace(".", "_")


def _row(
    name: str, model: nn.Module, made: Patch, x: Tensor, y: Tensor, places: dict[float, Placement]
) -> Json:
    """Return the network's row of the table: what is left of it under each size of patch."""
    attacks, clean = {}, {}
    for area, place in places.items():
        found = robust_accuracy(model, x, y, replace(made, placement=place, made_by=""))
        attacks[_label(area)], clean = found.json(), found.clean.json()
    parameters = sum(p.numel() for p in model.parameters())
    return {"form": name, "parameters": parameters, "clean": clean, "attacks": attacks}


def _told(made: Patch, dataset: Dataset, points: list[PatchPoint], training: int) -> Json:
    return {
        "target": None if made.target is None else dataset.classes[made.target],
        "made_by": made.made_by,
        "shape": list(made.pattern.shape),
        "training_pictures": training,
        "forward": made.forward,
        "backward": made.backward,
        "history": [round(value, 6) for value in made.history],
        "points": [point.json() for point in points],
    }


def _sentences(made: Patch, dataset: Dataset, points: list[PatchPoint]) -> list[str]:
    """Return a sentence for each size, the controls in it."""
    if made.target is None:
        wants, of = "read wrong", "pictures that are read right without it"
    else:
        wants, of = f"read as {dataset.classes[made.target]}", "pictures of other classes"
    found = []
    for point in points:
        control = f"random values {point.noise.value:.1%}"
        if point.picture is not None:
            control += f", a real picture in its place {point.picture.value:.1%}"
        found.append(
            f"Over {point.area:.1%} of the picture: {point.patch.value:.1%} of {point.patch.total} {of} "
            f"are {wants} (95 % interval {point.patch.low:.1%} to {point.patch.high:.1%}); {control}, "
            f"nothing {point.clean.value:.1%}."
        )
    return found


def _written(made: Patch, out: Path, millimetres: float, dpi: int, border: float) -> list[str]:
    """Write the patch's own files, and say what a reader must know of them."""
    from walnut.report.printing import print_patch

    tensors = {"pattern": made.pattern.cpu().contiguous(), "mask": made.mask.cpu().contiguous()}
    write_bytes(out / "patch.safetensors", to_bytes(tensors))
    if len(made.pattern) not in (1, 3):
        return [f"The patch has {len(made.pattern)} channels and cannot be printed."]
    print_patch(
        made.pattern.cpu().double().numpy(), made.mask.cpu().double().numpy(), out / "patch.png",
        millimetres=millimetres, dpi=dpi, border=border,
    )  # fmt: skip
    return [f"patch.png is {millimetres:g} mm on its longer side when printed at 100 %."]


def _show(
    gallery: Gallery, name: str, label: str, model: nn.Module, made: Patch, x: Tensor, y: Tensor
) -> None:
    """Add pictures with the patch on them."""
    record, clean = made(model, x, y), predict(model, x).argmax(1)
    other = torch.ones_like(y, dtype=torch.bool) if made.target is None else y != made.target
    rows = varied(y, record.success & (clean == y) & other, 12)
    gallery.add(name, label, 0.0, x, y, clean, record, rows)
    for entry in gallery.entries:
        del entry["eps"]  # a patch has no radius
