"""Which weights matter: scores from the weights alone, and from what the loss says about them.

Scores of the weights alone are functions ``w -> scores`` (``magnitude`` and ``lamp`` are in
``prune``); scores from data are dictionaries ``{name: scores}``. ``prune`` takes either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from walnut.core.errors import WalnutError
from walnut.core.types import Objective

from .represent import is_represented, matrices, representations, weights

Scores = dict[str, Tensor]
"""``{name: scores}`` shaped like the weights; the entries with the largest scores stay."""


def energy(w: Float[Tensor, "*w"]) -> Float[Tensor, "*w"]:
    """Return w² / Σ w²: each weight's share of its layer's squared L2 norm.

    Squares order weights as magnitudes do, so that within a layer L1 and L2 pruning are the same;
    across layers they differ by what a layer is measured with. Normalised, small weights of a layer
    of small weights count. Mathematically it is the cost of removing the weight, relative to the
    layer (‖w − w′‖² / ‖w‖²).

    >>> energy(torch.tensor([3.0, 0.0, 4.0]))
    tensor([0.3600, 0.0000, 0.6400], dtype=torch.float64)
    """
    square = w.detach().double().square()
    return square / square.sum().clamp_min(1e-300)


def ranked(w: Float[Tensor, "*w"]) -> Float[Tensor, "*w"]:
    """Return each weight's rank by magnitude, as a share of its layer in (0, 1].

    One threshold on it keeps the same share of every layer ("uniform" pruning).

    >>> ranked(torch.tensor([3.0, -1.0, 4.0, 2.0]))
    tensor([0.7500, 0.2500, 1.0000, 0.5000], dtype=torch.float64)
    """
    size = w.detach().abs().reshape(-1)
    place = torch.empty(len(size), dtype=torch.float64, device=w.device)
    steps = torch.arange(1, len(size) + 1, dtype=torch.float64, device=w.device)
    place[size.argsort(stable=True)] = steps / max(1, len(size))
    return place.reshape(w.shape)


def random_scores(model: nn.Module, *, seed: int = 0) -> Scores:
    """Return uniform random scores: the control that a score has to beat."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(weights(model)[name].shape, generator=generator)
        for name in matrices(model)
    }


def taylor(
    model: nn.Module, objective: Objective, batches: Iterable[tuple[Tensor, Tensor]]
) -> Scores:
    """Return mean over batches of |w · ∂L/∂w|: how much the loss moves when the weight goes.

    The first-order expansion of L(w = 0) − L(w) at each weight alone, L the mean over a batch. Its
    size depends on the batch: a converged network has a small mean gradient, so use batches as
    small as in training.

    Args:
        model: network; run in eval mode, and left as it was.
        objective: ``(model, x, y) -> (b,)``.
        batches: of (x, y), from training data.

    Raises:
        WalnutError: no batches, examples the network does not take, or a loss that is not finite.

    Molchanov et al. 2017 (ICLR), Eq. 7, there for feature maps, here for single weights; the
    squared form of Molchanov et al. 2019 (CVPR), Eq. 8, orders alike.
    """
    found = {name: torch.zeros_like(w) for name, w in weights(model).items() if w.ndim >= 2}
    modes = [(m, m.training) for m in model.modules()]
    count = 0
    try:
        model.eval()
        for x, y in batches:
            for name, (w, gradient) in _gradients(model, objective, x, y).items():
                found[name] += (w * gradient).abs()
            count += 1
    finally:
        for module, mode in modes:
            module.training = mode
    if not count:
        raise WalnutError("a Taylor score needs at least one batch of examples")
    return {name: total / count for name, total in found.items()}


def _gradients(
    model: nn.Module, objective: Objective, x: Tensor, y: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each matrix and the gradient of the mean loss in it; represented ones count as used."""
    from torch.nn.utils import parametrize

    with torch.enable_grad(), parametrize.cached():
        used = {name: _used(model, name) for name in matrices(model)}
        trained = {name: w for name, w in used.items() if w.requires_grad}
        try:
            loss = objective(model, x, y).mean()
        except (RuntimeError, IndexError) as error:
            line = str(error).strip().partition("\n")[0]
            raise WalnutError(
                f"the network cannot be scored on examples of shape {tuple(x.shape)}: {line}"
            ) from error
        if not bool(loss.isfinite()):
            raise WalnutError("the loss is not a number on these examples: no score can be taken")
        slopes = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {
        name: (w.detach(), torch.zeros_like(w) if g is None else g.detach())
        for (name, w), g in zip(trained.items(), slopes, strict=True)
    }


def _used(model: nn.Module, name: str) -> Tensor:
    """Return a weight as the network uses it, in the graph."""
    place, _, key = name.rpartition(".")
    w: Tensor = getattr(model.get_submodule(place), key)
    return w


class Movement:
    """Scores −Σ_t w · ∂L/∂w over the steps of a training: weights that move away from zero.

    It listens to the gradients while ``fit`` trains, and needs no other change of the training:

        movement = Movement(model)
        fit(model, objective, batches, epochs=1, after_step=[...])
        prune(model, 0.15, score=movement.scores())
        movement.stop()

    Sanh et al. 2020 ("Movement Pruning"), Eq. 5 and 6 with the learning rate left out (their
    scores are parameters that the optimiser moves). Under a mask a gradient is zero, so that what
    is pruned does not come back: theirs may, by a straight-through gradient.

    Args:
        model: network whose weights of two axes or more train. Weights with a source in their
            place (a codebook) have no entries of their own, and are refused.
    """

    def __init__(self, model: nn.Module) -> None:
        self._found: Scores = {}
        self._hooks: list[RemovableHandle] = []
        present = representations(model)
        for name in matrices(model):
            if any(step.source for step in present.get(name, ())):
                raise WalnutError(f"{name} is made by a source: bake it before scoring movement")
            original = _original(model, name)
            if not original.requires_grad:
                continue
            self._found[name] = torch.zeros_like(original, requires_grad=False)
            self._hooks.append(original.register_hook(self._listener(name, original)))

    def _listener(self, name: str, w: Tensor) -> Callable[[Tensor], None]:
        def listen(gradient: Tensor) -> None:
            with torch.no_grad():
                self._found[name] -= w.detach() * gradient

        return listen

    def scores(self) -> Scores:
        """Return the scores so far."""
        return {name: score.clone() for name, score in self._found.items()}

    def stop(self) -> None:
        """Listen no longer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def _original(model: nn.Module, name: str) -> Tensor:
    """Return the parameter that carries a weight: itself, or what a filter filters."""
    place, _, key = name.rpartition(".")
    module = model.get_submodule(place)
    if is_represented(module, key):
        held: Tensor = module.parametrizations[key].original  # type: ignore[index, union-attr]
        return held
    return module._parameters[key]  # type: ignore[return-value]
