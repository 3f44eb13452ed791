"""The verdict on a network as a whole run: the figure, its evidence, the ledger and the page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from walnut.attacks import pgd
from walnut.core.constraints import l2, linf
from walnut.core.errors import WalnutError
from walnut.core.files import write_bytes
from walnut.core.types import Adversarial, Model, Progress, perturbation_norms
from walnut.data import Dataset
from walnut.evaluate import Verdict, robustness
from walnut.evaluate.axes import Axis, along, random_normal, random_signs
from walnut.evaluate.geometry import cross_section, lines
from walnut.evaluate.stage import Stage

from .record import Gallery, Json, drawn_examples, finish, header, varied

MAPS = 3  # examples with cross-sections


def robust(
    model: Any,
    dataset: Dataset,
    *,
    eps: float,
    out: Path,
    name: str = "network",
    norm: Any = linf,
    effort: str | tuple[Stage, ...] = "standard",
    curve: bool = True,
    certify: bool = False,
    twin: Model | None = None,
    surrogates: Mapping[str, Model] | None = None,
    examples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Judge a network on test examples; write the result, the page, the ledger and every example.

    Killed at any moment, the same call goes on from the ledger in ``out``.

    Args:
        model: any form that :func:`walnut.evaluate.verdict.robustness` takes.
        dataset: its test split is used.
        eps: radius in input units.
        out: folder for result.json, report.html, examples.safetensors and the ledger.
        name: how the network is called on the page.
        norm: ``linf``, ``l2`` or ``l1``.
        effort: ``"standard"``, ``"autoattack"``, or stages.
        curve: also search each example's smallest perturbation.
        certify: also prove what can be proven, at a cost.
        twin: a differentiable network that the model was made from.
        surrogates: other networks, whose adversarial examples are tried too.
        examples: how many test examples.
        seed: chooses the examples and every draw.
        progress: called as work goes on.
    """
    began = time.perf_counter()
    x, y = drawn_examples(dataset, examples, seed)
    verdict = robustness(
        model, (x, y), norm, eps, effort=effort, with_curve=curve, certify=certify,
        twin=twin, surrogates=surrogates, seed=seed, folder=out / "ledger", progress=progress,
    )  # fmt: skip
    result = header("robustness", seed, dataset, len(y))
    result["rows"] = [_row(name, model, verdict)]
    result["verdict"] = [{"form": name} | verdict.json()]
    gallery = Gallery(dataset.classes)
    _pictures(gallery, name, verdict)
    result["geometry"] = _geometry(name, verdict, norm, dataset.classes)
    kept = {key: value.detach().cpu().contiguous() for key, value in verdict.arrays().items()}
    write_bytes(out / "examples.safetensors", to_bytes(kept))
    result["seconds"] = round(time.perf_counter() - began, 3)
    return finish(result, gallery, out)


def _row(name: str, model: Any, verdict: Verdict) -> Json:
    parameters = (
        sum(p.numel() for p in model.parameters()) if isinstance(model, nn.Module) else None
    )
    entry = {
        "robust": verdict.robust.json(), "eps": verdict.eps, "norm": verdict.norm,
        "clean": verdict.clean.json(), "attack": f"cascade ({verdict.effort})",
        "forward_per_example": verdict.forward, "backward_per_example": verdict.backward,
        "seconds": verdict.seconds,
    }  # fmt: skip
    row: Json = {"form": name, "clean": verdict.clean.json(), "attacks": {"cascade": entry}}
    return row if parameters is None else row | {"parameters": parameters}


def _pictures(gallery: Gallery, name: str, verdict: Verdict) -> None:
    """Show some of the examples that fell, with what broke them."""
    survey = verdict.survey
    fell = survey.fell_to >= 0
    if not bool(fell.any()):
        return
    record = _record(verdict)
    rows = [row for row in varied(survey.y, fell, 12) if bool(fell[row])]
    gallery.add(
        name, "cascade", verdict.eps, survey.x, survey.y, survey.prediction, record, rows
    )  # fmt: skip


def _record(verdict: Verdict) -> Adversarial:
    """Return what the cascade found as a record like any attack's."""
    survey, entrance = verdict.survey, verdict.entrance
    from walnut.evaluate import predict

    return Adversarial(
        survey.found, survey.fell_to >= 0, predict(entrance.model, survey.found).argmax(1),
        survey.step, survey.forward, survey.backward, perturbation_norms(survey.found, survey.x),
        verdict.seconds, f"cascade ({verdict.effort})", 0,
    )  # fmt: skip


def _geometry(name: str, verdict: Verdict, norm: Any, classes: tuple[str, ...]) -> list[Json]:
    """Return maps and lines round a few examples; none where no gradient leads anywhere."""
    survey, found = verdict.survey, []
    rows = survey.clean.nonzero()[:, 0][:MAPS]
    if (
        len(rows) == 0
        or verdict.eps == 0
        or verdict.entrance.kind == "none"
        or norm not in (linf, l2)
    ):
        return []
    x, y, model = survey.x[rows], survey.y[rows], verdict.entrance.attacked
    attack = pgd(verdict.eps, norm=norm, early_stop=False)
    plain: Axis = random_signs() if norm is linf else random_normal()
    axes: tuple[Axis, Axis] = (along(attack), plain)
    reach = 2 * verdict.eps
    try:
        maps = cross_section(model, x, y, axes, eps=reach, norm=norm, points=41)
        told = lines(model, x, y, axes, eps=reach, norm=norm, points=41)
    except WalnutError:
        return []  # an example that the attack leaves where it is has no direction
    for at, row in enumerate(rows.tolist()):
        base: Json = {"form": name, "example": row, "label": int(y[at]), "names": list(classes)}
        found.append(base | {
            "kind": "map", "axes": ["adversarial", "random"], "extent": reach,
            "eps": verdict.eps, "classes": _grid(maps.prediction[at]),
                "inside": _grid(maps.inside[at].int()),
        })  # fmt: skip
        for line, axis in zip(told, ("adversarial", "random"), strict=True):
            found.append(base | {
                "kind": "line", "axis": axis, "eps": [round(v, 6) for v in line.t.tolist()],
                "logits": [[round(v, 4) for v in point] for point in line.logits[at].tolist()],
                "classes": list(classes),
            })  # fmt: skip
    return found


def _grid(prediction: Tensor) -> list[list[int]]:
    return torch.as_tensor(prediction).tolist()
