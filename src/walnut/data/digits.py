"""scikit-learn's handwritten digits: 1,797 grey images of 8x8, installed with it."""

from __future__ import annotations

import numpy as np

from .dataset import Dataset, assemble


def digits(seed: int = 0) -> Dataset:
    """Return the digits, values k/16, cut 60/20/20 into train, validation and test.

    Source: E. Alpaydin, C. Kaynak, UCI "Optical Recognition of Handwritten Digits" (its test part).
    """
    from sklearn.datasets import load_digits  # a second to import

    found = load_digits()
    pixels = (found.images / 16.0).astype(np.float32)[:, None]
    return assemble(
        "digits",
        (pixels, found.target.astype(np.int64)),
        None,
        classes=tuple(str(i) for i in range(10)),
        validation=0.2,
        seed=seed,
    )
