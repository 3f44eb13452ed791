"""``walnut robust`` and ``walnut audit --robust``: what is asked of the recipe, what is printed, the code."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import report_robust
from walnut import nets
from walnut.cli import main
from walnut.cli.entry import asked
from walnut.core import constraints
from walnut.data import Dataset
from walnut.recipes.record import finish


class Recipe:
    """Stands for ``walnut.recipes.robust.robust``: keeps what it is asked and gives a made-up result."""

    def __init__(self, result: dict[str, Any]) -> None:
        self.result = result
        self.model: Any = None
        self.asked: dict[str, Any] = {}

    def __call__(self, model: Any, dataset: Any, **options: Any) -> dict[str, Any]:
        assert isinstance(model, nn.Module)
        assert isinstance(dataset, Dataset)
        self.model, self.asked = model, options
        options["progress"]("apgd", 1, 2)
        return finish({**self.result, "pictures": []}, None, options["out"])


@pytest.fixture(name="recipe")
def fixture_recipe(monkeypatch: pytest.MonkeyPatch, elsewhere: Path):
    def replaced(result: dict[str, Any]) -> Recipe:
        module, recipe = ModuleType("walnut.recipes.robust"), Recipe(result)
        module.robust = recipe  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "walnut.recipes.robust", module)
        return recipe

    return replaced


@pytest.fixture(name="net")
def fixture_net(elsewhere: Path) -> str:
    Path("mine.py").write_text(
        "import torch\n"
        "def net():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    return "mine.py:net"


def test_the_recipe_is_asked_for_what_the_flags_say(recipe, net: str) -> None:
    stand_in = recipe(report_robust.robustness(flagged=False, forms=("dense",)))
    words = ["audit", "--robust", "--model", net, "--norm", "l2", "--eps", "64/255", "--effort"]
    words += [
        "autoattack",
        "--no-curve",
        "--examples",
        "30",
        "--seed",
        "4",
        "--out",
        "o",
        "--quiet",
    ]
    assert main(words) == 0
    told = stand_in.asked
    assert callable(told.pop("progress"))
    assert told == {
        "name": "net",
        "norm": constraints.l2,
        "eps": 64 / 255,
        "effort": "autoattack",
        "curve": False,
        "examples": 30,
        "seed": 4,
        "out": Path("o"),
        "twin": None,
        "surrogates": None,
        "certify": False,
    }


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5), ("l1", 5.0)])
def test_nothing_needs_to_be_set(recipe, net: str, norm: str, eps: float) -> None:
    stand_in = recipe(report_robust.robustness(flagged=False, forms=("dense",)))
    assert main(["robust", "--model", net, "--norm", norm, "--quiet"]) == 0
    told = stand_in.asked
    assert (told["eps"], told["effort"], told["curve"]) == (eps, "standard", True)
    assert told["examples"] == 1000


def test_a_twin_is_a_network_too(recipe, net: str, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in = recipe(report_robust.robustness(flagged=False, forms=("dense",)))
    assert main(["robust", "--model", net, "--twin", net, "--quiet"]) == 0
    assert isinstance(stand_in.asked["twin"], nn.Module)
    assert main(["robust", "--model", net, "--surrogates", f"A={net}", net, "--quiet"]) == 0
    assert list(stand_in.asked["surrogates"]) == ["A", "net"]
    assert all(isinstance(other, nn.Module) for other in stand_in.asked["surrogates"].values())
    assert stand_in.asked["twin"] is not stand_in.model
    assert main(["robust", "--model", net, "--twin", "nowhere.walnut", "--out", "t"]) == 2
    assert "nowhere.walnut" in capsys.readouterr().err


def test_audit_robust_and_robust_are_one(recipe, net: str) -> None:
    assert asked(["audit", "--robust", "--seed", "1"]) == ("robust", ["--seed", "1"])
    assert asked(["audit", "--seed", "1"]) == ("audit", ["--seed", "1"])
    recipe(report_robust.robustness(flagged=False, forms=("dense",)))
    assert main(["audit", "--model", net, "--robust", "--out", "o", "--quiet"]) == 0
    assert main(["robust", "--model", net, "--out", "o", "--quiet"]) == 0  # the same run
    kept = json.loads(Path("o/config.json").read_text())
    assert kept["verb"] == "robust"
    assert kept["command"].startswith("walnut audit --model mine.py:net --robust")
    assert main(["audit", "--robust", "--config", "o/config.json", "--quiet"]) == 0


def test_a_red_flag_is_printed_first_and_ends_with_3(
    recipe, net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe(report_robust.robustness())
    assert main(["audit", "--robust", "--model", net, "--out", "o", "--quiet"]) == 3
    said = capsys.readouterr().out
    order = [
        "RED FLAG black-box-beats-white-box (int8): Square breaks 14 examples",
        "evidence: examples 3, 7, 11, 15, 19, 23, 27, 31 and 7 more; attacks square, apgd",
        "what to do: Pass a differentiable twin",
        "note not-converged (int8)",
        "cascade",
        "stage by stage, dense",
        "a query-only canary",
        "stage by stage, int8",
        "int8: The gradient comes from a straight-through twin.",
        "accuracy left, in %, against eps",
        "dense: of those that were right half fall within eps 0.1111",
        "int8: of those that were right less than half fall",
        "page o/report.html",
    ]
    places = [said.index(part) for part in order]
    assert places == sorted(places)
    assert said.index("RED FLAG") == 0
    assert "61.2" not in said[: said.index("cascade")]  # the figure stands below the flags
    assert "softmax-output" not in said  # what is good is on the page
    tables = said[said.index("cascade") :]
    assert max(len(line) for line in tables.splitlines()) <= 90
    page = Path("o/report.html").read_text()
    assert "Black box beats white box" in page
    assert json.loads(Path("o/result.json").read_text())["verdict"][1]["checks"]


def test_a_red_flag_keeps_its_code_in_json(
    recipe, net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe(report_robust.robustness())
    assert main(["robust", "--model", net, "--json", "--quiet"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "robustness"
    assert Path(document["out"], "report.html").is_file()


def test_what_is_only_odd_is_said_and_ends_with_0(
    recipe, net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = report_robust.robustness(forms=("dense",))
    result["verdict"][0]["checks"][0]["level"] = "good"
    recipe(result)
    assert main(["robust", "--model", net, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("note not-converged: The last restart still broke two examples.\n")
    assert "RED FLAG" not in said


def test_the_curve_is_told_in_five_points_from_nothing_on(
    recipe, net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = report_robust.robustness(flagged=False, forms=("dense",))
    recipe(result)
    assert main(["robust", "--model", net, "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("accuracy left, in %, against eps")
    assert lines[at + 1].split() == ["0", "0.04", "0.08", "0.12", "0.16", "0.2"]
    left = result["verdict"][0]["curve"]["accuracy"]
    wanted = [f"{100 * left[place]:.1f}" for place in (3, 7, 11, 15, 19)]
    assert lines[at + 3].split() == ["dense", "98.5", *wanted]


@pytest.mark.skipif(
    importlib.util.find_spec("walnut.recipes.robust") is None, reason="there is no such recipe yet"
)
def test_the_recipe_itself(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    train = ["train", "--net", "lenet-300-100", "--epochs", "3", "--quiet", "--out", "n"]
    assert main(train) == 0
    capsys.readouterr()
    words = ["audit", "--robust", "--model", "n/model.safetensors", "--examples", "40", "--json"]
    assert main([*words, "--quiet", "--out", "o"]) in (0, 3)
    found = json.loads(capsys.readouterr().out)
    (entry,) = found["verdict"]
    assert 0 <= entry["robust"]["value"] < entry["clean"]["value"]
    assert len(entry["curve"]["eps"]) == 20
    assert Path("o/report.html").is_file()
    assert nets.resolve("n/model.safetensors") is not None


FRONT = """
import torch
LEVELS = {levels}
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1, 1, 128).sin().reshape(2, 64))
            self.layer.bias.zero_()
    def forward(self, x):
        if LEVELS:
            x = (x * LEVELS).round() / LEVELS
        return self.layer(x.flatten(1) - 0.5)
"""


@pytest.mark.usefixtures("short_queries")
def test_a_changed_source_is_another_network(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    x = torch.randint(0, 17, (12, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 16
    Path("front.py").write_text(FRONT.format(levels=16))
    y = nets.resolve("front.py:Net")(x).argmax(1)
    np.savez("img.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    words = [
        "robust",
        "--no-curve",
        "--model",
        "front.py:Net",
        "--data",
        "npz:img.npz",
        "--eps",
        "0.02",
    ]
    first = main([*words, "--quiet"])
    assert first in (0, 3)
    assert main([*words, "--quiet"]) == first
    Path("front.py").write_text(FRONT.format(levels=0))
    capsys.readouterr()
    assert main([*words, "--quiet"]) not in (0, 3)
    assert "the ledger of another run (another network)" in " ".join(
        capsys.readouterr().err.split()
    )
