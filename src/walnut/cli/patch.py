"""``walnut patch``: make a patch that fools wherever it is stuck, and a file to print it from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from walnut.core.errors import WalnutError

from .options import ExampleOptions, NetworkOptions, Options
from .run import Run, network_name
from .tables import percent
from .values import Count, OptionalPath, choice, listed, many, number, one

FOLDER = True

Area = Annotated[float, BeforeValidator(number), Field(gt=0, lt=1)]
Areas = Annotated[tuple[Area, ...], BeforeValidator(listed), Field(min_length=1), many("SHARE")]
Degrees = Annotated[float, BeforeValidator(number), Field(ge=0, le=180), one("DEGREES")]
Length = Annotated[float, BeforeValidator(number), Field(gt=0, le=2000), one("MM")]
Rim = Annotated[float, BeforeValidator(number), Field(ge=0, le=200), one("MM")]
Dots = Annotated[int, Field(ge=1, le=4800), one("DPI")]


class Config(ExampleOptions, NetworkOptions, Options):
    """Make one patch that fools a network on any picture, try it on others, and write it to be printed.

    Example: walnut patch --model lenet.walnut --data mnist --target 3 --areas 0.05 0.1 0.2

    The folder has patch.png, to be printed at 100 %, and patch.safetensors (pattern and mask).
    """

    target: Annotated[str | None, one("LABEL", "any-wrong-one")] = None
    """The label that every picture shall be read as: a class name or its number."""
    areas: Areas = (0.02, 0.05, 0.1, 0.2, 0.3)
    """Shares of the picture that the patch covers; it is made for all from the least to the most."""
    shape: Annotated[Literal["circle", "square"], choice("circle", "square")] = "circle"
    """The outline."""
    sticker: OptionalPath = None
    """A picture whose opaque part (or, without transparency, whose light part) is the outline instead."""
    degrees: Degrees = 22.5
    """Turned by up to so much either way; 180 is any angle."""
    steps: Count = 300
    """Gradient steps."""
    pictures: Count = 64
    """Training pictures per step."""
    training: Count = 5000
    """How many training pictures it is made on."""
    millimetres: Length = 50.0
    """The longer side of patch.png on paper."""
    dpi: Dots = 300
    """Dots per inch of patch.png."""
    border: Rim = 0.0
    """A white border round the printed patch."""


def run(config: Config, run: Run) -> None:
    """Make it, and print how often it works at each size."""
    outline = None if config.sticker is None else outline_of(config.sticker)
    model, dataset = run.subject()
    from walnut.core.placement import Placement, circle, square, sticker
    from walnut.recipes.patch import patch

    plain = circle() if config.shape == "circle" else square()
    result = patch(
        model,
        dataset,
        out=run.folder,
        target=config.target,
        areas=config.areas,
        shape=plain if outline is None else sticker(outline),
        placement=Placement(degrees=config.degrees),
        steps=config.steps,
        pictures=config.pictures,
        training=config.training,
        examples=config.examples,
        millimetres=config.millimetres,
        dpi=config.dpi,
        border=config.border,
        name=network_name(config.model),
        seed=config.seed,
        progress=run.screen.progress,
    )
    whole = run.deliver(result)
    run.screen.say(f"clean accuracy {percent(whole['rows'][0]['clean'])} %")
    aim = whole["patch"]["target"]
    run.screen.table(
        f"read as {aim}, in % of the others" if aim else "read wrong, in % of those right",
        ["of the picture", "patch", "random values", "a real picture", "nothing"],
        map(cells, whole["patch"]["points"]),
    )
    if (run.folder / "patch.png").exists():
        run.screen.say(f"patch {run.folder / 'patch.png'}, {config.millimetres:g} mm at 100 %")
    run.screen.say(f"page {run.folder / 'report.html'}")


def cells(point: dict[str, Any]) -> list[str]:
    """Return the row of one size: what the patch does, and what its controls do."""
    controls = [percent(point.get(name)) for name in ("patch", "noise", "picture", "clean")]
    return [f"{100 * point['area']:.3g} %", *controls]


def outline_of(path: Path) -> Any:
    """Return the outline that a picture shows, as a mask (h, w) in [0, 1].

    Raises:
        WalnutError: no such file, no picture, or nothing opaque in it.
    """
    import numpy as np
    import torch
    from PIL import Image

    try:
        with Image.open(path) as image:
            clear = "A" in image.getbands() or "transparency" in image.info
            layer = image.convert("RGBA").getchannel("A") if clear else image.convert("L")
            mask = np.asarray(layer, dtype=np.float32) / 255
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        told = getattr(error, "strerror", None) or "it is not a picture that can be read"
        raise WalnutError(f"--sticker {path}: {told}") from None
    if not mask.any():
        raise WalnutError(f"--sticker {path}: nothing in it is opaque")
    return torch.from_numpy(mask)
