"""What a pruned network is held against, trained as long and printed beside it.

A mask that is better than chance beats a random one; weights that matter beat fresh ones under the
same mask. Without these rows a pruning result says little (Frankle & Carbin 2019; Liu et al. 2019).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from torch import nn

from walnut.evaluate import accuracy, cost
from walnut.training import sgd
from walnut.weights import bake, random_mask, reinitialised

from .job import Job
from .record import Json

Control = Callable[[nn.Module, nn.Module, int], nn.Module]
"""``(dense, pruned with its masks, seed) -> network to train``, masked as it is to stay."""


def by_chance(dense: nn.Module, pruned: nn.Module, seed: int) -> nn.Module:
    """Return the dense weights under masks drawn by chance, as many a layer."""
    return random_mask(dense, pruned, seed=seed)


def fresh_weights(dense: nn.Module, pruned: nn.Module, seed: int) -> nn.Module:
    """Return fresh random weights under the pruned network's masks."""
    return reinitialised(pruned, seed=seed)


CONTROLS: dict[str, Control] = {"random mask": by_chance, "fresh weights": fresh_weights}
"""The controls by name. A network trained from scratch for longer joins them as another row."""


def control_rows(controls: Mapping[str, Control], job: Job, pruned: nn.Module) -> list[Json]:
    """Train each control with the pruning's own budget, and return a row each.

    All get as many epochs in one piece as the rounds of pruning took together, at the same learning
    rate. Bytes are left out: a control is no file.
    """
    found, recipe, dataset = [], job.recipe, job.dataset
    for name, make in controls.items():
        told = f"control: {name}"
        folder = job.out / "controls" / name.replace(" ", "-")
        network = make(job.teacher, pruned, job.seed)
        other = Job(network, job.teacher, dataset, recipe, job.seed, folder, job.progress)
        optimizer = sgd(recipe.lr, weight_decay=recipe.weight_decay)
        other.train(told, optimizer, recipe.rounds * recipe.epochs)
        finished = bake(copy.deepcopy(network)).eval()
        counts = cost(finished, dataset.shape)
        found.append(
            {
                "form": told,
                "parameters": counts.parameters,
                "nonzeros": counts.nonzeros,
                "multiply_adds": counts.multiply_adds,
                "clean": accuracy(finished, dataset.test.x, dataset.test.y).json(),
            }
        )
    return found
