"""Recipe search: the smallest file, or the fastest network, that is still good enough.

Cheap trials first (a short training on part of the data, a short PGD), chosen by Optuna's TPE for
several objectives (Bergstra et al. 2011; Ozaki et al. 2020); then the best are made in full and
judged by the cascade. Only validation data decides; the test set is read once, for the answer.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from walnut import nets
from walnut.core.constraints import linf
from walnut.core.errors import WalnutError
from walnut.core.types import Progress
from walnut.data import Dataset
from walnut.evaluate import robustness
from walnut.weights import bake

from .candidates import FINISHED, TRIAL, Bench, Effort, Goal, front
from .forms import attacked_forms, description_of, histograms, measured, timed
from .recipe import Recipe, recipe_for
from .record import Cells, Json, digest, drawn_examples, finish, header
from .search_steps import Step, default_steps

_FIRST = 5  # trials drawn at random before TPE has something to learn from


def search(
    model: nn.Module,
    dataset: Dataset,
    goal: Goal,
    *,
    out: str | Path,
    recipe: Recipe | None = None,
    steps: tuple[Step, ...] | None = None,
    trials: int = 20,
    finalists: int = 3,
    efforts: tuple[Effort, Effort] = (TRIAL, FINISHED),
    examples: int = 500,
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Find a recipe that meets a goal; write the front, every file, result.json and the page.

    Killed at any moment, the same call goes on: finished trials stand in ``out``/search.db, their
    figures in ``out``/cells, their files in ``out``/candidates.

    Args:
        model: trained network from [0, 1] to logits; it is not changed.
        dataset: ``train`` and ``validation`` are searched on; ``test`` is read at the end, for the
            answer and the dense network.
        goal: what is asked for.
        out: folder.
        recipe: what is not searched for: learning rates, epochs of the finalists.
        steps: what may be done; :func:`walnut.recipes.search_steps.default_steps` unless given.
        trials: cheap candidates. finalists: how many of them are made in full.
        efforts: of a trial and of a finalist.
        examples: test examples that are attacked in the end.
        seed: of everything.

    Returns:
        the result: ``met`` says whether the goal is reached, ``chosen`` is the answer's name (the
        nearest candidate where it is not), ``front`` holds every candidate.

    Raises:
        WalnutError: Optuna is not installed, or the network cannot be compressed.
    """
    began, out = time.perf_counter(), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    dense = bake(copy.deepcopy(model)).eval()
    recipe = recipe_for(model) if recipe is None else recipe
    if steps is None:
        named = nets.is_name(str(description_of(dense)["net"]))  # others cannot be built smaller
        steps = default_steps(goal.eps, dataset.shape if named else None)
    known = {
        "model": digest(dense), "data": dataset.digest(), "seed": seed, "eps": goal.eps,
        "cost": goal.cost, "recipe": repr(recipe), "steps": repr(steps),
    }  # fmt: skip
    cells = Cells(out / "cells", known)
    bench = Bench(dense, dataset, recipe, steps, goal, seed, out, cells, progress)
    found = _trials(bench, trials, efforts[0])
    finished: list[Json] = []
    while len(finished) < finalists and (candidate := following(found, finished, goal)):
        _tell(progress, "finalists", len(finished), finalists)
        finished.append(bench.candidate(candidate["choice"], efforts[1]))
    chosen = min(finished, key=goal.rank)
    result = _result(bench, [*found, *finished], chosen, examples)
    result["seconds"] = round(time.perf_counter() - began, 3)
    return finish(result, None, out)


def following(trials: list[Json], finished: list[Json], goal: Goal) -> Json | None:
    """Return the trial to make in full next; None where no other can help.

    The best first. After one that met the goal, a cheaper one that misses by least, since a full
    training gains; after one that did not, a dearer one, since the cascade takes away.
    """
    done = [f["choice"] for f in finished]
    left = sorted((t for t in trials if t["choice"] not in done), key=goal.rank)
    if not finished or not left:
        return left[0] if left else None
    met = [f[goal.cost] for f in finished if goal.shortfall(f) == 0]
    if met:
        return next((t for t in left if t[goal.cost] < 0.95 * min(met)), None)
    most = max(f[goal.cost] for f in finished)
    return next((t for t in left if t[goal.cost] > 1.05 * most), left[0])


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)


def _trials(bench: Bench, count: int, effort: Effort) -> list[Json]:
    """Run cheap trials until there are ``count``, those of earlier calls among them."""
    if count < 1:
        raise WalnutError("a search needs at least one trial")
    optuna = _optuna()
    path = bench.out / "search.db"
    with warnings.catch_warnings(), _storage(optuna, path) as storage:
        warnings.simplefilter("ignore")  # parts of Optuna's interface call themselves experimental
        study = _study(optuna, bench, storage)
        complete = (optuna.trial.TrialState.COMPLETE,)
        while (done := len(study.get_trials(deepcopy=False, states=complete))) < count:
            _tell(bench.progress, "trials", done, count)
            trial = study.ask()
            given: Json = {}
            for step in bench.steps:
                given |= step.ask(trial)
            found = bench.candidate(given, effort)
            trial.set_user_attr("shortfall", bench.goal.shortfall(found))
            trial.set_user_attr("choice", given)
            study.tell(trial, _values(found, bench.goal))
        _tell(bench.progress, "trials", count, count)
        choices = [t.user_attrs["choice"] for t in study.get_trials(states=complete)]
    unique = {repr(sorted(choice.items())): choice for choice in choices}
    return [bench.candidate(choice, effort) for choice in unique.values()]


def _values(found: Json, goal: Goal) -> list[float]:
    """Return what Optuna makes small: the cost, and errors."""
    values = [float(found[goal.cost]), 1 - found["accuracy"]]
    return values if goal.eps is None else [*values, 1 - found["robust"]]


@contextmanager
def _storage(optuna: Any, path: Path) -> Iterator[Any]:
    """Hold the file of trials open."""
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
    except Exception as error:  # SQLAlchemy's own kinds, which are many
        line = str(error).strip().partition("\n")[0]
        raise WalnutError(f"{path} cannot be used ({line:.200}): move it away") from error
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _study(optuna: Any, bench: Bench, storage: Any) -> Any:
    """Return the study in the file; what a kill left running is queued again."""
    state = optuna.trial.TrialState
    study = optuna.create_study(
        storage=storage,
        study_name=bench.cells.identity,
        load_if_exists=True,
        directions=["minimize"] * (2 if bench.goal.eps is None else 3),
    )
    before = study.get_trials(deepcopy=False)
    study.sampler = optuna.samplers.TPESampler(
        seed=bench.seed + len(before),  # a search that goes on must not draw its first trials again
        n_startup_trials=_FIRST,
        constraints_func=lambda trial: (trial.user_attrs.get("shortfall", 1.0),),
    )
    for trial in before:
        if trial.state == state.RUNNING:
            study.tell(trial.number, state=state.FAIL)
            study.enqueue_trial(trial.params)
    return study


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise WalnutError(
            "a recipe search needs Optuna: pip install 'walnut-nn[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _result(bench: Bench, found: list[Json], chosen: Json, examples: int) -> Json:
    """Return the result: the front, and the answer on the test set beside the dense network."""
    goal, dataset = bench.goal, bench.dataset
    best = {c["name"] for c in front(found, goal)}
    missing = goal.shortfall(chosen)
    marked = [
        c | {"front": c["name"] in best, "chosen": c["name"] == chosen["name"],
             "met": goal.shortfall(c) == 0}
        for c in found
    ]  # fmt: skip
    forms = {"dense": bench.dense, "found": bench.network(chosen)}
    path = bench.out / chosen["file"]
    result = header("search", bench.seed, dataset, len(dataset.test)) | {
        "config": {
            "recipe": repr(bench.recipe),
            "steps": [repr(step) for step in bench.steps],
            "description": description_of(bench.dense),
        },
        "goal": {
            "accuracy": goal.accuracy, "robust": goal.robust, "bytes": goal.bytes,
            "latency_ms": goal.latency_ms, "eps": goal.eps,
        },
        "met": missing == 0,
        "chosen": chosen["name"],
        "file": chosen["file"],
        "front": sorted(marked, key=lambda c: c[goal.cost]),
        "rows": _rows(bench, forms, path, examples),
        "histograms": _compared(forms),
    }  # fmt: skip
    if missing:
        result["notes"] = [unreached(goal, chosen)]
    return result


def _compared(forms: dict[str, nn.Module]) -> list[Json]:
    """Return weight histograms before and after, where the weights still have the same names."""
    names = [set(dict(form.named_parameters())) for form in forms.values()]
    if names[0] != names[1]:
        return []
    three = {"dense": forms["dense"], "pruned": forms["found"], "packed": forms["found"]}
    drawn = [r for r in histograms(three) if r["form"] != "pruned"]
    return [r | {"form": "found"} if r["form"] == "packed" else r for r in drawn]


def _rows(bench: Bench, forms: dict[str, nn.Module], path: Path, examples: int) -> list[Json]:
    """Measure the dense network and the answer on the test set, once."""
    dataset, goal = bench.dataset, bench.goal
    nets.save(bench.dense, bench.out / "dense.safetensors")
    sizes = {
        "dense": (bench.out / "dense.safetensors").stat().st_size,
        "found": path.stat().st_size,
    }
    times = timed(forms, dataset)
    whole = 4 * sum(p.numel() for p in bench.dense.parameters())
    rows = [
        measured(net, sizes[name], dataset, whole) | {"form": name, "latency": times[name]}
        for name, net in forms.items()
    ]
    if goal.eps is None:
        return rows
    carried = attacked_forms(forms, dataset, goal.eps, examples, bench.seed)
    x, y = drawn_examples(dataset, examples, bench.seed)
    for row in rows:
        extra, net = carried[row["form"]], forms[row["form"]]
        judged = robustness(net, (x, y), linf, goal.eps, with_curve=False, seed=bench.seed)
        cascade = {
            "robust": judged.robust.json(), "clean": judged.clean.json(), "eps": goal.eps,
            "attack": f"cascade ({judged.effort})", "flags": [flag.name for flag in judged.flags],
        }  # fmt: skip
        row |= extra | {"attacks": extra["attacks"] | {"cascade": cascade}}
    return rows


def unreached(goal: Goal, chosen: Json) -> str:
    """Say that nothing reaches the goal, and what comes nearest."""
    told = []
    for name, unit in (("accuracy", "%"), ("robust", "% robust")):
        if getattr(goal, name) is not None:
            told.append(f"{100 * chosen[name]:.1f} {unit} of {100 * getattr(goal, name):.1f}")
    if goal.bytes is not None:
        told.append(f"{chosen['bytes']:,} bytes of {goal.bytes:,}")
    if goal.latency_ms is not None:
        told.append(f"{chosen['latency_ms']:.3g} ms of {goal.latency_ms:.3g}")
    return (
        "nothing that was tried reaches the goal; the nearest, on validation data, has "
        + ", ".join(told)
        + ": ask for less, or search longer"
    )
