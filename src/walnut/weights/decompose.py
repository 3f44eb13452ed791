"""Low-rank factors of one weight: matrices by SVD, kernels by Tucker-2 and CP.

All of it is torch.linalg in float64 on plain tensors; which layers the factors become is the
business of the forms (:mod:`walnut.weights.lowrank_forms`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.core.errors import WalnutError

_SWEEPS = 200  # of alternating least squares, at most
_SETTLED = 1e-9  # relative change of the error at which a sweep is the last


def split(
    w: Float[Tensor, "m n"], rank: int
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "k n"], Float[Tensor, " s"]]:
    """Return P, Q with P Q the best approximation of rank ``rank``, and all singular values of w.

    ‖w − P Q‖² = Σ_{i>k} σ_i² is the least there is (Eckart & Young 1936). Each factor takes √σ, so
    that the two layers' weights are of one size.

    >>> p, q, s = split(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 2)
    >>> round(float((torch.diag(torch.tensor([3.0, 2.0, 1.0])) - p @ q).norm()), 6)
    1.0
    """
    u, s, v = torch.linalg.svd(w.double(), full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * v[:rank], s


def leading(symmetric: Float[Tensor, "n n"], rank: int) -> Float[Tensor, "n k"]:
    """Return the eigenvectors of the largest eigenvalues, the largest first."""
    return torch.linalg.eigh(symmetric)[1].flip(1)[:, :rank]


def energies(symmetric: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """Return the eigenvalues of a covariance, the largest first, none below zero."""
    return torch.linalg.eigvalsh(symmetric).flip(0).clamp_min(0)


def roots(
    symmetric: Float[Tensor, "n n"], ridge: float = 1e-6
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """Return S^½ and S^−½ of a covariance, its eigenvalues lifted by ``ridge`` × their mean."""
    value, vector = torch.linalg.eigh(symmetric.double())
    value = value.clamp_min(0)
    value = value + ridge * value.mean() + 1e-30
    return (vector * value.sqrt()) @ vector.T, (vector / value.sqrt()) @ vector.T


def tucker2(
    w: Float[Tensor, "o i s"], rank_in: int, rank_out: int
) -> tuple[Float[Tensor, "o b"], Float[Tensor, "b a s"], Float[Tensor, "a i"]]:
    """Return P (o, b), core (b, a, s), Q (a, i) with w[o, i, s] ≈ Σ P[o, b] core[b, a, s] Q[a, i].

    Starts from the truncated HOSVD and improves by HOOI, each mode's subspace in turn, until the
    core's energy no longer grows. De Lathauwer et al. 2000; Kim et al. 2016 use it for networks.
    """
    w = w.double()
    q = leading(torch.einsum("ois,ojs->ij", w, w), rank_in)
    energy = -1.0
    for _ in range(_SWEEPS):
        narrow = torch.einsum("ois,ia->oas", w, q)
        p = leading(torch.einsum("oas,pas->op", narrow, narrow), rank_out)
        narrow = torch.einsum("ois,ob->bis", w, p)
        q = leading(torch.einsum("bis,bjs->ij", narrow, narrow), rank_in)
        core = torch.einsum("bis,ia->bas", narrow, q)
        now = float(core.square().sum())
        if now <= energy * (1 + _SETTLED):
            break
        energy = now
    return p, core, q.T


def cp(
    w: Float[Tensor, "o i h w"], rank: int
) -> tuple[Float[Tensor, "o r"], Float[Tensor, "i r"], Float[Tensor, "h r"], Float[Tensor, "w r"]]:
    """Return A, B, C, D with w[o, i, y, x] ≈ Σ_r A[o, r] B[i, r] C[y, r] D[x, r].

    Alternating least squares from the leading vectors of each mode (random ones where a mode has
    fewer), columns scaled to one length after each sweep, which keeps the normal equations sound;
    the factors share the length at the end. The start is by a fixed seed. Lebedev et al. 2015;
    there nonlinear least squares, here a small ridge stands against factors that grow and cancel.
    """
    w = w.double()
    o, i, h, x = w.shape
    draw = torch.Generator().manual_seed(0)
    factors = [_start(w.movedim(mode, 0).flatten(1), rank, draw) for mode in range(4)]
    by_out, by_in = w.reshape(o, -1), w.movedim(1, 0).reshape(i, -1)
    total, before = float(w.square().sum()), float("inf")
    for _ in range(_SWEEPS):
        a, b, c, d = factors
        space = _khatri_rao(c, d)
        a = _solve(by_out @ _khatri_rao(b, space), (b, c, d))
        b = _unit(_solve(by_in @ _khatri_rao(a, space), (a, c, d)))
        seen = torch.einsum("ris,ir->rs", (a.T @ by_out).reshape(rank, i, -1), b)
        seen = seen.reshape(rank, h, x)
        c = _unit(_solve(torch.einsum("ryx,xr->yr", seen, d), (a, b, d)))
        right = torch.einsum("ryx,yr->xr", seen, c)
        d = _solve(right, (a, b, c))
        gram = (a.T @ a) * (b.T @ b) * (c.T @ c) * (d.T @ d)
        error = total - 2 * float((right * d).sum()) + float(gram.sum())
        length = a.norm(dim=0).clamp_min(1e-30)
        a, d = a / length, d * length
        factors = [a, b, c, d]
        if abs(before - error) <= _SETTLED * total:
            break
        before = error
    lengths = torch.stack([f.norm(dim=0).clamp_min(1e-30) for f in factors])
    share = lengths.log().mean(0).exp()
    a, b, c, d = (f / n * share for f, n in zip(factors, lengths, strict=True))
    return a, b, c, d


def _start(unfolded: Tensor, rank: int, draw: torch.Generator) -> Tensor:
    found = leading(unfolded @ unfolded.T, rank)
    missing = rank - found.shape[1]
    extra = torch.randn(len(found), max(missing, 0), generator=draw, dtype=torch.float64)
    return _unit(torch.cat([found, extra], 1))


def _unit(factor: Tensor) -> Tensor:
    return factor / factor.norm(dim=0).clamp_min(1e-30)


def _khatri_rao(a: Tensor, b: Tensor) -> Tensor:
    """Return the products of all pairs of rows, column by column: (n·m, r)."""
    return (a[:, None] * b[None]).reshape(-1, a.shape[1])


def _solve(right: Tensor, others: tuple[Tensor, ...]) -> Tensor:
    gram = torch.ones_like(others[0].T @ others[0])
    for factor in others:
        gram = gram * (factor.T @ factor)
    lift = 1e-10 * gram.diagonal().mean() + 1e-30
    gram = gram + lift * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram, right.T).T


def finite(w: Tensor, name: str) -> Tensor:
    """Return a weight, or say that it holds NaN or infinity."""
    if not bool(torch.isfinite(w).all()):
        raise WalnutError(f"{name} holds values that are not finite: it cannot be factorised")
    return w
