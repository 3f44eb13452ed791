"""Compositional pattern-producing networks: pictures grown from small networks of coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from walnut.core.draws import Draws
from walnut.core.errors import WalnutError

INPUTS = 4  # x, y, distance from the centre, 1
KINDS = 4  # sine, sigmoid, Gaussian, linear
LARGEST = 2**23  # numbers held at once while painting


@dataclass(frozen=True)
class Nets:
    """A batch of feed-forward networks: inputs, then outputs, then room for hidden nodes.

    ``weights[i, t, f]`` is the weight from node f to node t, 0 where there is no link. A link goes from
    a smaller ``depth`` to a larger one, so there are no circles: inputs are at 0, outputs at 1, a hidden
    node between, and a place that is not used at 2.
    """

    weights: Float[Tensor, " b n n"]
    links: Bool[Tensor, " b n n"]
    kinds: Int[Tensor, " b n"]
    depth: Float[Tensor, " b n"]

    @classmethod
    def of(cls, genomes: tuple[Tensor, ...]) -> Nets:
        """Name the tensors of a genome."""
        return cls(*(t.clone() for t in genomes))

    def genomes(self) -> tuple[Tensor, ...]:
        """Return the tensors."""
        return self.weights, self.links, self.kinds, self.depth


def activate(kinds: Int[Tensor, " b"], x: Float[Tensor, " b p"]) -> Float[Tensor, " b p"]:
    """Return sin x, 2σ(x) − 1, 2 exp(−x²) − 1 or clip(x), all in [−1, 1], by the kind of each row."""
    made = torch.where((kinds == 0)[:, None], x.sin(), x.clamp(-1, 1))
    made = torch.where((kinds == 1)[:, None], (x / 2).tanh(), made)
    return torch.where((kinds == 2)[:, None], 2 * (-x.square()).exp() - 1, made)


def coordinates(height: int, width: int, like: Tensor) -> Float[Tensor, " 4 p"]:
    """Return x, y in (−1, 1) at the pixels' centres, the distance from the centre, and 1."""
    rows, columns = (
        (2 * torch.arange(n, dtype=like.dtype, device=like.device) + 1) / n - 1
        for n in (height, width)
    )
    y, x = (t.flatten() for t in torch.meshgrid(rows, columns, indexing="ij"))
    return torch.stack([x, y, (x.square() + y.square()).sqrt(), torch.ones_like(x)])


def evaluate(nets: Nets, outputs: int, places: Float[Tensor, " 4 p"]) -> Float[Tensor, " b c p"]:
    """Return the outputs of every network at every place: its nodes in the order of their depth."""
    rows = torch.arange(len(nets.weights), device=places.device)
    order = nets.depth.argsort(dim=1, stable=True)
    hidden = int((nets.depth[:, INPUTS + outputs :] < 2).sum(1).max())
    weights = (nets.weights * nets.links).to(places.dtype)
    values = places.new_zeros(len(rows), nets.depth.shape[1], places.shape[1])
    values[:, :INPUTS] = places
    for k in range(INPUTS, INPUTS + outputs + hidden):
        node = order[:, k]
        total = torch.bmm(weights[rows, node][:, None], values)[:, 0]
        values[rows, node] = activate(nets.kinds[rows, node], total)
    return values[:, INPUTS : INPUTS + outputs]


def picked(mask: Bool[Tensor, " b n n"], draws: Draws) -> tuple[Tensor, Tensor]:
    """Return (to, from) of one true entry per row, each equally likely."""
    n = mask.shape[1]
    place = torch.where(mask.flatten(1), draws.uniform(n * n), -1.0).argmax(1)
    return place // n, place % n


@dataclass(frozen=True)
class cppn:
    """Pictures as functions of a pixel's place, computed by small networks that grow (Stanley 2007).

    A network's inputs are x, y, the distance from the centre and 1; its nodes are sine, sigmoid,
    Gaussian or linear; it has one output per channel. At first inputs are linked to outputs only; mutation
    perturbs weights, links two nodes, and splits a link by a new node, as in NEAT (Stanley &
    Miikkulainen 2002). With :func:`walnut.attacks.evolve` it is the indirect encoding of Nguyen et al.
    2015, §2.2. Where we differ: colour is one output per channel (theirs are HSV), there is no crossover
    as there, and a network has room for ``hidden`` nodes.

    Args:
        hidden: hidden nodes at most, 0 to 40.
        perturb: chance of a weight to be perturbed.
        sigma: standard deviation of a perturbation.
        add_node, add_link, switch: chances, per child, of a link to be split, of a new link, and of a
            node to change its kind.
        reach: weights stay in [−reach, reach].
    """

    hidden: int = 20
    perturb: float = 0.3
    sigma: float = 0.5
    add_node: float = 0.1
    add_link: float = 0.15
    switch: float = 0.05
    reach: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.hidden <= 40 or self.reach <= 0:
            raise WalnutError("cppn() needs 0 to 40 hidden nodes and a reach above 0")

    def start(self, shape: tuple[int, ...], like: Tensor, draws: Draws) -> tuple[Tensor, ...]:
        """Return networks without hidden nodes, every input linked to every output."""
        outputs, count = canvas(shape)[0], len(draws.keys)
        n = INPUTS + outputs + self.hidden
        linked = slice(INPUTS, INPUTS + outputs)
        weights = torch.zeros(count, n, n, dtype=torch.float64, device=like.device)
        links = torch.zeros(count, n, n, dtype=torch.bool, device=like.device)
        weights[:, linked, :INPUTS] = self.reach * (2 * draws.uniform(outputs, INPUTS) - 1)
        links[:, linked, :INPUTS] = True
        depth = torch.full((count, n), 2.0, dtype=torch.float64, device=like.device)
        depth[:, :INPUTS], depth[:, linked] = 0.0, 1.0
        return weights, links, draws.integers(KINDS, n), depth

    def mutate(
        self, genomes: tuple[Tensor, ...], generation: int, draws: Draws
    ) -> tuple[Tensor, ...]:
        """Return mutated copies, whatever the generation."""
        nets = Nets.of(genomes)
        self._perturb(nets, draws.fold(0))
        self._link(nets, draws.fold(1))
        self._split(nets, draws.fold(2))
        self._switch(nets, draws.fold(3))
        return nets.genomes()

    def _perturb(self, nets: Nets, draws: Draws) -> None:
        shape = nets.weights.shape[1:]
        moves = self.sigma * draws.normal(*shape) * (draws.uniform(*shape) < self.perturb)
        nets.weights.add_(moves * nets.links).clamp_(-self.reach, self.reach)

    def _link(self, nets: Nets, draws: Draws) -> None:
        deeper = nets.depth[:, :, None] > nets.depth[:, None, :]
        used = nets.depth < 2
        free = deeper & used[:, :, None] & used[:, None, :] & ~nets.links
        acts = (draws.uniform(1)[:, 0] < self.add_link) & free.flatten(1).any(1)
        to, source = picked(free, draws)
        weight = self.reach * (2 * draws.uniform(1)[:, 0] - 1)
        rows = acts.nonzero()[:, 0]
        nets.weights[rows, to[rows], source[rows]] = weight[rows]
        nets.links[rows, to[rows], source[rows]] = True

    def _split(self, nets: Nets, draws: Draws) -> None:
        room = (nets.depth == 2).any(1)
        acts = (draws.uniform(1)[:, 0] < self.add_node) & room & nets.links.flatten(1).any(1)
        to, source = picked(nets.links, draws)
        rows = acts.nonzero()[:, 0]
        to, source = to[rows], source[rows]
        new = (nets.depth[rows] == 2).int().argmax(1)  # the first place that is not used
        nets.depth[rows, new] = (nets.depth[rows, to] + nets.depth[rows, source]) / 2
        nets.weights[rows, new, source] = 1.0
        nets.weights[rows, to, new] = nets.weights[rows, to, source]
        nets.weights[rows, to, source] = 0.0
        nets.links[rows, new, source] = nets.links[rows, to, new] = True
        nets.links[rows, to, source] = False

    def _switch(self, nets: Nets, draws: Draws) -> None:
        real = (nets.depth > 0) & (nets.depth < 2)
        node = torch.where(real, draws.uniform(real.shape[1]), -1.0).argmax(1)
        kind = draws.integers(KINDS, 1)[:, 0]
        rows = (draws.uniform(1)[:, 0] < self.switch).nonzero()[:, 0]
        nets.kinds[rows, node[rows]] = kind[rows]

    def paint(self, genomes: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
        """Return the pictures (b, *shape) in [0, 1]: (output + 1) / 2 at every pixel's centre."""
        nets, (channels, height, width) = Nets(*genomes), canvas(shape)
        places = coordinates(height, width, torch.empty(0, device=nets.depth.device))
        chunk = max(1, LARGEST // nets.depth.numel())
        made = torch.cat([evaluate(nets, channels, p) for p in places.split(chunk, dim=1)], 2)
        return ((made + 1) / 2).clamp(0, 1).reshape(-1, *shape)


def canvas(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return channels, height and width: a vector is a line, two dimensions are one channel.

    >>> canvas((3, 8, 6)), canvas((20,))
    ((3, 8, 6), (1, 1, 20))
    """
    if not 1 <= len(shape) <= 3:
        raise WalnutError(f"cppn() paints (channels, height, width), not {shape}")
    wide = (1,) * (3 - len(shape)) + tuple(shape)
    return wide[0], wide[1], wide[2]
