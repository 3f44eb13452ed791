"""Which weights stay: magnitude pruning, by a density per layer or for the whole network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .mask import Fixed, Mask, Masked, NofM, best
from .represent import matrices, represent, representations, select, weights

Score = Callable[[Tensor], Tensor]
"""``w -> scores`` shaped like it; across layers, the entries with the largest scores stay.

Within a layer scores must grow with magnitude: what differs between scores is the share of a layer.
"""
Scores = Mapping[str, Tensor]
"""``{name: scores}``, from data (:mod:`walnut.weights.scores`): they decide within layers too."""


def magnitude(w: Float[Tensor, "*w"]) -> Float[Tensor, "*w"]:
    """Return |w|: one threshold for the whole network. Layers of small weights may vanish."""
    return w.abs()


def lamp(w: Float[Tensor, "*w"]) -> Float[Tensor, "*w"]:
    """Return w² / Σ of all squares in the layer that are not smaller, in [0, 1].

    Normalised by layer, so that a threshold for the whole network leaves small and narrow layers
    denser, with nothing to set by hand; a layer's largest weight scores 1 and stays.
    Lee et al. 2021, Eq. 3 ("Layer-adaptive sparsity for the magnitude-based pruning").

    >>> lamp(torch.tensor([3.0, 0.0, 1.0]))
    tensor([1.0000, 0.0000, 0.1000], dtype=torch.float64)
    """
    flat = w.detach().double().reshape(-1).square()
    value, order = flat.sort()
    rest = value.flip(0).cumsum(0).flip(0)
    score = torch.where(value > 0, value / rest.clamp_min(1e-300), 0.0)
    return torch.empty_like(flat).scatter_(0, order, score).reshape(w.shape)


def densities(
    model: nn.Module,
    density: float,
    *,
    score: Score | Scores = lamp,
    names: Iterable[str] | None = None,
) -> dict[str, float]:
    """Return the density each weight gets when ``density`` of all stay, by their scores.

    density: in (0, 1]. names: the weights that take part; those of two axes or more by default.
    """
    scores = _scores(model, score, names)
    return {name: float(m.double().mean()) for name, m in _chosen(scores, density).items()}


def _scores(
    model: nn.Module, score: Score | Scores, names: Iterable[str] | None
) -> dict[str, Tensor]:
    """Return the scores of each weight that takes part, flat."""
    tensors = weights(model)
    names = tuple(matrices(model) if names is None else names)
    if not names:
        raise WalnutError("this network has no weight of two axes or more to prune")
    if not isinstance(score, Mapping):
        return {name: score(tensors[name]).reshape(-1) for name in names}
    for name in names:
        if name not in score or score[name].shape != tensors[name].shape:
            shape = tuple(score[name].shape) if name in score else "none"
            raise WalnutError(
                f"the scores of {name} have shape {shape}, the weight has "
                f"{tuple(tensors[name].shape)}: score this network"
            )
    gone = -torch.inf  # what is zero already goes first: a mask must not let it back in
    return {n: score[n].where(tensors[n] != 0, gone).reshape(-1) for n in names}


def _chosen(scores: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """Return a mask a weight, flat: the best of all together, and the best of each at least."""
    if not 0.0 < density <= 1.0:
        raise WalnutError(f"density is the share that stays, above 0 and at most 1: {density}")
    every = torch.cat([s.detach().double() for s in scores.values()])
    if bool(every.isnan().any()):
        raise WalnutError("some scores are not a number: a weight or a gradient is not finite")
    keep = max(1, round(density * len(every)))
    chosen = torch.zeros(len(every), dtype=torch.bool, device=every.device)
    chosen[every.topk(keep, sorted=False).indices] = True
    parts = chosen.split([len(s) for s in scores.values()])
    for part, score in zip(parts, scores.values(), strict=True):
        if not bool(part.any()) and len(part):
            part[score.argmax()] = True
    return dict(zip(scores, parts, strict=True))


def prune(
    model: nn.Module,
    density: float | Mapping[str, float],
    *,
    score: Score | Scores = lamp,
) -> nn.Module:
    """Mask all but the best weights, in place, and return the network.

    Args:
        model: any network. What is masked already stays masked while densities fall.
        density: the share that stays, in (0, 1]: of all weights of two axes or more together, each
            layer's share by ``score``; or of each weight that matches a pattern, by itself.
        score: how layers share one density (and then the largest of each layer stay); or scores
            from data by name, which decide within a layer as well.

    Masks of an earlier call are updated where they are, so an optimiser stays valid.

    Raises:
        WalnutError: a density outside (0, 1], a pattern that matches nothing, tied weights.

    >>> net = prune(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), 0.25)
    >>> int(net[0].weight.count_nonzero() + net[1].weight.count_nonzero())
    24
    """
    tensors = weights(model)
    if isinstance(density, Mapping):
        shares = {n: Mask(d).density for n, d in select(tensors, density).items()}
    else:
        shares = densities(model, density, score=score)
    from_data = _scores(model, score, shares) if isinstance(score, Mapping) else {}
    masks = {}
    for name, share in shares.items():
        w = tensors[name]
        by = from_data[name].reshape(w.shape) if name in from_data else w.abs()
        masks[name] = best(by, share)
    return _put(model, masks)


def _put(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Put masks on a network; those that stand are replaced where they are."""
    fresh: dict[str, Fixed] = {}
    present = representations(model)
    for name, mask in masks.items():
        chain = present.get(name, ())
        if chain and isinstance(chain[-1], Masked):
            chain[-1].mask = mask
        else:
            fresh[name] = Fixed(mask)
    return represent(model, fresh) if fresh else model


def prune_n_of_m(model: nn.Module, n: int = 2, m: int = 4) -> tuple[str, ...]:
    """Keep n of every m consecutive inputs of each matrix, in place; return those left dense.

    A weight is left alone, and named, where its inputs are no whole groups of m (an image's three
    channels, say).

    >>> prune_n_of_m(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)))
    ('0.weight',)
    """
    part, tensors = NofM(n, m), weights(model)
    names = [name for name in matrices(model) if part.fits(tensors[name])]
    if not names:
        raise WalnutError(f"no weight of this network has whole groups of {m} inputs")
    _put(model, {name: part.build(tensors[name]).mask for name in names})
    return tuple(name for name in matrices(model) if name not in names)


def density_schedule(final: float, rounds: int) -> list[float]:
    """Return falling densities d^(1/r), d^(2/r), ..., d: each round prunes the same share.

    >>> [round(d, 3) for d in density_schedule(0.125, 3)]
    [0.5, 0.25, 0.125]
    """
    if not 0.0 < final <= 1.0 or rounds < 1:
        raise WalnutError(f"pruning to {final} in {rounds} rounds cannot be done")
    return [final ** (i / rounds) for i in range(1, rounds + 1)]
