"""The substitute: labels only, queries counted exactly, and a success that noise does not have."""

import json

import numpy as np
import pytest
import torch
from sklearn.svm import SVC
from torch import nn

from walnut import data, nets
from walnut.attacks import fgsm
from walnut.core.errors import WalnutError
from walnut.evaluate import predict
from walnut.nets.classical import Classical
from walnut.recipes.jacobian import augmented, everything, reservoir, turning
from walnut.recipes.learners import network
from walnut.recipes.record import drawn_examples
from walnut.recipes.substitute import LabelOracle, substitute, train_substitute
from walnut.training import adam


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


class Watched:
    """A model that notes how many examples it was shown."""

    def __init__(self, model):
        self.model, self.seen = model, 0

    def __call__(self, x):
        self.seen += len(x)
        return self.model(x)


def test_queries_are_counted_exactly(digits):
    oracle = LabelOracle(watched := Watched(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    made = train_substitute(oracle, net, digits.validation.x[:7], rounds=3, epochs=1)
    assert made.queries == watched.seen == oracle.queries == 7 * 2**3
    assert [r["queries"] for r in made.rounds] == [7, 14, 28, 56]
    assert len(made.x) == 56
    assert torch.equal(made.labels, predict(watched.model, made.x).argmax(1))
    assert made.x.min() >= 0
    assert made.x.max() <= 1
    again = train_substitute(oracle, net, digits.validation.x[:7], rounds=0, epochs=1)
    assert again.queries == 7
    limited = train_substitute(
        oracle, net, digits.validation.x[:8], rounds=4, select=reservoir(1, 5), epochs=1
    )
    assert limited.queries == 8 + 8 + 5 + 5 + 5


def test_augmentation_follows_the_jacobian_of_the_label():
    w = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 3.0, 1.0]])
    net = nn.Linear(3, 2)
    net.weight.data.copy_(w)
    x = torch.full((2, 3), 0.5)
    x[1, 1] = 0.95
    found = augmented(net, x, torch.tensor([0, 1]), 0.1)
    wanted = torch.tensor([[0.6, 0.4, 0.5], [0.4, 1.0, 0.6]])  # the last entry cut off at 1
    assert torch.allclose(found, wanted)
    back = augmented(net, x, torch.tensor([0, 1]), -0.1)
    assert torch.allclose(back[0], torch.tensor([0.4, 0.6, 0.5]))
    assert net.weight.grad is None
    assert [turning(0.1, 3)(at) for at in range(7)] == [0.1] * 3 + [-0.1] * 3 + [0.1]


def test_a_reservoir_is_an_even_draw():
    draws = [reservoir(0, 4)(10, 2, np.random.default_rng(seed)) for seed in range(3000)]
    assert all(len(set(rows.tolist())) == 4 for rows in draws)
    counts = np.bincount(np.concatenate(draws), minlength=10) / 3000
    assert np.abs(counts - 0.4).max() < 0.04  # 4.5 standard deviations
    assert reservoir(3, 4)(10, 2, np.random.default_rng(0)).tolist() == list(range(10))
    assert everything()(3, 9, np.random.default_rng(0)).tolist() == [0, 1, 2]


@pytest.fixture(scope="module")
def attacked(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("substitute")
    oracle = network("softmax")(digits, 0)
    options = {"attack": fgsm, "eps": 0.2, "seeds": 50, "rounds": 3, "optimizer": adam(3e-3)}
    return substitute(oracle, digits, out=out, examples=150, **options), out, oracle, options


def test_a_network_is_fooled_through_its_substitute(attacked, digits):
    result, out, oracle, _ = attacked
    told, attacks = result["substitute"], result["rows"][0]["attacks"]
    assert told["queries"] == 400
    left = {name: attacks[name]["robust"]["value"] for name in attacks}
    assert left["white box"] <= left["substitute"] < left["noise"] - 0.2
    x, y = drawn_examples(digits, 150, 0)
    net = nets.load(out / "substitute.safetensors")
    made = fgsm(0.2)(net, x, y).x
    right = predict(oracle, x).argmax(1) == y
    fooled = (predict(oracle, made).argmax(1) != y)[right]
    assert attacks["substitute"]["fooled_of_correct"]["correct"] == int(fooled.sum())
    same = predict(net, x).argmax(1) == predict(oracle, x).argmax(1)
    assert told["agreement"]["correct"] == int(same.sum())
    assert told["agreement"]["value"] > 0.6
    assert json.loads((out / "result.json").read_text())["substitute"] == told
    assert (out / "report.html").exists()


def test_the_attacker_sees_labels_only(attacked, digits, tmp_path):
    result, _, oracle, options = attacked

    def hard(z):
        answer = oracle(z).detach().argmax(1)
        return 5.0 * nn.functional.one_hot(answer, 10).to(z.dtype)

    same = substitute(hard, digits, out=tmp_path, examples=150, **options)
    assert same["substitute"] == result["substitute"]
    theirs, ours = (r["rows"][0]["attacks"]["substitute"]["robust"] for r in (same, result))
    assert theirs == ours
    assert "white box" not in same["rows"][0]["attacks"]
    assert "no white-box bound" in same["notes"][0]


def test_a_machine_without_gradients_is_fooled_too(digits, tmp_path):
    x, y = digits.train.x.flatten(1).numpy(), digits.train.y.numpy()
    oracle = Classical(SVC().fit(x, y), 10)
    result = substitute(
        oracle, digits, out=tmp_path, attack=fgsm, eps=0.25, seeds=100, rounds=3, examples=100,
        optimizer=adam(3e-3),
    )  # fmt: skip
    attacks = result["rows"][0]["attacks"]
    assert attacks["substitute"]["robust"]["value"] < attacks["noise"]["robust"]["value"] - 0.2


def test_what_cannot_be_is_refused(digits):
    with pytest.raises(WalnutError, match="needs seeds"):
        train_substitute(LabelOracle(nn.Flatten()), nn.Flatten(), digits.test.x[:0])


def test_two_classes_of_table_rows_work(tmp_path):
    x = torch.rand(160, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + x[:, 1] > 1).long()
    parts = [data.Split(x[a:b], y[a:b]) for a, b in ((0, 60), (60, 80), (80, 160))]
    table = data.Dataset("two", *parts, classes=("no", "yes"), shape=(3,))
    oracle = Classical(SVC().fit(parts[0].x.numpy(), parts[0].y.numpy()), 2)
    result = substitute(
        oracle, table, out=tmp_path, net="softmax", attack=fgsm, eps=0.2, seeds=20, rounds=2, epochs=60,
        optimizer=adam(3e-2),
    )  # fmt: skip
    attacks = result["rows"][0]["attacks"]
    assert result["substitute"]["queries"] == 80
    # on this plane a sign step moves the sum by 2 eps, noise in half of the draws by nothing
    assert attacks["substitute"]["robust"]["value"] < attacks["noise"]["robust"]["value"]
