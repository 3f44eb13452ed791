"""Recipe search: goals, ranks, the front by brute force, resuming after a stop, and the page."""

from __future__ import annotations

import builtins
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from walnut import data, nets
from walnut.core.errors import WalnutError
from walnut.core.objectives import cross_entropy
from walnut.recipes.candidates import Effort, Goal, front
from walnut.recipes.job import attacked, some
from walnut.recipes.search import following, search
from walnut.recipes.search_steps import Step, applied, default_steps, prune_weights, share_weights

pytest.importorskip("optuna")
LESS = (("rounds", 1), ("epochs", 1), ("finetune_epochs", 1), ("least_steps", 4))
EFFORTS = Effort("trial", 200, 60, 10, False, LESS), Effort("finished", 200, 60, 10, True, LESS)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nets.build("softmax", shape=(1, 8, 8), classes=10)


# --- goals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"accuracy": 1.2}, "share from 0 to 1"),
        ({"robust": 0.5}, "say which"),
        ({"bytes": 0}, "above 0"),
        ({"latency_ms": -1.0}, "above 0"),
    ],
)
def test_goals_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(WalnutError, match=words):
        Goal(**given)


def test_the_shortfall_is_a_sum_of_shares() -> None:
    goal = Goal(accuracy=0.9, robust=0.5, bytes=1000, eps=0.1)
    found = {"accuracy": 0.81, "robust": 0.5, "bytes": 1500, "latency_ms": 1.0}
    assert goal.shortfall(found) == pytest.approx(0.1 + 0.5)
    assert goal.shortfall(found | {"accuracy": 0.95, "bytes": 1000}) == 0
    assert Goal().cost == "bytes"
    assert Goal(latency_ms=2.0).cost == "latency_ms"


def test_ranks_put_what_meets_the_goal_first_then_the_cheapest() -> None:
    goal = Goal(accuracy=0.9)
    rows = [
        {"bytes": b, "accuracy": a, "latency_ms": 1.0}
        for b, a in ((100, 0.5), (500, 0.95), (400, 0.91), (90, 0.89))
    ]
    assert [r["bytes"] for r in sorted(rows, key=goal.rank)] == [400, 500, 90, 100]


def test_the_front_against_brute_force() -> None:
    draw = random.Random(0)
    rows = [
        {"bytes": draw.randint(1, 9), "accuracy": draw.randint(1, 9) / 9,
         "robust": draw.randint(1, 9) / 9, "stage": draw.choice(["trial", "finished"])}
        for _ in range(60)
    ]  # fmt: skip

    def figures(r: dict[str, Any]) -> tuple[float, float, float]:
        return (-r["bytes"], r["accuracy"], r["robust"])

    expected = {
        figures(r)
        for r in rows
        if not any(
            o["stage"] == r["stage"] and figures(o) != figures(r)
            and all(a >= b for a, b in zip(figures(o), figures(r), strict=True))
            for o in rows
        )
    }  # fmt: skip
    assert {figures(r) for r in front(rows, Goal())} == expected


def test_finalists_go_down_after_a_success_and_up_after_a_failure() -> None:
    goal = Goal(accuracy=0.9)
    trials = [
        {"choice": {"n": n}, "bytes": b, "accuracy": a}
        for n, (b, a) in enumerate([(100, 0.7), (200, 0.89), (300, 0.91), (600, 0.95)])
    ]
    first = following(trials, [], goal)
    assert first is not None
    assert first["bytes"] == 300
    good, bad = first | {"accuracy": 0.93}, first | {"accuracy": 0.85}
    assert (following(trials, [good], goal) or {})["bytes"] == 200
    assert (following(trials, [bad], goal) or {})["bytes"] == 600
    assert following(trials, [t | {"accuracy": 1.0} for t in trials], goal) is None


# --- steps ----------------------------------------------------------------------------------------


def test_steps_are_parts_and_hardening_needs_a_radius() -> None:
    assert all(isinstance(step, Step) for step in default_steps(0.1))
    assert len(default_steps(0.1)) == len(default_steps(None)) + 1
    one = applied("keep", (0.5,), lambda model, value: model)
    assert "0x" not in repr(one)  # its repr is its identity, in every process


def test_examples_are_drawn_without_order() -> None:
    split = data.load("digits").train
    part = some(split, 50, 0)
    assert len(part) == 50
    assert torch.equal(part.y, some(split, 50, 0).y)
    assert not torch.equal(part.y, split.y[:50])
    assert some(split, None, 0) is split


def test_an_attacked_objective_is_the_objective_on_the_attacks_examples() -> None:
    from walnut.attacks import fgsm

    model, split = network().train(), data.load("digits").test
    x, y = split.x[:8], split.y[:8]
    found = attacked(cross_entropy(), fgsm(0.1))(model, x, y)
    assert model.training
    model.eval()
    assert torch.allclose(found, cross_entropy()(model, fgsm(0.1)(model, x, y).x, y))
    assert bool((found >= cross_entropy()(model, x, y) - 1e-6).all())


# --- whole searches -------------------------------------------------------------------------------


def test_an_impossible_goal_gives_the_nearest_point(tmp_path: Path) -> None:
    goal = Goal(accuracy=1.0, bytes=200)
    result = search(network(), data.load("digits"), goal, out=tmp_path, trials=3, finalists=1,
                    efforts=EFFORTS)  # fmt: skip
    assert result["met"] is False
    assert "nothing that was tried reaches the goal; the nearest" in result["notes"][0]
    assert "bytes of 200" in result["notes"][0]
    finished = [c for c in result["front"] if c["stage"] == "finished"]
    assert [c["chosen"] for c in finished] == [True]
    assert nets.load(tmp_path / result["file"])(torch.rand(1, 1, 8, 8)).shape == (1, 10)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The goal is out of reach" in page
    assert page.count("<svg") >= 1


def test_a_search_that_is_stopped_goes_on(tmp_path: Path) -> None:
    """Stopped in its third trial: two stand, and going on ends with all and their same files."""
    seen = itertools.count()

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("prune") and done == total and next(seen) == 2:
            raise KeyboardInterrupt

    dataset, goal = data.load("digits"), Goal(accuracy=0.1)
    told: dict[str, Any] = {"trials": 4, "finalists": 1, "efforts": EFFORTS, "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        search(network(), dataset, goal, progress=stop, **told)
    files = {p: p.read_bytes() for p in tmp_path.glob("candidates/*/packed.walnut")}
    assert len(files) == 2
    result = search(network(), dataset, goal, **told)
    assert result["met"] is True
    assert len([c for c in result["front"] if c["stage"] == "trial"]) == 4
    assert all(path.read_bytes() == before for path, before in files.items())
    again = search(network(), dataset, goal, **told)  # nothing is left to do
    assert [c["name"] for c in again["front"]] == [c["name"] for c in result["front"]]


def test_the_test_set_does_not_choose(tmp_path: Path) -> None:
    import dataclasses

    dataset, goal = data.load("digits"), Goal(accuracy=0.1)
    wrong = dataclasses.replace(dataset.test, y=dataset.test.y.roll(1))
    told: dict[str, Any] = {"trials": 2, "finalists": 1, "efforts": EFFORTS}
    one = search(network(), dataset, goal, out=tmp_path / "a", **told)
    two = search(
        network(), dataclasses.replace(dataset, test=wrong), goal, out=tmp_path / "b", **told
    )
    assert one["chosen"] == two["chosen"]
    first, second = (tmp_path / n / r["file"] for n, r in (("a", one), ("b", two)))
    assert first.read_bytes() == second.read_bytes()


def test_without_optuna_the_remedy_is_said(tmp_path: Path, monkeypatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(WalnutError, match=r"walnut-nn\[search\]"):
        search(network(), data.load("digits"), Goal(), out=tmp_path, trials=1)


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "search.db").write_bytes(b"no database" * 100)
    with pytest.raises(WalnutError, match=r"search\.db cannot be used"):
        search(network(), data.load("digits"), Goal(), out=tmp_path, trials=1, efforts=EFFORTS)


def test_a_step_of_ones_own_joins_the_search(tmp_path: Path) -> None:
    def scaled(model: nn.Module, value: float) -> nn.Module:
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(value)
        return model

    steps = applied("scale", (0.5, 2.0), scaled), prune_weights(0.3, 0.5), share_weights((3,))
    result = search(network(), data.load("digits"), Goal(), out=tmp_path, trials=2, finalists=1,
                    steps=steps, efforts=EFFORTS)  # fmt: skip
    assert all(set(c["choice"]) == {"scale", "density", "bits"} for c in result["front"])
    assert json.loads((tmp_path / "result.json").read_text())["chosen"] == result["chosen"]
