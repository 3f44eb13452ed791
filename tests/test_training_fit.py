"""The training loop: what it computes, that it goes on after a kill, and what it says."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from walnut.core.errors import WalnutError
from walnut.core.objectives import cross_entropy
from walnut.training import Batches, adam, constant, cosine, crop, fabric, fit, sgd

GEN = torch.Generator().manual_seed(0)
X = torch.rand(40, 1, 6, 6, generator=GEN)
Y = (X.flatten(1).mean(1) > 0.5).long()


def net(seed=0, dropout=0.3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(64, 2),
    )  # fmt: skip


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(),
                                                 strict=True))  # fmt: skip


def losses(model, x, y):
    return F.cross_entropy(model(x), y, reduction="none")


def test_it_is_gradient_descent_written_out():
    model = nn.Linear(3, 2)
    by_hand = nn.Linear(3, 2)
    by_hand.load_state_dict(model.state_dict())
    x, y = torch.rand(10, 3), torch.arange(10) % 2
    batches = Batches(x, y, 4)
    fit(model, losses, batches, epochs=2, optimizer=sgd(0.3, 0.9, True, 0.01), schedule=cosine())
    velocity = [torch.zeros_like(p) for p in by_hand.parameters()]
    for step, (bx, by) in enumerate(pair for e in range(2) for pair in batches.epoch(e)):
        loss = F.cross_entropy(by_hand(bx), by)
        grads = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for p, g, v in zip(by_hand.parameters(), grads, velocity, strict=True):
                g = g + 0.01 * p
                v.mul_(0.9).add_(g)
                p -= 0.3 * cosine().factor(step, 6) * (g + 0.9 * v)
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_history_and_progress():
    seen, hooks = [], []
    history = fit(
        net(), cross_entropy(), Batches(X, Y, 16), epochs=2, optimizer=sgd(0.01),
        schedule=constant(), validate=lambda m: 0.25, after_step=[hooks.append],
        progress=lambda *call: seen.append(call),
    )  # fmt: skip
    assert [row["epoch"] for row in history.rows] == [1, 2]
    assert all(row["validation"] == 0.25 and row["lr"] == 0.01 for row in history.rows)
    assert all(row["seconds"] >= 0 and row["train_loss"] > 0 for row in history.rows)
    assert hooks == list(range(1, 7))
    assert seen == [("training", i, 6) for i in range(1, 7)]
    assert history.best_epoch == 1


def test_the_loss_of_an_epoch_is_the_mean_over_its_examples():
    model = net(dropout=0.0).eval()
    frozen_lr = fit(model, losses, Batches(X, Y, 16), epochs=1, optimizer=sgd(1e-12))
    model.train()
    expected = torch.cat([losses(model, x, y) for x, y in Batches(X, Y, 16).epoch(0)]).mean()
    assert frozen_lr.rows[0]["train_loss"] == pytest.approx(expected.item(), abs=1e-5)


def test_deterministic_by_seed_and_the_global_state_is_left():
    runs = []
    for seed in (0, 0, 1):
        model = net()
        torch.manual_seed(99 + len(runs))
        before = torch.get_rng_state()
        fit(model, losses, Batches(X, Y, 16), epochs=2, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        runs.append(model)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])  # dropout
    assert not runs[0].training
    assert all(p.is_contiguous() for p in runs[0].parameters())


def test_the_best_epoch_is_kept_where_asked_for():
    kept, scores = [], iter([0.2, 0.9, 0.9, 0.1])

    def validate(model):
        kept.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(scores)

    model = net()
    history = fit(
        model, losses, Batches(X, Y, 16), epochs=4, validate=validate, keep_best=True
    )  # fmt: skip
    assert history.best_epoch == 2
    assert all(torch.equal(v, kept[1][k]) for k, v in model.state_dict().items())


def test_parameters_of_an_objective_train_too():
    class WithRegressor(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))
            self.still = nn.Parameter(torch.tensor(1.0), requires_grad=False)

        def forward(self, model, x, y):
            return losses(lambda z: self.still * self.scale * model(z), x, y)

    objective, model = WithRegressor(), net()
    first = {k: v.clone() for k, v in model.state_dict().items()}
    fit(model, objective, Batches(X, Y, 16), epochs=1)
    assert objective.scale.item() != 1.0
    assert objective.still.item() == 1.0
    assert not torch.equal(first["5.weight"], model[5].weight)


@pytest.mark.parametrize("optimizer", [sgd(0.05), adam(0.01), sgd(0.05, momentum=0.0)])
@pytest.mark.parametrize("every", [None, 2])
def test_an_interrupted_run_ends_with_the_same_network(optimizer, every, tmp_path):
    def run(path, interrupt_at=None):
        def hook(step):
            if step == interrupt_at:
                raise KeyboardInterrupt

        model = net()
        history = fit(
            model, losses, Batches(X, Y, 8, augment=crop(1)), epochs=3, optimizer=optimizer,
            checkpoint=path, checkpoint_every=every, after_step=[hook],
            validate=lambda m: float(m(X).sum().detach()), keep_best=True,
        )  # fmt: skip
        return model, history

    whole, first = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c.safetensors", interrupt_at=9)
    again, second = run(tmp_path / "c.safetensors")
    assert same(whole, again)
    rows = [[{**r, "seconds": 0} for r in h.rows] for h in (first, second)]
    assert rows[0] == rows[1]
    assert first.best_epoch == second.best_epoch
    finished, third = run(tmp_path / "c.safetensors")  # a run that is done only reads its result
    assert same(whole, finished)
    assert third.rows == second.rows
    assert os.listdir(tmp_path) == ["c.safetensors"]


KILLED = """
import sys, time, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from test_training_fit import X, Y, losses, net
from walnut.training import Batches, crop, fit, sgd
from walnut import core
model = net()
fit(model, losses, Batches(X, Y, 8, augment=crop(1)), epochs=8, optimizer=sgd(0.05),
    checkpoint={path!r}, checkpoint_every=3,
    after_step=[lambda step: (print(step, flush=True), time.sleep(0.005))])
"""


def test_after_kill_nine_the_run_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "c.safetensors"
    code = KILLED.format(tests=os.path.dirname(__file__), path=str(path))
    reached = []
    for stop_at in (7, 16):  # killed twice, at no particular moment
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for line in child.stdout:
            if int(line) >= stop_at:
                break
        time.sleep(0.004)
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().split()
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        reached.append(int(rest[-1]) if rest else int(line))
    assert path.exists()
    seen = []
    resumed, whole = net(), net()
    arguments = {"epochs": 8, "optimizer": sgd(0.05)}
    batches = Batches(X, Y, 8, augment=crop(1))
    fit(resumed, losses, batches, **arguments, checkpoint=path, checkpoint_every=3,
        after_step=[seen.append])  # fmt: skip
    assert reached[1] - seen[0] < 3 + 1  # at most checkpoint_every steps are lost
    fit(whole, losses, batches, **arguments)
    assert same(resumed, whole)


def test_a_checkpoint_of_another_run_is_not_continued(tmp_path):
    path = tmp_path / "c.safetensors"
    arguments = {"epochs": 1, "checkpoint": path}
    fit(net(), losses, Batches(X, Y, 8), **arguments)
    for call, says in (
        (
            lambda: fit(net(), losses, Batches(X, Y, 8), epochs=2, checkpoint=path),
            "epochs: 1 there",
        ),
        (lambda: fit(net(1), losses, Batches(X, Y, 8), **arguments), "first weights"),
        (lambda: fit(net(), losses, Batches(X, Y, 4), **arguments), "batches"),
        (lambda: fit(net(), losses, Batches(1 - X, Y, 8), **arguments), "batches"),
        (lambda: fit(net(), losses, Batches(X, Y, 8), **arguments, optimizer=adam()), "optimizer"),
        (lambda: fit(net(), cross_entropy(), Batches(X, Y, 8), **arguments), "objective"),
        (lambda: fit(net(), losses, Batches(X, Y, 8), **arguments, seed=1), "seed"),
    ):
        with pytest.raises(WalnutError, match=f"another run.*{says}.*remove it to start anew"):
            call()
    whole = path.read_bytes()
    for bad in (whole[: len(whole) // 2], b"hello", b""):
        path.write_bytes(bad)
        with pytest.raises(WalnutError, match="not a sound checkpoint"):
            fit(net(), losses, Batches(X, Y, 8), **arguments)


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_checkpoint(tmp_path):
    path = tmp_path / "c.safetensors"

    @dataclass
    class breaks_at:
        step: int
        value: float

        def __call__(self, model, x, y):
            self.step -= 1
            return losses(model, x, y) * (self.value if self.step < 0 else 1.0)

        def __repr__(self):
            return "breaks_at"

    with pytest.raises(WalnutError, match=r"loss became nan \(epoch 2, step 3.*c\.safetensors"):
        fit(net(), breaks_at(7, float("nan")), Batches(X, Y, 8), epochs=3, checkpoint=path)
    with pytest.raises(
        WalnutError, match=r"loss became inf \(epoch 3, step 2"
    ):  # goes on from there
        fit(net(), breaks_at(6, float("inf")), Batches(X, Y, 8), epochs=3, checkpoint=path)
    resumed, whole = net(), net()
    fit(resumed, breaks_at(10**6, 1.0), Batches(X, Y, 8), epochs=3, checkpoint=path)
    fit(whole, losses, Batches(X, Y, 8), epochs=3)
    assert same(resumed, whole)


def test_weights_that_blow_up_in_the_last_step_are_not_kept(tmp_path):
    model = nn.Linear(2, 2, bias=False)
    x = torch.ones(4, 2)

    def explodes(model, x, y):
        return (model(x) * 1e20).sum(1)

    with pytest.raises(WalnutError, match="weights became infinite"):
        fit(model, explodes, Batches(x, torch.zeros(4), 4), epochs=1, optimizer=sgd(1e30),
            checkpoint=tmp_path / "c.safetensors")  # fmt: skip
    assert not (tmp_path / "c.safetensors").exists()


def test_what_makes_no_sense_is_said():
    with pytest.raises(WalnutError, match="one value per example"):
        fit(net(), lambda m, x, y: F.cross_entropy(m(x), y), Batches(X, Y, 8), epochs=1)
    with pytest.raises(WalnutError, match="nothing to train"):
        fit(net().requires_grad_(False), losses, Batches(X, Y, 8), epochs=1)
    with pytest.raises(WalnutError, match="keep_best needs a validation"):
        fit(net(), losses, Batches(X, Y, 8), epochs=1, keep_best=True)


def test_parametrized_weights_train_and_resume(tmp_path):
    class Twice(nn.Module):
        def forward(self, w):
            return 2 * w

        def right_inverse(self, w):
            return w / 2

    def made():
        model = net()
        nn.utils.parametrize.register_parametrization(model[0], "weight", Twice())
        return model

    whole, resumed = made(), made()
    fit(whole, losses, Batches(X, Y, 8), epochs=2)

    def hook(step):
        if step == 8:
            raise KeyboardInterrupt

    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(made(), losses, Batches(X, Y, 8), epochs=2, checkpoint=path, after_step=[hook])
    fit(resumed, losses, Batches(X, Y, 8), epochs=2, checkpoint=path)
    assert same(whole, resumed)


def test_without_lightning_fabric(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(WalnutError, match=r"walnut-nn\[dist\]"):
        fit(net(), losses, Batches(X, Y, 8), epochs=1, engine=fabric(2))


SPREAD = """
import sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from test_training_fit import X, Y, losses
from torch import nn
from walnut.training import Batches, fabric, fit, sgd
def made():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
one, two = made(), made()
arguments = dict(epochs=2, optimizer=sgd(0.05))
a = fit(one, losses, Batches(X, Y, 7), **arguments)  # 40 = 5 * 7 + 5: uneven shares
b = fit(two, losses, Batches(X, Y, 7), **arguments, engine=fabric(2), checkpoint={path!r})
for p, q in zip(one.parameters(), two.parameters()):
    assert torch.allclose(p, q, atol=1e-6), (p - q).abs().max()
assert abs(a.rows[-1]["train_loss"] - b.rows[-1]["train_loss"]) < 1e-5
print("same")
"""


def test_two_processes_make_the_steps_of_one(tmp_path):
    pytest.importorskip("lightning_fabric", reason="the extra `dist` is not installed")
    code = SPREAD.format(tests=os.path.dirname(__file__), path=str(tmp_path / "c.safetensors"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "same" in done.stdout
    assert (tmp_path / "c.safetensors").exists()
