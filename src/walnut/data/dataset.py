"""A data set: three splits of examples in [0, 1], their shape and the names of the classes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from walnut.core.errors import WalnutError


@dataclass(frozen=True, eq=False)
class Split:
    """Examples: x (n, *shape) float32 in [0, 1], y (n,) int64 in {0, ..., classes − 1}."""

    x: Float[Tensor, " n *d"]
    y: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"Split({len(self)} examples)"

    def first(self, count: int | None) -> Split:
        """Return the first ``count`` examples (all of them where it is None or more than there are)."""
        return self if count is None else Split(self.x[:count], self.y[:count])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples to learn from, to tune on (validation) and to report (test: never tuned on).

    Args:
        name: what it was loaded as.
        classes: the names of the classes, in the order of the labels.
        shape: of one example: (C, H, W), or (columns,) for a table.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    shape: tuple[int, ...]

    def digest(self) -> str:
        """Return the sha256 of all decoded arrays, splits in order: the identity of the data."""
        total = hashlib.sha256(repr((self.shape, self.classes)).encode())
        for split in (self.train, self.validation, self.test):
            for tensor in (split.x, split.y):
                total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                total.update(tensor.contiguous().numpy().data)
        return total.hexdigest()

    def statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation per channel of the training split, to 4 decimals.

        A channel that never changes gets a deviation of 1.
        """
        x = self.train.x
        std, mean = torch.std_mean(x, [0, *range(2, x.ndim)], correction=0)
        std = torch.where(std < 1e-4, torch.ones_like(std), std)
        return [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in std.tolist()]


def slices(
    y: np.ndarray, shares: Mapping[str, int | float], seed: int
) -> dict[str | None, np.ndarray]:
    """Cut examples into random parts in which every class has its share, by seed.

    Args:
        y: labels (n,).
        shares: how many examples (int), or which share of them (float), each part gets.
        seed: of the cut.

    Returns:
        rows of each part, shuffled (so that its first examples are of all classes); key None holds
        the rest. Counts are exact: each class gives the whole number below its share, and those
        with the largest remainders one more.
    """
    rng = np.random.default_rng(seed)
    pools = [rng.permutation(np.flatnonzero(y == c)) for c in range(int(y.max()) + 1)]
    parts: dict[str | None, np.ndarray] = {}
    sizes = np.array([len(pool) for pool in pools])
    for name, share in shares.items():
        count = share if isinstance(share, int) else round(share * len(y))
        exact = count * sizes / len(y)
        take = np.floor(exact).astype(int)
        take[np.argsort(-(exact - take), kind="stable")[: count - take.sum()]] += 1
        parts[name] = np.concatenate([p[:t] for p, t in zip(pools, take, strict=True)])
        pools = [pool[t:] for pool, t in zip(pools, take, strict=True)]
    parts[None] = np.concatenate(pools)
    return {name: rng.permutation(rows) for name, rows in parts.items()}


def as_split(pixels: np.ndarray, y: np.ndarray) -> Split:
    """Return arrays as a split: uint8 is divided by 255, floats are taken as they are."""
    x = torch.from_numpy(np.ascontiguousarray(pixels))
    x = x.float().div_(255.0) if x.dtype == torch.uint8 else x.float()
    return Split(x, torch.from_numpy(np.ascontiguousarray(y, dtype=np.int64)))


def assemble(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    *,
    classes: tuple[str, ...],
    validation: int | float,
    seed: int,
) -> Dataset:
    """Put a data set together, cutting validation (and test, where there is none) off train.

    Args:
        train, test: pixels (n, *shape), uint8 or floats in [0, 1], and labels (n,).
        validation: examples, or share of train; a test split that must be cut takes the same.
        seed: of the cut.
    """
    pixels, y = train
    shares = {"validation": validation} | ({} if test is not None else {"test": validation})
    parts = slices(y, shares, seed)
    if min(len(rows) for rows in parts.values()) == 0:
        raise WalnutError(f"{name} has {len(y)} examples: too few for three splits")
    held = test if test is not None else (pixels[parts["test"]], y[parts["test"]])
    return Dataset(
        name=name,
        train=as_split(pixels[parts[None]], y[parts[None]]),
        validation=as_split(pixels[parts["validation"]], y[parts["validation"]]),
        test=as_split(*held),
        classes=classes,
        shape=tuple(int(side) for side in pixels.shape[1:]),
    )
