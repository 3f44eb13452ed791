"""Three values a weight: −, 0 and +, with one scale for both sides or a learned one for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .quantised import Along, finite, per_tensor, straight_through
from .representation import Representation


class Ternarised(Representation):
    """w ↦ α · sign(w) where |w| > Δ, else 0, with Δ = factor · mean |w| and α the mean beyond Δ."""

    def __init__(self, factor: float, along: Along) -> None:
        super().__init__()
        self.factor, self.along = factor, along

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the ternary weight; threshold and scale follow the latent."""
        (w,) = latents
        rows = self.along.rows(w.detach()).abs()
        beyond = rows > self.factor * rows.mean(1, keepdim=True)
        alpha = (rows * beyond).sum(1) / beyond.sum(1).clamp_min(1)
        threshold = self.along.spread(self.factor * rows.mean(1), w)
        live = w.detach().abs() > threshold
        value = torch.where(live, self.along.spread(alpha, w) * w.detach().sign(), 0.0)
        return straight_through(w, value)

    def right_inverse(self, w: Tensor) -> Tensor:
        """Return the weight as it is: what is trained is not ternary."""
        return w


@dataclass(frozen=True)
class Ternary:
    """Keep −α, 0 or +α of each weight: Δ = 0.7 · mean |w|, α = mean of |w| beyond Δ.

    Args:
        factor: of the mean magnitude, ≥ 0; 0.7 is Li et al.'s for uniform and normal weights (0.75).
        along: which entries share Δ and α; the paper has one for each layer.

    Li & Liu 2016 ("Ternary weight networks"), Eq. 3-6. The gradient passes straight through.

    >>> from walnut.weights import represent
    >>> net = represent(torch.nn.Linear(50, 4), {"weight": Ternary()})
    >>> len(net.weight.unique())
    3
    """

    factor: float = 0.7
    along: Along = per_tensor()
    source: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.factor >= 0:
            raise WalnutError(f"the threshold's factor is 0 or more, not {self.factor}")

    def build(self, w: Tensor) -> Ternarised:
        """Return the filter."""
        finite(w)
        return Ternarised(self.factor, self.along)


class _Trained(torch.autograd.Function):
    """W_p above Δ, −W_n below −Δ, 0 between, with the gradients of trained ternary quantisation."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, positive: Tensor, negative: Tensor, share: float) -> Tensor:
        threshold = share * w.abs().max() if w.numel() else w.new_zeros(())
        above, below = w > threshold, w < -threshold
        ctx.save_for_backward(above, below, positive, negative)
        return torch.where(above, positive, torch.where(below, -negative, 0.0))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (grad,) = grads
        above, below, positive, negative = ctx.saved_tensors
        factor = torch.where(above, positive, torch.where(below, negative, 1.0))
        return grad * factor, (grad * above).sum(), -(grad * below).sum(), None


class TrainedTernary(Representation):
    """A ternary weight whose two values are parameters of the filter."""

    def __init__(self, positive: Tensor, negative: Tensor, share: float) -> None:
        super().__init__()
        self.positive, self.negative = nn.Parameter(positive), nn.Parameter(negative)
        self.share = share

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the ternary weight."""
        (w,) = latents
        return _Trained.apply(w, self.positive.abs(), self.negative.abs(), self.share)

    def right_inverse(self, w: Tensor) -> Tensor:
        """Return the weight as it is: what is trained is not ternary."""
        return w


@dataclass(frozen=True)
class LearnedTernary:
    """Keep −W_n, 0 or W_p of each weight; the threshold is Δ = share · max |w|.

    Both values are parameters (build the optimiser afterwards). Their gradients are the sums over
    the entries that they stand for; a latent's is W_p · g above Δ, W_n · g below −Δ and g between.

    share: in [0, 1); 0.05 in the paper. Zhu et al. 2017 ("Trained ternary quantization", TTQ), Eq.
    6-8. The paper starts from learned scales of 1 on normalised weights; here they start at the mean
    magnitudes of the two sides, the least-squares values. They count by magnitude.
    """

    share: float = 0.05
    source: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.share < 1.0:
            raise WalnutError(f"the threshold's share of the largest is in [0, 1): {self.share}")

    def build(self, w: Tensor) -> TrainedTernary:
        """Return the filter for the weight ``w``."""
        w = finite(w)
        threshold = self.share * w.abs().max() if w.numel() else w.new_zeros(())
        above, below = w[w > threshold], -w[w < -threshold]
        one = w.new_ones(())
        return TrainedTernary(
            above.mean() if above.numel() else one.clone(),
            below.mean() if below.numel() else one.clone(),
            self.share,
        )
