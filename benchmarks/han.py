"""The size of a pruned and shared layer in the accounting of Han et al. 2016: bits times counts.

Section 2: the zeros before each non-zero in so many bits, a filler zero where they are too few;
section 3: an index into the codebook for each entry, fillers included, and the codebook in 32 bits
a value; section 5: indices and gaps in Huffman code. As in the paper the Huffman tables are not
counted; a second figure counts them, with 4 bits for the code length of each symbol. Biases are
counted in 32 bits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from walnut.codec import huffman


@dataclass(frozen=True)
class Accounts:
    """What a layer counts: numbers of weights, and bits."""

    parameters: int
    weights: int
    nonzeros: int
    entries: int
    weight_bits: float
    gap_bits: float
    weight_bits_coded: float
    gap_bits_coded: float
    tables: float
    extra: float

    def json(self) -> dict[str, Any]:
        """Return the figures of the paper's table beside the counts."""
        dense = 32 * self.parameters
        plain = self.weight_bits + self.gap_bits + self.extra
        coded = self.weight_bits_coded + self.gap_bits_coded + self.extra
        return asdict(self) | {
            "kept": round(self.nonzeros / self.weights, 4),
            "bits_a_weight": round(self.weight_bits / self.entries, 2),
            "bits_a_weight_coded": round(self.weight_bits_coded / self.entries, 2),
            "bits_a_gap": round(self.gap_bits / self.entries, 2),
            "bits_a_gap_coded": round(self.gap_bits_coded / self.entries, 2),
            "ratio_prune_share": round(dense / plain, 2),
            "ratio_coded": round(dense / coded, 2),
            "ratio_coded_with_tables": round(dense / (coded + self.tables), 2),
        }

    @staticmethod
    def total(parts: list[Accounts]) -> Accounts:
        """Return the sum over layers."""
        rows = [asdict(part) for part in parts]
        return Accounts(**{key: sum(row[key] for row in rows) for key in rows[0]})


def accounts(weight: Tensor, bias: Tensor, bits: int, gap_bits: int) -> Accounts:
    """Return the accounts of a layer whose shared values take ``bits`` and gaps ``gap_bits``.

    The codebook has 2^bits words, one of which is the filler's zero.
    """
    flat = weight.detach().reshape(-1).numpy()
    gaps, filler = _gaps(flat, gap_bits)
    values, index = np.unique(flat[flat != 0], return_inverse=True)
    if len(values) >= 1 << bits:
        raise ValueError(f"{len(values)} values and the filler do not fit into {bits} bits")
    words = np.zeros(len(gaps), np.int64)  # 0: a filler
    words[~filler] = index + 1
    word_counts = np.bincount(words, minlength=1 << bits)
    gap_counts = np.bincount(gaps, minlength=1 << gap_bits)
    return Accounts(
        parameters=len(flat) + bias.numel(),
        weights=len(flat),
        nonzeros=int((~filler).sum()),
        entries=len(gaps),
        weight_bits=len(gaps) * bits,
        gap_bits=len(gaps) * gap_bits,
        weight_bits_coded=_huffman(word_counts),
        gap_bits_coded=_huffman(gap_counts),
        tables=4.0 * (len(word_counts) + len(gap_counts)),
        extra=32.0 * (len(values) + bias.numel()),
    )


def _gaps(flat: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the zeros before each entry (below 2^bits), and which entries are fillers.

    A filler is itself a zero: it stands for 2^bits − 1 zeros and one more.

    >>> _gaps(np.array([0, 1, 0, 0, 0, 0, 0, 2]), 2)
    (array([1, 3, 1]), array([False,  True, False]))
    """
    gaps = np.diff(np.flatnonzero(flat), prepend=-1) - 1
    span = 1 << bits
    fillers = gaps // span
    ends = np.cumsum(fillers + 1)
    out = np.full(int(ends[-1]) if len(ends) else 0, span - 1, np.int64)
    filler = np.ones(len(out), bool)
    out[ends - 1], filler[ends - 1] = gaps % span, False
    return out, filler


def _huffman(counts: np.ndarray) -> float:
    """Return the bits of symbols with these counts in their Huffman code."""
    if (counts > 0).sum() < 2:
        return float(counts.sum())
    return float((counts * huffman.lengths(counts).astype(np.int64)).sum())
