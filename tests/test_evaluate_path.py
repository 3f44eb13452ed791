"""Every form a network is shipped in: one door, an honest gradient path, a twin, attacks that run."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import forms_zoo as zoo
from walnut.attacks import bpda, deepfool, hop_skip_jump, noise, pgd, square
from walnut.core.errors import WalnutError
from walnut.core.objectives import cross_entropy
from walnut.core.queried import Queried
from walnut.evaluate.adapt import Cast, adapt
from walnut.evaluate.fixed_batch import FixedBatch, alone
from walnut.evaluate.onnx_model import OnnxModel, onnx_model
from walnut.evaluate.path import AGREES, SURE, gradient_path
from walnut.evaluate.soften import Softened
from walnut.evaluate.twin import straight_through, twin_match, twin_of

EPS = 0.1
NAMES = list(zoo.FORMS)
NO_GRADIENT = [name for name, (_, kind) in zoo.FORMS.items() if kind == "none"]
CLOSED = ("onnx", "torchscript")  # no twin can be built from these
HALF = ("fp16", "bf16")


@functools.cache
def form(name: str) -> Any:
    return zoo.FORMS[name][0]()


def held_out(n: int) -> tuple[Tensor, Tensor]:
    x, y = zoo.digits()
    return x[1200 : 1200 + n], y[1200 : 1200 + n]


def twin(name: str) -> nn.Module:
    return zoo.trained() if name.startswith(CLOSED) else twin_of(form(name))


def state(model: Any) -> list[Any]:
    """Return all that an attack could disturb in a form, and the global random states."""
    kept: list[Any] = [
        torch.get_rng_state(),
        torch.as_tensor(np.random.get_state(legacy=False)["state"]["key"].astype(np.int64)),
    ]
    if isinstance(model, torch.export.ExportedProgram):
        kept += [v.detach().clone() for v in model.state_dict.values()]
    if isinstance(model, nn.Module):
        kept += [getattr(m, "training", None) for m in model.modules()]
        kept += [len(getattr(m, "_forward_hooks", ())) for m in model.modules()]
        kept += [p.requires_grad for p in model.parameters()]
        kept += [p.grad is None for p in model.parameters()]
        kept += [_plain(t) for t in (*model.parameters(), *model.buffers())]
        kept += [str(list(model.state_dict())), type(model).__name__]
    return kept


def _plain(t: Tensor) -> Tensor:
    return t.detach().clone() if type(t) in (Tensor, nn.Parameter) else t.dequantize()


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(p, q) if isinstance(p, Tensor) else p == q for p, q in zip(a, b, strict=True)
    )


# -- every form ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_every_form_comes_through_one_door(name):
    x, y = held_out(60)
    net = adapt(form(name))
    with torch.no_grad():
        logits = net(x)
        assert logits.shape == (60, 10)
        assert logits.dtype == torch.float32
        assert (logits.argmax(1) == y).double().mean() > (0.65 if name == "binary" else 0.9)
        gap = (net(x[7:8]) - logits[7:8]).abs().max()  # a batch of one
        assert gap < (0.2 if name == "bf16" else 0.02 if name == "fp16" else 1e-4)
        assert len(net(x[:5])) == 5
    assert adapt(net) is net  # what came through once is not wrapped again


@pytest.mark.parametrize("name", NAMES)
def test_every_form_says_how_its_gradient_flows(name):
    x, _ = held_out(40)
    before = state(form(name))
    path = gradient_path(form(name), x)
    assert path.kind == zoo.FORMS[name][1]
    assert path.examples == 16
    assert path.forward == (8 if path.agreement >= SURE else 14)
    assert path.slope > 1.0
    assert (path.share, path.agreement > AGREES) == (
        (1.0, True) if path.kind == "direct" else (0.0, False)
    )
    assert same(before, state(form(name)))


@pytest.mark.parametrize(("size", "pitch"), [(0.02, 1e4), (0.002, 1e4), (0.01, 1e3)])
def test_a_ripple_finer_than_the_steps_is_not_taken_for_a_slope(size, pitch):
    x, _ = held_out(16)
    net = zoo.trained()
    path = gradient_path(lambda v: net(v + size * torch.sin(pitch * v)), x)
    assert path.kind == "wrong"
    assert path.agreement < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_every_form_has_a_twin_or_says_why_not(name):
    x, _ = held_out(80)
    before = state(form(name))
    if name.startswith(CLOSED):
        with pytest.raises(WalnutError, match="as the twin"):
            twin_of(form(name))
    near = twin(name)
    match = twin_match(form(name), near, x)
    assert match.examples == 80
    assert match.agreement >= 0.97
    assert match.gap < 1.5
    both = straight_through(form(name), near)
    point = x[:6].clone().requires_grad_()
    logits = both(point)
    with torch.no_grad():
        assert torch.equal(logits, adapt(form(name))(point))  # to the last bit
    assert torch.equal(_slope(logits, point), _slope(near(point), point))
    assert gradient_path(both, x).kind == "direct"
    assert same(before, state(form(name)))


def _slope(logits: Tensor, point: Tensor) -> Tensor:
    weights = torch.arange(logits.numel(), dtype=logits.dtype).reshape(logits.shape)
    return torch.autograd.grad((weights * logits).sum(), point)[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_attack_through_the_twin_beats_noise(name):
    x, y = held_out(30)
    net, before = adapt(form(name)), state(form(name))
    found = pgd(EPS, steps=5)(straight_through(net, twin(name)), x, y)
    with torch.no_grad():
        said = net(found.x).argmax(1)
    if name not in HALF:  # whose kernels round by the size of the batch
        assert torch.equal(said, found.prediction)
    assert torch.equal(found.prediction != y, found.success)
    beaten = noise(EPS, draws=5)(net, x, y).success.sum()
    assert found.success.sum() >= beaten + 8, (int(found.success.sum()), int(beaten))
    assert bool((found.forward <= 9).all())  # five steps, two looks, the last point, a check
    assert same(before, state(form(name)))


@pytest.mark.parametrize("name", NAMES)
def test_attacks_that_query_run_on_every_form(name):
    x, y = held_out(6)
    net, before = adapt(form(name)), state(form(name))
    found = square(0.2, queries=40)(net, x, y)
    assert found.success.any()
    assert bool((found.backward == 0).all())
    nearest = hop_skip_jump(steps=2, samples=20, tries=20)(net, x, y)
    for record in (found, nearest):
        with torch.no_grad():
            if name not in HALF:
                assert torch.equal(net(record.x).argmax(1), record.prediction)
    one = square(0.2, queries=5)(net, x[:1], y[:1])
    assert one.x.shape == (1, 1, 8, 8)
    assert same(before, state(form(name)))


@pytest.mark.parametrize("name", NO_GRADIENT)
@pytest.mark.parametrize("attack", [pgd(EPS, steps=2), deepfool()], ids=["pgd", "deepfool"])
def test_a_gradient_attack_on_a_form_without_one_names_the_remedy(name, attack):
    x, y = held_out(4)
    before = state(form(name))
    with pytest.raises(WalnutError, match=r"no gradient reaches the input.*square.*bpda.*twin"):
        attack(adapt(form(name)), x, y)
    assert same(before, state(form(name)))


# -- the door -----------------------------------------------------------------------------------------
def test_what_needs_no_wrapping_is_itself():
    net = zoo.trained()
    assert adapt(net) is net
    assert adapt(torch.relu) is torch.relu


def test_float16_gradients_of_confident_examples_do_not_vanish():
    torch.manual_seed(0)
    net = nn.Linear(6, 3).half()
    net.bias.data.copy_(torch.tensor([20.0, 0.0, 0.0]))
    x, y = torch.rand(4, 6), torch.tensor([0, 0, 0, 0])

    def gradient(model: Any) -> Tensor:
        point = x.clone().requires_grad_()
        return torch.autograd.grad(cross_entropy()(model, point, y).sum(), point)[0]

    wanted = gradient(twin_of(net))
    assert bool((wanted.abs().amax(1) < 6e-8).all())  # below the smallest float16
    assert not gradient(lambda z: net(z.half()).float()).any()
    found = gradient(adapt(net))
    assert torch.allclose(
        found / found.norm(dim=1, keepdim=True),
        wanted / wanted.norm(dim=1, keepdim=True),
        atol=2e-3,
    )
    assert torch.allclose(found, wanted, rtol=0.05, atol=0)


def test_a_row_of_zero_gradient_stays_zero():
    net = adapt(nn.Linear(3, 2).half())
    x = torch.rand(2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad((net(x) * torch.tensor([[0.0], [1.0]])).sum(), x)
    assert not grad[0].any()
    assert grad[1].any()


def test_a_fixed_batch_is_filled_up_and_cut_again():
    asked = []

    def net(x: Tensor) -> Tensor:
        asked.append(len(x))
        return x * 2

    x = torch.rand(7, 3)
    assert torch.equal(FixedBatch(net, 3)(x), x * 2)
    assert asked == [3, 3, 3]


def test_dynamic_int8_does_not_depend_on_its_batch():
    x, _ = held_out(12)
    raw = form("dynamic-int8")
    with torch.no_grad():
        single = torch.cat([raw(row[None]) for row in x])
        assert not torch.allclose(raw(x), single, atol=1e-3)  # the reason for asking one at a time
        for net in (adapt(raw), alone(raw)):
            assert torch.allclose(net(x), single, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("missing.onnx", "there is no file 'missing.onnx'"),
        (nn.Linear, "Linear is a class"),
        ({"weight": torch.zeros(1)}, "dictionary of weights"),
        (None, "a NoneType is not a network"),
        (7, "a int is not a network"),
    ],
)
def test_what_is_no_network_is_refused_in_words(model, words):
    with pytest.raises(WalnutError, match=words):
        adapt(model)


def test_a_scikit_learn_model_is_told_how_to_come_in():
    from sklearn.linear_model import LogisticRegression

    x, y = zoo.digits()
    model = LogisticRegression(max_iter=300, tol=1e-2, C=10.0).fit(
        x[:200].flatten(1).numpy(), y[:200].numpy()
    )
    with pytest.raises(WalnutError, match=r"lambda x: torch.from_numpy\(model.decision_function"):
        adapt(model)

    def net(x: Tensor) -> Tensor:
        return torch.from_numpy(model.decision_function(x.flatten(1).numpy())).to(x.dtype)

    with pytest.raises(WalnutError, match="no gradient reaches the input"):
        pgd(EPS, steps=2)(net, x[1200:1204], y[1200:1204])
    assert square(0.2, queries=20)(net, x[1200:1210], y[1200:1210]).success.any()
    path = gradient_path(net, x[1200:1210])
    assert (path.kind, path.examples) == ("none", 10)
    assert path.slope > 0


def test_files_that_are_no_networks(tmp_path):
    weights, broken = tmp_path / "net.pt", tmp_path / "net.onnx"
    weights.write_bytes(b"x")
    broken.write_bytes(b"this is no graph")
    with pytest.raises(WalnutError, match=r"net.pt is no .onnx file: load it first"):
        adapt(weights)
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (extra export)")
    with pytest.raises(WalnutError, match=r"ONNX Runtime cannot open net.onnx"):
        adapt(str(broken))


# -- ONNX Runtime -------------------------------------------------------------------------------------
def _graph_file(folder, inputs, kind):
    onnx = pytest.importorskip("onnx", reason="needs onnx (extra export)")
    h = onnx.helper
    made = [h.make_tensor_value_info(name, kind, ["b", 3]) for name in inputs]
    out = h.make_tensor_value_info("out", kind, ["b", 3])
    node = h.make_node("Add" if len(inputs) == 2 else "Identity", list(inputs), ["out"])
    graph = h.make_graph([node], "g", made, [out])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
    path = folder / "small.onnx"
    onnx.save(model, path)
    return path


def test_onnx_networks_that_cannot_be_attacked_say_why(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (extra export)")
    onnx = pytest.importorskip("onnx", reason="needs onnx (extra export)")
    kinds = onnx.TensorProto
    with pytest.raises(WalnutError, match=r"has 2 inputs \(a, b\)"):
        onnx_model(_graph_file(tmp_path, ("a", "b"), kinds.FLOAT))
    with pytest.raises(WalnutError, match=r"takes tensor\(uint8\)"):
        onnx_model(_graph_file(tmp_path, ("a",), kinds.UINT8))
    net = onnx_model(_graph_file(tmp_path, ("a",), kinds.FLOAT16))
    x = torch.tensor([[0.5, 0.25, 1.0]])
    assert torch.equal(net(x), x)  # float16 inside, float32 outside
    with pytest.raises(WalnutError, match=r"small.onnx does not take \(1, 4\)"):
        net(torch.rand(1, 4))


def test_a_session_is_as_good_as_a_file():
    path = zoo.onnx_file("float")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x, _ = held_out(5)
    net = adapt(session)
    assert isinstance(net, OnnxModel)
    assert repr(net) == "OnnxModel('float.onnx')"
    assert torch.equal(net(x), adapt(path)(x))
    assert adapt(net) is net
    assert [adapt(zoo.onnx_file(k)).batch for k in ("float", "fixed", "dynamic")] == [None, 4, 1]


def test_an_onnx_file_answers_as_its_network():
    x, _ = held_out(20)
    with torch.no_grad():
        assert torch.allclose(adapt(zoo.onnx_file("float"))(x), zoo.trained()(x), atol=1e-4)


# -- the path -----------------------------------------------------------------------------------------
def _left_detached(z: Tensor) -> Tensor:
    return torch.cat([z[..., :4].detach(), z[..., 4:]], -1)


def _turned(z: Tensor) -> Tensor:
    return 2 * z.detach() - z


def _shuffled(z: Tensor) -> Tensor:
    return z.detach() + (z - z.detach()).flip(-1)


class _Nan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * float("nan")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda z: z, "direct"),
        (lambda z: z + 0.05 * torch.randn_like(z), "direct"),  # compared with itself
        (lambda z: z.clamp(0.1, 0.9), "direct"),
        (lambda z: (z * 7).round() / 7, "zero"),
        (lambda z: z.detach() + 0 * z, "zero"),
        (lambda z: z.detach() + 1e-9 * (z - z.detach()), "zero"),
        (lambda z: z.detach(), "none"),
        (_turned, "wrong"),
        (_shuffled, "wrong"),
        (_left_detached, "wrong"),
        (_Nan.apply, "wrong"),
    ],
)
def test_each_kind_of_path_is_told(change, kind):
    net = zoo.trained()
    x, _ = held_out(16)
    rng = torch.get_rng_state()
    path = gradient_path(lambda z: net(change(z)), x)
    assert path.kind == kind
    assert torch.equal(rng, torch.get_rng_state())
    assert gradient_path(lambda z: net(change(z)), x) == path or path.agreement != path.agreement


def test_agreement_is_the_cosine_of_what_is_left():
    """On a linear network half detached, the expected correlation is ‖kept‖ / ‖all‖."""
    torch.manual_seed(0)
    net = nn.Linear(64, 3).double()
    x = torch.rand(16, 64, dtype=torch.float64)
    whole = gradient_path(net, x)
    assert whole.agreement == pytest.approx(1.0, abs=1e-9)
    assert gradient_path(lambda z: net(2 * z.detach() - z), x).agreement == pytest.approx(
        -1, abs=1e-9
    )
    half = [
        gradient_path(lambda z: net(torch.cat([z[:, :32], z[:, 32:].detach()], 1)), sample)
        for sample in torch.rand(20, 16, 64, dtype=torch.float64)
    ]
    mean = sum(found.agreement for found in half) / len(half)
    assert mean == pytest.approx(0.5**0.5, abs=0.06)  # one of them is 0.06 off or so
    direction = net.weight.detach()[[0, 1, 2]]
    assert 0 < whole.slope < 3 * float(direction.norm())


def test_a_network_that_ignores_its_input():
    path = gradient_path(lambda z: torch.tensor([[2.0, 0.0]]).expand(len(z), 2), held_out(5)[0])
    assert (path.kind, path.slope) == ("none", 0.0)
    assert path.json()["agreement"] is None
    assert "5 examples" in path.sentence


def test_two_classes_and_vectors():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    assert gradient_path(net, torch.randn(3, 5)).kind == "direct"
    assert gradient_path(net, torch.randn(1, 5)).kind == "direct"


def test_no_examples():
    with pytest.raises(WalnutError, match="no examples"):
        gradient_path(nn.Linear(2, 2), torch.zeros(0, 2))


def test_a_training_network_is_put_back():
    net = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
    ).train()
    before = state(net)
    assert gradient_path(net, torch.rand(6, 4, generator=torch.Generator())).kind == "direct"
    straight_through(net, net)
    twin_of(net)
    assert same(before, state(net))
    net.half()
    before = state(net)
    assert not any(m.training for m in twin_of(net).modules())
    assert same(before, state(net))


# -- the twin -----------------------------------------------------------------------------------------
def test_passes_are_counted_once_each():
    deployed, near = [], []

    def real(x: Tensor) -> Tensor:
        deployed.append(len(x))
        return x.detach().round()

    def soft(x: Tensor) -> Tensor:
        near.append(len(x))
        return x * 1.0

    net = Queried(straight_through(real, soft))
    net(torch.rand(3, 2, requires_grad=True))
    assert (net.forward, net.backward, deployed, near) == (3, 3, [3], [3])
    net.forget()
    with torch.no_grad():
        net(torch.rand(4, 2))
    assert (net.forward, net.backward, deployed, near) == (7, 3, [3, 4], [3])


def test_a_recurrent_network_has_a_twin():
    net = zoo.dynamic_lstm()
    x, _ = held_out(30)
    assert gradient_path(net, x).kind == "none"
    near = twin_of(net)
    assert isinstance(near.lstm, nn.LSTM)
    match = twin_match(net, near, x)
    assert match.agreement > 0.9
    assert match.gap < 0.02
    assert gradient_path(near, x).kind == "direct"


def test_a_twin_holds_the_quantised_weights():
    net = form("static-int8-eager")
    near = twin_of(net)
    assert [type(m).__name__ for m in near][:2] == ["Identity", "Sequential"]
    for made, quantised in ((near[1][0], net[1]), (near[5][0], net[5]), (near[7], net[7])):
        assert torch.equal(made.weight, quantised.weight().dequantize())
        assert torch.equal(made.bias, quantised.bias())
    assert isinstance(near[1][1], nn.ReLU)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_every_quantised_layer_has_its_float_twin():
    """Against the float layer that it was made from: equal up to the rounding of int8."""
    torch.manual_seed(0)
    kinds, intrinsic = torch.ao.nn.quantized, torch.ao.nn.intrinsic.quantized
    makers = [
        (kinds.Conv1d, (3, 4, 3), {"stride": 2, "padding": 1}, (2, 3, 9)),
        (kinds.Conv2d, (4, 4, 3), {"groups": 2, "dilation": 2}, (2, 4, 7, 7)),
        (kinds.ConvTranspose2d, (3, 4, 3), {"stride": 2, "output_padding": 1}, (2, 3, 5, 5)),
        (intrinsic.ConvReLU2d, (3, 4, 3), {"bias": False}, (2, 3, 6, 6)),
        (intrinsic.LinearReLU, (6, 4), {}, (2, 6)),
    ]
    for kind, arguments, options, shape in makers:
        layer = kind(*arguments, **options)
        weight = layer.weight().dequantize()
        small = torch.randn_like(weight).clamp(-1.2, 1.2)  # 7 bits: no kernel saturates
        weight = torch.quantize_per_tensor(small, 0.02, 0, torch.qint8)
        layer.set_weight_bias(weight, torch.randn(4) if layer.bias() is not None else None)
        layer.scale, layer.zero_point = 0.1, 64
        x = torch.quantize_per_tensor(torch.rand(shape), 1 / 255, 0, torch.quint8)
        exact = twin_of(nn.Sequential(layer))(x.dequantize())
        held = exact.clamp((0 - 64) * 0.1, (255 - 64) * 0.1)
        assert (layer(x).dequantize() - held).abs().max() <= 0.051, kind


def test_unknown_quantised_modules_are_named():
    kinds = torch.ao.nn.quantized
    with pytest.raises(WalnutError, match=r"Embedding \('table'\): give the float network"):
        twin_of(nn.ModuleDict({"table": kinds.Embedding(4, 2)}))


def test_twins_of_other_classes_are_refused():
    with pytest.raises(WalnutError, match="the twin has 2 classes, the network 3"):
        twin_match(nn.Linear(4, 3), nn.Linear(4, 2), torch.rand(5, 4))


def test_rounding_is_passed_straight_through():
    net = zoo.trained()

    def coarse(z: Tensor) -> Tensor:
        return net((z * 7).round().div(7))

    x, y = held_out(30)
    assert gradient_path(coarse, x).kind == "zero"
    near = twin_of(coarse)
    assert isinstance(near, Softened)
    assert twin_match(coarse, near, x).gap == 0
    found = bpda(pgd(EPS, steps=5), near)(coarse, x, y)
    beaten = noise(EPS, draws=5)(coarse, x, y)
    assert found.success.sum() >= beaten.success.sum() + 5
    assert (
        not pgd(EPS, steps=5, random_start=False)(coarse, x, y)
        .success[net_right(coarse, x, y)]
        .any()
    )  # without the twin there is nowhere to go


def net_right(net: Any, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x).argmax(1) == y


@pytest.mark.parametrize(
    "step",
    [
        torch.round,
        Tensor.round,
        torch.floor,
        Tensor.ceil,
        torch.trunc,
        Tensor.detach,
        torch.sign,
        lambda x: x.data,
    ],
)
def test_softened_functions_keep_their_values(step):
    x = torch.rand(2, 3).requires_grad_()
    out = Softened(lambda z: 2 * step(3 * z))(x)
    assert torch.equal(out, 2 * step(3 * x.detach()))
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], torch.full((2, 3), 6.0))


def test_a_straight_through_estimator_of_the_users_own_is_kept():
    x = torch.rand(2, 3).requires_grad_()
    out = Softened(lambda z: z + ((z * 3).round() / 3 - z).detach())(x)
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], torch.ones(2, 3))


def test_half_precision_is_cast_not_changed():
    net = zoo.trained().half()
    assert isinstance(adapt(net), Cast)
    assert next(net.parameters()).dtype == torch.float16
    assert twin_of(adapt(net))[0].weight.dtype == torch.float32
    assert adapt(net)(torch.rand(2, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64
