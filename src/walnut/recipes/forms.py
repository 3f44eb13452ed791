"""The forms of one network side by side: what each weighs, how it does, how its weights are spread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from walnut import codec, nets
from walnut.attacks import pgd
from walnut.data import Dataset
from walnut.evaluate import accuracy, cost, latency, robust_accuracy
from walnut.evaluate.energy import energy
from walnut.evaluate.memory import activation_memory
from walnut.weights import matrices, pack

from .record import Json, drawn_examples

_BINS = 48  # bars of a histogram
_LARGEST = 6  # weights with a histogram
_STEPS = 20  # of the attack on each form


def description_of(model: nn.Module) -> dict[str, Any]:
    """Return how to build a network again; of one that is not registered, the name of its class."""
    return getattr(model, "description", None) or {"net": type(model).__name__, "arguments": {}}


def file_sizes(forms: Mapping[str, nn.Module], packed: Path, out: Path) -> dict[str, int]:
    """Write each form's files into ``out``, and return the bytes each takes.

    "dense" is a safetensors file. "pruned" and "shared" are ``.walnut`` files without entropy
    coding, so that each row shows what its own step has brought; "packed" is the final file.
    """
    sizes = {}
    for name, form in forms.items():
        path = out / f"{name}.safetensors"
        nets.save(form, path)
        sizes[name] = path.stat().st_size
    for name in ("pruned", "shared"):
        path = out / f"{name}.walnut"
        found = pack(forms[name], path, description_of(forms[name]), coders=(codec.FIXED,))
        sizes[name] = found.bytes
    return sizes | {"packed": packed.stat().st_size}


def rows(
    forms: Mapping[str, nn.Module],
    sizes: Mapping[str, int],
    dataset: Dataset,
    times: Mapping[str, Json] | None = None,
) -> list[Json]:
    """Return a row for each form: bytes, ratio to fp32, counts, and accuracy on the test split.

    ``times``: each form's latency, where it was measured.
    """
    found = []
    for name, form in forms.items():
        row = measured(form, sizes[name], dataset) | {"form": name}
        found.append(row if times is None else row | {"latency": times[name]})
    return found


def measured(form: nn.Module, size: int, dataset: Dataset, dense_bytes: int | None = None) -> Json:
    """Return what one form costs and how it does on the test split; ``size`` is its file's length.

    The ratio is against ``dense_bytes``, four bytes for each parameter of the dense network: of the
    form itself unless given, which is the same until its shape changes. Energy and memory are of the
    network as PyTorch runs it: dense, in the precision of its weights.
    """
    counts = cost(form, dataset.shape)
    return {
        "bytes": size,
        "ratio": (counts.fp32_bytes if dense_bytes is None else dense_bytes) / size,
        "parameters": counts.parameters,
        "nonzeros": counts.nonzeros,
        "multiply_adds": counts.multiply_adds,
        "activation_bytes": activation_memory(form, dataset.shape).peak_bytes,
        "energy": energy(form, dataset.shape, counts=counts).json(),
        "clean": accuracy(form, dataset.test.x, dataset.test.y).json(),
    }


def timed(forms: Mapping[str, nn.Module], dataset: Dataset) -> dict[str, Json]:
    """Return each form's latency, one example at a time, measured in turn."""
    found = latency(forms, dataset.test.x[:1])
    return {name: times.json() for name, times in found.items()}


def attacked_forms(
    forms: Mapping[str, nn.Module], dataset: Dataset, eps: float, examples: int, seed: int
) -> dict[str, Json]:
    """Return what PGD leaves of each form, and what the dense network's examples leave of it.

    The examples that transfer are not stopped at their first success: they are as strong as they
    come. PGD alone is a quick answer; :func:`walnut.recipes.robust.robust` defends its figure.
    """
    x, y = drawn_examples(dataset, examples, seed)
    dense = next(iter(forms.values()))
    carried = pgd(eps, steps=_STEPS, early_stop=False, seed=seed)(dense, x, y).x
    found = {}
    for name, form in forms.items():
        direct = robust_accuracy(form, x, y, pgd(eps, steps=_STEPS, seed=seed))
        found[name] = {
            "attacks": {"pgd": direct.json() | {"eps": eps}},
            "transfer_from_dense": accuracy(form, carried, y).json(),
        }
    return found


def histograms(forms: Mapping[str, nn.Module]) -> list[Json]:
    """Return how each large weight is spread in each form; zeros are counted apart."""
    dense = dict(forms["dense"].named_parameters())
    names = sorted(matrices(forms["dense"]), key=lambda n: -dense[n].numel())[:_LARGEST]
    found = []
    for name in (n for n in dense if n in names):
        reach = float(dense[name].detach().abs().max()) or 1.0
        for form in ("dense", "pruned", "packed"):
            w = forms[form].get_parameter(name).detach().float()
            counts, edges = np.histogram(w[w != 0].numpy(), bins=_BINS, range=(-reach, reach))
            found.append(
                {
                    "form": form,
                    "layer": name,
                    "edges": [round(float(edge), 6) for edge in edges],
                    "counts": counts.tolist(),
                    "zeros": int((w == 0).sum()),
                }
            )
    return found
