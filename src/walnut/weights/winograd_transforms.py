"""The matrices of Winograd's minimal filtering, exact: Cook-Toom over the rationals.

F(m, r) gives m outputs of a correlation with r taps by n = m + r − 1 multiplications, where the
plain sum takes m·r:

    y = Aᵀ [(G g) ⊙ (Bᵀ d)],   d (n,) data, g (r,) taps, y_k = Σ_j g_j d_{k+j}   (m,)

Winograd 1980; Lavin & Gray 2016, Eqs. 6-8. In two dimensions the matrices act on both sides (Eq. 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from walnut.core.errors import WalnutError

Matrix = tuple[tuple[Fraction, ...], ...]

POINTS = tuple(Fraction(p) for p in (0, 1, -1, 2, -2, "1/2", "-1/2", 4, -4, "1/4", "-1/4"))
"""Where polynomials are evaluated, the first first; infinity is always one more."""


@dataclass(frozen=True)
class tiles:
    """How many outputs one tile has along each side: 2 is F(2×2,3×3), 4 is F(4×4,3×3).

    A larger tile multiplies less and rounds more: its matrices hold larger numbers.

    >>> tiles(2).saving, tiles(4).saving
    (2.25, 4.0)
    """

    outputs: int = 4

    def __post_init__(self) -> None:
        if type(self.outputs) is not int or self.outputs not in (2, 4):
            raise WalnutError(f"a tile has 2 or 4 outputs a side, not {self.outputs!r:.40}")

    @property
    def side(self) -> int:
        """Return the inputs of a tile along each side, m + 2."""
        return self.outputs + 2

    @property
    def saving(self) -> float:
        """Return multiplications of the direct 3×3 sum over those of the tile, (3m / (m + 2))²."""
        return (3 * self.outputs / self.side) ** 2


f2 = tiles(2)
f4 = tiles(4)


@dataclass(frozen=True)
class Transforms:
    """Exact matrices of F(m, r): ``a`` (m, n) = Aᵀ, ``g`` (n, r) = G, ``b`` (n, n) = Bᵀ."""

    a: Matrix
    g: Matrix
    b: Matrix


def cook_toom(outputs: int, taps: int, points: Sequence[Fraction | int] = POINTS) -> Transforms:
    """Return the matrices of F(outputs, taps), without rounding.

    With p_0, ..., p_{n−2} the points and M_i(x) = Π_{j≠i} (x − p_j): column i of Aᵀ is (p_i^k)_k, row
    i of G is (p_i^k)_k / M_i(p_i), row i of Bᵀ holds the coefficients of M_i; the point at infinity
    gives (0, ..., 1), (0, ..., 1) and those of Π_j (x − p_j). Fractions stand in G only, which is
    applied once; signs of rows differ from Lavin & Gray's, the product does not.

    Args:
        outputs: m ≥ 1.
        taps: r ≥ 1.
        points: at least m + r − 2 different ones; the first are taken.

    Raises:
        WalnutError: sizes below one, or too few different points.

    >>> [[int(v) for v in row] for row in cook_toom(2, 3).a]
    [[1, 1, 1, 0], [0, 1, -1, 1]]
    """
    if outputs < 1 or taps < 1:
        raise WalnutError(f"F({outputs}, {taps}): both sizes are at least 1")
    n = outputs + taps - 1
    chosen = [Fraction(p) for p in points][: n - 1]
    if len(set(chosen)) < n - 1:
        raise WalnutError(f"F({outputs}, {taps}) needs {n - 1} different points")
    others = [[q for j, q in enumerate(chosen) if j != i] for i in range(n - 1)]
    scale = [prod((p - q for q in rest), start=Fraction(1)) for p, rest in zip(chosen, others)]  # noqa: B905
    a = [[p**k for p in chosen] + [Fraction(k == outputs - 1)] for k in range(outputs)]
    g = [[p**k / s for k in range(taps)] for p, s in zip(chosen, scale, strict=True)]
    g.append([Fraction(k == taps - 1) for k in range(taps)])
    b = [[*_coefficients(rest), Fraction(0)] for rest in others] + [_coefficients(chosen)]
    return Transforms(_frozen(a), _frozen(g), _frozen(b))


def _coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients of Π (x − root), the constant first."""
    found = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *found], [-root * c for c in found] + [Fraction(0)]
        found = [s + t for s, t in zip(shifted, scaled, strict=True)]
    return found


def _frozen(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)
