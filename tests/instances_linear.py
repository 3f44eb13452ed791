"""Linear fooling, one row each; tests/test_attacks_linear.py runs over them."""

from __future__ import annotations

import torch

from walnut.attacks.linear import linear_fooling
from walnut.attacks.lines import mean_gradient, random_line

OVER = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(3))

LINEAR = {
    "mean-gradient": linear_fooling(mean_gradient(OVER), targeted=False),
    "mean-gradient-coarse": linear_fooling(
        mean_gradient(OVER, batch_size=3), targeted=False, points=4, halvings=2
    ),
    "random": linear_fooling(random_line(1), targeted=False),
}
