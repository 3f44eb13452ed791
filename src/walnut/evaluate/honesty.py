"""Is a network fit to be attacked? What makes a robustness figure a mistake, looked for beforehand.

Most broken robustness claims come from a network that hides its gradients (Athalye et al. 2018,
"Obfuscated gradients give a false sense of security", §3) or from an input that is not what the
attack believes it to be. Each check here returns findings; :func:`examine` runs all of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.queried import looks_like_probabilities, not_logits, of_types, told_types
from walnut.core.types import Model

Level = Literal["good", "odd", "wrong"]

_CLEARLY = 0.05  # a difference in accuracy that is no accident among 200 examples or more


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``good``, ``odd`` (know it) or ``wrong`` (mend it first).

    ``examples`` are the rows and ``attacks`` the stages that show it.
    """

    name: str
    level: Level
    sentence: str
    remedy: str = ""
    examples: tuple[int, ...] = ()
    attacks: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """Return plain values; at most 100 examples are named."""
        return asdict(self) | {"examples": list(self.examples[:100]), "attacks": list(self.attacks)}


def examine(
    model: Model, x: Float[Tensor, " b *d"], y: Int[Tensor, " b"], *, trained: bool = True
) -> list[Finding]:
    """Return the findings of every check, on examples ``x`` in [0, 1] with true labels ``y``.

    Nothing of the model changes. ``trained=False`` leaves out what only a trained network shows.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(1)).eval()
    >>> found = examine(net, torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64), trained=False)
    >>> [f.name for f in found if f.level == "wrong"]
    ['outputs']
    """
    found = [mode(model)]
    with frozen(model):
        answers = outputs(model, x, y)
        found.append(answers)
        if answers.name == "shape":
            return found
        found.append(randomness(model, x))
        if (
            found[-1].level == "good"
        ):  # else its answers differ alone and in a batch for that reason
            found.append(batch_size(model, x))
        found.append(gradients(model, x, y))
        if trained:
            found.append(input_range(model, x, y))
    return found


def mode(model: Model) -> Finding:
    """Say whether dropout or batch norm are in train mode."""
    moving = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    modules = model.modules() if isinstance(model, nn.Module) else ()
    awake = sum(m.training for m in modules if isinstance(m, moving))
    if awake:
        return Finding(
            "mode",
            "odd",
            f"{awake} dropout or batch-norm layers are in train mode",
            "call model.eval() before measuring; walnut's attacks do it themselves",
        )
    return Finding("mode", "good", "dropout and batch norm, if any, are in eval mode")


@torch.no_grad()
def outputs(model: Model, x: Float[Tensor, " b *d"], y: Int[Tensor, " b"]) -> Finding:
    """Say whether the network returns finite logits, one per class, and not probabilities."""
    try:
        logits = model(x)
    except Exception as error:  # whatever a network of the user's raises
        told = str(error).strip()
        line = told.partition("\n")[0]
        return Finding(
            "shape",
            "wrong",
            f"a batch of shape {tuple(x.shape)} does not fit the network: {line}",
            told_types(x)
            if of_types(told)
            else "choose data of the shape the network was made for",
        )
    if told := not_logits(logits, len(x)):
        return Finding(
            "shape",
            "wrong",
            f"{len(x)} examples give {told} in place of ({len(x)}, classes)",
            "wrap the network so that it returns one row of logits per example",
        )
    if logits.shape[1] < 2:
        return Finding(
            "shape",
            "wrong",
            "the network returns one number per input; walnut needs one per class",
            "for a score z of the second class, return torch.cat([0 * z, z], 1)",
        )
    if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
        return Finding(
            "shape",
            "wrong",
            f"labels run from {int(y.min())} to {int(y.max())}, the network has {logits.shape[1]} classes",
            "choose the data the network was trained on",
        )
    return _kind_of_output(logits.double())


def _kind_of_output(logits: Tensor) -> Finding:
    """Tell logits from probabilities, log-probabilities and numbers that are none."""
    if not bool(logits.isfinite().all()):
        return Finding(
            "outputs",
            "wrong",
            "some outputs are not numbers (NaN or infinite)",
            "check the weights, and that inputs in [0, 1] are what the network expects",
        )
    one = torch.ones(len(logits), dtype=torch.float64, device=logits.device)
    if looks_like_probabilities(logits):
        return Finding(
            "outputs",
            "wrong",
            "the network returns probabilities: every row lies in [0, 1] and sums to 1",
            "return logits, without the final softmax; a second softmax starves gradients",
        )
    if torch.allclose(logits.logsumexp(1).exp(), one, atol=1e-4):
        return Finding(
            "outputs", "good", "the network returns log-probabilities, as good as logits"
        )
    return Finding("outputs", "good", "the network returns logits")


@torch.no_grad()
def randomness(model: Model, x: Float[Tensor, " b *d"]) -> Finding:
    """Say whether two forward passes over the same examples agree."""
    first, second = model(x).double(), model(x).double()
    gap = float((first - second).abs().max())
    if gap > 0:
        changed = float((first.argmax(1) != second.argmax(1)).double().mean())
        return Finding(
            "randomness",
            "wrong",
            f"two passes over the same examples differ by up to {gap:.2g}; "
            f"{100 * changed:.1f} % of the answers change",
            "average the gradient over several passes, or switch the randomness off",
        )
    return Finding("randomness", "good", "two passes over the same examples agree")


@torch.no_grad()
def batch_size(model: Model, x: Float[Tensor, " b *d"], *, rows: int = 8) -> Finding:
    """Say whether an example's answer depends on the others in its batch."""
    x = x[:rows]
    together = model(x).double()
    try:
        alone = torch.cat([model(row[None]) for row in x]).double()
    except (RuntimeError, ValueError) as error:  # batch norm in train mode, for one
        line = str(error).strip().partition("\n")[0]
        return Finding(
            "batch", "wrong", f"one example alone is not answered: {line}", "call model.eval()"
        )
    gap = float((together - alone).abs().max() / together.abs().max().clamp(min=1e-12))
    if gap > 1e-3:
        return Finding(
            "batch",
            "wrong",
            f"an example's answer depends on its batch (relative difference {gap:.2g})",
            "use running statistics: a batch norm in train mode, or one without them, does this",
        )
    return Finding("batch", "good", "an example's answer does not depend on its batch")


def gradients(model: Model, x: Float[Tensor, " b *d"], y: Int[Tensor, " b"]) -> Finding:
    """Say on how many examples the loss has no gradient in the input at all."""
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_(True)
        try:
            loss = F.cross_entropy(model(point), y, reduction="sum")
            (grad,) = torch.autograd.grad(loss, point)
        except RuntimeError:
            return Finding(
                "gradients",
                "wrong",
                "the output cannot be differentiated in the input",
                "use an attack without gradients, or remove the rounding, argmax or detach()",
            )
    dead = (grad.flatten(1) == 0).all(1).double().mean().item()
    if not bool(grad.isfinite().all()):
        return Finding(
            "gradients", "wrong", "some gradients are not numbers", "look for 0/0 or log 0"
        )
    if dead > 0:
        level: Level = "wrong" if dead >= 0.1 else "odd"
        return Finding(
            "gradients",
            level,
            f"the cross-entropy's gradient is exactly zero on {100 * dead:.1f} % of the examples",
            "the loss is saturated or masked: attack the margin, not the cross-entropy, and add "
            "an attack without gradients",
        )
    return Finding("gradients", "good", "the loss has a gradient on every example")


@torch.no_grad()
def input_range(model: Model, x: Float[Tensor, " b *d"], y: Int[Tensor, " b"]) -> Finding:
    """Say whether the network is better on another range than [0, 1]: then it expects that one."""
    if float(x.min()) < 0 or float(x.max()) > 1:
        raise WalnutError(
            f"x is {float(x.min()):g}..{float(x.max()):g}; the checks need examples in [0, 1]"
        )
    spread = x.std().clamp(min=1e-6)
    ranges = {
        "0 to 255": 255 * x,
        "-1 to 1": 2 * x - 1,
        "mean 0 and deviation 1": (x - x.mean()) / spread,
    }
    here = _accuracy(model, x, y)
    best, value = max(((n, _accuracy(model, z, y)) for n, z in ranges.items()), key=lambda p: p[1])
    if value > here + _CLEARLY:
        return Finding(
            "range",
            "wrong",
            f"accuracy is {100 * here:.1f} % on inputs in [0, 1], {100 * value:.1f} % on {best}",
            "put that scaling inside the network, so that its inputs are in [0, 1]",
        )
    common = float(y.bincount().max()) / len(y)
    if here <= common + _CLEARLY:
        return Finding(
            "range",
            "odd",
            f"accuracy is {100 * here:.1f} %, no better than always saying the commonest class",
            "check that the weights are loaded, and that these are the network's own classes",
        )
    return Finding("range", "good", f"accuracy is {100 * here:.1f} % on inputs in [0, 1]")


def _accuracy(model: Model, x: Tensor, y: Tensor) -> float:
    return float((model(x).argmax(1) == y).double().mean())
