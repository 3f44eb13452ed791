"""A patch on paper: a PNG of a stated size, transparent where nothing is to be cut out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from ..core.errors import WalnutError
from ..core.files import write_atomically

INCH = 25.4  # millimetres
MARK = 3.0  # millimetres, length of a crop mark
LARGEST = 12_000  # pixels a side: a metre at 300 dpi


def enlarged(values: Shaped[np.ndarray, "h w *c"], size: tuple[int, int]) -> np.ndarray:
    """Return each texel as a block of equal pixels: (height, width, ...), no value between two."""
    rows, columns = (
        np.floor((np.arange(n) + 0.5) * old / n).astype(int)
        for n, old in zip(size, values.shape, strict=False)
    )
    return values[rows][:, columns]


def colours(
    patch: Float[np.ndarray, "c h w"], mask: Shaped[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 4"]:
    """Return texels as red, green, blue and opacity, 8 bits each."""
    if patch.shape[0] not in (1, 3) or patch.shape[1:] != mask.shape:
        raise WalnutError(
            f"a patch {patch.shape} with mask {mask.shape} cannot be printed: it needs 1 channel (grey) "
            "or 3 (colour), and a mask of its height and width"
        )
    inside = np.isfinite(patch).all() and patch.min() >= 0 and patch.max() <= 1
    if not inside or mask.min() < 0 or mask.max() > 1:
        raise WalnutError("a printed patch and its mask hold values in [0, 1] only")
    painted = np.broadcast_to(patch.transpose(1, 2, 0), (*mask.shape, 3))
    return np.rint(255 * np.concatenate([painted, mask[..., None]], 2)).astype(np.uint8)


def marked(page: np.ndarray, border: int, length: int, width: int) -> None:
    """Draw black crop marks in the border, in line with the edges of what it surrounds."""
    height, across = page.shape[:2]
    for at in (border, height - border):
        row = slice(max(at - (width + 1) // 2, 0), at + width // 2)
        page[row, :length] = page[row, across - length :] = (0, 0, 0, 255)
    for at in (border, across - border):
        column = slice(max(at - (width + 1) // 2, 0), at + width // 2)
        page[:length, column] = page[height - length :, column] = (0, 0, 0, 255)


def print_patch(
    patch: Float[np.ndarray, "c h w"],
    mask: Shaped[np.ndarray, "h w"],
    path: Path,
    *,
    millimetres: float = 50.0,
    dpi: int = 300,
    border: float = 0.0,
) -> Path:
    """Write a patch as a PNG to be printed at 100 %, and return its path.

    The file says how large it is (its pHYs chunk, in pixels per metre). A texel becomes a block of
    equal pixels, so that each value is exactly the patch's, rounded to 8 bits; the mask is the opacity.
    A tensor is given as ``patch.pattern.numpy()``.

    Args:
        patch: (c, h, w) in [0, 1], grey or colour.
        mask: (h, w) in [0, 1].
        path: of the file; it appears whole or not at all.
        millimetres: of the longer side, to the nearest pixel.
        dpi: pixels per inch.
        border: transparent margin with crop marks, in millimetres; none unless given.

    >>> import tempfile
    >>> made = print_patch(np.zeros((1, 2, 2)), np.ones((2, 2)), Path(tempfile.mkdtemp()) / "p.png")
    >>> with Image.open(made) as image:
    ...     image.size
    (591, 591)
    """
    if not 0 < millimetres <= 2000 or not 1 <= dpi <= 4800 or not 0 <= border <= 200:
        raise WalnutError(
            "a patch is printed at up to 2000 millimetres, 1 to 4800 dpi, with a border of 0 to 200 "
            f"millimetres: not {millimetres:g}, {dpi} and {border:g}"
        )
    texels = colours(patch, mask)
    longer = millimetres / INCH * dpi / max(mask.shape)
    height, width = (round(longer * n) for n in mask.shape)
    if max(height, width) > LARGEST:
        raise WalnutError(f"{max(height, width)} pixels a side are too many: print it coarser")
    if longer < 1:
        raise WalnutError(
            f"{millimetres:g} mm at {dpi} dpi is {max(height, width)} pixels, too few for "
            f"{max(mask.shape)} texels: print it larger, or finer"
        )
    pixels = enlarged(texels, (height, width))
    edge = math.ceil(border / INCH * dpi)
    page = np.zeros((height + 2 * edge, width + 2 * edge, 4), dtype=np.uint8)
    page[edge : edge + height, edge : edge + width] = pixels
    if edge:
        marked(page, edge, min(edge, round(MARK / INCH * dpi)), max(2, round(0.2 / INCH * dpi)))
    image = Image.fromarray(page)
    write_atomically(path, lambda place: image.save(place, format="PNG", dpi=(dpi, dpi)))
    return path
