"""Square attack: random squares, kept where they help (Andriushchenko et al. 2020). Queries only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from walnut.core.constraints import l2, linf
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.objectives import classified_as, margin, misclassified
from walnut.core.objectives import targeted as towards
from walnut.core.search import Proposal, search
from walnut.core.types import Adversarial, Attack, Constraint, Criterion, Model, Objective

from .common import Norm, ball, prepare
from .relay import relay

_STOPS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries; p halves after each


def _image(x: Tensor) -> Float[Tensor, " b c h w"]:
    """View examples of any shape as images: a vector is one row, a matrix one channel."""
    if x.ndim <= 2:
        x = x.flatten(1)[:, None, :]
    return x.reshape(len(x), math.prod(x.shape[1:-2]), *x.shape[-2:])


@lru_cache(maxsize=4096)
def _sides(progress: float, share: float, h: int, w: int, least: int) -> tuple[int, int]:
    """Return the window of a query: ``share`` of the image at first, halved at the stops."""
    share = share * 0.5 ** sum(int(progress * 10000) > stop for stop in _STOPS)
    side = round(math.sqrt(share * h * w))
    if least > 1 and min(h, w) >= least:
        side = max(side, least)
        side += 1 - side % 2
    tall = max(1, min(side, h))
    wide = side if side <= min(h, w) else round(share * h * w / tall)
    return tall, max(1, min(max(wide, 2 if least > 1 and h == 1 else 1), w))


def _groups(progress: Tensor, share: float, like: Tensor, least: int = 1) -> list:
    """Return (rows, tall, wide) of the rows whose windows have the same size."""
    h, w = like.shape[-2:]
    sizes = [_sides(p, share, h, w, least) for p in progress.tolist()]
    return [
        (torch.tensor([i for i, s in enumerate(sizes) if s == size], device=like.device), *size)
        for size in sorted(set(sizes))
    ]


def _signs(draws: Draws, like: Tensor, *shape: int) -> Tensor:
    return 2.0 * draws.integers(2, *shape).to(like.dtype) - 1.0


def _corners(u: Tensor, room: Tensor) -> Tensor:
    """Return whole numbers in {0, ..., room} from numbers in [0, 1)."""
    return (u * (room + 1)).long().minimum(room)


@dataclass(frozen=True)
class squares_linf:
    """x0 ± eps in a random window, a sign per channel (Alg. 2); first, random stripes."""

    eps: float
    share: float = 0.8

    def __call__(self, best: Tensor, x0: Tensor, progress: Tensor, draws: Draws) -> Tensor:
        """Return the candidate."""
        now, clean = _image(best), _image(x0)
        c, h, w = clean.shape[1:]
        sides = [_sides(p, self.share, h, w, 1) for p in progress.tolist()]
        size = torch.tensor(sides, device=x0.device).long().reshape(-1, 2)
        u = draws.uniform(2 + c)  # all that a query draws, at once
        whole = torch.tensor((h, w), device=x0.device)
        low = _corners(u[:, :2], whole - size)
        high = low + size
        i, j = torch.arange(h, device=x0.device), torch.arange(w, device=x0.device)
        inside = ((i >= low[:, :1]) & (i < high[:, :1]))[:, None, :, None]
        inside = inside & ((j >= low[:, 1:]) & (j < high[:, 1:]))[:, None, None, :]
        shift = self.eps * torch.where(u[:, 2:] < 0.5, -1.0, 1.0).to(clean.dtype)
        window = torch.where(inside, clean + shift[:, :, None, None], now)
        still = (best == x0).flatten(1).all(1).nonzero()[:, 0]
        if len(still):
            stripes = _signs(draws.rows(still).fold(1), clean, c, 1, w)
            window[still] = clean[still] + self.eps * stripes
        return window.reshape(x0.shape)


@lru_cache(maxsize=256)
def _hill(h: int, w: int) -> Tensor:
    """Return Σ_k 1/(k+1)² over the rings that cover each cell, of unit length (Eq. 3-4)."""
    i, j = (torch.arange(n, dtype=torch.float64) - n // 2 for n in (h, w))
    ring = torch.maximum(i.abs()[:, None], j.abs()).long()
    most = max(h, w) // 2 + 1
    falling = 1.0 / torch.arange(1, most + 1, dtype=torch.float64) ** 2
    tails = falling.flip(0).cumsum(0).flip(0)
    hill = tails[ring.clamp(max=most - 1)]
    return hill / hill.norm()


@lru_cache(maxsize=256)
def _pair(h: int, w: int, upright: bool) -> Tensor:
    """Return a hill and a hollow in one window of unit length, one above the other or side by side."""
    if upright and h > 1:
        return _pair(w, h, False).T.contiguous()
    half = w // 2
    parts = ([_hill(h, half)] if half else []) + [-_hill(h, w - half)]
    both = torch.cat(parts, 1)
    return both / both.norm()


def _pairs(upright: Tensor, like: Tensor, h: int, w: int) -> Tensor:
    """Return pairs (..., h, w), turned where ``upright`` (...) says so, without signs."""
    flat, tall = (_pair(h, w, turn).to(like) for turn in (False, True))
    if h == 1:
        tall = flat
    if w == 1:
        flat = tall
    return torch.where(upright[..., None, None], tall, flat)


def _length(x: Tensor, dims: tuple[int, ...] = (1, 2, 3)) -> Tensor:
    return x.square().sum(dims, keepdim=True).sqrt()


@dataclass(frozen=True)
class squares_l2:
    """Moves the length of one random window into another, as a hill and a hollow (Alg. 3).

    The perturbation has length eps throughout; first, a grid of 5 × 5 such pairs.
    """

    eps: float
    share: float = 0.8

    def __call__(self, best: Tensor, x0: Tensor, progress: Tensor, draws: Draws) -> Tensor:
        """Return the candidate."""
        now, clean = _image(best), _image(x0)
        delta = now - clean
        moved = delta.clone()
        for rows, tall, wide in _groups(progress, self.share, clean, least=3):
            moved[rows] = self._move(delta[rows], draws.rows(rows), tall, wide)
        still = (delta == 0).flatten(1).all(1).nonzero()[:, 0]
        if len(still):
            moved[still] = self._grid(clean[still], draws.rows(still).fold(1))
        length = _length(moved)
        moved = self.eps * moved / length.clamp_min(torch.finfo(moved.dtype).tiny)
        return (clean + moved).reshape(x0.shape)

    def _grid(self, clean: Tensor, draws: Draws) -> Tensor:
        """Return pairs side by side, a fifth of the image each way, a sign per channel."""
        b, c, h, w = clean.shape
        tall, wide = max(h // 5, 1), max(w // 5, 1)
        down, across = -(-h // tall), -(-w // wide)
        upright = draws.integers(2, 1, down, across) == 1
        tiles = _pairs(upright, clean, tall, wide)
        tiles = tiles * _signs(draws, clean, c, down, across)[..., None, None]
        spread = tiles.transpose(3, 4).reshape(b, c, down * tall, across * wide)
        return spread[:, :, :h, :w]

    def _move(self, delta: Tensor, draws: Draws, tall: int, wide: int) -> Tensor:
        b, c, h, w = delta.shape
        row = torch.arange(b, device=delta.device)[:, None, None, None]
        channel = torch.arange(c, device=delta.device)[None, :, None, None]
        u = draws.uniform(5 + c)  # all that a query draws, at once
        room = torch.tensor((h - tall, w - wide) * 2, device=delta.device)
        corners = _corners(u[:, :4], room)

        def window(top: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            i = top[:, None] + torch.arange(tall, device=delta.device)
            j = left[:, None] + torch.arange(wide, device=delta.device)
            return row, channel, i[:, None, :, None], j[:, None, None, :]

        into, out_of = (window(*pair.unbind(1)) for pair in corners.split(2, dim=1))
        tiny = 1e-12
        both = torch.zeros_like(delta)
        both[into] = 1.0
        both[out_of] = 1.0
        freed = _length(delta * both)
        spare = (self.eps**2 - _length(delta) ** 2).clamp_min(0)
        signs = torch.where(u[:, 5:] < 0.5, -1.0, 1.0).to(delta.dtype)[..., None, None]
        new = _pairs(u[:, 4:5] >= 0.5, delta, tall, wide) * signs
        new = new + delta[into] / (_length(delta[into], (2, 3)) + tiny)
        new = new / (_length(new, (2, 3)) + tiny) * (spare / c + freed**2).sqrt()
        moved = delta.clone()
        moved[out_of] = 0.0
        moved[into] = new
        return moved


@dataclass(frozen=True)
class SquareAttack:
    """Square attack put together: call it with ``(model, x, y)``."""

    constraint: Constraint
    propose: Proposal
    queries: int
    objective: Objective = margin()
    criterion: Criterion = misclassified()
    early_stop: bool = True
    first: Attack | None = None
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)
    drop: bool = field(default=True, repr=False, compare=False)

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Attack every example of ``x`` (n, ...) with true labels (or targets) ``y`` (n,)."""
        prepare(model, x, self.constraint)
        return relay(self, self._search, model, x, y)

    def _search(self, model: Model, x: Tensor, y: Tensor, begin: Tensor | None) -> Adversarial:
        return search(
            model, x, y, objective=self.objective, propose=self.propose, queries=self.queries,
            constraint=self.constraint, criterion=self.criterion, early_stop=self.early_stop,
            seed=self.seed, batch_size=self.batch_size, drop=self.drop, name=repr(self), begin=begin,
        )  # fmt: skip


def square(
    eps: float,
    *,
    norm: Norm = linf,
    queries: int = 5000,
    share: float = 0.8,
    targeted: bool = False,
    early_stop: bool = True,
    objective: Objective = margin(),
    first: Attack | None = None,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> SquareAttack:
    """Square attack (Andriushchenko et al. 2020) in L∞ or L2: ask, and keep what raises the margin.

    Works on networks without any gradient. Images of any shape; a vector is an image of one row, where a
    square is a run of neighbouring entries.

    Where we differ: each example has windows of its own; the first try counts only where it raises the
    margin (the authors take it as it is), and is drawn again where it does not.

    Args:
        eps: radius in input units.
        norm: ``linf`` or ``l2``.
        queries: candidates per example; one forward pass each, after one for the example itself,
            and one for the check of what is returned.
        share: of the image that a window covers at first (0.8 in AutoAttack, 0.05 in the paper); it
            falls to a 512th by the end.
        targeted: ``y`` are targets to move towards.
        early_stop: return each example at its first success.
        first: an attack with the same goal to run before. Where it failed, or went farther than ``eps``,
            the search begins at its best point, drawn into the ball: gradients often end a hair below
            the boundary where a network's are small or jump.
        mask: bool, shaped like one example: the entries that may change; None for all.

    >>> import torch
    >>> net = torch.nn.Linear(4, 3).eval()
    >>> found = square(0.2, queries=20)(net, torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    >>> bool((found.norms["linf"] <= 0.2 + 1e-6).all())
    True
    """
    if norm is not linf and norm is not l2:
        raise WalnutError(f"square() moves squares under linf or l2, not under {norm!r}")
    propose: Proposal = squares_linf(eps, share) if norm is linf else squares_l2(eps, share)
    return SquareAttack(
        ball(norm, eps, bounds, mask), propose, queries, towards(objective) if targeted else objective,
        classified_as() if targeted else misclassified(), early_stop, first, seed, batch_size,
    )  # fmt: skip
