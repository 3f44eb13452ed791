"""Contracts that every part keeps, as functions to run on a part of your own.

Each raises ``AssertionError`` with a sentence about the first promise that is broken.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import random
import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from walnut.core.objectives import cross_entropy
from walnut.core.types import Adversarial, Attack, Explainer
from walnut.weights import bake, pack, represent, unpack

_SLACK = 1e-5


class _Probe(nn.Module):
    """A small network with everything that an attack could disturb."""

    def __init__(self, d: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(d, 24)
        self.norm = nn.BatchNorm1d(24)
        self.drop = nn.Dropout(0.4)
        self.last = nn.Linear(24, classes)
        self.fail_at = -1
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("probe")
        flat = x.reshape(len(x), -1)  # as many networks do: it cannot be asked about no examples
        hidden = torch.relu(self.norm(self.first(flat)))
        return self.last(self.drop(hidden))


def _probe(shape: tuple[int, ...], classes: int, seed: int) -> tuple[_Probe, Tensor, Tensor]:
    kept = torch.get_rng_state()
    torch.manual_seed(seed)
    x = torch.rand(9, *shape)
    net = _Probe(x[0].numel(), classes)
    with torch.no_grad():
        net.norm.running_mean.copy_(0.1 * torch.randn(24))  # type: ignore[union-attr]
    net.eval()
    with torch.no_grad():
        y = net(x).argmax(1)
    torch.set_rng_state(kept)
    return net, x, y


def _state(net: nn.Module) -> list[Any]:
    return [
        [m.training for m in net.modules()],
        [len(m._forward_hooks) + len(m._backward_hooks) for m in net.modules()],
        [p.requires_grad for p in net.parameters()],
        [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        [b.clone() for b in net.buffers()],
        [p.detach().clone() for p in net.parameters()],
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state(legacy=False)["state"]["key"].copy(),
    ]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool((a == b).all())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_same(p, q) for p, q in zip(a, b, strict=True))
    return bool(a == b)


def _expect(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


def check_attack(
    attack: Attack, *, shape: tuple[int, ...] = (1, 8, 8), classes: int = 5, seed: int = 0
) -> None:
    """Check what every attack promises, on a small random network.

    The result has one row per example, in [0, 1] and finite; ``success`` and ``prediction`` are what a
    fresh forward pass says; equal calls give equal tensors; an example's result does not depend on
    its batch or on the order; and nothing of the network or of the global random states changes,
    also when the network raises in the middle.

    Args:
        attack: ``(model, x, y) -> Adversarial``, untargeted.
        shape: of one example.
        classes: of the network.
        seed: of the network and the examples.

    >>> from walnut.attacks import pgd
    >>> check_attack(pgd(0.1, steps=3))
    """
    net, x, y = _probe(shape, classes, seed)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    before = _state(net)
    found = attack(net, x, y)
    _expect(_same(before, _state(net)), "the attack changed the network or a global random state")
    _check_record(found, net, x, y)
    again = attack(net, x, y)
    _expect(torch.equal(found.x, again.x), "two equal calls gave different examples")
    order = torch.arange(len(x)).flip(0)
    turned = attack(net, x[order], y[order])
    _expect(
        torch.allclose(turned.x[order], found.x, atol=1e-4),
        "an example's result depends on its place in the batch",
    )
    alone = attack(net, x[2:3], y[2:3])
    _expect(
        torch.allclose(alone.x, found.x[2:3], atol=1e-4), "an example's result depends on its batch"
    )
    net.fail_at = net.calls + 2
    try:
        attack(net, x, y)
    except Exception:  # whatever the attack makes of it
        _expect(_same(before, _state(net)), "the attack left the network changed when it raised")


def _check_record(found: Adversarial, net: nn.Module, x: Tensor, y: Tensor) -> None:
    _expect(found.x.shape == x.shape, f"x is {tuple(found.x.shape)}, not {tuple(x.shape)}")
    _expect(bool(found.x.isfinite().all()), "an adversarial example is not finite")
    _expect(
        bool((found.x >= -_SLACK).all() and (found.x <= 1 + _SLACK).all()),
        "an adversarial example leaves [0, 1]",
    )
    with torch.no_grad():
        logits = net(found.x)
    prediction = logits.argmax(1)
    if found.logits is not None:
        same = torch.allclose(logits, found.logits, rtol=1e-4, atol=1e-5)
        _expect(same, "logits are not what the network says")
    _expect(torch.equal(prediction, found.prediction), "prediction is not what the network says")
    _expect(torch.equal(prediction != y, found.success), "success is not what the network says")
    _expect(bool((found.forward >= 1).all()), "no forward pass was counted")
    moved = (found.x - x).flatten(1).abs().amax(1) > 0
    _expect(bool((moved | found.success).all()), "a failed example came back as the original")


def check_explainer(
    explainer: Explainer, *, shape: tuple[int, ...] = (1, 8, 8), classes: int = 5, seed: int = 0
) -> None:
    """Check what every explainer promises, on a small random network.

    Scores have the input's shape and are finite; an input that the network ignores scores zero (for
    single-channel inputs); nothing of the network changes, and no hook is left.

    >>> from walnut.explain import saliency
    >>> check_explainer(saliency())
    """
    net, x, y = _probe(shape, classes, seed)
    with torch.no_grad():
        net.first.weight[:, 0] = 0
    before = _state(net)
    scores = explainer(net, x, y)
    _expect(_same(before, _state(net)), "the explainer changed the network or a random state")
    _expect(scores.shape == x.shape, f"scores are {tuple(scores.shape)}, not {tuple(x.shape)}")
    _expect(bool(scores.isfinite().all()), "a score is not finite")
    if len(shape) == 1 or shape[0] == 1:
        ignored = scores.flatten(1)[:, 0]
        _expect(bool((ignored == 0).all()), "an input that the network ignores has a score")


def check_representation(part: Any, *, shape: tuple[int, ...] = (12, 20), seed: int = 0) -> None:
    """Check what every representation promises, on a random weight.

    The weight that it makes is represented by itself again without change; gradients reach the
    latents; a state dict restores it; what it encodes decodes to the same bits, and the file is as long
    as its writer says; baking gives back an ordinary parameter of the same value.

    Args:
        part: a frozen record with ``source`` and ``build(w)``, as ``represent`` takes.
        shape: of the weight, (outputs, inputs).
        seed: of the weight.

    >>> from walnut.weights import Mask
    >>> check_representation(Mask(0.3))
    """
    generator = torch.Generator().manual_seed(seed)
    net = nn.Linear(shape[1], shape[0], bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.randn(shape, generator=generator))
    _expect(dataclasses.is_dataclass(part), "a part is a frozen record of hyper-parameters")
    plain = type(net)
    represent(net, {"weight": part})
    made = net.weight.detach().clone()
    _expect(made.shape == shape and bool(made.isfinite().all()), "the weight is not one any more")
    net.weight = net.weight.detach()  # right_inverse, through torch's parametrization
    _expect(torch.allclose(net.weight, made, atol=1e-6), "representing it twice changes the weight")
    net.weight.square().sum().backward()
    _expect(any(p.grad is not None for p in net.parameters()), "no gradient reaches the latents")
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1.0)
    twin.load_state_dict(net.state_dict())
    _expect(torch.equal(twin.weight, net.weight), "a state dict does not restore the weight")
    made = net.weight.detach().clone()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "one.walnut")
        sizes = pack(net, path, {"net": "linear", "arguments": {}})
        _expect(sizes.bytes == os.path.getsize(path), "the file is not as long as was said")
        back = unpack(path)[1]["weight"]
    _expect(torch.equal(back, made), "the file does not give back the weight bit for bit")
    bake(net)
    _expect(type(net) is plain and torch.equal(net.weight, made), "baking changed the weight")


def check_objective(objective: Any = cross_entropy(), *, seed: int = 0) -> None:
    """Check that an objective gives one finite value per example, differentiable in x and weights.

    >>> check_objective(cross_entropy())
    """
    net, x, y = _probe((1, 8, 8), 5, seed)
    x.requires_grad_()
    values = objective(net, x, y)
    _expect(values.shape == (len(x),), f"it returns {tuple(values.shape)}, not ({len(x)},)")
    _expect(bool(values.isfinite().all()), "a value is not finite")
    grads = torch.autograd.grad(values.sum(), [x, *net.parameters()], allow_unused=True)
    _expect(grads[0] is not None, "it is not differentiable in x")
    _expect(any(g is not None for g in grads[1:]), "it is not differentiable in the weights")
    alone = objective(net, x[3:4], y[3:4])
    _expect(torch.allclose(alone[0], values[3], atol=1e-5), "a value depends on the batch")
