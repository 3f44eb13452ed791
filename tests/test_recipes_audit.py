"""The main job, end to end on a small set: what it writes, that it resumes, and what it says."""

import json
from pathlib import Path

import pytest
import torch

from walnut import data, nets
from walnut.core.errors import WalnutError
from walnut.evaluate import accuracy
from walnut.recipes.attack import attack, choose_targets
from walnut.recipes.audit import audit
from walnut.recipes.recipe import Recipe
from walnut.recipes.record import Cells, digest, drawn_examples
from walnut.recipes.train import train
from walnut.recipes.transfer import transfer

QUICK = Recipe(density=0.2, rounds=1, epochs=1, bits=3, finetune_epochs=1, least_steps=20)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def net(digits, tmp_path_factory):
    return train("lenet-300-100", digits, epochs=3, out=tmp_path_factory.mktemp("net")).model


@pytest.fixture(scope="module")
def audited(digits, net, tmp_path_factory):
    out = tmp_path_factory.mktemp("audit")
    before = digest(net)
    result = audit(net, digits, recipe=QUICK, eps=(0.05, 0.1), examples=120, out=out)
    assert digest(net) == before
    return out, result


def test_the_table_has_every_form_and_every_column(audited):
    out, result = audited
    assert [row["form"] for row in result["rows"]] == ["dense", "pruned", "shared", "packed"]
    for row in result["rows"]:
        assert set(row["attacks"]) == {"noise", "fgsm", "pgd"}
        assert row["clean"]["total"] == 120
        assert row["latency"]["median_ms"] > 0
        assert row["transfer_from_dense"]["total"] == 120
    dense, packed = result["rows"][0], result["rows"][3]
    assert packed["bytes"] == (out / "packed.walnut").stat().st_size
    assert dense["bytes"] == (out / "dense.safetensors").stat().st_size
    assert packed["ratio"] == pytest.approx(4 * dense["parameters"] / packed["bytes"])
    assert packed["nonzeros"] < 0.25 * dense["nonzeros"]


def test_the_packed_file_is_the_shared_network_bit_for_bit(audited, net):
    out, result = audited
    shared, packed = result["rows"][2], result["rows"][3]
    assert shared["clean"] == packed["clean"]
    again = nets.load(out / "packed.walnut")
    assert accuracy(again, *_examples()).json() == packed["clean"]


def _examples():
    return drawn_examples(data.load("digits"), 120, 0)


def test_robust_accuracy_is_never_above_clean_and_falls_with_eps(audited):
    for row in audited[1]["rows"]:
        for found in row["attacks"].values():
            assert found["robust"]["value"] <= row["clean"]["value"]
        assert (
            row["attacks"]["pgd"]["robust"]["value"] <= row["attacks"]["noise"]["robust"]["value"]
        )
    for curve in audited[1]["curves"]:
        falls = zip(curve["accuracy"], curve["accuracy"][1:], strict=False)
        assert all(later <= earlier + 0.02 for earlier, later in falls)


def test_everything_needed_to_look_and_to_reproduce_is_written(audited):
    out, _ = audited
    for name in ("result.json", "report.html", "pictures.npz", "packed.walnut"):
        assert (out / name).stat().st_size > 0
    kept = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert {
        "machine",
        "seed",
        "walnut",
        "data",
        "transfer",
        "curves",
        "histograms",
        "layers",
    } <= set(kept)


def test_the_same_call_goes_on_from_what_is_there(audited, digits, net):
    out, result = audited
    told = []
    again = audit(
        net, digits, recipe=QUICK, eps=(0.05, 0.1), examples=120, out=out,
        progress=lambda what, done, total: told.append(what),
    )  # fmt: skip
    assert not any("pgd at" in what for what in told)
    for before, after in zip(result["rows"], again["rows"], strict=True):
        assert before == after


def test_cells_of_another_network_or_half_written_are_not_believed(tmp_path: Path):
    made = []

    def compute():
        made.append(1)
        return {"value": len(made)}

    assert Cells(tmp_path, {"net": 1})("a", compute) == {"value": 1}
    assert Cells(tmp_path, {"net": 1})("a", compute) == {"value": 1}
    assert Cells(tmp_path, {"net": 2})("a", compute) == {"value": 2}
    (tmp_path / "a.json").write_text('{"identity":', encoding="utf-8")
    assert Cells(tmp_path, {"net": 2})("a", compute) == {"value": 3}


def test_a_network_that_does_not_fit_is_named_before_anything_is_trained(digits, tmp_path):
    other = nets.build("small-cnn", shape=(3, 32, 32)).eval()
    with pytest.raises(WalnutError, match="does not take a batch of shape"):
        audit(other, digits, recipe=QUICK, out=tmp_path)
    with pytest.raises(WalnutError, match="at least one eps"):
        audit(other, digits, eps=(), out=tmp_path)


def test_transfer_goes_on_and_names_what_it_does_not_know(digits, net, tmp_path):
    other = train("softmax", digits, epochs=2, out=tmp_path / "softmax").model
    models = {"mlp": net, "linear": other}
    result = transfer(
        models, digits, attacks=("fgsm", "pgd"), eps=(0.1,), examples=60, out=tmp_path / "t"
    )
    assert [table["method"] for table in result["transfer"]] == ["fgsm", "pgd"]
    for table in result["transfer"]:
        assert table["names"] == ["mlp", "linear"]
        assert len(table["accuracy"]) == len(table["accuracy"][0]) == 2
    with pytest.raises(WalnutError, match="'foo'; there are: fgsm"):
        transfer(models, digits, attacks=("foo",), out=tmp_path / "t")


def test_targets(digits, net, tmp_path):
    from walnut.attacks import pgd

    y = torch.arange(10)
    assert (choose_targets(y, "3", digits.classes, 0) == 3).all()
    drawn = choose_targets(y, "random", digits.classes, 0)
    assert (drawn != y).all()
    with pytest.raises(WalnutError, match="no class 'cat'"):
        choose_targets(y, "cat", digits.classes, 0)
    result = attack(
        net, digits, attack=pgd(0.2, targeted=True, steps=5), eps=0.2, targeted="3", examples=40,
        out=tmp_path,
    )  # fmt: skip
    assert 0 <= result["rows"][0]["attacks"]["attack"]["reached_target"] <= 1
    assert (tmp_path / "adversarial.safetensors").exists()
