"""Lower bounds: exact where the truth is known, never above it elsewhere, and honest about their limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from walnut import data, nets
from walnut.attacks import pgd
from walnut.core.constraints import l2, linf
from walnut.core.errors import WalnutError
from walnut.core.objectives import margin
from walnut.evaluate import floor as floor_module
from walnut.evaluate import robustness
from walnut.evaluate.certified import certified
from walnut.evaluate.recorded import NotApplicable, record, replay
from walnut.training import Batches, fit, optimizers


class Residual(nn.Module):
    """A branch, a shortcut that subsamples, batch norm, average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Linear(4, 3)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.weight.normal_()  # some of them negative

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        h = F.relu(self.norm(self.branch(h)) - 0.5 * h[:, :, ::2, ::2])
        return self.last(h.mean((2, 3)))


def zoo() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Networks of every part that is bounded, by name, with their input shapes."""
    torch.manual_seed(1)
    mlp = nn.Sequential(
        nn.Linear(3, 12), nn.ReLU(inplace=True), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)
    )
    pools = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding="same"),
        nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 2, groups=2), nn.ReLU(), nn.Flatten(), nn.Dropout(),
        nn.Linear(4, 3),
    )  # fmt: skip
    small = nets.build(
        "small-cnn", shape=(2, 8, 8), classes=3, width=3, hidden=8, mean=[0.4, 0.5], std=[0.2, 0.3]
    )
    found: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "mlp": (mlp, (3,)), "pools": (pools, (2, 8, 8)), "small-cnn": (small, (2, 8, 8)),
        "residual": (Residual(), (2, 8, 8)),
    }  # fmt: skip
    return {name: (net.double().eval(), shape) for name, (net, shape) in found.items()}


def least(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return the smallest margin found in the ball, by many draws and by climbing."""
    z = margin()
    many, label = x.repeat(100, *[1] * (x.ndim - 1)), y.repeat(100)
    size = torch.rand(len(many), *[1] * (x.ndim - 1), dtype=x.dtype) * eps
    points = (many + size * (2 * torch.rand_like(many) - 1).sign()).clamp(0, 1)
    worst = -z(net, points, label).detach().reshape(100, len(x)).amin(0)
    found = pgd(eps, objective=z, early_stop=False, restarts=2, steps=15)(net, x, y)
    return torch.minimum(worst, -z(net, found.x, y).detach())


@pytest.mark.parametrize("name", ["mlp", "pools", "small-cnn", "residual"])
@pytest.mark.parametrize("eps", [0.01, 0.08])
def test_never_above_what_an_attack_reaches(name: str, eps: float) -> None:
    net, shape = zoo()[name]
    torch.manual_seed(2)
    x = torch.rand(12, *shape, dtype=torch.float64)
    y = net(x).argmax(1)
    cheap = certified(net, x, y, eps, thorough=torch.zeros(12, dtype=torch.bool))
    full = certified(net, x, y, eps)
    reached = least(net, x, y, eps)
    assert bool((full.margin <= reached + 1e-9).all())
    assert bool((cheap.margin <= full.margin + 1e-9).all())
    assert bool((full.proven == (full.margin > 0)).all() or bool((full.margin.abs() < 1e-3).any()))
    assert cheap.backward <= full.backward
    if eps == 0.01 and name in ("mlp", "residual"):  # and near it, where little is open
        gap = reached - full.margin
        assert (
            float(gap.median())
            < 0.3 * float((-margin()(net, x, y).detach() - reached).median()) + 1e-6
        )


def test_exact_on_a_linear_network_and_where_no_unit_turns() -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 3, dtype=torch.float64).eval()
    x, eps = torch.rand(20, 6, dtype=torch.float64), 0.15
    y = torch.arange(20) % 3
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    w = (net.weight[y][:, None] - net.weight[None]).detach()
    c = (net.bias[y][:, None] - net.bias[None]).detach()
    ends = torch.where(w > 0, w * low[:, None], w * high[:, None]).sum(2) + c
    exact = ends.scatter(1, y[:, None], float("inf")).amin(1)
    found = certified(net, x, y, eps)
    assert torch.allclose(found.margin, exact)
    mlp, _ = zoo()["mlp"]
    x = torch.rand(30, 3, dtype=torch.float64).requires_grad_()
    z, eps = mlp(x), 1e-4
    y = z.argmax(1)
    top = z.topk(2).values
    (slope,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), x)
    local = (top[:, 0] - top[:, 1] - eps * slope.abs().sum(1)).detach()
    got = certified(mlp, x.detach(), y, eps, bounds=None)
    same = (got.margin - local).abs() < 1e-9
    assert int(same.sum()) >= 25  # the others have a unit that turns inside the ball
    assert bool((got.margin <= local + 1e-9).all())
    at_rest = certified(mlp, x.detach(), y, 0.0)
    assert torch.allclose(at_rest.margin, (top[:, 0] - top[:, 1]).detach())


def test_batches_do_not_matter() -> None:
    net, shape = zoo()["small-cnn"]
    x = torch.rand(9, *shape, dtype=torch.float64)
    y = net(x).argmax(1)
    whole, parts = certified(net, x, y, 0.05), certified(net, x, y, 0.05, batch_size=2)
    assert torch.allclose(whole.margin, parts.margin)
    assert torch.equal(whole.proven, parts.proven)


def test_the_graph_gives_the_networks_own_logits() -> None:
    for net, shape in zoo().values():
        x = torch.rand(5, *shape, dtype=torch.float64)
        assert torch.allclose(replay(record(net, x), x), net(x))


class Strange(nn.Module):
    """A linear layer and something that no bound is known of."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.linear, self.what = nn.Linear(4, 3), what

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        if self.what == "sigmoid":
            return z.sigmoid()
        if self.what == "square":
            return z * z
        if self.what == "mixes":
            return z - z.mean(0)
        if self.what == "looks":
            return z if bool(z.sum() > 1e9) else -z
        if self.what == "numpy":
            return torch.from_numpy(z.detach().numpy() * 2)
        return z.half().float()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("sigmoid", "sigmoid is neither"), ("square", "mul is not affine"), ("mixes", "mixes examples"),
        ("looks", "cannot be watched|looks at"), ("numpy", "."), ("half", "half"),
    ],
)  # fmt: skip
def test_what_cannot_be_bounded_is_refused(what: str, says: str) -> None:
    with pytest.raises(NotApplicable, match=says):
        certified(Strange(what).eval(), torch.rand(4, 4), torch.zeros(4, dtype=torch.int64), 0.1)
    with pytest.raises(WalnutError, match="eps is a radius"):
        certified(nn.Linear(4, 3), torch.rand(4, 4), torch.zeros(4, dtype=torch.int64), -0.1)


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    dataset = data.load("digits")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10)
    )
    cross = nn.functional.cross_entropy
    fit(
        net, lambda m, x, y: cross(m(x), y, reduction="none"),
        Batches(dataset.train.x, dataset.train.y, 64), epochs=12, optimizer=optimizers.adam(5e-3),
    )  # fmt: skip
    return net.eval(), dataset.test.x[:70], dataset.test.y[:70]


def test_the_verdict_stands_between_floor_and_figure(
    digits: tuple[nn.Module, Tensor, Tensor], tmp_path: Path
) -> None:
    net, x, y = digits
    ask = {"eps": 0.04, "with_curve": False, "certify": True, "folder": tmp_path / "ledger"}
    found = robustness(net, (x, y), linf, **ask)
    assert found.certified is not None
    assert 0.1 < found.certified.value <= found.robust.value
    (check,) = (c for c in found.checks if c.name == "provable lower bound")
    assert check.level == "good"
    assert f"{found.certified.value:.1%} (proven)" in check.sentence
    assert found.json()["certified"]["correct"] == found.certified.correct
    again = robustness(net, (x, y), linf, **ask)  # from the ledger
    assert again.json()["checks"] == found.json()["checks"]
    plain = robustness(net, (x, y), linf, 0.04, with_curve=False)
    assert plain.certified is None
    assert "provable lower bound" not in {c.name for c in plain.checks}
    assert (plain.robust, plain.forward) == (found.robust, found.forward)


def test_a_proof_that_an_attack_contradicts_is_a_red_flag(
    digits: tuple[nn.Module, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, y = digits
    true = certified(net, x[:5], y[:5], 0.2)

    def believed(model: object, x: Tensor, *rest: object, **more: object) -> object:
        return type(true)(torch.ones(len(x), dtype=torch.bool), torch.ones(len(x)), 0.0, 0.0, 0.0)

    monkeypatch.setattr(floor_module, "certified", believed)
    found = robustness(net, (x, y), linf, 0.2, with_curve=False, certify=True)
    (flag,) = (c for c in found.flags if c.name == "provable lower bound")
    assert len(flag.examples) == int((found.survey.fell_to >= 0).sum())
    assert "single step" in flag.attacks


def test_where_no_bound_can_be_had_the_verdict_says_so(
    digits: tuple[nn.Module, Tensor, Tensor],
) -> None:
    net, x, y = digits
    smooth = nn.Sequential(net[0], net[1], nn.Tanh(), net[3], nn.ReLU(), net[5]).eval()
    for model, norm, says in ((net, l2, "L∞ only"), (smooth, linf, "tanh is neither")):
        found = robustness(model, (x[:20], y[:20]), norm, 0.02, with_curve=False, certify=True)
        assert found.certified is None
        (check,) = (c for c in found.checks if c.name == "provable lower bound")
        assert check.level == "odd"
        assert says in check.sentence


@pytest.mark.data
def test_the_published_certificate_of_a_provable_network(data_folder: Path) -> None:
    dataset = data.load("mnist")
    path = data_folder / "models" / "mnist_cnn_provable_eps0.1.safetensors"
    net = nets.resolve("small-cnn", path, dataset=dataset)
    x, y = dataset.test.x[:40], dataset.test.y[:40]
    found = certified(net, x, y, 0.1)
    assert float(found.proven.double().mean()) >= 0.85  # 94.2 % of all are published
    assert not (found.proven & pgd(0.1)(net, x, y).success).any()
