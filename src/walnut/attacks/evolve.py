"""Fooling pictures by evolution: no gradient, one champion per class, a whole generation in one pass."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map

from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.queried import Queried, label_error
from walnut.core.types import Model

from .common import check_box
from .rubbish import Classes, Fooling, check_level, home, judged, labels_of, log_odds

Genomes = Any
"""A tensor, or a tuple of them, with the genomes first."""


@runtime_checkable
class Encoding(Protocol):
    """What is inherited, and the picture it grows into."""

    def start(self, shape: tuple[int, ...], like: Tensor, draws: Draws) -> Genomes:
        """Return one random genome per row of ``draws``."""
        ...

    def mutate(self, genomes: Genomes, generation: int, draws: Draws) -> Genomes:
        """Return a changed copy of each genome."""
        ...

    def paint(self, genomes: Genomes, shape: tuple[int, ...]) -> Tensor:
        """Return the pictures (b, *shape), in [0, 1]."""
        ...


@dataclass(frozen=True)
class direct:
    """Every pixel is a gene: uniform at the start, mutated one by one with a chance that halves.

        x ← clip(x + δ),  δ = (2u)^{1/(η+1)} − 1 for u < ½, else 1 − (2(1 − u))^{1/(η+1)}

    The polynomial mutation of Deb 2001 with fixed strength η, as in Nguyen et al. 2015, §2.2.

    Args:
        rate: chance of a pixel to be mutated in the first generation.
        halving: generations after which the chance is half of what it was.
        strength: η ≥ 0; a larger one makes smaller steps.
    """

    rate: float = 0.1
    halving: int = 1000
    strength: float = 15.0

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1 or self.halving < 1 or self.strength < 0:
            raise WalnutError("direct() needs a rate in (0, 1], halving >= 1 and strength >= 0")

    def start(self, shape: tuple[int, ...], like: Tensor, draws: Draws) -> Float[Tensor, " b *d"]:
        """Return uniform noise."""
        return draws.uniform(*shape, dtype=like.dtype)

    def mutate(
        self, genomes: Float[Tensor, " b *d"], generation: int, draws: Draws
    ) -> Float[Tensor, " b *d"]:
        """Move some of the pixels and keep them in the box."""
        shape = genomes.shape[1:]
        chance = self.rate * 0.5 ** (generation // self.halving)
        chosen = draws.uniform(*shape) < chance
        u = draws.uniform(*shape)
        power = 1 / (self.strength + 1)
        move = torch.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
        return (genomes + chosen * move).clamp(0, 1).to(genomes.dtype)

    def paint(self, genomes: Float[Tensor, " b *d"], shape: tuple[int, ...]) -> Tensor:
        """Return the pixels as they are."""
        return genomes


@dataclass
class _Champions:
    """The best of each wanted class so far; none is ever given up for a worse one."""

    genomes: Genomes  # n rows
    odds: Float[Tensor, " n"]
    reached: Int[Tensor, " n"]  # generation at which the level was first reached, -1 before

    def challenge(
        self, children: Genomes, odds: Float[Tensor, " b n"], generation: int, goal: float
    ) -> None:
        """Let every child stand for every class; the best takes the place where it is better."""
        best, child = odds.max(0)
        won = best > self.odds

        def succeed(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(won.reshape(-1, *[1] * (old.ndim - 1)), new[child], old)

        self.genomes = tree_map(succeed, self.genomes, children)
        self.odds = torch.where(won, best, self.odds)
        fresh = (self.odds >= goal) & (self.reached < 0)
        self.reached[fresh] = generation


@dataclass(frozen=True)
class Evolution:
    """See :func:`evolve`."""

    encoding: Encoding
    generations: int
    children: int
    level: float
    bounds: tuple[float, float]
    batch_size: int = field(default=256, repr=False, compare=False)

    def painted(self, genomes: Genomes, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return the pictures of genomes, stretched to the box."""
        low, high = self.bounds
        return low + (high - low) * self.encoding.paint(genomes, shape).to(like.dtype)

    def _odds(self, net: Queried, x: Tensor, labels: Tensor) -> Float[Tensor, " b n"]:
        logits = torch.cat([net(rows) for rows in x.split(self.batch_size)])
        if wrong := label_error(labels, net.classes):
            raise wrong
        if not bool(logits.isfinite().all()):
            raise WalnutError("the network's answer is not a number: check its weights")
        return log_odds(logits)[:, labels]

    def _evolved(
        self, net: Queried, shape: tuple[int, ...], labels: Tensor, seed: int, like: Tensor
    ) -> _Champions:
        rows = torch.arange(self.children, device=like.device)
        draws = Draws.keyed(rows).fold(seed)
        goal = float(torch.tensor(self.level, dtype=torch.float64).logit())
        children = self.encoding.start(shape, like, draws.fold(0))
        first = tree_map(lambda t: t[torch.zeros_like(labels)], children)
        worst = torch.full(labels.shape, float("-inf"), dtype=torch.float64, device=like.device)
        champions = _Champions(first, worst, torch.full_like(labels, -1))
        for generation in range(self.generations + 1):
            odds = self._odds(net, self.painted(children, shape, like), labels)
            champions.challenge(children, odds, generation, goal)
            if bool((champions.odds >= goal).all()) or generation == self.generations:
                break
            turn = draws.fold(generation + 1)
            parents = turn.fold(0).integers(len(labels), 1)[:, 0]
            chosen = tree_map(lambda t, parents=parents: t[parents], champions.genomes)
            children = self.encoding.mutate(chosen, generation, turn.fold(1))
        return champions

    def __call__(
        self, model: Model, shape: tuple[int, ...], classes: Classes, seed: int = 0
    ) -> Fooling:
        """Evolve one picture of ``shape`` per class.

        Args:
            model: network from the box to logits; it is only asked, never differentiated.
            shape: of one input.
            classes: how many there are, or the labels that are wanted.
            seed: of everything random here.
        """
        began, like = time.perf_counter(), home(model)
        labels, net = torch.tensor(labels_of(classes), device=like.device), Queried(model)
        with torch.inference_mode(False), torch.no_grad(), frozen(model):
            champions = self._evolved(net, shape, labels, seed, like)
            x = self.painted(champions.genomes, shape, like)
        prediction, confidence = judged(model, x, labels, self.batch_size)
        return Fooling(
            x, labels, confidence, prediction, champions.reached, net.forward + len(labels), 0,
            time.perf_counter() - began, repr(self), seed,
        )  # fmt: skip


def evolve(
    encoding: Encoding = direct(),
    *,
    generations: int = 1000,
    children: int = 100,
    level: float = 0.9999,
    bounds: tuple[float, float] = (0.0, 1.0),
    batch_size: int = 256,
) -> Evolution:
    """MAP-Elites over the classes (Mouret & Clune 2015; Nguyen et al. 2015, §2.2).

    There is one champion per class. In a generation each child is a mutated copy of a champion drawn
    at random, whatever its class, and replaces the champion of *every* class for which the network
    is surer of it. It ends when every champion has come to ``level``. Fitness is log p/(1 − p),
    which orders pictures as the probability p does and does not round. Where we differ: children come in
    generations, for one forward pass each, and compete with the champions of the generation before.

    Args:
        encoding: ``direct()``, or ``cppn()`` of :mod:`walnut.attacks.cppn`.
        generations: at most, after the first random one.
        children: pictures in a generation.
        level: confidence at which a champion is good enough, in (0, 1]; 1 runs to the end.
        bounds: the box inputs live in.

    >>> net = torch.nn.Linear(4, 3).eval()
    >>> found = evolve(generations=5, children=8)(net, (4,), 3)
    >>> found.forward, tuple(found.x.shape)
    (51, (3, 4))
    """
    check_level(level)
    check_box(bounds)
    if generations < 0 or children < 1:
        raise WalnutError("evolve() needs generations >= 0 and children >= 1")
    return Evolution(encoding, generations, children, level, bounds, batch_size)
