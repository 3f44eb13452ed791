"""From what a user names to a data set."""

from __future__ import annotations

import difflib
from pathlib import Path

from walnut.core.errors import WalnutError

from .dataset import Dataset
from .digits import digits
from .folder import folder
from .npz import npz
from .parquet import SOURCES, parquet


def names() -> tuple[str, ...]:
    """Return the names of the data sets that need no path.

    >>> names()
    ('digits', 'mnist', 'fashion_mnist', 'cifar10')
    """
    return ("digits", *SOURCES)


def load(spec: str, seed: int = 0) -> Dataset:
    """Return the data set that ``spec`` names.

    Args:
        spec: ``digits``, ``mnist``, ``fashion_mnist``, ``cifar10`` (case, dashes and underscores do
            not matter), ``folder:PATH`` (one sub-folder a class; ``folder:PATH?size=32`` resizes),
            or ``npz:PATH``.
        seed: of the cut into splits; the same for every run unless given.

    Raises:
        WalnutError: nothing of that name, or what is there cannot be used.

    >>> load("digits")
    Dataset(name='digits', train=Split(1079 examples), validation=Split(359 examples), \
test=Split(359 examples), classes=('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'), \
shape=(1, 8, 8))
    """
    kind, colon, rest = spec.partition(":")
    if colon and kind == "folder":
        path, size = _folder_size(rest)
        return folder(path, size=size, seed=seed)
    if colon and kind == "npz":
        return npz(Path(rest), seed=seed)
    plain = {name.replace("_", ""): name for name in names()}
    key = spec.lower().replace("-", "").replace("_", "")
    if key not in plain:
        near = difflib.get_close_matches(key, plain, n=1)
        hint = f" Did you mean {plain[near[0]]}?" if near else ""
        raise WalnutError(
            f"there is no data set {spec[:200]!r}.{hint} Give {', '.join(names())}, folder:PATH "
            "(one sub-folder a class) or npz:PATH"
        )
    return digits(seed) if plain[key] == "digits" else parquet(plain[key], seed)


def _folder_size(rest: str) -> tuple[Path, int | None]:
    path, question, option = rest.rpartition("?size=")
    if not question:
        return Path(rest), None
    if not option.isascii() or not option.isdigit() or not 1 <= int(option) <= 4096:
        raise WalnutError(f"size must be a whole number from 1 to 4096, not {option[:80]!r}")
    return Path(path), int(option)
