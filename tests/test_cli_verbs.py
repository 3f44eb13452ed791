"""The verbs on the digits, end to end: what they print, what they keep, that they go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from verbs import run, two_nets
from walnut.cli import doctor, main
from walnut.cli.attacks import ATTACKS, FROM_PYTHON, SEEKING, WITHIN, own_norm, taken


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two networks that have learnt a little."""
    return two_nets(tmp_path_factory.mktemp("nets"), "softmax", "lenet-300-100")


def test_train_tells_and_keeps(
    nets: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = ("train", "--net", "softmax", "--epochs", "3", "--out", "again")
    first = run(capsys, *words)
    assert [row["epoch"] for row in first["history"]] == [1, 2, 3]
    assert first["rows"][0]["clean"]["value"] > 0.6
    again, before = load_file("again/model.safetensors"), load_file(nets["a"])
    assert all(torch.equal(again[name], before[name]) for name in before)  # by seed
    assert run(capsys, *words)["history"] == first["history"]  # nothing is trained twice
    assert main([*words[:3], "--epochs", "3", "--seed", "1", "--quiet", "--out", "other"]) == 0
    assert "test accuracy" in capsys.readouterr().out
    other = load_file("other/model.safetensors")
    assert not all(torch.equal(other[name], before[name]) for name in before)


def test_train_takes_arguments_of_the_network(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = ["train", "--model", "small-cnn", "--net-arg", "width=4", "--net-arg", "hidden=8"]
    found = run(capsys, *words, "--epochs", "1", "--batch-size", "500")
    state = load_file(Path(found["out"]) / "model.safetensors")
    assert state["0.weight"].shape[0] == 4


FEW = {
    "nes": ["--steps", "5"],
    "spsa": ["--steps", "5", "--attack-arg", "pairs=10"],
    "square": ["--attack-arg", "queries=100"],
    "apgd-t": ["--steps", "10", "--attack-arg", "targets=3"],
    "vmi-fgsm": ["--attack-arg", "samples=3"],
    "boundary": ["--steps", "60"],
    "hop-skip-jump": ["--steps", "2", "--attack-arg", "samples=20"],
    "carlini-wagner": ["--steps", "15", "--attack-arg", "searches=4"],
    "smallest": ["--steps", "5", "--attack-arg", "searches=5"],
    "lbfgs": ["--attack-arg", "searches=3", "--attack-arg", "iterations=4"],
    "jsma": ["--attack-arg", "share=0.3"],
}
"""Flags that make an attack short enough for a test."""


def test_every_attack_has_its_name_on_the_command_line() -> None:
    from walnut import attacks

    functions = {name for name in attacks.__all__ if name[0].islower()}
    named = {name.replace("-", "_") for name in ATTACKS}
    assert named | set(FROM_PYTHON) == functions
    assert not named & set(FROM_PYTHON)
    for name in ATTACKS:  # what it is called says whether it takes a radius
        takes = taken(name)
        assert (name in WITHIN) == ("eps" in takes and takes["eps"].default is takes["eps"].empty)
        assert own_norm(name, takes) in ("linf", "l2", "l0")


@pytest.mark.parametrize("attack", WITHIN)
def test_attack(
    nets: dict[str, Path], attack: str, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    found = run(
        capsys, "attack", "--model", nets["b"], "--attack", attack, "--eps", "32/255", "--examples", "40",
        *FEW.get(attack, []),
    )  # fmt: skip
    (row,) = found["rows"]
    assert row["form"] == "b"
    entry = row["attacks"][attack]
    assert entry["eps"] == 32 / 255
    assert entry["robust"]["total"] == 40
    folder = Path(found["out"])
    assert (folder / "report.html").is_file()
    with np.load(folder / "pictures.npz") as arrays:
        assert np.abs(arrays["perturbation"]).max() <= 32 / 255 + 1e-6
    share = entry["robust"]["value"] / row["clean"]["value"]
    assert share > 0.8 if attack == "noise" else share < 0.8


@pytest.mark.parametrize("attack", SEEKING)
def test_attacks_that_seek_the_smallest_change(
    nets: dict[str, Path], attack: str, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = ["attack", "--model", str(nets["b"]), "--attack", attack, "--examples", "30"]
    words += [*FEW.get(attack, []), "--out", "o"]
    found = run(capsys, *words)
    (row,) = found["rows"]
    entry = row["attacks"][attack]
    assert entry["eps"] is None
    assert entry["fooled_of_correct"]["value"] > 0.9
    made = load_file("o/adversarial.safetensors")
    right = made["first_success"] != 0
    lengths = made[f"norm_{entry['norm']}"].masked_fill(~made["success"], float("inf"))[right]
    half = float(lengths.sort().values[len(lengths) // 2])
    assert entry["median_norm"] == pytest.approx(half, rel=0.2)
    assert main([*words, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert f"fooled by {attack}" in said
    assert f"median {entry['norm']}" in said
    assert f"{entry['median_norm']:.4g}" in said
    assert f"median {({'linf': 'L∞'} | {'l2': 'L2', 'l0': 'L0'})[entry['norm']]}" in Path(
        "o/report.html"
    ).read_text(encoding="utf-8")


def test_the_median_change_counts_who_was_not_fooled_as_beyond_all() -> None:
    from walnut.core.types import Adversarial
    from walnut.recipes.attack import median_change

    def median(lengths: list[float], success: list[bool], right: list[bool]) -> float | None:
        n = len(lengths)
        zeros = torch.zeros(n, dtype=torch.int64)
        norms = {"l2": torch.tensor(lengths)}
        found = Adversarial(
            torch.zeros(n, 2), torch.tensor(success), zeros, zeros, zeros, zeros, norms, 0.0, "", 0
        )
        return median_change(found, torch.tensor(right), "l2")

    assert median([3.0, 1.0, 2.0], [True] * 3, [True] * 3) == 2
    assert median([0.0, 1.0, 2.0, 4.0], [True] * 4, [False, True, True, True]) == 2
    assert median([3.0, 1.0, 2.0], [True, False, True], [True] * 3) == 3
    assert median([3.0, 1.0, 2.0], [True, False, False], [True] * 3) is None
    assert median([1.0], [True], [False]) is None


def test_attack_flags_reach_the_attack(
    nets: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = ("attack", "--model", nets["a"], "--examples", "20")
    found = run(capsys, *words, "--norm", "l2", "--eps", "0.5", "--steps", "7", "--restarts", "2",
                "--step-size", "0.2", "--seed", "3")  # fmt: skip
    record = found["rows"][0]["attacks"]["pgd"]["attack"]
    for part in ("l2(eps=0.5)", "steps=7", "restarts=2", "step_size=0.2", "seed=3"):
        assert part in record
    found = run(capsys, *words, "--targeted", "3", "--eps", "0.5")
    assert found["rows"][0]["attacks"]["pgd"]["reached_target"] > 0.5
    found = run(capsys, *words, "--attack", "fmn", "--norm", "l1", "--attack-arg", "gamma=0.1")
    record = found["rows"][0]["attacks"]["fmn"]
    assert record["norm"] == "l1"
    assert "gamma=0.1" in record["attack"]
    found = run(capsys, *words, "--attack", "square", "--attack-arg", "queries=20",
                "--attack-arg", "early_stop=false")  # fmt: skip
    assert "queries=20" in found["rows"][0]["attacks"]["square"]["attack"]
    assert main([*map(str, words), "--targeted", "eleven"]) == 2
    assert "there is no class 'eleven'" in capsys.readouterr().err


def test_eps_of_eight_is_refused(
    nets: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    assert main(["attack", "--model", str(nets["a"]), "--eps", "8"]) == 2
    assert "8/255" in capsys.readouterr().err


def test_transfer(
    nets: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = [
        "transfer",
        "--model",
        f"A={nets['a']}",
        "--model",
        f"B={nets['b']}",
        "--examples",
        "60",
    ]
    words += ["--eps", "0.1", "64/255", "--out", "t"]
    found = run(capsys, *words)
    assert [table["eps"] for table in found["transfer"]] == [0.1, 64 / 255]
    for table in found["transfer"]:
        assert table["names"] == ["A", "B"]
        own = [table["accuracy"][i][i] for i in range(2)]
        assert own[0] <= table["accuracy"][1][0]  # fooled most by its own examples
        assert own[1] <= table["accuracy"][0][1]
    assert main([*words, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "accuracy in % on examples made against … (pgd, eps 0.1)" in said
    assert "against A" in said
    assert "page t/report.html" in said


def test_show_a_safetensors_file(nets: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "show", nets["a"])
    rows = {row["name"]: row for row in found["tensors"]}
    assert rows["linear.weight"]["shape"] == [10, 64]
    assert rows["linear.weight"]["bytes"] == 2560
    assert rows["linear.weight"]["bits_per_weight"] == 32
    assert found["total"]["weights"] == 650
    assert found["total"]["file_bytes"] == nets["a"].stat().st_size
    assert found["description"]["net"] == "softmax"
    assert main(["show", str(nets["a"])]) == 0
    assert "650 weights in" in capsys.readouterr().out


def test_show_counts_zeros_and_values(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    w = torch.tensor([[0.0, 1.0, 1.0, 2.0]], dtype=torch.float16)
    save_file({"w": w, "empty": torch.zeros(0)}, "x.safetensors")
    torch.save({"state_dict": {"w": w}}, "x.pt")
    for name in ("x.safetensors", "x.pt"):
        found = run(capsys, "show", name, "--out", "shown")
        row = next(row for row in found["tensors"] if row["name"] == "w")
        assert (row["sparsity"], row["distinct"], row["bytes"], row["dtype"]) == (
            0.25,
            3,
            8,
            "float16",
        )
        assert json.loads(Path("shown/result.json").read_text()) == found


def test_show_refuses_what_is_no_weights(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    class Anything:
        def __reduce__(self):
            return (print, ("run from a pickle",))

    Path("text.walnut").write_text("no")
    Path("text.safetensors").write_text("no")
    torch.save(Anything(), "code.pt")
    for name in ("text.walnut", "text.safetensors", "code.pt"):
        assert main(["show", name]) == 2
        printed = capsys.readouterr()
        assert "run from a pickle" not in printed.out
        assert printed.err.startswith("walnut: error: ")
        assert printed.err.count("\n") == 1
        assert name in printed.err


def test_report_writes_the_page_again(
    nets: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = ("attack", "--model", nets["a"], "--examples", "20", "--attack", "fgsm", "--out", "run")
    run(capsys, *words)
    before = Path("run/report.html").read_text()
    assert "walnut attack --model" in before  # the page says how it was made
    Path("run/report.html").unlink()
    assert run(capsys, "report", "run")["page"] == "run/report.html"
    assert Path("run/report.html").read_text() == before
    assert run(capsys, "report", "run", "--out", "elsewhere")["page"] == "elsewhere/report.html"
    Path("run/result.json").write_text("{")
    assert main(["report", "run"]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_doctor_looks_at_packages_and_a_network(
    nets: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "probe", lambda module, **_: "")
    monkeypatch.delenv("WALNUT_DATA", raising=False)
    found = run(capsys, "doctor", "--model", nets["b"])
    rows = {row["what"]: row for row in found["findings"]}
    assert found["wrong"] == 0
    assert rows["torch"]["sentence"] == torch.__version__
    assert rows["range"]["level"] == "good"


def test_doctor_exits_with_1_when_something_is_wrong(
    nets: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    elsewhere: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(doctor, "probe", lambda module, **_: "")
    monkeypatch.delenv("WALNUT_DATA", raising=False)
    Path("mine.py").write_text(
        "import torch\n"
        "def net():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.Softmax(1))\n"
    )
    assert main(["doctor", "--model", "mine.py:net", "--quiet"]) == 1
    said = capsys.readouterr().out
    assert "WRONG" in said
    assert "returns probabilities" in said
    assert "outputs: return logits" in said
    monkeypatch.setenv("WALNUT_DATA", "nowhere")
    assert main(["doctor", "--quiet"]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().out


def test_a_broken_wheel_is_seen_and_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    broken = {
        "raises_runtime": "raise RuntimeError('operator torchvision::nms does not exist')",
        "raises_exit": "raise SystemExit(3)",
        "dies": "import os; os.abort()",
        "hangs": "import time; time.sleep(60)",
        "sound": "",
    }
    for name, text in broken.items():
        Path(f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))
    assert (
        doctor.probe("raises_runtime") == "RuntimeError: operator torchvision::nms does not exist"
    )
    assert doctor.probe("raises_exit") == "its import ended with code 3"
    assert "ended the interpreter (signal 6)" in doctor.probe("dies")
    assert doctor.probe("hangs", timeout=0.5) == "its import took more than 0.5 seconds"
    assert doctor.probe("sound") == ""
    assert "No module named" in doctor.probe("absent_altogether")


def test_torchvision_is_odd_and_never_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "0.28.0")
    monkeypatch.setattr(doctor, "probe", lambda module, **_: "RuntimeError: no nms")
    (line,) = doctor._package("torchvision")
    assert line.level == "odd"
    assert "0.28.0 is installed but broken: RuntimeError: no nms" in line.sentence
    (line,) = doctor._package("torch")
    assert line.level == "wrong"
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    monkeypatch.setattr(doctor, "_findable", lambda module: False)
    assert doctor._package("torchvision") == []
    (line,) = doctor._package("pyarrow")
    assert 'pip install "walnut-nn[parquet]"' in line.sentence


def test_compress_and_show(
    nets: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = [
        "compress",
        "--model",
        nets["b"],
        "--density",
        "0.2",
        "--density",
        "*3*=0.5",
        "--bits",
        "3",
    ]
    words += ["--rounds", "1", "--epochs", "1", "--finetune-epochs", "1", "--out", "c"]
    found = run(capsys, *words)
    assert [row["form"] for row in found["rows"]] == ["dense", "pruned", "shared", "packed"]
    for part in ("rounds=1", "bits=3", "'*': 0.2", "'*3*': 0.5"):
        assert part in found["config"]["recipe"]
    shown = run(capsys, "show", "c/packed.walnut")
    assert shown["description"]["net"] == "lenet-300-100"
    assert shown["total"]["file_bytes"] == Path("c/packed.walnut").stat().st_size
    rows = {row["name"].partition("/")[0]: row for row in shown["tensors"]}
    assert len(rows) == 6
    assert sum(row["bytes"] for row in shown["tensors"]) < shown["total"]["file_bytes"]
    assert main([str(word) for word in words]) == 0  # goes on, that is: is done at once
    assert "file c/packed.walnut" in capsys.readouterr().out
    assert main(["compress", "--model", str(nets["b"]), "--bits", "2.5"]) == 2
    assert "--bits: 2.5 is not a whole number" in capsys.readouterr().err


def test_audit(nets: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    Path("run.yaml").write_text(
        "density: 0.3\nrounds: 1\nepochs: 1\nfinetune-epochs: 1\nexamples: 50\neps: [16/255, 32/255]\n"
    )
    words = ["audit", "--model", str(nets["b"]), "--config", "run.yaml", "--out", "a"]
    found = run(capsys, *words)
    assert [row["form"] for row in found["rows"]] == ["dense", "pruned", "shared", "packed"]
    assert [table["eps"] for table in found["transfer"]] == [16 / 255, 32 / 255]
    assert found["config"]["density"] == ["0.3"]
    page = Path("a/report.html").read_text()
    assert "walnut audit" in page
    assert main([*words, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines()) <= 80
    for part in ("packed", "non-zeros", "eps 32/255", "against dense", "page a/report.html"):
        assert part in said


def test_demo(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    threads = torch.get_num_threads()
    found = run(capsys, "demo", "--examples", "60", "--out", "d")
    assert torch.get_num_threads() == threads
    assert list(found["networks"]) == ["N_A", "N_A'", "N_B", "N_B'"]
    assert all(network["test"] > 0.95 for network in found["networks"].values())
    assert len(found["transfer"]) == 3
    for table in found["transfer"]:
        own = [table["accuracy"][i][i] for i in range(4)]
        others = [[row[j] for j in range(4) if j != i] for i, row in enumerate(table["accuracy"])]
        assert all(o <= min(rest) for o, rest in zip(own, others, strict=True))
        assert min(table["noise"]) > max(own)
    assert [row["form"] for row in found["rows"]] == ["dense", "pruned", "shared", "packed"]
    assert found["rows"][-1]["ratio"] > 20
    assert Path(found["page"]).is_file()
