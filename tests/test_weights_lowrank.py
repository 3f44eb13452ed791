"""Low rank: closed forms, the convolution of the reconstructed kernel, least squares, bad input."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from walnut import nets
from walnut.core.errors import WalnutError
from walnut.evaluate import cost
from walnut.weights import (
    Mask,
    by_responses,
    by_weights,
    channel,
    cp,
    edits,
    factorise,
    pack,
    represent,
    response_energy,
    separable,
    separate,
    spatial,
    svd,
    tucker2,
    weight_energy,
)
from walnut.weights import decompose as parts
from walnut.weights.lowrank_budget import budget
from walnut.weights.lowrank_forms import FORMS
from walnut.weights.lowrank_moments import Sampler, gather, moments, targets
from walnut.weights.lowrank_parts import Form

LAYERS = {
    "plain": nn.Conv2d(6, 8, 3, padding=1),
    "odd": nn.Conv2d(5, 7, (3, 5), stride=(2, 1), padding=(2, 1), dilation=(1, 2), bias=False),
    "same": nn.Conv2d(4, 6, 3, padding="same"),
    "reflect": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "strided": nn.Conv2d(6, 4, 3, stride=2),
}
SOME = [channel(2), spatial(3), tucker2(2, 3), cp(3), separable(2)]


def doubled(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(copy.deepcopy(layer)).double().eval()


def dense_of(layer: nn.Conv2d, form: Form) -> Tensor:
    """Return the kernel that the form's factors amount to, computed apart from the layers."""
    w = layer.weight.detach().double()
    limits = form.limits(layer)
    ranks = tuple(min(r, m) for r, m in zip(form.ranks, limits, strict=True))  # type: ignore[type-var]
    return form.whole(form.factors(w, ranks, None), w.shape[1])


@pytest.mark.parametrize("form", SOME, ids=lambda f: f.name)
@pytest.mark.parametrize("kind", LAYERS)
def test_small_layers_are_the_convolution_of_their_kernel(kind: str, form: Form) -> None:
    layer = LAYERS[kind]
    net = doubled(layer)
    kernel = dense_of(layer, form)
    done = factorise(net, {"0": form})
    if done.left:  # larger than the original: named, and untouched
        assert isinstance(net[0], nn.Conv2d)
        return
    whole = doubled(layer)[0]
    with torch.no_grad():
        whole.weight.copy_(kernel)
        x = torch.randn(3, layer.in_channels, 11, 13, dtype=torch.float64)
        torch.testing.assert_close(net(x), whole(x), rtol=1e-10, atol=1e-10)
    lost = (layer.weight.detach() - kernel).square().sum() / layer.weight.detach().square().sum()
    assert done.errors["0"] == pytest.approx(float(lost), rel=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", sorted(set(FORMS) - {"svd", "cp"}))
def test_exact_at_full_rank(name: str, kind: str) -> None:
    layer, form = LAYERS[kind], FORMS[name]
    w = layer.weight.detach().double()
    factors = form.factors(w, form.limits(layer), None)
    torch.testing.assert_close(form.whole(factors, w.shape[1]), w, rtol=1e-9, atol=1e-9)
    x = torch.randn(500, w[0].numel(), dtype=torch.float64)
    same = form.factors(w, form.limits(layer), moments(x, x @ w.flatten(1).T))
    torch.testing.assert_close(form.whole(same, w.shape[1]), w, rtol=1e-5, atol=1e-5)


def test_cp_finds_a_kernel_of_its_rank() -> None:
    sizes = (7, 6, 3, 3)
    a, b, c, d = (torch.randn(n, 4, dtype=torch.float64) for n in sizes)
    w = torch.einsum("or,ir,yr,xr->oiyx", a, b, c, d)
    found = torch.einsum("or,ir,yr,xr->oiyx", *parts.cp(w, 4))
    assert float((w - found).norm() / w.norm()) < 1e-3
    assert all(f.norm(dim=0).max() < 10 for f in parts.cp(w, 4))  # nothing grows and cancels


def test_the_error_is_the_tail_of_the_spectrum_and_nothing_beats_it() -> None:
    w = torch.randn(20, 30, dtype=torch.float64)
    p, q, s = parts.split(w, 5)
    least = (w - p @ q).square().sum()
    torch.testing.assert_close(least, s[5:].square().sum())
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        q2 = torch.randn(5, 30, generator=draw, dtype=torch.float64)
        best = torch.linalg.lstsq(q2.T, w.T).solution.T
        assert (w - best @ q2).square().sum() > least


def test_tucker_at_hooi_beats_or_equals_the_truncated_hosvd() -> None:
    w = torch.randn(8, 9, 9, dtype=torch.float64)
    p, core, q = parts.tucker2(w, 3, 4)
    error = (w - torch.einsum("ob,bas,ai->ois", p, core, q)).square().sum()
    a = parts.leading(torch.einsum("ois,ojs->ij", w, w), 3)
    b = parts.leading(torch.einsum("ois,pis->op", w, w), 4)
    truncated = torch.einsum("op,pis,ij->ojs", b @ b.T, w, a @ a.T)
    assert error <= (w - truncated).square().sum() + 1e-9
    torch.testing.assert_close(error, w.square().sum() - core.square().sum())


def test_responses_are_the_closed_form_of_low_rank_regression() -> None:
    """On anisotropic data the optimum is U_k U_kᵀ w, U of the responses; weights alone are worse."""
    d = 12
    scale = torch.logspace(0, -2, d).double()
    x = torch.randn(4000, d, dtype=torch.float64) * scale
    w = torch.randn(10, d, dtype=torch.float64) / scale  # the small inputs have the large weights
    w[:3] *= scale * 3
    y = x @ w.T
    m = moments(x, y)
    responding, by_weight = svd().factors(w, (3,), m), svd().factors(w, (3,), None)
    found = svd().whole(responding, d)
    assert m.error(found) < 0.5 * m.error(svd().whole(by_weight, d))
    energies = torch.linalg.eigvalsh(torch.cov(y.T, correction=0)).flip(0)
    assert m.error(found) == pytest.approx(float(energies[3:].sum() / energies.sum()), rel=1e-3)
    torch.testing.assert_close(svd().spectra(w, m)[0][:10], energies, rtol=1e-5, atol=1e-8)


def test_responses_take_back_what_earlier_layers_did() -> None:
    """Asymmetric: with x̂ = T x the best full-rank layer is w T⁻¹, which no fit to w can give."""
    w = torch.randn(6, 6, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    x = torch.randn(3000, 6, dtype=torch.float64)
    m = moments(x @ turn.T, x @ w.T)
    found = svd().whole(svd().factors(w, (6,), m), 6)
    assert m.error(found) < 0.01
    assert m.error(w) > 0.5
    assert float((found - w @ turn.T).norm() / w.norm()) < 0.1


@pytest.mark.parametrize("form", [*SOME, channel(4)], ids=lambda f: f"{f.name}")
def test_responses_beat_weights_on_images(form: Form) -> None:
    net = nn.Sequential(nn.Conv2d(6, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1))
    smooth = F.avg_pool2d(torch.randn(80, 6, 20, 20), 5, 1)  # neighbours agree, as in pictures
    held = F.avg_pool2d(torch.randn(40, 6, 20, 20), 5, 1)
    errors = {}
    for fit in (by_weights(), by_responses(smooth)):
        small = copy.deepcopy(net).eval()
        factorise(small, {"*": form}, fit=fit)
        with torch.no_grad():
            errors[type(fit)] = float((small(held) - net(held)).square().mean())
    assert errors[by_responses] < errors[by_weights]


def test_patches_are_what_the_convolution_reads() -> None:
    for layer in LAYERS.values():
        net = nn.Sequential(layer).eval()
        x = torch.randn(5, layer.in_channels, 9, 10)
        sampler = Sampler(places=6)
        wanted = targets(net, x, ["0"], sampler, 2)["0"]
        m = gather(net, x, "0", wanted, sampler, 2)
        assert m.error(layer.weight.detach().double().flatten(1)) < 1e-6


def test_shares_of_energy_choose_the_least_rank() -> None:
    layer = nn.Linear(20, 10, bias=False)
    u, _, v = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    layer.weight.data = u @ torch.diag(torch.tensor([3.0, 2, 1] + [0.0] * 7)) @ v
    for share, rank in ((0.6, 1), (9 / 14, 1), (0.65, 2), (13 / 14, 2), (0.95, 3), (1.0, 3)):
        done = factorise(nn.Sequential(copy.deepcopy(layer)), {"0": svd(weight_energy(share))})
        assert done.layers["0"] == ("svd", (rank,)), share
    x = torch.randn(500, 20) @ (v[2:3].T @ v[2:3])  # data that only meets the smallest
    done = factorise(nn.Sequential(copy.deepcopy(layer)), {"0": svd(response_energy(0.99, x))})
    assert done.layers["0"] == ("svd", (1,))


@pytest.mark.parametrize("form", [channel(), spatial(), tucker2(), separable()], ids=repr)
@pytest.mark.parametrize("share", [0.7, 0.4])
def test_a_budget_is_kept_and_nearly_spent(form: Form, share: float) -> None:
    net = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(24 * 36, 30), nn.Linear(30, 10),
    ).eval()  # fmt: skip
    whole = cost(net, (8, 12, 12)).multiply_adds
    aim = budget(multiply_adds=share, shape=(8, 12, 12))
    done = factorise(net, {"0": form, "2": form, "5": svd()}, ranks=aim)
    now = cost(net, (8, 12, 12)).multiply_adds / whole
    assert now <= share
    assert now > share - 0.15, (done.layers, now)
    assert net(torch.randn(2, 8, 12, 12)).shape == (2, 10)


def test_a_budget_of_parameters_gives_the_weak_layer_the_low_rank() -> None:
    net = nn.Sequential(nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False))
    u = torch.randn(40, 2)
    net[0].weight.data = u @ u.T / 8 + 0.001 * torch.randn(40, 40)
    done = factorise(net, {"*": svd()}, ranks=budget(parameters=0.5))
    assert done.layers["0"][1][0] < 5 < done.layers.get("1", ("", (40,)))[1][0]
    assert sum(p.numel() for p in net.parameters()) <= 1600


def test_files_hold_factorised_networks(tmp_path: Path) -> None:
    net = nets.build("lenet-5").eval()
    forms = {"conv1": separable(2), "conv2": tucker2(8, 12), "fc1": svd(20), "fc2": svd(5)}
    x = torch.rand(9, 1, 28, 28)
    factorise(net, forms, fit=by_responses(x))
    nets.save(net, tmp_path / "net.safetensors")
    pack(net, tmp_path / "net.walnut", net.description)
    for name in ("net.safetensors", "net.walnut"):
        again = nets.load(tmp_path / name)
        for (k, mine), (same, theirs) in zip(
            net.state_dict().items(), again.state_dict().items(), strict=True
        ):
            assert k == same
            assert torch.equal(mine, theirs)
        assert torch.equal(net(x), again(x))
    assert [e["layer"] for e in net.description["edits"]] == list(forms)


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "nowhere"}, {"layer": ""}, {"layer": 3}, {"layer": "normalize"}, {"form": "qr"},
        {"form": ["svd"]}, {"form": "spatial"}, {"ranks": [0]}, {"ranks": [101]}, {"ranks": [1, 2]},
        {"ranks": [True]}, {"ranks": [2.0]}, {"ranks": 5}, {"ranks": [10**12]}, {"ranks": None},
        {"bias": None}, {"bias": 1},
    ],
    ids=str,
)  # fmt: skip
def test_hostile_edits_are_refused(change: dict[str, object]) -> None:
    edit = {"kind": "factorise", "layer": "fc2", "form": "svd", "ranks": [7], "bias": True}
    with torch.device("meta"):
        net = nets.build("lenet-300-100")
    edits.apply(net, [edit])
    with pytest.raises(WalnutError, match=r".+"), torch.device("meta"):
        edits.apply(nets.build("lenet-300-100"), [{**edit, **change}])


class Own(nn.Module):
    """A layer of the user's: a matrix of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_what_cannot_be_factorised_is_left_and_named() -> None:
    net = nn.Sequential(
        nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(),
        nn.Linear(128, 8), Own(), nn.Linear(8, 8), nn.Linear(8, 6),
    )  # fmt: skip
    represent(net, {"6.weight": Mask(0.5)})
    before = copy.deepcopy(net)
    done = factorise(net, {"0": channel(2), "1": channel(8), "3": channel(2), "*": svd(4)})
    assert done.layers == {}
    assert (
        done.left
        == {
            "0": "it has 8 groups",
            "1": "rank 8 would take 640 weights, and it has 576",
            "3": "it is a Linear, and channel is for Conv2d",
            "4": "it is a Own, and svd is for Linear",
            "5": "rank 4 would take 64 weights, and it has 64",
            "6": "its weight is represented: bake the network first",
        }
        or "1" not in done.left
    )
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(net(x), before(x))


def test_a_transformer_layer_keeps_the_weights_it_reads_itself() -> None:
    net = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    done = factorise(net, {"*": svd(2)})
    assert not done.layers
    assert "TransformerEncoderLayer reads its weight itself" in done.left.values()
    assert net(torch.randn(1, 3, 16)).shape == (1, 3, 16)


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    net[1].weight = net[0].weight
    return net


def shared() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer)


def holed() -> nn.Module:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    net[1].weight.data[3, 3] = float("nan")
    return net


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


@pytest.mark.parametrize(
    ("build", "told", "said"),
    [
        (tied, {"forms": {"0": svd(2)}}, "share a weight"),
        (shared, {"forms": {"*": svd(2)}}, "share a weight"),
        (holed, {"forms": {"*": svd(2)}}, "1 holds values that are not finite"),
        (plain, {"forms": {"*": svd(9)}}, "from 1 to 8"),
        (plain, {"forms": {"*": svd(0)}}, "from 1 to 8"),
        (plain, {"forms": {"*": svd()}}, "has no rank"),
        (plain, {"forms": {"fc*": svd(2)}}, "no weight is called 'fc"),
        (plain, {"forms": {"*": svd()}, "ranks": budget(multiply_adds=0.5)}, "needs the shape"),
        (plain, {"forms": {"0": svd()}, "ranks": budget(parameters=0.1)}, "at rank 1 it is 0.6"),
        (plain, {"forms": {"*": svd(2)}, "fit": by_responses(torch.rand(9, 7))}, "shape .7,."),
        (plain, {"forms": {"*": svd(2)}, "fit": by_responses(torch.rand(1, 8))}, "two examples"),
        (
            plain,
            {"forms": {"*": svd(2)}, "fit": by_responses(torch.full((9, 8), torch.nan))},
            "finite",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_changes_nothing(build, told, said) -> None:  # type: ignore[no-untyped-def]
    net = build()
    layers = dict(net.named_modules())
    with pytest.raises(WalnutError, match=said):
        factorise(net, **told)
    assert dict(net.named_modules()) == layers


@pytest.mark.parametrize("share", [0, -1, 1.5, float("nan"), True])
def test_impossible_shares(share: float) -> None:
    with pytest.raises(WalnutError):
        weight_energy(share)
    with pytest.raises(WalnutError):
        budget(multiply_adds=share)
    with pytest.raises(WalnutError):
        budget(multiply_adds=0.5, parameters=0.5)


def test_a_failure_halfway_leaves_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nets.build("lenet-300-100")
    layers, description = dict(net.named_modules()), copy.deepcopy(net.description)
    from walnut.weights import lowrank

    real, calls = lowrank.replace, []

    def failing(*told):  # type: ignore[no-untyped-def]
        calls.append(told)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*told)

    monkeypatch.setattr(lowrank, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        factorise(net, {"fc*": svd(5)})
    assert dict(net.named_modules()) == layers
    assert net.description == description


def test_a_layer_that_runs_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x))

    with pytest.raises(WalnutError, match="fc runs more than once"):
        factorise(Twice(), {"fc": svd(2)}, fit=by_responses(torch.randn(9, 8)))


def test_separable_is_the_best_window_a_channel() -> None:
    layer = nn.Conv2d(5, 9, 3, padding=1)
    done = separate(nn.Sequential(copy.deepcopy(layer)))
    w = layer.weight.detach().double().flatten(2).transpose(0, 1)
    tails = torch.linalg.svdvals(w)[:, 1:].square().sum() / w.square().sum()
    assert done.errors["0"] == pytest.approx(float(tails), rel=1e-5)
    whole = 5 * 9 + 5 * 9 * 1
    assert sum(p.numel() for p in done.model.parameters()) == whole + 9


def test_a_separable_kernel_is_found_exactly() -> None:
    d, p = torch.randn(6, 1, 3, 3), torch.randn(10, 6, 1, 1)
    net = nn.Sequential(nn.Conv2d(6, 10, 3, bias=False))
    net[0].weight.data = p * d.transpose(0, 1)
    assert separate(net).errors["0"] < 1e-10


def test_separating_by_responses_improves_both_layers() -> None:
    net = nn.Sequential(nn.Conv2d(6, 10, 3, padding=1))
    x = F.avg_pool2d(torch.randn(300, 6, 14, 14), 5, 1)
    plain_, fitted = (copy.deepcopy(net).eval() for _ in range(2))
    separate(plain_)
    done = separate(fitted, fit=by_responses(x))
    with torch.no_grad():
        errors = [
            float((n(x) - net(x)).square().mean() / net(x).var((0, 2, 3)).mean())
            for n in (plain_, fitted)
        ]
    assert errors[1] < 0.7 * errors[0]
    assert done.errors["0"] == pytest.approx(errors[1], rel=0.3)


def test_without_a_convolution_there_is_nothing_to_separate() -> None:
    with pytest.raises(WalnutError, match="no convolution"):
        separate(nn.Sequential(nn.Linear(3, 3)))
