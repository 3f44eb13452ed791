"""Floats that are whole multiples of a scale: w = k · scale, bit for bit in float32."""

from __future__ import annotations

import numpy as np

from .mixing import Array

MOST = 1 << 15
"""Magnitudes of k are below this."""

_SMALLEST_K = 12  # the smallest non-zero magnitude may be any of these multiples of the scale


def values(k: Array, scale: Array) -> Array:
    """Return k (n,) times the scale, or times the scale of its row, as float32 (n,)."""
    with np.errstate(all="ignore"):  # a file may hold any scale
        table = k.reshape(len(scale), -1).astype(np.float32) * scale[:, None]
    return table.reshape(-1)


def multiples(w: Array, scale: np.float32) -> Array | None:
    """Return k (n,) int32 with w = k · scale to the bit, or None where there is none."""
    if not (np.isfinite(scale) and scale > 0):
        return None
    with np.errstate(all="ignore"):
        ratio = np.rint(w / scale)
        if not np.all(np.abs(ratio) < MOST):
            return None
        k = ratio.astype(np.int32)  # before the comparison: −0 is no whole number
        same = np.array_equal((k.astype(np.float32) * scale).view("<u4"), w.view("<u4"))
    return k if same else None


def _scale(distinct: Array) -> np.float32 | None:
    """Return a scale that all of these values are multiples of, the largest that is found."""
    size = np.abs(distinct)
    live = size[size > 0]
    if (
        not len(live)
        or not np.isfinite(size).all()
        or float(live.max()) / float(live.min()) >= MOST
    ):
        return None
    for j in range(1, _SMALLEST_K + 1):
        near = np.float32(live.min() / np.float32(j))
        with np.errstate(all="ignore"):
            about = (
                near,
                np.nextafter(near, np.float32(np.inf)),
                np.nextafter(near, np.float32(0)),
            )
        for scale in about:
            if multiples(distinct, scale) is not None:
                return scale
    return None


def find(w: Array, rows: int, few: tuple[Array, Array] | None) -> tuple[Array, Array] | None:
    """Return the scale (1,) or (rows,) and k (n,) int32 of float32 values (n,), or None.

    The scale is looked for among the smallest magnitude and its first twelve fractions, for all
    values together, then for each row by itself. ``few``: the distinct words, and which one each is.
    """
    if len(w) < 2 or not np.isfinite(w[:64]).all():
        return None
    if few is not None or len(w) <= 2 * MOST:
        distinct, index = np.unique(w.view("<u4"), return_inverse=True) if few is None else few
        scale = _scale(distinct.view("<f4"))
        k = None if scale is None else multiples(distinct.view("<f4"), scale)
        if scale is not None and k is not None:
            return np.array([scale], "<f4"), k[index]
    if rows < 2 or len(w) < 8 * rows:
        return None
    table = w.reshape(rows, -1)
    scales, ks = np.ones(rows, "<f4"), []
    for r in range(rows):
        found = _scale(np.unique(table[r])) if table[r].any() else np.float32(1)
        k = None if found is None else multiples(table[r], found)
        if found is None or k is None:
            return None
        scales[r] = found
        ks.append(k)
    return scales, np.concatenate(ks)
