"""The forms of one network side by side: what each weighs, how it does, how its weights are spread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from walnut import codec, nets
from walnut.data import Dataset
from walnut.evaluate import accuracy, cost
from walnut.weights import matrices, pack

from .record import Json

_BINS = 48  # bars of a histogram
_LARGEST = 6  # weights with a histogram


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


def rows(forms: Mapping[str, nn.Module], sizes: Mapping[str, int], dataset: Dataset) -> list[Json]:
    """Return a row for each form: bytes, ratio to fp32, counts, and accuracy on the test split."""
    found = []
    for name, form in forms.items():
        counts = cost(form, dataset.shape)
        found.append(
            {
                "form": name,
                "bytes": sizes[name],
                "ratio": counts.fp32_bytes / sizes[name],
                "parameters": counts.parameters,
                "nonzeros": counts.nonzeros,
                "multiply_adds": counts.multiply_adds,
                "clean": accuracy(form, dataset.test.x, dataset.test.y).json(),
            }
        )
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
