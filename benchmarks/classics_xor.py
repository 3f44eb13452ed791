"""Two models that do well and share nothing: the XOR artefacts of Tramèr et al. 2017."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from classics_linear import Figures, error
from classics_models import Quadratic
from classics_nets import Course, fresh, loaded, trained
from walnut.attacks import noise, pgd
from walnut.core.constraints import l2
from walnut.core.draws import Draws
from walnut.core.objectives import cross_entropy


def marked(x: Tensor, y: Tensor) -> Tensor:
    """Return digits with two corners that are equal for the one class and differ for the other.

    Neither corner says anything alone: only a product of the two does.
    """
    first = Draws.of(x, 0).uniform(1)[:, 0] < 0.5
    second = first ^ (y == 1)
    x = x.clone()
    x[:, :, :4, :4] = first.float()[:, None, None, None]
    x[:, :, -4:, -4:] = second.float()[:, None, None, None]
    return x


def threes_and_sevens(part: str) -> tuple[Tensor, Tensor]:
    """Return the 3s (class 0) and 7s (class 1) of a split, marked."""
    split = getattr(loaded("mnist"), part)
    kept = (split.y == 3) | (split.y == 7)
    y = (split.y[kept] == 7).long()
    return marked(split.x[kept], y), y


class Linear(nn.Module):
    """Logits (0, w · x + b)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, 2) of x (b, ...)."""
        score = self.linear(x.flatten(1))
        return torch.cat([torch.zeros_like(score), score], 1)


def xor(count: int = 500, eps: float = 2.0) -> Figures:
    """What fools a linear and a quadratic model, shown to the other and to a second one of each kind."""
    x, y = threes_and_sevens("train")
    half, found = len(x) // 2, Figures()
    models = {}
    for kind, build in (("linear", Linear), ("quadratic", Quadratic)):
        for name, rows in ((kind, slice(half)), (f"{kind} again", slice(half, None))):
            course = Course(cross_entropy(), 15)
            models[name] = trained(f"XOR {name}", fresh(build), x[rows], y[rows], course)
    tx, ty = threes_and_sevens("test")
    tx, ty = tx[:count], ty[:count]
    for name, model in models.items():
        found[f"{name} clean"] = error(model, tx, ty)
        found[f"{name} noise"] = error(model, noise(eps, norm=l2)(model, tx, ty).x, ty)
    for source in ("linear", "quadratic"):
        made = pgd(eps, norm=l2, steps=40, early_stop=False)(models[source], tx, ty)
        found |= {f"{source} -> {to}": error(model, made.x, ty) for to, model in models.items()}
        moved = (made.x - tx).square()
        corners = moved[:, :, :4, :4].sum() + moved[:, :, -4:, -4:].sum()
        found[f"{source} in the corners"] = round(100 * float(corners / moved.sum()), 2)
    return found
