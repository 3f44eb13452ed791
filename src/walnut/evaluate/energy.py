"""Energy of one inference by a published table of what operations cost in 45 nm silicon.

A model and not a measurement: it tells orders of magnitude, and which part dominates.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from walnut.core.errors import WalnutError

from .cost import Cost, cost
from .memory import activation_memory

SOURCE = (
    "Horowitz 2014, “Computing’s energy problem (and what we can do about it)”, ISSCC, Fig. 1.1.9: "
    "45 nm, 0.9 V"
)
LIMITS = (
    "Counts multiplications, additions, one read of every weight from DRAM and one write and one "
    "read of every activation in an 8 KB SRAM. Left out: instructions, control, leakage, caches "
    "that miss, weights read more than once. A zero is multiplied like any number. Another process "
    "or chip has other figures; compare networks, do not plan batteries."
)

DRAM_PER_WORD = 640.0
"""pJ to read 32 bits from DRAM: 1.3-2.6 nJ for 64 bits; as Han et al. 2015, Table 1, take it."""
SRAM_PER_WORD = 5.0
"""pJ to read or write 32 bits in an SRAM of 8 KB: 10 pJ for 64 bits."""


@dataclass(frozen=True)
class Arithmetic:
    """What a multiplication and an addition cost, in pJ, and the bits of an operand.

    The addition is the accumulator's: products of int8 are summed in int32.
    """

    name: str
    bits: int
    multiply: float
    add: float


FP32 = Arithmetic("fp32", 32, 3.7, 0.9)
FP16 = Arithmetic("fp16", 16, 1.1, 0.4)
INT8 = Arithmetic("int8", 8, 0.2, 0.1)


@dataclass(frozen=True)
class Energy:
    """Microjoules per inference: arithmetic, weights from DRAM, activations in SRAM."""

    arithmetic: float
    weights: float
    activations: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.arithmetic + self.weights + self.activations

    def json(self) -> dict[str, Any]:
        """Return plain numbers, and where they are from."""
        return {k: round(v, 6) for k, v in asdict(self).items()} | {
            "total": round(self.total, 6),
            "source": SOURCE,
        }


def energy(
    model: nn.Module,
    shape: tuple[int, ...],
    *,
    arithmetic: Arithmetic = FP32,
    weight_bytes: int | None = None,
    counts: Cost | None = None,
) -> Energy:
    """Return the energy of one inference, batch 1.

    E = n_mac · (E_mult + E_add) + ⌈weight bytes / 4⌉ · E_DRAM + 2 · ⌈activation bytes / 4⌉ · E_SRAM

    Args:
        model: network.
        shape: of one example.
        arithmetic: of all multiply-adds; activations take its bits too.
        weight_bytes: what is read from DRAM; unless given, every parameter in ``arithmetic``'s
            bits. A packed file's length is right only where hardware decodes it on the way in.
        counts: of the network, where they are known already.

    See ``SOURCE`` and ``LIMITS``.

    >>> round(energy(nn.Linear(10, 3, bias=False), (10,)).arithmetic, 6)  # 30 · 4.6 pJ
    0.000138
    """
    counts = cost(model, shape) if counts is None else counts
    stored = (
        (counts.parameters * arithmetic.bits + 7) // 8 if weight_bytes is None else weight_bytes
    )
    if stored < 0:
        raise WalnutError("weight_bytes must not be negative")
    reference = next(model.parameters(), None)
    width = 4 if reference is None else reference.element_size()
    moved = activation_memory(model, shape).moved_bytes * arithmetic.bits // (8 * width)
    per_mac = arithmetic.multiply + arithmetic.add
    return Energy(
        arithmetic=1e-6 * counts.multiply_adds * per_mac,
        weights=1e-6 * -(-stored // 4) * DRAM_PER_WORD,
        activations=1e-6 * 2 * -(-moved // 4) * SRAM_PER_WORD,
    )
