"""No lies: a ratio is of file sizes, a speed was timed, and a form is what its file gives back.

Every verb that reports them is run, and its report is held against the disk, a second counting, and
the clock. The checker itself is shown to find what is wrong.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from walnut import data, nets
from walnut.cli import main
from walnut.core.errors import WalnutError
from walnut.evaluate import accuracy, cost, latency, predict
from walnut.weights import unpack

Json = dict[str, Any]
QUICK = ("--rounds", "1", "--epochs", "1", "--finetune-epochs", "1")
FILES = {
    "dense": "dense.safetensors", "pruned": "pruned.walnut", "shared": "shared.walnut",
    "packed": "packed.walnut",
}  # fmt: skip


def told(folder: Path, *words: object, code: int = 0) -> Json:
    """Run a verb into a folder; return the result it keeps."""
    assert main([*map(str, words), "--quiet", "--out", str(folder)]) == code
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    assert (
        main(["train", "--net", "lenet-300-100", "--epochs", "6", "--quiet", "--out", str(folder)])
        == 0
    )
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def compressed(network: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json]:
    folder = tmp_path_factory.mktemp("compress")
    words = ("compress", "--model", network, "--density", 0.2, *QUICK, "--robust", 0.1,
             "--examples", 60, "--controls")  # fmt: skip
    return folder, told(folder, *words)


@pytest.fixture(scope="module")
def audited(network: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json]:
    folder = tmp_path_factory.mktemp("audit")
    words = ("audit", "--model", network, "--density", 0.2, *QUICK, "--eps", 0.1, "--examples", 30)
    return folder, told(folder, *words)


def files_of(folder: Path, result: Json) -> dict[str, Path]:
    """Return the file that stands for each row with bytes."""
    found = FILES | ({"found": result["file"]} if "file" in result else {})
    return {row["form"]: folder / found[row["form"]] for row in result["rows"] if "bytes" in row}


def check(folder: Path, result: Json, examples: int | None = None) -> None:
    """Hold a report against what lies on the disk."""
    dataset, files = data.load("digits"), files_of(folder, result)
    x, y = dataset.test.x, dataset.test.y
    dense = nets.load(files["dense"])
    parameters = 4 * sum(p.numel() for p in dense.parameters())
    for row in result["rows"]:
        path = files.get(row["form"])
        if path is None:
            assert "ratio" not in row, f"{row['form']} has a ratio and no file"
            continue
        assert row["bytes"] == os.path.getsize(path), f"{row['form']}: not its file's length"
        assert row["ratio"] == pytest.approx(parameters / row["bytes"]), f"{row['form']}: ratio"
        model = nets.load(path)
        counts = cost(model, dataset.shape)
        said = tuple(row[k] for k in ("parameters", "nonzeros", "multiply_adds"))
        assert said == (counts.parameters, counts.nonzeros, counts.multiply_adds)
        if examples is None:
            assert row["clean"]["value"] == accuracy(model, x, y).value, f"{row['form']}: accuracy"
        assert row["latency"]["median_ms"] > 0


# --- compress and audit ---------------------------------------------------------------------------


def test_compress_tells_what_lies_on_the_disk(compressed: tuple[Path, Json]) -> None:
    check(*compressed)
    folder, result = compressed
    assert [row["form"] for row in result["rows"]] == [
        *FILES, "control: random mask", "control: fresh weights",
    ]  # fmt: skip
    for row in result["rows"][:4]:
        assert set(row["attacks"]) == {"pgd"}
        assert row["transfer_from_dense"]["total"] == 60
        assert row["energy"]["total"] > 0
        assert row["activation_bytes"] == 4 * (64 + 300 + 300)
    assert (folder / "report.html").exists()


def test_a_controls_counts_are_the_pruned_networks(compressed: tuple[Path, Json]) -> None:
    rows = {row["form"]: row for row in compressed[1]["rows"]}
    pruned = rows["pruned"]["nonzeros"]
    for name in ("control: random mask", "control: fresh weights"):
        assert rows[name]["nonzeros"] == pytest.approx(pruned, rel=0.02)
        assert "bytes" not in rows[name]


def test_audit_tells_what_lies_on_the_disk(audited: tuple[Path, Json]) -> None:
    check(*audited, examples=30)


def test_the_packed_form_is_the_file_bit_for_bit(compressed: tuple[Path, Json]) -> None:
    folder, _ = compressed
    opened, read = nets.load(folder / "packed.walnut"), unpack(folder / "packed.walnut")[1]
    kept = nets.load(folder / "packed.safetensors").state_dict()
    for name, value in opened.state_dict().items():
        assert torch.equal(value, read[name])
        assert torch.equal(value, kept[name])


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("bytes", lambda row: row["bytes"] - 1),
        ("ratio", lambda row: row["ratio"] * 1.01),
        ("nonzeros", lambda row: row["nonzeros"] - 1),
        ("multiply_adds", lambda row: row["multiply_adds"] // 2),
        ("clean", lambda row: row["clean"] | {"value": row["clean"]["value"] - 0.001}),
        ("latency", lambda row: row["latency"] | {"median_ms": 0.0}),
    ],
)
@pytest.mark.parametrize("form", ["pruned", "packed"])
def test_the_checker_finds_a_lie(
    form: str, key: str, change: Any, compressed: tuple[Path, Json]
) -> None:
    folder, result = compressed
    wrong = copy.deepcopy(result)
    row = next(row for row in wrong["rows"] if row["form"] == form)
    row[key] = change(row)
    with pytest.raises(AssertionError):
        check(folder, wrong)


def test_the_checker_finds_a_file_that_is_another(
    compressed: tuple[Path, Json], tmp_path: Path
) -> None:
    folder, result = compressed
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "packed.walnut").write_bytes((folder / "shared.walnut").read_bytes())
    with pytest.raises(AssertionError, match="packed"):
        check(tmp_path, result)


# --- the clock ------------------------------------------------------------------------------------


def set_clock(monkeypatch: pytest.MonkeyPatch, now: Callable[[], float]) -> None:
    """Give ``latency`` another clock, and nothing else."""
    module = sys.modules["walnut.evaluate.cost"]  # the package has a function of that name
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=now))


def test_a_time_comes_from_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves 5 ms at each look gives exactly 5 ms; one that stands gives an error."""
    model, x = torch.nn.Linear(3, 2), torch.rand(1, 3)
    ticks = itertools.count()
    set_clock(monkeypatch, lambda: next(ticks) * 0.005)
    found = latency({"a": model, "b": model}, x, rounds=5)
    assert {round(times.median_ms, 6) for times in found.values()} == {5.0}
    set_clock(monkeypatch, lambda: 1.0)
    with pytest.raises(WalnutError, match="the clock did not move while a ran"):
        latency({"a": model}, x, rounds=5)


def test_compress_with_a_frozen_clock_reports_no_speed(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    set_clock(monkeypatch, lambda: 1.0)
    words = ["compress", "--model", str(network), "--density", "0.3", *QUICK]
    assert main([*words, "--quiet", "--out", str(tmp_path)]) == 2
    assert "the clock did not move" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()


# --- search ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick_search() -> Any:
    """Trials and finalists of a moment's training."""
    from walnut.recipes import search
    from walnut.recipes.candidates import Effort

    less = (("rounds", 1), ("epochs", 1), ("finetune_epochs", 1), ("least_steps", 8))
    patch = pytest.MonkeyPatch()
    efforts = (
        Effort("trial", 300, 100, 20, False, less),
        Effort("finished", 600, 150, 20, True, less),
    )
    patch.setattr(search, "search", partial(search.search, efforts=efforts, finalists=2))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def searched(
    network: Path,
    quick_search: Any,
    short_queries_in_module: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Json]:
    pytest.importorskip("optuna")
    folder = tmp_path_factory.mktemp("search")
    words = ("compress", "--model", network, "--min-accuracy", 0.5, "--max-bytes", 60000,
             "--min-robust", 0.02, "--robust", 0.05, "--trials", 4, "--examples", 20)  # fmt: skip
    return folder, told(folder, *words)


def test_search_tells_what_lies_on_the_disk(searched: tuple[Path, Json]) -> None:
    folder, result = searched
    check(folder, result)
    assert result["met"] is True
    (chosen,) = [c for c in result["front"] if c["chosen"]]
    assert chosen["stage"] == "finished"
    assert result["file"] == chosen["file"]
    assert set(result["rows"][1]["attacks"]) == {"pgd", "cascade"}


def test_every_candidate_is_a_file_with_the_figures_it_is_said_to_have(
    searched: tuple[Path, Json],
) -> None:
    from walnut.recipes.job import some

    folder, result = searched
    held = data.load("digits").validation
    assert len(result["front"]) >= 4
    for candidate in result["front"]:
        path = folder / candidate["file"]
        assert candidate["bytes"] == os.path.getsize(path)
        part = some(held, 100 if candidate["stage"] == "trial" else 150, 0)
        assert candidate["accuracy"] == accuracy(nets.load(path), part.x, part.y).value


def test_the_front_is_what_no_other_beats(searched: tuple[Path, Json]) -> None:
    found = searched[1]["front"]
    for c in found:
        others = [o for o in found if o["stage"] == c["stage"]]
        better = [
            o for o in others
            if o["bytes"] <= c["bytes"] and o["accuracy"] >= c["accuracy"] and o["robust"] >= c["robust"]
            and (o["bytes"], o["accuracy"], o["robust"]) != (c["bytes"], c["accuracy"], c["robust"])
        ]  # fmt: skip
        assert c["front"] == (not better)


# --- what gets no smaller -------------------------------------------------------------------------


def test_compress_that_would_grow_says_so(network: Path, tmp_path: Path, capsys) -> None:
    """What is packed already, packed again with more bits, is no smaller: exit code 2."""
    first = tmp_path / "small"
    told(first, "compress", "--model", network, "--density", 0.1, "--bits", 2, *QUICK)
    capsys.readouterr()
    again = ("compress", "--model", first / "packed.walnut", "--density", 1.0, "--bits", 8, *QUICK)
    result = told(tmp_path / "again", *again, code=2)
    said = capsys.readouterr().err
    assert "nothing got smaller" in said
    assert f"{os.path.getsize(first / 'packed.walnut'):,}" in said
    assert any("nothing got smaller" in note for note in result["notes"])


def test_an_answer_that_is_read_is_still_computed_from_the_file(
    compressed: tuple[Path, Json],
) -> None:
    """The packed network answers as the shared one in memory did: nothing is lost on the way."""
    folder, _ = compressed
    x = data.load("digits").test.x[:50]
    packed, shared = (nets.load(folder / f"{name}.walnut") for name in ("packed", "shared"))
    assert torch.equal(predict(packed, x), predict(shared, x))
