"""A folder of images: one sub-folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from walnut.core.errors import WalnutError

from .dataset import Dataset, assemble

_SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".tif", ".tiff",
}  # fmt: skip


def folder(path: Path, *, size: int | None = None, seed: int = 0) -> Dataset:
    """Return the images under ``path``, cut 60/20/20 into train, validation and test.

    Classes are the sub-folders in alphabetical order. Images are grey where all of them are, else
    colour; all must be of one size, or be resized to ``size`` x ``size`` pixels (bilinear).

    Raises:
        WalnutError: no folder, no images, one class only, mixed sizes, an unreadable image.
    """
    if not path.is_dir():
        raise WalnutError(f"there is no folder {path}")
    files, y, classes = _listed(path)
    images = [_opened(file, size) for file in files]
    sizes: dict[tuple[int, int], Path] = {}
    for image, file in zip(images, files, strict=True):
        sizes.setdefault(image.size, file)
    if len(sizes) > 1:
        said = ", ".join(f"{w}x{h} ({file})" for (w, h), file in list(sizes.items())[:3])
        raise WalnutError(
            f"the images in {path} have different sizes: {said}; resize them, or add the size to "
            f"take: folder:{path}?size=32"
        )
    mode = "L" if all(image.mode in ("L", "1") for image in images) else "RGB"
    arrays = np.stack([np.asarray(image.convert(mode)) for image in images])
    pixels = arrays[:, None] if mode == "L" else arrays.transpose(0, 3, 1, 2)
    return assemble(
        f"folder:{path}", (pixels, y), None, classes=classes, validation=0.2, seed=seed
    )  # fmt: skip


def _listed(path: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Return the image files, their labels and the names of the classes."""
    parts = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {p: sorted(f for f in p.iterdir() if f.suffix.lower() in _SUFFIXES) for p in parts}
    if not any(found.values()):
        raise WalnutError(f"{path} holds no images: put one sub-folder a class into it")
    for part, files in found.items():
        if not files:
            raise WalnutError(f"{part} holds no images: fill it or remove it")
    if len(found) < 2:
        raise WalnutError(f"{path} has one class ({parts[0].name}): a classifier needs two or more")
    files = [file for part in parts for file in found[part]]
    labels = np.repeat(np.arange(len(parts)), [len(found[part]) for part in parts])
    return files, labels, tuple(part.name for part in parts)


def _opened(path: Path, size: int | None) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            loaded = image if image.mode in ("L", "1") else image.convert("RGB")
            if size is not None:
                grey = loaded if loaded.mode != "1" else loaded.convert("L")
                return grey.resize((size, size), Image.Resampling.BILINEAR)
            return loaded.copy()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise WalnutError(f"{path} cannot be read as an image: {error}") from error
    except Image.DecompressionBombError as error:
        raise WalnutError(f"{path} is absurdly large: {error}") from error
