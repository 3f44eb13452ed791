"""Arrays from an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from walnut.core.errors import WalnutError

from .dataset import Dataset, assemble

_ONE, _TWO = {"x", "y"}, {"x_train", "y_train", "x_test", "y_test"}


def npz(path: Path, *, seed: int = 0) -> Dataset:
    """Return the arrays ``x, y`` (cut 60/20/20), or ``x_train, y_train, x_test, y_test``.

    x is uint8 (divided by 255) or floats in [0, 1]: images (n, C, H, W), (n, H, W, C) or (n, H, W),
    or a table (n, columns). y holds whole numbers 0..K−1. ``classes`` may hold K names. Of
    x_train, 10 % become the validation split.

    Raises:
        WalnutError: no file, a damaged one, other keys, or values as above that are not so.
    """
    arrays = _read(path)
    name = f"npz:{path}"
    if _ONE.issubset(arrays):
        train = _examples(arrays["x"], arrays["y"], path)
        test, share = None, 0.2
    elif _TWO.issubset(arrays):
        train = _examples(arrays["x_train"], arrays["y_train"], path)
        test, share = _examples(arrays["x_test"], arrays["y_test"], path), 0.1
        if train[0].shape[1:] != test[0].shape[1:]:
            raise WalnutError(f"{path}: x_train and x_test hold examples of different shapes")
    else:
        raise WalnutError(
            f"{path} holds {sorted(arrays)}: it must hold x and y, or x_train, y_train, x_test and "
            "y_test"
        )
    classes = _classes(arrays, [train[1]] if test is None else [train[1], test[1]], path)
    return assemble(name, train, test, classes=classes, validation=share, seed=seed)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise WalnutError(f"there is no file {path}")
    try:
        with path.open("rb") as handle:
            file = np.load(handle, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise WalnutError(f"{path} is a single array: save x and y with np.savez")
            return {key: file[key] for key in file.files}
    except WalnutError:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        told = str(error).partition(" If you trust")[0]  # numpy's advice is to run what is in it
        raise WalnutError(f"{path} is not a sound .npz of plain arrays: {told}") from error


def _examples(x: np.ndarray, y: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise WalnutError(f"{path}: y must be whole numbers (n,), not {y.dtype} {y.shape}")
    if len(x) != len(y) or len(y) == 0:
        raise WalnutError(f"{path}: {len(x)} examples but {len(y)} labels")
    return _channels_first(_in_range(x, path), path), y.astype(np.int64)


def _in_range(x: np.ndarray, path: Path) -> np.ndarray:
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise WalnutError(f"{path}: x is {x.dtype}; store uint8, or floats in [0, 1]")
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise WalnutError(
            f"{path}: x runs from {low:g} to {high:g}; walnut works in [0, 1]: divide images by 255, "
            "scale the columns of a table to 0..1, and leave NaN out"
        )
    return x.astype(np.float32)


def _channels_first(x: np.ndarray, path: Path) -> np.ndarray:
    if x.ndim == 2:
        return x
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4:
        raise WalnutError(f"{path}: x has shape {x.shape}; give images or a table (n, columns)")
    first, last = x.shape[1] in (1, 3), x.shape[3] in (1, 3)
    return x.transpose(0, 3, 1, 2) if last and not first else x


def _classes(
    arrays: dict[str, np.ndarray], labels: list[np.ndarray], path: Path
) -> tuple[str, ...]:
    """Return the names of the classes, having held the labels against them."""
    seen = np.unique(np.concatenate(labels))
    named = "classes" in arrays
    count = len(arrays["classes"]) if named else len(seen)
    if seen[0] < 0 or seen[-1] >= count or count < 2:
        raise WalnutError(
            f"{path}: labels must be 0..K-1, two classes or more, none left out; "
            f"found {seen[:5].tolist()}{'...' if len(seen) > 5 else ''} up to {seen[-1]}"
        )
    return tuple(str(v) for v in (arrays["classes"] if named else range(count)))
