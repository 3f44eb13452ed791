"""Does an example's verdict depend on its batch? The same examples at batch sizes 1, 7, 64 and 1000.

In float64 the adversarial examples must agree to 1e-10. In float32 a network's own rounding depends on
the shape of its matrix products; each example whose verdict differs is traced: how far its logits are
from a tie, and whether float64 gives one verdict at every batch size.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import record
from walnut import data, nets
from walnut.attacks import pgd
from walnut.core.types import Adversarial
from walnut.evaluate import predict

SIZES, EXAMPLES, SEED = (1, 7, 64, 1000), 1000, 0


def runs(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, Adversarial]:
    """Attack in each batch size, and once in another order."""
    found = {str(size): pgd(eps, batch_size=size)(model, x, y) for size in SIZES}
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED))
    turned = pgd(eps, batch_size=64)(model, x[order], y[order])
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    found["64, another order"] = Adversarial(
        **{**vars(turned), "x": turned.x[back], "success": turned.success[back]}
    )
    return found


def compare(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, Any]:
    """Return the disagreements with batch size 64."""
    found = runs(model, x, y, eps)
    want = found["64"]
    figures: dict[str, Any] = {"fooled": int(want.success.sum())}
    traced: dict[int, float] = {}
    for name, result in found.items():
        differs = (result.success != want.success).nonzero()[:, 0]
        figures[f"batch {name}"] = {
            "verdicts_that_differ": len(differs),
            "largest_difference": float((result.x - want.x).abs().max()),
        }
        top = predict(model, result.x).topk(2).values
        traced |= {int(i): float(top[i, 0] - top[i, 1]) for i in differs}
    figures["gap_between_the_two_largest_logits_where_verdicts_differ"] = traced
    return figures


def main() -> None:
    root = Path(os.environ.get("WALNUT_DATA", "../shared/data")) / "models"
    dataset = data.load("mnist")
    x, y = dataset.test.x[:EXAMPLES], dataset.test.y[:EXAMPLES]
    figures: dict[str, Any] = {"examples": EXAMPLES, "attack": "pgd, 20 steps, random start"}
    for name, eps in (("mnist_cnn_a_adv", 0.3), ("mnist_conv_small_nat", 0.1)):
        normal = {"mean": [0.1307], "std": [0.3081]} if "nat" in name else {}
        model = nets.resolve("small-cnn", root / f"{name}.safetensors", dataset=dataset, **normal)
        figures[name] = {
            "eps": eps,
            "float32": compare(model, x, y, eps),
            "float64": compare(model.double(), x.double(), y, eps),
        }
    record.write("batch_independence", SEED, figures)


if __name__ == "__main__":
    main()
