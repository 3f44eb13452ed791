"""bfloat16 arithmetic under the training loop: what is cast, what is not, and how close it stays."""

import pytest
import torch
from torch import nn

from walnut import nets
from walnut.core.errors import WalnutError
from walnut.core.objectives import cross_entropy
from walnut.training import Batches, adam, autocast, fit, full, sgd, single

X, Y = torch.rand(96, 3, 8, 8), torch.randint(0, 4, (96,))


def net(seed=0):
    torch.manual_seed(seed)
    return nets.build("resnet-20", shape=(3, 8, 8), classes=4, width=4, blocks=1)


class Watched:
    """Cross-entropy that notes what it is given."""

    def __init__(self):
        self.dtypes, self.inside = set(), set()

    def __call__(self, model, x, y):
        handle = model.conv1.register_forward_hook(lambda m, i, out: self.inside.add(out.dtype))
        values = cross_entropy()(lambda z: self._note(model(z)), x, y)
        handle.remove()
        return self._note(values)

    def _note(self, t):
        self.dtypes.add(t.dtype)
        return t


@pytest.mark.parametrize(
    ("precision", "inside"), [(full(), torch.float32), (autocast(), torch.bfloat16)]
)
def test_the_network_computes_in_16_bits_and_nothing_else_does(precision, inside):
    model, objective = net(), Watched()
    forward = model.forward
    fit(model, objective, Batches(X, Y, 32), epochs=1, engine=single(precision=precision))
    assert objective.inside == {inside}
    assert objective.dtypes == {torch.float32}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.forward == forward
    assert "forward" not in vars(model)
    assert model(X[:2]).dtype == torch.float32


def test_it_learns_as_in_32_bits_nearly():
    losses = {}
    for precision in (full(), autocast()):
        model = net()
        history = fit(
            model, cross_entropy(), Batches(X, Y, 32), epochs=12, optimizer=adam(3e-3),
            engine=single(precision=precision),
        )  # fmt: skip
        losses[precision] = [row["train_loss"] for row in history.rows]
    exact, cast = losses[full()], losses[autocast()]
    assert cast[-1] < 0.75 * cast[0]
    assert exact != cast
    assert cast[0] == pytest.approx(exact[0], rel=0.02)
    assert cast[-1] == pytest.approx(exact[-1], rel=0.25)


def test_a_run_goes_on_to_the_same_bits_and_does_not_mix_precisions(tmp_path):
    def run(model, epochs_seen=None, precision=None, path=None):
        stop = {"after_step": [lambda done: done == epochs_seen and _halt()]} if epochs_seen else {}
        return fit(
            model, cross_entropy(), Batches(X, Y, 32), epochs=2, optimizer=sgd(0.05),
            engine=single(precision=precision or autocast()), checkpoint=path, **stop,
        )  # fmt: skip

    whole, cut = net(), net()
    run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(cut, epochs_seen=5, path=tmp_path / "run.safetensors")
    again = net()
    run(again, path=tmp_path / "run.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=False)
    )
    with pytest.raises(WalnutError, match="another run"):
        run(net(), precision=full(), path=tmp_path / "run.safetensors")


def _halt():
    raise KeyboardInterrupt


def test_a_network_that_raises_gets_its_forward_back():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            raise ValueError("broken")

    model = Broken()
    model.own = model.forward
    with pytest.raises(ValueError, match="broken"):
        fit(model, cross_entropy(), Batches(X, Y), epochs=1, engine=single(precision=autocast()))
    assert "forward" not in vars(model)


def test_a_teacher_in_16_bits_answers_in_32():
    model = net().eval()
    with torch.no_grad():
        exact, cast = model(X), autocast().wrap(model)(X)
    assert cast.dtype == torch.float32
    assert not torch.equal(exact, cast)
    assert torch.allclose(exact, cast, atol=0.05 * float(exact.abs().max()))


def test_float16_is_refused():
    with pytest.raises(WalnutError, match="float16"):
        autocast(torch.float16)
