"""The table across techniques: its cells, its controls, and that it goes on where it stopped."""

import json

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from walnut import data
from walnut.attacks import fgsm, hop_skip_jump
from walnut.core.constraints import linf
from walnut.core.errors import WalnutError
from walnut.evaluate import accuracy, transfer_table
from walnut.recipes.learners import learner, network, starts, techniques_for, templates
from walnut.recipes.record import drawn_examples
from walnut.recipes.techniques import techniques, within

KINDS = {
    "softmax": network("softmax"),
    "rbf": templates(30, epochs=5),
    "k-nn": learner(KNeighborsClassifier, (("n_neighbors", 3),)),
    "tree": learner(DecisionTreeClassifier),
}
ASKED = hop_skip_jump(norm=linf, steps=2, samples=10, tries=30)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def done(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("techniques")
    options = {"kinds": KINDS, "direct": fgsm, "queried": ASKED, "eps": (0.05, 0.2), "examples": 40}
    return techniques(digits, out=out, train_examples=500, **options), out, options


def test_every_cell_is_what_it_says(done, digits):
    result = done[0]
    models = {name: kind(data_of(digits, 500), 0) for name, kind in KINDS.items()}
    x, y = drawn_examples(digits, 40, 0)
    table = result["transfer"][1]
    assert table["eps"] == 0.2
    assert table["names"] == list(KINDS)
    made = fgsm(0.2)(models["rbf"], x, y).x
    for j, model in enumerate(models.values()):
        assert table["accuracy"][1][j] == accuracy(model, made, y).value
        assert table["clean"][j] == accuracy(model, x, y).value
    near = ASKED(models["tree"], x, y)
    held = within(near, 0.2, "")(models["tree"], x, y)
    assert (held.norms["linf"] <= 0.2 + 1e-6).all()
    assert torch.equal(held.success, models["tree"](held.x).argmax(1) != y)
    assert table["accuracy"][3][3] == accuracy(models["tree"], held.x, y).value
    reached = near.success & (near.norms["linf"] <= 0.2)
    assert held.success[reached].all()
    row = result["rows"][3]
    right = models["tree"](x).argmax(1) == y
    assert row["nearest"]["of"] == int(right.sum())
    median = near.norms["linf"][right & near.success].median()
    assert row["nearest"]["median_linf"] == pytest.approx(float(median), abs=1e-5)


def test_the_columns_keep_their_order(done):
    small, large = done[0]["transfer"]
    for j in range(4):
        column = [row[j] for row in large["accuracy"]]
        assert large["worst"][j] <= min(*column, large["clean"][j])
        assert large["worst"][j] < small["worst"][j]
        assert column[j] <= large["clean"][j]
    for j in range(2):  # the queries of this test are too few to say so of the others
        assert large["accuracy"][j][j] < large["noise"][j] - 0.1
    rows = {row["form"]: row for row in done[0]["rows"]}
    assert rows["softmax"]["differentiable"]
    assert not rows["tree"]["differentiable"]
    assert "nearest" not in rows["rbf"]
    assert rows["k-nn"]["best_transfer"]["from"] in KINDS
    assert "HopSkip" in large["attack"]
    assert "GradientAttack" in large["attack"]


def test_it_is_written_and_goes_on_where_it_stopped(done, digits, monkeypatch):
    result, out, options = done
    assert json.loads((out / "result.json").read_text())["transfer"] == result["transfer"]
    assert "k-nn" in (out / "report.html").read_text()

    def never(*args, **kwargs):
        raise AssertionError("done already")

    monkeypatch.setattr("walnut.recipes.techniques.transfer_table", never)
    again = techniques(digits, out=out, train_examples=500, **options)
    assert again["transfer"] == result["transfer"]
    with pytest.raises(AssertionError, match="done already"):
        techniques(digits, out=out, train_examples=400, **options)


def test_all_techniques_have_a_name_and_fit_their_data(digits):
    known = techniques_for(digits)
    assert set(known) >= {
        "softmax",
        "rbf",
        "k-nn",
        "tree",
        "forest",
        "boosting",
        "svm-linear",
        "svm-rbf",
    }
    assert "small-cnn" in known
    two = two_columns()
    assert "small-cnn" not in techniques_for(two)
    assert accuracy(templates(4, 10)(two, 0), two.test.x, two.test.y).value > 0.9
    assert learner(DecisionTreeClassifier)(two, 0)(two.test.x).shape == (20, 2)


def test_starts_hold_every_class(digits):
    assert len(starts(digits.train, 3)) == 30


def test_what_cannot_be_is_refused(digits, tmp_path):
    with pytest.raises(WalnutError, match="at least one eps"):
        techniques(digits, out=tmp_path, eps=())
    nets = {"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)}
    x, y = torch.rand(3, 2), torch.tensor([0, 1, 0])
    with pytest.raises(WalnutError, match="no attack is given for the network 'b'"):
        transfer_table(nets, x, y, attack={"a": fgsm}, eps=(0.1,), control=fgsm)


def data_of(dataset, count):
    import dataclasses

    return dataclasses.replace(dataset, train=dataset.train.first(count))


def two_columns():
    x = torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0.5).long()
    parts = [data.Split(x[a:b], y[a:b]) for a, b in ((0, 60), (60, 80), (80, 100))]
    return data.Dataset("two", *parts, classes=("left", "right"), shape=(2,))
