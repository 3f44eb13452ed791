"""Deep Compression: prune and retrain in rounds, share weights, fine-tune them, encode, load back.

Han, Mao & Dally 2016 ("Deep Compression"). Where we differ: one density is turned into a density a
layer by LAMP scores (theirs are set by hand), codebooks start at the optimum of k-means (theirs:
linear, then Lloyd), and the file's positions and indices are coded by what is shortest (theirs:
5-bit gaps with fillers, then Huffman). The size is that of the whole file.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from walnut import nets
from walnut.core.types import Progress
from walnut.data import Dataset
from walnut.weights import Sizes, bake, pack, unpack

from .controls import Control, control_rows
from .forms import attacked_forms, description_of, file_sizes, histograms, rows, timed
from .job import Job
from .recipe import Recipe, recipe_for
from .record import Json, digest, finish, header


@dataclass(frozen=True, eq=False)
class CompressResult:
    """The forms of a network, dense parameters each, in eval mode, and what the last one weighs.

    ``stages``: "dense", "pruned", "shared", "packed" (the file loaded again). ``path``: the
    ``.walnut`` file; ``sizes``: what it weighs. ``bytes``: a file's length for each form, without
    entropy coding for "pruned" and "shared". ``history``: a row for each epoch. ``grown``: in
    words, why the file is no smaller than what went in; empty where it is.
    """

    stages: dict[str, nn.Module]
    path: Path
    sizes: Sizes
    bytes: dict[str, int]
    history: list[Json]
    grown: str = ""


def form(model: nn.Module) -> nn.Module:
    """Return a copy with dense parameters, in eval mode."""
    return bake(copy.deepcopy(model)).eval()


def compress(
    model: nn.Module,
    dataset: Dataset,
    *,
    recipe: Recipe | None = None,
    robust: float | None = None,
    examples: int = 1000,
    controls: Mapping[str, Control] | None = None,
    given_bytes: int | None = None,
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
        robust: a radius (L∞, input units): each form is attacked by PGD too, and with the dense
            network's examples.
        examples: test examples that are attacked.
        controls: what a pruned network is held against, by name:
            :data:`walnut.recipes.controls.CONTROLS`. Each is trained as long as the pruning was.
        given_bytes: the length of the file that the network came in, where that is known.
        seed: of the order of the examples and their augmentation, and of the attack.
        out: the folder; made where it is not there.
        progress: called as ``progress(what, done, total)``.

    Raises:
        WalnutError: a density or a pattern that cannot be used, tied weights, a diverging loss.
    """
    began, out = time.perf_counter(), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    recipe = recipe_for(model) if recipe is None else recipe
    dense = form(model)
    job = Job(copy.deepcopy(dense), dense, dataset, recipe, seed, out, progress)
    stages, masked = _stages(job, dense)
    path = out / "packed.walnut"
    sizes = pack(job.model, path, description_of(dense))
    stages["packed"] = loaded(path, dense)
    lengths = file_sizes(stages, path, out)
    found = rows(stages, lengths, dataset, timed(stages, dataset))
    if robust is not None:
        extra = attacked_forms(stages, dataset, robust, examples, seed)
        found = [row | extra[row["form"]] for row in found]
    if controls:
        found += control_rows(controls, job, masked)
    grown = _grown(lengths, given_bytes)
    result = header("compress", seed, dataset, len(dataset.test)) | {
        "config": {
            "recipe": repr(recipe),
            "description": description_of(dense),
            "model": digest(dense),
            "data": dataset.digest(),
        },
        "rows": found,
        "layers": sizes.tensors,
        "histograms": histograms(stages),
        "sensitivity": job.scan.json() if job.scan else [],
        "history": job.history,
        "notes": [grown] if grown else [],
        "seconds": round(time.perf_counter() - began, 3),
    }
    finish(result, None, out)
    return CompressResult(stages, path, sizes, lengths, job.history, grown)


def _stages(job: Job, dense: nn.Module) -> tuple[dict[str, nn.Module], nn.Module]:
    """Prune and share; return each form, and the pruned network with its masks."""
    stages, masked = {"dense": dense}, job.model
    steps: dict[str, Callable[[], None]] = {"pruned": job.prune, "shared": job.share}
    for name, step in steps.items():
        step()
        stages[name] = form(job.model)
        masked = copy.deepcopy(job.model) if name == "pruned" else masked
    return stages, masked


def _grown(lengths: Mapping[str, int], given: int | None) -> str:
    """Say where the packed file is no smaller than what went in."""
    dense, packed = lengths["dense"], lengths["packed"]
    if given is not None and packed >= given:
        return (
            f"nothing got smaller: the packed file has {packed:,} bytes, the file that the network "
            f"came in {given:,}; ask for a lower density or fewer bits, or keep that file"
        )
    if packed >= dense:
        return (
            f"nothing got smaller: the packed file has {packed:,} bytes, the dense one {dense:,}; "
            "the network is too small for this, or the density and the bits are too high"
        )
    return ""


def loaded(path: Path, dense: nn.Module) -> nn.Module:
    """Return the network in the file: built anew where it is a registered one."""
    if nets.is_name(str(description_of(dense)["net"])):
        return nets.load(path)
    fresh = copy.deepcopy(dense)
    fresh.load_state_dict(unpack(path)[1])
    return fresh
