"""Each check finds the network that was broken on purpose, and only that one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from walnut.core.errors import WalnutError
from walnut.evaluate.honesty import batch_size, examine, gradients, input_range, outputs

CLASSES = 4


class Wrapped(nn.Module):
    """A network with something done to what goes in or comes out."""

    def __init__(
        self, net: nn.Module, after: Callable = lambda z: z, before: Callable = lambda x: x
    ):
        super().__init__()
        self.net, self.after, self.before = net, after, before

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear network that has learnt four blobs in [0, 1]⁶."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.rand(CLASSES, 6, generator=generator)
    y = torch.arange(200) % CLASSES
    x = (centres[y] + 0.05 * torch.randn(200, 6, generator=generator)).clamp(0, 1)
    net = nn.Linear(6, CLASSES)
    optimizer = torch.optim.Adam(net.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    net.zero_grad(set_to_none=True)
    assert (net(x).argmax(1) == y).double().mean() > 0.95
    return net.eval(), x, y


def wrong(model: nn.Module, x: Tensor, y: Tensor) -> list[str]:
    return [finding.name for finding in examine(model, x, y) if finding.level == "wrong"]


def test_a_sound_network_is_sound(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = trained
    found = examine(net, x, y)
    assert {finding.level for finding in found} == {"good"}
    names = [finding.name for finding in found]
    assert names == ["mode", "outputs", "randomness", "batch", "gradients", "range"]
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("after", "name"),
    [
        (lambda z: z.softmax(1), "outputs"),
        (lambda z: z * float("nan"), "outputs"),
        (lambda z: z + torch.randn_like(z), "randomness"),
        (lambda z: z - z.mean(0), "batch"),
        (lambda z: z.round() + 0 * z.detach(), "gradients"),
        (lambda z: 1e4 * z, "gradients"),
        (lambda z: z.detach(), "gradients"),
        (lambda z: z[:, :2], "shape"),
        (lambda z: z.sum(), "shape"),
    ],
    ids=[
        "softmax",
        "nan",
        "noise",
        "batch",
        "rounded",
        "saturated",
        "detached",
        "classes",
        "scalar",
    ],
)
def test_what_was_broken_is_found(
    trained: tuple[nn.Module, Tensor, Tensor], after: Callable, name: str
) -> None:
    net, x, y = trained
    found = wrong(Wrapped(net, after), x, y)
    assert name in found
    finding = next(f for f in examine(Wrapped(net, after), x, y) if f.name == name)
    assert finding.remedy
    assert "\n" not in finding.sentence


def test_log_probabilities_are_as_good_as_logits(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = trained
    found = outputs(Wrapped(net, lambda z: z.log_softmax(1)), x, y)
    assert (found.level, "log-probabilities" in found.sentence) == ("good", True)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (lambda x: x / 255, "0 to 255"),
        (lambda x: (x + 1) / 2, "-1 to 1"),
        (lambda x: x * 0.3 + 0.5, "mean 0 and deviation 1"),
    ],
)
def test_a_network_of_another_range(
    trained: tuple[nn.Module, Tensor, Tensor], before: Callable, said: str
) -> None:
    net, x, y = trained
    found = input_range(Wrapped(net, before=before), x, y)
    assert found.level == "wrong"
    assert "in [0, 1]" in found.sentence
    if said == "0 to 255":
        assert said in found.sentence


def test_an_untrained_network_is_odd_and_not_wrong(
    trained: tuple[nn.Module, Tensor, Tensor],
) -> None:
    _, x, y = trained
    dead = nn.Linear(6, CLASSES)
    nn.init.zeros_(dead.weight)
    assert input_range(dead, x, y).level == "odd"
    with pytest.raises(WalnutError, match=r"x is 0.*255; the checks need examples in \[0, 1\]"):
        input_range(dead, 255 * x.round(), y)


def test_the_share_of_dead_gradients_is_the_share(
    trained: tuple[nn.Module, Tensor, Tensor],
) -> None:
    net, x, y = trained
    few = Wrapped(net, before=lambda x: x * (torch.arange(len(x)) >= 10)[:, None])
    found = gradients(few, x, y)
    assert found.level == "odd"
    assert "5.0 %" in found.sentence
    many = Wrapped(net, before=lambda x: x * (torch.arange(len(x)) >= 50)[:, None])
    assert gradients(many, x, y).level == "wrong"


def test_train_mode_is_seen_and_put_back() -> None:
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, CLASSES)
    ).train()
    x, y = torch.rand(20, 6), torch.arange(20) % CLASSES
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = {finding.name: finding for finding in examine(net, x, y, trained=False)}
    assert found["mode"].level == "odd"
    assert "2 dropout or batch-norm layers" in found["mode"].sentence
    assert found["randomness"].level == "good"  # looked at in eval mode
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert batch_size(net, x).level == "wrong"


def test_labels_that_the_network_does_not_have(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = trained
    assert "labels run from 0 to 7" in outputs(net, x, y + (y == 3) * 4).sentence
    assert "does not fit the network" in outputs(net, x[:, :4], y).sentence


def test_a_random_network_is_called_so_once(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = trained
    shaky = Wrapped(net, after=lambda z: z + 0.1 * torch.randn_like(z))
    found = examine(shaky, x, y)
    assert [finding.name for finding in found if finding.level == "wrong"] == ["randomness"]
    assert "batch" not in {finding.name for finding in found}
