"""Rewrite the trained convolutions of a network as depthwise and pointwise ones."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from walnut.core.errors import WalnutError

from .lowrank import Factorised, Fit, by_weights, factorise
from .lowrank_budget import budget
from .lowrank_separable import separable

__all__ = ["separable", "separate"]


def separate(
    model: nn.Module,
    multiplier: int | Mapping[str, int | None] | None = 1,
    *,
    fit: Fit = by_weights(),
    multipliers: budget | None = None,
) -> Factorised:
    """Replace convolutions by a depthwise and a pointwise one each, in place.

    A 3×3 convolution of 256 channels keeps 11.5 % of its multiply-adds at multiplier 1; what it loses
    is in the result's ``errors``, and it is much: fit to responses, and train afterwards.

    Args:
        model: any network. Convolutions of one pixel or with groups stay as they are, and are named.
        multiplier: windows an input channel, of all convolutions or of those that match a pattern.
        fit: :class:`by_weights` needs no data; :class:`by_responses` is far better.
        multipliers: a budget that chooses, where the multiplier is None.

    >>> done = separate(nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 1)))
    >>> done.layers, list(done.left)
    ({'0': ('separable', (1,))}, ['1'])
    """
    names = [n for n, m in model.named_modules() if n and isinstance(m, nn.Conv2d)]
    if not names:
        raise WalnutError("this network has no convolution to rewrite")
    given = multiplier if isinstance(multiplier, Mapping) else dict.fromkeys(names, multiplier)
    forms = {pattern: separable(count) for pattern, count in given.items()}
    return factorise(model, forms, fit=fit, ranks=multipliers)
