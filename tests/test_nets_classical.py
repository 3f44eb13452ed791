"""Wrapped classifiers answer as scikit-learn does; Gaussian units are what their formula says."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from walnut import data, nets
from walnut.attacks import hop_skip_jump, noise, pgd
from walnut.core.constraints import linf
from walnut.core.errors import WalnutError
from walnut.core.objectives import cross_entropy
from walnut.evaluate import accuracy, predict
from walnut.nets.classical import Classical
from walnut.nets.rbf import Rbf, centred
from walnut.training import Batches, adam, fit

KINDS = [
    KNeighborsClassifier(4),  # votes tie
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(10, random_state=0),
    GradientBoostingClassifier(n_estimators=3, max_depth=2, random_state=0),
    LinearSVC(),
    SVC(),
    SVC(decision_function_shape="ovo"),  # a score per pair of classes
    LogisticRegression(max_iter=500),
    Perceptron(),
    GaussianNB(),
]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: type(k).__name__)
def test_the_largest_score_is_what_the_classifier_predicts(kind, classes, digits):
    rows = digits.train.y < classes
    x, y = digits.train.x[rows][:200], digits.train.y[rows][:200]
    model = Classical(kind.fit(x.flatten(1).numpy(), y.numpy()), classes)
    test = (digits.test.x + 0.3 * torch.rand_like(digits.test.x)).clamp(0, 1)
    scores = predict(model, test)
    assert scores.shape == (len(test), classes)
    assert scores.isfinite().all()
    assert not scores.requires_grad
    answer = kind.predict(test.flatten(1).numpy())
    assert np.array_equal(scores.argmax(1).numpy(), answer)
    assert torch.equal(scores.argmax(1), predict(model, test.flatten(1)).argmax(1))


def test_scores_are_log_probabilities_or_decisions(digits):
    x, y = digits.train.x[:200].flatten(1).numpy(), (digits.train.y[:200] > 4).long().numpy()
    soft = LogisticRegression().fit(x, y)
    z = Classical(soft, 2)(digits.test.x[:20])
    decision = torch.from_numpy(soft.decision_function(digits.test.x[:20].flatten(1).numpy()))
    assert torch.allclose((z[:, 1] - z[:, 0]).double(), decision.double(), atol=1e-5)
    near = KNeighborsClassifier(5).fit(x, y)
    share = torch.from_numpy(near.predict_proba(digits.test.x[:20].flatten(1).numpy()))
    assert torch.allclose(Classical(near, 2)(digits.test.x[:20]).double().exp(), share, atol=1e-5)


def test_a_class_that_was_never_seen_is_never_answered(digits):
    rows = digits.train.y != 0
    tree = DecisionTreeClassifier().fit(
        digits.train.x[rows].flatten(1).numpy(), digits.train.y[rows].numpy()
    )
    scores = Classical(tree, 10)(digits.test.x)
    assert scores.isfinite().all()
    assert (scores.argmin(1) == 0).all()


def test_attacks_that_only_ask_work_and_others_say_why_not(digits):
    x, y = digits.train.x, digits.train.y
    model = Classical(KNeighborsClassifier(3).fit(x.flatten(1).numpy(), y.numpy()), 10)
    x, y = digits.test.x[:4], digits.test.y[:4]
    found = hop_skip_jump(norm=linf, steps=2, samples=20, starts=digits.train.x[:40])(model, x, y)
    assert found.success.all()
    assert torch.equal(found.prediction, model(found.x).argmax(1))
    assert len(noise(0.1)(model, x, y).x) == 4
    with pytest.raises(WalnutError, match="no gradient reaches the input"):
        pgd(0.1)(model, x, y)


def test_what_is_no_classifier_is_refused():
    with pytest.raises(WalnutError, match="no fitted classifier"):
        Classical(SVC(), 2)
    x = np.array([[0.0], [1.0]])
    with pytest.raises(WalnutError, match=r"not to 0, \.\.\., 1"):
        Classical(SVC().fit(x, [1, 2]), 2)
    with pytest.raises(WalnutError, match="not to 0"):
        Classical(SVC().fit(x, ["a", "b"]), 2)
    good = Classical(SVC().fit(x, [0, 1]), 2)
    assert good(torch.zeros(0, 1)).shape == (0, 2)
    with pytest.raises(WalnutError, match="takes 1 numbers, not 3"):
        predict(good, torch.rand(2, 3))


def test_gaussian_units_are_what_the_formula_says():
    net = Rbf(shape=(1, 2, 2), classes=3, units=5).double()
    x = torch.rand(4, 1, 2, 2, dtype=torch.float64)
    for i in range(4):
        h = [
            math.exp(-math.exp(b) * float((x[i].flatten() - c).square().sum()))
            for c, b in zip(net.centres.detach(), net.log_beta.tolist(), strict=True)
        ]
        wanted = net.linear.weight @ torch.tensor(h, dtype=torch.float64) + net.linear.bias
        assert torch.allclose(net(x)[i], wanted)
    far = net(torch.full((1, 1, 2, 2), 1e3, dtype=torch.float64))
    assert torch.allclose(far[0], net.linear.bias)  # far from everything nothing is claimed


def test_centres_lie_on_the_data_and_training_helps(digits):
    state = torch.get_rng_state()
    net = centred(digits.train.x, digits.train.y, classes=10, units=40)
    assert torch.equal(state, torch.get_rng_state())
    start = accuracy(net, digits.test.x, digits.test.y).value
    assert start > 0.85  # nearest templates know the digits already
    owners = net.linear.weight.argmax(0)
    assert owners.bincount(minlength=10).min() >= 1
    for label in (0, 7):
        own = digits.train.x[digits.train.y == label].flatten(1)
        mean = net.centres.detach()[owners == label]
        assert float(torch.cdist(mean, own).min(1).values.max()) < 1.6
    batches = Batches(digits.train.x, digits.train.y, 64)
    fit(net, cross_entropy(), batches, epochs=10, optimizer=adam(1e-2))
    assert accuracy(net, digits.test.x, digits.test.y).value > max(0.95, start)
    first, again = (
        centred(digits.train.x, digits.train.y, classes=10, units=40).centres for _ in range(2)
    )
    assert torch.equal(first, again)


def test_gaussian_units_are_registered(tmp_path):
    x, y = torch.rand(30, 1, 4, 4), torch.arange(30) % 3
    net = centred(x, y, classes=3, units=6)
    nets.save(net, tmp_path / "rbf.safetensors")
    again = nets.load(tmp_path / "rbf.safetensors")
    assert torch.equal(again(x), net.eval()(x))
    assert nets.build("RBF", **net.description["arguments"]).description == net.description
    save_file(dict(net.state_dict()), tmp_path / "bare.safetensors")
    found = nets.resolve(tmp_path / "bare.safetensors", net="rbf", shape=(1, 4, 4))
    assert torch.equal(found(x), net(x))  # units and classes are read off the shapes


def test_fresh_gaussian_units_are_as_awake_whatever_the_normalisation():
    x = torch.rand(20, 1, 8, 8)
    plain, normed = (
        nets.build("rbf", shape=(1, 8, 8), units=50, mean=mean, std=std)
        for mean, std in ((None, None), ([0.3], [0.1]))
    )
    for net in (plain, normed):
        with torch.no_grad():
            net.linear.weight.fill_(1 / 50)
            net.linear.bias.zero_()
        assert 0.3 < float(net(x).detach().mean()) < 0.5  # exp(−E‖u − v‖² / 0.18 d) = exp(−0.93)


def test_one_unit_on_one_class_sits_on_its_mean():
    x = torch.tensor([[0.0, 0.0], [0.2, 0.0], [1.0, 1.0]])
    net = centred(x, torch.tensor([0, 0, 1]), classes=2, units=2)
    assert torch.allclose(net.centres, torch.tensor([[0.1, 0.0], [1.0, 1.0]]))
    with pytest.raises(WalnutError, match="one unit a class"):
        centred(x, torch.tensor([0, 0, 1]), classes=2, units=1)
