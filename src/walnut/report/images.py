"""Arrays as small pictures inside the page, and the pictures of what an attack did."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image as Pillow

from ..core.errors import WalnutError
from .palette import series
from .parts import Attempt, Example, Group, Image
from .words import attack_name, known, listed, plural, radius

SIDE = 80  # CSS pixels a picture should take, about
LARGEST = 96  # pixels a side kept in the page; larger pictures are made smaller
STRIP = 256  # entries of a vector that can still be told apart in a strip
KINDS = ("original", "perturbation", "adversarial")

Pictures = dict[str, np.ndarray]


def readable(pictures: Pictures | None) -> str:
    """Return why the arrays cannot be shown as pictures, in words; empty when they can.

    Raises ``WalnutError`` when the three arrays do not belong together.
    """
    if not pictures:
        return "The result has no arrays beside it, so there are no pictures."
    missing = [kind for kind in KINDS if kind not in pictures]
    if missing:
        raise WalnutError(f"pictures lack {listed(missing)}: pass the arrays {listed(KINDS)}")
    shapes = {pictures[kind].shape for kind in KINDS}
    if len(shapes) > 1:
        raise WalnutError(
            f"pictures have different shapes {sorted(shapes)}: one row a picture each"
        )
    shape = pictures["original"].shape
    if len(shape) == 2 and shape[1] > STRIP:
        return f"The inputs are vectors of {shape[1]:,} numbers, too many to show as a strip."
    if len(shape) not in (2, 3, 4):
        return f"The inputs have shape {shape[1:]}, which is no picture and no vector."
    return ""


def pixels(array: Shaped[np.ndarray, " *d"]) -> UInt8[np.ndarray, "h w *c"]:
    """Return one example, brightness in [0, 1], as 8-bit pixels.

    A vector (d,) becomes one row; (h, w) and (1, h, w) are grey, (3, h, w) is colour; any other
    number of channels is shown by its mean.
    """
    values = np.clip(np.nan_to_num(array.astype(np.float64), nan=0.5), 0, 1)
    if values.ndim == 1:
        values = values[None]
    elif values.ndim == 3:
        values = values.transpose(1, 2, 0) if len(values) == 3 else values.mean(0)
    return np.round(255 * values).astype(np.uint8)


def picture(array: Shaped[np.ndarray, " *d"], alt: str) -> Image:
    """Return one example as a PNG that the page enlarges by a whole factor, pixels kept square."""
    shown = Pillow.fromarray(pixels(array))
    if max(shown.size) > LARGEST and array.ndim > 1:
        shown.thumbnail((LARGEST, LARGEST), Pillow.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, format="PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    if array.ndim == 1:
        return Image(source, alt, 2 * SIDE, 22)
    factor = max(1, round(SIDE / max(shown.size)))
    return Image(source, alt, factor * shown.width, factor * shown.height)


def magnification(deltas: Float[np.ndarray, " n *d"], wanted: Sequence[Any]) -> float:
    """Return the factor for a group's perturbations: the recorded one, less where it would clip.

    A perturbation is drawn as ``0.5 + factor * perturbation``; none leaves [0, 1].
    """
    largest = float(np.nanmax(np.abs(deltas), initial=0.0))
    fits = 0.5 / largest if largest > 0 else 1.0
    asked = [float(value) for value in wanted if known(value) and value > 0]
    return min([*asked, fits])


def groups(
    records: Sequence[dict[str, Any]], pictures: Pictures, forms: Sequence[str], budget: int
) -> tuple[tuple[Group, ...], int]:
    """Return the pictures by attack and radius, then by example, and how many were left out.

    Examples are left out once the pictures take more than ``budget`` bytes.
    """
    roles = series([*forms, *(str(record["form"]) for record in records)])
    keys = list(dict.fromkeys((str(r["attack"]), r.get("eps")) for r in records))
    spent, omitted = 0, 0
    made: list[Group] = []
    for attack, eps in keys:
        mine = [r for r in records if (str(r["attack"]), r.get("eps")) == (attack, eps)]
        rows = [check_row(r["array"], len(pictures["original"])) for r in mine]
        deltas = pictures["perturbation"][rows].astype(np.float64)
        factor = magnification(deltas, [r.get("magnification") for r in mine])
        examples: list[Example] = []
        for index in dict.fromkeys(r.get("index", r["array"]) for r in mine):
            tries = [r for r in mine if r.get("index", r["array"]) == index]
            if spent > budget:
                omitted += len(tries)
                continue
            examples.append(example(tries, pictures, roles, factor))
            spent += weight(examples[-1])
        if examples:
            made.append(Group(heading(attack, eps), explained(factor), tuple(examples)))
    return tuple(made), omitted


def check_row(row: object, rows: int) -> int:
    """Return a row of the arrays, or say that there is none such."""
    if not isinstance(row, int) or not 0 <= row < rows:
        raise WalnutError(f"a picture wants row {row!r} of arrays that have {plural(rows, 'row')}")
    return row


def heading(attack: str, eps: Any) -> str:
    """Return a group's heading."""
    name = attack_name(attack)
    name = name[:1].upper() + name[1:]
    return f"{name} at ε\u00a0=\u00a0{radius(eps)}" if known(eps) else name


def explained(factor: float) -> str:
    """Return how to read a group's perturbations, the factor stated."""
    return (
        f"Perturbations are drawn {factor:.3g} times as strong as they are, around mid-grey: "
        "grey is unchanged, brighter was made brighter, darker was made darker."
    )


def example(
    tries: Sequence[dict[str, Any]], pictures: Pictures, roles: dict[str, int], factor: float
) -> Example:
    """Return one original and what was tried on it."""
    first = tries[0]
    label = first.get("label")
    named = f"a true {label}" if label is not None else "an original"
    number = f"Example {first['index']}" if "index" in first else "Example"
    title = f"{number}, true label {label}" if label is not None else number
    original = picture(pictures["original"][first["array"]], f"{number}: {named}, unchanged")
    made = tuple(attempt(record, pictures, roles, factor) for record in tries)
    return Example(title, original, made)


def attempt(
    record: dict[str, Any], pictures: Pictures, roles: dict[str, int], factor: float
) -> Attempt:
    """Return what one form of the network made of one example."""
    row, form = record["array"], str(record["form"])
    reads, label = str(record.get("prediction", "?")), record.get("label")
    before = record.get("clean_prediction")
    fooled = bool(record.get("success"))
    outcome = "fooled" if fooled else "held"
    if label is not None and before is not None and str(before) != str(label):
        outcome = f"already read {before}"
        fooled = False
    delta = pictures["perturbation"][row].astype(np.float64)
    strengthened = picture(0.5 + factor * delta, f"its perturbation for {form}, {factor:.3g} times")
    told = f"the result for {form}: read as {reads}, {outcome}"
    result = picture(pictures["adversarial"][row], told)
    return Attempt(form, f"series-{roles[form]}", strengthened, result, reads, outcome, fooled)


def weight(shown: Example) -> int:
    """Return the bytes an example's pictures take in the page."""
    tries = [image for a in shown.attempts for image in (a.perturbation, a.adversarial)]
    return len(shown.original.source) + sum(len(image.source) + 400 for image in tries)
