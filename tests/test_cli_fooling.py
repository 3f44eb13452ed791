"""The verbs of patches, fooling pictures, techniques and substitutes on the digits, end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from verbs import run, two_nets
from walnut import nets
from walnut.cli import main
from walnut.data import load


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two networks that have learnt a little."""
    return two_nets(tmp_path_factory.mktemp("nets"), "softmax", "rbf")


def refused(capsys: pytest.CaptureFixture[str], says: str, *words: object) -> None:
    """Hold that a command is refused in one line."""
    capsys.readouterr()
    assert main([*(str(word) for word in words), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_patch(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = [
        "patch",
        "--model",
        trained["a"],
        "--target",
        "3",
        "--areas",
        "0.1",
        "0.4",
        "--steps",
        "30",
    ]
    words += ["--examples", "80", "--out", "p", "--millimetres", "30", "--dpi", "100"]
    found = run(capsys, *words)
    small, large = found["patch"]["points"]
    assert large["patch"]["value"] > max(small["patch"]["value"], large["noise"]["value"])
    assert found["patch"]["target"] == "3"
    with Image.open("p/patch.png") as image:
        assert max(image.size) == pytest.approx(30 / 25.4 * 100, abs=4)
    pattern = load_file("p/patch.safetensors")["pattern"]
    assert 0 <= float(pattern.min()) <= float(pattern.max()) <= 1
    with np.load("p/pictures.npz") as arrays:
        assert len(arrays["adversarial"])
    assert "patch-40-percent" in Path("p/result.json").read_text(encoding="utf-8")
    assert main([*map(str, words), "--quiet"]) == 0
    said = capsys.readouterr().out
    for part in ("read as 3", "random values", "clean accuracy", "page p/report.html"):
        assert part in said


def test_a_sticker_has_the_outline_of_a_picture(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    half = np.zeros((8, 8, 4), np.uint8)
    half[:, :4, 3] = 255  # only the left half is opaque
    Image.fromarray(half).save("half.png")
    words = ["patch", "--model", trained["a"], "--areas", "0.2", "--steps", "2", "--examples", "20"]
    run(capsys, *words, "--sticker", "half.png", "--out", "p")
    mask = load_file("p/patch.safetensors")["mask"]
    middle = mask.shape[1] // 2
    assert float(mask[:, : middle - 1].min()) > 0.9
    assert float(mask[:, middle + 1 :].max()) < 0.1
    Image.fromarray(np.zeros((4, 4), np.uint8)).save("black.png")
    Path("no.png").write_text("no")
    refused(capsys, "nothing in it is opaque", *words, "--sticker", "black.png")
    refused(capsys, "not a picture", *words, "--sticker", "no.png")
    refused(capsys, "No such file", *words, "--sticker", "absent.png")
    refused(capsys, "--areas", *words[:3], "--areas", "1.5")
    refused(capsys, "covers at most", *words[:3], "--areas", "0.95")


def test_fooling(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = [
        "fooling",
        "--model",
        trained["a"],
        "--others",
        f"templates={trained['b']}",
        "--classes",
    ]
    words += ["3", "0", "--ways", "gradient", "direct", "--generations", "5", "--children", "10"]
    words += ["--level", "0.9", "--examples", "50", "--out", "f"]
    found = run(capsys, *words)
    assert [entry["way"] for entry in found["fooling"]] == ["gradient", "direct"]
    assert [shot["wanted"] for shot in found["fooling"][0]["pictures"]] == ["3", "0"]
    assert found["fooling"][0]["median_confidence"] >= 0.9
    assert found["fooling"][0]["transfer"]["templates"]["same_class"] <= 2
    assert set(found["control"]) == {"a", "templates"}
    assert load_file("f/fooling.safetensors")["gradient.x"].shape == (2, 1, 8, 8)
    assert main([*map(str, words), "--quiet"]) == 0
    said = capsys.readouterr().out
    for part in ("confidence in pictures of nothing", "gradient on templates", "of plain noise a"):
        assert part in said
    assert "page f/report.html" in said
    refused(capsys, "no way is called 'magic'", *words[:3], "--ways", "magic")
    refused(capsys, "there is no class 'eleven'", *words[:3], "--classes", "eleven")
    refused(capsys, "--level", *words[:3], "--level", "1")
    refused(capsys, "two networks are named a", *words[:3], "--others", trained["a"])


def test_techniques(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    words = ["techniques", "--kinds", "softmax", "k-nn", "--eps", "0.3", "--examples", "8"]
    words += ["--train-examples", "200", "--out", "t"]
    found = run(capsys, *words)
    (table,) = found["transfer"]
    assert table["names"] == ["softmax", "k-nn"]
    assert table["accuracy"][0][0] < 0.5
    assert found["rows"][1]["nearest"]["queries_per_example"] > 100
    assert main([*words, "--quiet"]) == 0  # goes on, that is: is done at once
    said = capsys.readouterr().out
    assert "accuracy left in % at eps 0.3" in said
    assert "(softmax)" in said
    refused(capsys, "no technique is called 'oracle'", "techniques", "--kinds", "oracle")


def test_substitute(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = [
        "substitute",
        "--model",
        trained["a"],
        "--rounds",
        "2",
        "--seeds",
        "60",
        "--epochs",
        "8",
    ]
    words += ["--examples", "60", "--substitute", "softmax", "--out", "s"]
    found = run(capsys, *words)
    assert found["substitute"]["queries"] == 240
    left = found["rows"][0]["attacks"]
    assert left["substitute"]["robust"]["value"] < left["noise"]["robust"]["value"]
    assert left["white box"]["robust"]["value"] <= left["substitute"]["robust"]["value"]
    assert nets.load("s/substitute.safetensors")(load("digits").test.x[:3]).shape == (3, 10)
    assert main([*map(str, words), "--quiet"]) == 0
    assert "queries            240" in capsys.readouterr().out


def test_substitute_of_what_is_no_network(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words = ["substitute", "--technique", "tree", "--train-examples", "300", "--rounds", "1"]
    words += ["--epochs", "2", "--seeds", "30", "--examples", "40"]
    found = run(capsys, *words)
    assert found["rows"][0]["form"] == "tree"
    assert "white box" not in found["rows"][0]["attacks"]
    refused(capsys, "--model or --technique", *words, "--model", trained["a"])
    refused(capsys, "no technique is called 'oak'", "substitute", "--technique", "oak")
    refused(capsys, "walnut substitute needs --model", "substitute")
