"""Deep Compression: prune and retrain in rounds, share weights, fine-tune them, encode, load back.

Han, Mao & Dally 2016 ("Deep Compression"). Where we differ: one density is turned into a density a
layer by LAMP scores (theirs are set by hand), codebooks start at the optimum of k-means (theirs:
linear, then Lloyd), and the file's positions and indices are coded by what is shortest (theirs:
5-bit gaps with fillers, then Huffman). The size is that of the whole file.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from walnut import nets
from walnut.core.objectives import cross_entropy, kl_divergence, weighted
from walnut.core.transforms import compose
from walnut.core.types import Objective, Progress, Transform
from walnut.data import Dataset
from walnut.evaluate import accuracy
from walnut.training import Batches, adam, crop, fit, flip, one_cycle, sgd
from walnut.training.optimizers import Optimizer
from walnut.weights import (
    Sizes,
    bake,
    densities,
    density_schedule,
    matrices,
    pack,
    prune,
    select,
    share,
    unpack,
    weights,
)

from .forms import description_of, file_sizes, histograms, rows
from .recipe import Recipe, recipe_for
from .record import Json, digest, finish, header

_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class CompressResult:
    """The forms of a network, dense parameters each, in eval mode, and what the last one weighs.

    ``stages``: "dense", "pruned", "shared", "packed" (the file loaded again). ``path``: the
    ``.walnut`` file; ``sizes``: what it weighs. ``bytes``: a file's length for each form, without
    entropy coding for "pruned" and "shared". ``history``: a row for each epoch.
    """

    stages: dict[str, nn.Module]
    path: Path
    sizes: Sizes
    bytes: dict[str, int]
    history: list[Json]


@dataclass
class _Job:
    """A network under compression, and what its training needs."""

    model: nn.Module
    teacher: nn.Module
    dataset: Dataset
    recipe: Recipe
    seed: int
    out: Path
    progress: Progress | None
    history: list[Json] = field(default_factory=list)
    step: int = 0

    def train(self, what: str, optimizer: Optimizer, epochs: int, **told: Any) -> None:
        """Train the network as it is represented now; keep the best epoch by validation."""
        split, held = self.dataset.train, self.dataset.validation
        recipe, self.step = self.recipe, self.step + 1
        steps = math.ceil(len(split) / recipe.batch_size)
        history = fit(
            self.model,
            self._objective(),
            Batches(
                split.x,
                split.y,
                recipe.batch_size,
                self.seed + self.step,
                _augment(recipe, split.x),
            ),
            epochs=max(epochs, math.ceil(recipe.least_steps / steps)),
            optimizer=optimizer,
            schedule=one_cycle(),
            validate=lambda m: accuracy(m, held.x, held.y).value,
            keep_best=True,
            checkpoint=self.out / "steps" / f"{self.step}.safetensors",
            seed=self.seed,
            progress=self._renamed(what),
        )
        for row in history.rows:
            row = {k: v for k, v in row.items() if k != "epoch"}
            row["validation_accuracy"] = row.pop("validation")
            self.history.append({"epoch": len(self.history) + 1, "step": what, **told, **row})

    def _objective(self) -> Objective:
        """Return what training descends."""
        share = self.recipe.distil
        taught = kl_divergence(self.teacher, self.recipe.temperature)
        terms = ((1 - share, cross_entropy()), (share, taught))
        return weighted(tuple(term for term in terms if term[0] > 0))

    def _renamed(self, what: str) -> Progress | None:
        tell = self.progress
        return None if tell is None else lambda _, done, total: tell(what, done, total)

    def prune(self) -> None:
        """Prune and retrain, round by round."""
        recipe = self.recipe
        for i in range(1, recipe.rounds + 1):
            chosen = _layer_densities(self.model, recipe.density, i, recipe.rounds)
            prune(self.model, chosen)
            sizes = {n: w.numel() for n, w in weights(self.model).items() if n in chosen}
            kept = sum(chosen[n] * count for n, count in sizes.items()) / sum(sizes.values())
            optimizer = sgd(recipe.lr, weight_decay=recipe.weight_decay)
            self.train(f"prune {i} of {recipe.rounds}", optimizer, recipe.epochs, density=kept)

    def share(self) -> None:
        """Share the weights that are left, and train the shared values."""
        share(self.model, _assigned(self.model, self.recipe.bits))
        self.train(
            "fine-tune shared weights", adam(self.recipe.finetune_lr), self.recipe.finetune_epochs
        )


def _assigned(model: nn.Module, value: _Value | Mapping[str, _Value]) -> dict[str, _Value]:
    """Return a value for each weight it is meant for; ``"*"`` is for matrices named by no other."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(matrices(model), value)
    named = select(weights(model), {k: v for k, v in value.items() if k != "*"})
    rest = {n: value["*"] for n in matrices(model) if n not in named} if "*" in value else {}
    return named | rest


def _layer_densities(
    model: nn.Module, density: float | Mapping[str, float], i: int, rounds: int
) -> dict[str, float]:
    """Return the density of each weight in round i (from 1)."""
    if not isinstance(density, Mapping):
        density = {"*": density}
    now = {k: density_schedule(d, rounds)[i - 1] for k, d in density.items()}
    named = select(weights(model), {k: d for k, d in now.items() if k != "*"})
    rest = [name for name in matrices(model) if name not in named]
    if "*" not in now or not rest:
        return named
    return named | densities(model, now["*"], names=rest)


def _augment(recipe: Recipe, x: Any) -> Transform | None:
    """Return what is done to training images; nothing to rows of a table."""
    if x.ndim != 4:
        return None
    parts: list[Transform] = []
    if pixels := int(recipe.shift * min(x.shape[2:])):
        parts.append(crop(pixels))
    if recipe.mirror and x.shape[1] == 3:
        parts.append(flip())
    return compose(tuple(parts)) if parts else None


def _form(model: nn.Module) -> nn.Module:
    """Return a copy with dense parameters, in eval mode."""
    return bake(copy.deepcopy(model)).eval()


def compress(
    model: nn.Module,
    dataset: Dataset,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    out: str | Path,
    progress: Progress | None = None,
) -> CompressResult:
    """Shrink a trained network to a file, and measure what each step cost.

    Writes ``out``/packed.walnut, each form's weights as safetensors, result.json and report.html.
    Training is kept in ``out``/steps: the same call goes on from there, to the same bits.

    Args:
        model: trained network from [0, 1] to logits; it is not changed.
        dataset: ``train`` is trained on, ``validation`` chooses between epochs, ``test`` is
            looked at once, at the end.
        recipe: by default the network's documented one, :func:`recipe_for`.
        seed: of the order of the examples and their augmentation.
        out: the folder; made where it is not there.
        progress: called as ``progress(what, done, total)``.

    Raises:
        WalnutError: a density or a pattern that cannot be used, tied weights, a diverging loss.
    """
    began, out = time.perf_counter(), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    recipe = recipe_for(model) if recipe is None else recipe
    dense = _form(model)
    job = _Job(copy.deepcopy(dense), dense, dataset, recipe, seed, out, progress)
    stages = {"dense": dense}
    steps: dict[str, Callable[[], None]] = {"pruned": job.prune, "shared": job.share}
    for name, step in steps.items():
        step()
        stages[name] = _form(job.model)
    path = out / "packed.walnut"
    sizes = pack(job.model, path, description_of(dense))
    stages["packed"] = _loaded(path, dense)
    lengths = file_sizes(stages, path, out)
    result = header("compress", seed, dataset, len(dataset.test)) | {
        "config": {
            "recipe": repr(recipe),
            "description": description_of(dense),
            "model": digest(dense),
            "data": dataset.digest(),
        },
        "rows": rows(stages, lengths, dataset),
        "layers": sizes.tensors,
        "histograms": histograms(stages),
        "history": job.history,
        "seconds": round(time.perf_counter() - began, 3),
    }
    finish(result, None, out)
    return CompressResult(stages, path, sizes, lengths, job.history)


def _loaded(path: Path, dense: nn.Module) -> nn.Module:
    """Return the network in the file: built anew where it is a registered one."""
    if nets.is_name(str(description_of(dense)["net"])):
        return nets.load(path)
    fresh = copy.deepcopy(dense)
    fresh.load_state_dict(unpack(path)[1])
    return fresh
