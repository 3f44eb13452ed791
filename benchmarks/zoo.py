"""The masked zoo: networks built to fool an evaluator, and the best figure known for each.

An entry makes a network from a :class:`zoo_workshop.Workshop` and says which networks an attacker who
knows the trick attacks in its place. :func:`best_known` is the worst case, per example, over those and
every attack of :func:`battery`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo_nets as z
from walnut.attacks import fgsm, pgd
from walnut.attacks.apgd import apgd
from walnut.attacks.square import square
from walnut.core.constraints import linf
from walnut.core.dlr import dlr
from walnut.core.errors import WalnutError
from walnut.core.estimators import straight_through
from walnut.core.frozen import frozen
from walnut.core.objectives import cross_entropy, margin
from walnut.core.types import Attack, Model, Objective
from walnut.evaluate import Share, robust_accuracy
from zoo_workshop import Workshop

TEMPERATURE = 100.0
PASSES = 9  # of a network that is random; fooled is who is wrong in most of them


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        name, trick: what it is called, and how it fools an evaluator, in one line.
        make: from a workshop to the network.
        sources: from (base, network) to the networks that an attacker who knows the trick attacks.
        on: data set.
        random: whether equal calls give different answers.
        naive: eps to the attack that it is meant to look good under.
        examples: how many it is judged on.
        queries: of Square on the network itself, after the sources: where no twin is close.
    """

    name: str
    trick: str
    make: Callable[[Workshop], nn.Module]
    sources: Callable[[nn.Module, nn.Module], list[Model]]
    on: str = "fashion_mnist"
    random: bool = False
    naive: Callable[[float], Attack] = lambda eps: pgd(eps, steps=20)
    examples: int = 200
    queries: int = 0

    def best_known(
        self, base: nn.Module, model: nn.Module, x: Tensor, y: Tensor, norm: Any, eps: float
    ) -> Share:
        """Return the share that survives every attack which knows the trick."""
        return best_known(self, base, model, x, y, norm, eps)


def battery(norm: Any, eps: float) -> tuple[Attack, ...]:
    """Return the attacks run on every source: two losses, a larger step, and one that adapts."""
    return (
        pgd(eps, norm=norm, steps=40, early_stop=False),
        pgd(eps, norm=norm, steps=40, early_stop=False, objective=margin()),
        pgd(eps, norm=norm, steps=40, step_size=eps / 2, early_stop=False, objective=margin()),
        apgd(eps, norm=norm, steps=40, early_stop=False, objective=dlr()),
    )


def stands(model: nn.Module, x: Tensor, y: Tensor, passes: int) -> Tensor:
    """Say which examples a network gets right in most of its passes."""
    with torch.no_grad(), frozen(model):
        right = torch.stack([model(x).argmax(1) == y for _ in range(passes)])
    return right.double().mean(0) > 0.5


def best_known(
    entry: Entry, base: nn.Module, model: nn.Module, x: Tensor, y: Tensor, norm: Any, eps: float
) -> Share:
    """Attack every source with every attack; an example is broken if any result fools the network.

    All results of one attack are shown to the network in one batch with the rest of the examples, so
    that a network whose answer depends on its batch is asked as it is at first.
    """
    passes = PASSES if entry.random else 1
    left = stands(model, x, y, passes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for source in entry.sources(base, model):
            for attack in battery(norm, eps):
                rows = left.nonzero()[:, 0]
                if len(rows) == 0:
                    return Share.of(left)
                shown = x.clone()
                shown[rows] = attack(source, x[rows], y[rows]).x
                left &= stands(model, shown, y, passes)
        rows = left.nonzero()[:, 0]
        if entry.queries and len(rows):
            shown = x.clone()
            shown[rows] = square(eps, norm=norm, queries=entry.queries)(model, x[rows], y[rows]).x
            left &= stands(model, shown, y, passes)
    return Share.of(left)


def naive(
    entry: Entry, model: nn.Module, x: Tensor, y: Tensor, eps: float
) -> tuple[Share | None, str]:
    """Return what a plain attack leaves, and what it says where it cannot run (None)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return robust_accuracy(model, x, y, entry.naive(eps)).robust, ""
        except WalnutError as error:
            return None, str(error)


# -- trainings that hide the gradient -----------------------------------------------------------------
def single_step(eps: float) -> Objective:
    """(J(x) + J(x̂)) / 2, x̂ one step of size eps from x: the training that overfits catastrophically."""

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        made = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(cross_entropy()(model, made, y).sum(), made)
        stepped = (x + eps * grad.sign()).clamp(0, 1)
        return (cross_entropy()(model, x, y) + cross_entropy()(model, stepped, y)) / 2

    return objective


def hot(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """J of logits / T."""
    return cross_entropy()(lambda inputs: model(inputs) / TEMPERATURE, x, y)


def distilled(shop: Workshop) -> nn.Module:
    """Return the student of a teacher, both trained at T = 100 and used at T = 1 (Papernot 2016)."""
    teacher = shop.trained("hot-teacher", shop.small(), hot, longer=3)

    def soft(x: Tensor) -> Tensor:
        with torch.no_grad(), frozen(teacher):
            return torch.cat([(teacher(p) / TEMPERATURE).softmax(1) for p in x.split(500)])

    return shop.trained("hot-student", shop.small(), hot, seed=1, targets=soft, longer=3)


def winners(shop: Workshop) -> nn.Module:
    return shop.trained("winners", z.swapped(shop.small(), nn.ReLU, lambda _: z.WinnersTakeAll()))


def binary(shop: Workshop) -> nn.Module:
    return shop.trained("sign", z.swapped(shop.small(), nn.ReLU, lambda _: z.Sign()))


def thermometer(shop: Workshop) -> nn.Module:
    net = z.Around(shop.small(10 * shop.dataset.shape[0]), z.thermometer(10))
    return shop.trained("thermometer", net)


def half_blind(shop: Workshop) -> nn.Module:
    return shop.trained("half", z.Around(shop.small(), z.upper_half))


def members(shop: Workshop) -> list[nn.Module]:
    return [shop.base(seed) for seed in (0, 1, 2)]


def calibrated(shop: Workshop) -> nn.Module:
    return z.int8_static(shop.base(), shop.dataset.train.x[:200])


def scaled(factor: float) -> Callable[[nn.Module], nn.Module]:
    return lambda net: z.Around(net, after=lambda logits: logits * factor)


def ten_passes(model: nn.Module) -> nn.Module:
    return z.Mean([model] * 10)


ZOO = (
    Entry("input rounding, 4 bits", "the slope of a rounding is zero",
          lambda w: z.Around(w.base(), z.rounded(16)),
          lambda base, net: [straight_through(base)(net), base], on="mnist"),
    Entry("input threshold, 1 bit", "the slope of a threshold is zero",
          lambda w: z.Around(w.base(), z.rounded(2)),
          lambda base, net: [
              straight_through(z.Around(net.net, z.soft_threshold(slope)))(net)
              for slope in (4, 10, 30)], on="mnist", queries=2000),
    Entry("thermometer input", "ten thresholds per pixel, trained with them", thermometer,
          lambda base, net: [
              straight_through(z.Around(net.net, z.soft_thermometer(10)))(net), base],
          queries=1000),
    Entry("k winners take all", "a loss that jumps wherever another activation wins", winners,
          lambda base, net: [
              straight_through(z.swapped(net, z.WinnersTakeAll, z.Soft))(net),
              z.swapped(net, z.WinnersTakeAll, z.Soft), net, base], queries=2000),
    Entry("sign activations", "the slope of a step is zero", binary,
          lambda base, net: [
              z.swapped(net, z.Sign, lambda _: z.Slope()),
              z.swapped(net, z.Sign, lambda _: nn.Tanh()), base], queries=1000),
    Entry("int8, dynamic", "integer layers have no gradient",
          lambda w: z.int8_dynamic(w.base()),
          lambda base, net: [straight_through(base)(net), base], on="mnist"),
    Entry("int8, static", "integer layers have no gradient", calibrated,
          lambda base, net: [straight_through(base)(net), base], on="mnist"),
    Entry("distilled at T = 100", "logits a hundred times larger: the softmax saturates", distilled,
          lambda base, net: [scaled(1 / TEMPERATURE)(net), base]),
    Entry("JPEG-like input", "cosine coefficients are rounded",
          lambda w: z.Around(w.base(), z.jpeg_like(0.15)),
          lambda base, net: [straight_through(base)(net), base]),
    Entry("median filter", "each pixel's slope belongs to one neighbour",
          lambda w: z.Around(w.base(), z.median),
          lambda base, net: [
              net, z.Around(base, z.gaussian), straight_through(z.Around(base, z.gaussian))(net)]),
    Entry("Gaussian filter", "what an attack on the bare network adds is blurred away",
          lambda w: z.Around(w.base(), z.gaussian), lambda base, net: [net],
          naive=lambda eps: fgsm(eps)),
    Entry("random resizing and padding", "another image at each call",
          lambda w: z.Around(w.base(), z.resized_and_padded),
          lambda base, net: [ten_passes(net), base], on="mnist", random=True),
    Entry("random pixels dropped", "other pixels at each call",
          lambda w: z.Around(w.base(), z.dropped(0.2)),
          lambda base, net: [ten_passes(net), base], on="mnist", random=True),
    Entry("another network at each call", "the gradient is of one network, the answer another's",
          lambda w: z.AnyOf(members(w)),
          lambda base, net: [z.Mean(list(net.nets)), *net.nets], random=True),
    Entry("softmax output", "a second softmax flattens the loss",
          lambda w: z.Around(w.base(), after=lambda logits: F.softmax(100 * logits, 1)),
          lambda base, net: [base], on="mnist"),
    Entry("detached, with a decoy", "the gradient is of something else",
          lambda w: z.Detached(w.base()), lambda base, net: [base], on="mnist"),
    Entry("through numpy", "no gradient comes out",
          lambda w: z.ThroughNumpy(w.base()), lambda base, net: [base], on="mnist"),
    Entry("catastrophic overfitting", "trained on single steps: it withstands those only",
          lambda w: w.trained("single-step", w.small(), single_step(w.eps), longer=2),
          lambda base, net: [net, base], on="mnist", naive=lambda eps: fgsm(eps)),
    Entry("train-mode batch norm", "each answer depends on the batch",
          lambda w: z.batch_statistics(w.base()), lambda base, net: [base, net], on="cifar10",
          examples=100),
    Entry("logits × 1000", "the softmax saturates: the loss is flat",
          lambda w: scaled(1e3)(w.base()), lambda base, net: [base], on="mnist"),
    Entry("logits × 1e-43", "gradients underflow",
          lambda w: scaled(1e-43)(w.base()), lambda base, net: [base], on="mnist"),
    Entry("vote of three", "one-hot answers have no slope",
          lambda w: z.Vote(members(w)), lambda base, net: [z.Mean(list(net.nets)), *net.nets]),
    Entry("blind to the lower half", "half of the gradient is zero, and so is half of the ball",
          half_blind, lambda base, net: [net]),
)  # fmt: skip
"""Every network of the zoo, by name."""

NORM = linf
