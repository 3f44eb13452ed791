"""MNIST, Fashion-MNIST and CIFAR-10 from Parquet files, here or on the Hugging Face hub."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from walnut.core.errors import WalnutError

from .dataset import Dataset, assemble

_VALIDATION = 5000  # examples cut off train


@dataclass(frozen=True)
class Source:
    """Where a set lies on the hub, and what is in it. Images are PNG, one row each."""

    repository: str
    folder: str
    column: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]


_DIGITS = tuple(str(i) for i in range(10))
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_THINGS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SOURCES = {
    "mnist": Source("ylecun/mnist", "mnist", "image", (1, 28, 28), _DIGITS),
    "fashion_mnist": Source(
        "zalando-datasets/fashion_mnist", "fashion_mnist", "image", (1, 28, 28), _CLOTHES
    ),
    "cifar10": Source("uoft-cs/cifar10", "plain_text", "img", (3, 32, 32), _THINGS),
}


def parquet(name: str, seed: int = 0) -> Dataset:
    """Return a set of :data:`SOURCES`: 5,000 examples of train are cut off for validation.

    Files are ``$WALNUT_DATA/<name>/{train,test}.parquet``, else those of the hub.

    Raises:
        WalnutError: neither is there, a part that reads them is missing, or a file is damaged.
    """
    source = SOURCES[name]
    train, test = (_read(_located(name, part), source) for part in ("train", "test"))
    return assemble(
        name, train, test, classes=source.classes, validation=_VALIDATION, seed=seed
    )  # fmt: skip


def _located(name: str, part: str) -> Path:
    """Return the path of one file, fetching it where it is not under WALNUT_DATA."""
    root = os.environ.get("WALNUT_DATA")
    here = Path(root) / name / f"{part}.parquet" if root else None
    if here is not None and here.is_file():
        return here
    source = SOURCES[name]
    missing = f"{here} is not there" if here is not None else "WALNUT_DATA is not set"
    remedy = (
        f"either set WALNUT_DATA to a folder that holds {name}/train.parquet and "
        f"{name}/test.parquet, or `pip install 'walnut-nn[hub]'` and let it be fetched from "
        f"huggingface.co/datasets/{source.repository}"
    )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise WalnutError(
            f"{name}: {missing} and huggingface_hub is not installed; {remedy}"
        ) from error
    try:
        return Path(
            hf_hub_download(
                source.repository,
                f"{source.folder}/{part}-00000-of-00001.parquet",
                repo_type="dataset",
            )
        )
    except Exception as error:  # the hub's client raises many kinds: network, name, disk
        raise WalnutError(
            f"{name}: {missing}, and fetching it failed ({error}); {remedy}"
        ) from error


def _read(path: Path, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (n, C, H, W) uint8 and labels (n,)."""
    table = _table(path)
    column = source.column if source.column in table.column_names else "image"
    if not {column, "label"} <= set(table.column_names):
        raise WalnutError(f"{path} has columns {table.column_names}, not image and label")
    try:
        encoded = table[column].combine_chunks().field("bytes").to_pylist()
        y = table["label"].to_numpy().astype(np.int64)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise WalnutError(f"{path}: image must be a struct with bytes, label a number") from error
    if len(y) == 0 or y.min() < 0 or y.max() >= len(source.classes):
        raise WalnutError(f"{path}: labels must be 0 to {len(source.classes) - 1}")
    return _decoded(encoded, source.shape, path), y


def _table(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise WalnutError(
            "reading Parquet needs pyarrow: pip install 'walnut-nn[parquet]'"
        ) from error
    try:
        return read_table(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise WalnutError(f"{path} is not a sound Parquet file: {error!s:.200}") from error


def _decoded(encoded: list[bytes | None], shape: tuple[int, int, int], path: Path) -> np.ndarray:
    channels, height, width = shape
    mode = "L" if channels == 1 else "RGB"
    pixels = np.empty((len(encoded), height, width, channels), np.uint8)
    for i, data in enumerate(encoded):
        try:
            image: Image.Image = Image.open(io.BytesIO(data or b""), formats=("PNG",))
            if image.size != (width, height):
                raise WalnutError(f"{path}: image {i} is {image.size}, not {(width, height)}")
            image = image if image.mode == mode else image.convert(mode)
            pixels[i] = np.frombuffer(image.tobytes(), np.uint8).reshape(height, width, channels)
        except (UnidentifiedImageError, OSError, SyntaxError, TypeError, ValueError) as error:
            if isinstance(error, WalnutError):
                raise
            raise WalnutError(f"{path}: image {i} cannot be read: {error}") from error
    return pixels.transpose(0, 3, 1, 2)
