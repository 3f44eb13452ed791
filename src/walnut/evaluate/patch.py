"""How often a patch works, by how much of the picture it covers, next to what is no attack at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from walnut.attacks.patch import Patch
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.placement import Placement
from walnut.core.types import Model

from .accuracy import Share, correct, predict


@dataclass(frozen=True)
class PatchPoint:
    """One placement: what the patch does there, and what its controls do at the same places.

    Attributes:
        area: mean share of the picture that is covered, measured.
        placement: how it is stuck on.
        patch: pictures on which the patch gets what it wants.
        noise: with a pattern of random values under the same mask.
        picture: with a picture under the same mask, of the target class where there is a target;
            None where there is no such picture.
        clean: without anything stuck on.
        read_right: pictures with the patch that are still read as their label.
    """

    area: float
    placement: str
    patch: Share
    noise: Share
    picture: Share | None
    clean: Share
    read_right: Share

    def json(self) -> dict[str, Any]:
        """Return plain numbers for a result file."""
        shares = {k: v.json() for k, v in vars(self).items() if isinstance(v, Share)}
        return asdict(self) | shares


def most_typical(
    model: Model, x: Float[Tensor, " n c v u"], y: Int[Tensor, " n"], target: int | None
) -> Float[Tensor, " c v u"] | None:
    """Return the picture that the network is surest of, of the target class where there is a target."""
    rows = torch.arange(len(x)) if target is None else (y.cpu() == target).nonzero()[:, 0]
    if len(rows) == 0:
        return None
    sure = predict(model, x[rows]).log_softmax(1).gather(1, y[rows][:, None])[:, 0]
    return x[rows[int(sure.argmax())]]


def controls(patch: Patch, picture: Tensor | None, seed: int) -> dict[str, Patch]:
    """Return the patch with random values in place of its pattern, and with a picture (c, H, W)."""
    key = torch.zeros(1, dtype=torch.int64, device=patch.pattern.device)
    drawn = Draws.keyed(key).fold(seed).uniform(*patch.pattern.shape)[0]
    made = {"noise": replace(patch, pattern=drawn.to(patch.pattern))}
    if picture is not None:
        shown = F.interpolate(
            picture[None].to(patch.pattern), patch.mask.shape, mode="bilinear",
            align_corners=False, antialias=True,
        )[0]  # fmt: skip
        made["picture"] = replace(patch, pattern=shown.clamp(0, 1))
    return made


def patch_success(
    model: Model,
    patch: Patch,
    x: Float[Tensor, " n c v u"],
    y: Int[Tensor, " n"],
    placements: Sequence[Placement],
    seed: int = 0,
    picture: Float[Tensor, " c a b"] | None = None,
) -> list[PatchPoint]:
    """Return how often a patch works on pictures it was not made on, one point for each placement.

    Targeted: of the pictures of other classes, those read as the target (Brown et al. 2017, Fig. 3).
    Untargeted: of the pictures that are read right without it, those that are not with it. Each picture
    is asked about once for each placement; patch and controls lie at the same places.

    Args:
        model: network from [0, 1] to logits; run in eval mode and left as it was.
        patch: from :func:`walnut.attacks.patch.patch`.
        x: held-out pictures (n, c, H, W).
        y: true labels.
        placements: distributions of places, for example ``placement.covering(area, ...)`` for some areas.
        seed: of the places and of the random pattern.
        picture: for the control; unless given, the one of ``x`` (and of the target class) that the network
            is surest of.

    Raises:
        WalnutError: no picture is left to count.
    """
    if picture is None:
        picture = most_typical(model, x, y, patch.target)
    right = correct(model, x, y)
    rows = right if patch.target is None else y != patch.target
    if not bool(rows.any()):
        raise WalnutError("no picture is left to try the patch on: give some of other classes")
    x, y = x[rows], y[rows]
    clean = Share.of(patch.succeeds(predict(model, x).argmax(1), y))
    found = []
    for placement in placements:
        here = replace(patch, placement=placement, seed=seed)
        tried = {"patch": here, **controls(here, picture, seed)}
        read = {name: each(model, x, y).prediction for name, each in tried.items()}
        shares = {name: Share.of(patch.succeeds(p, y)) for name, p in read.items()}
        found.append(
            PatchPoint(
                float(here.paste(x)[1].double().mean()), repr(placement), shares["patch"],
                shares["noise"], shares.get("picture"), clean, Share.of(read["patch"] == y),
            )
        )  # fmt: skip
    return found
