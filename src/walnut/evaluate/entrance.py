"""How a network comes in to be judged: which form it has, what is odd about it, and what attacks climb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from walnut.attacks.gradient import pgd
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.queried import looks_like_probabilities
from walnut.core.types import Adversarial, Attack, Model

from .accuracy import predict
from .adapt import adapt
from .fixed_batch import FixedBatch
from .honesty import Finding, examine
from .identity import marks
from .ledger import fingerprint
from .path import SURE, GradientPath, gradient_path
from .soften import Softened
from .stage import Setting, Stage, Suspicion
from .twin import TwinMatch, straight_through, twin_match, twin_of

LOOKED_AT = 16  # examples that the checks before any attack use
MISLED = (
    0.5  # agreement: a ripple or noise on the way back gives 0.4 at most, a median or a vote 0.7
)
PARTLY = 0.05  # agreement: by how much a twin must predict more where a gradient predicts enough
AVERAGED = 8  # passes that are averaged where two of them disagree


class _Counted(nn.Module):
    """A network that counts the examples that pass through it."""

    def __init__(self, network: Model) -> None:
        super().__init__()
        self.network, self.forward_passes, self.backward_passes = network, 0, 0
        self.training = bool(getattr(network, "training", False))

    def forward(self, x: Tensor) -> Tensor:
        self.forward_passes += len(x)
        self.backward_passes += len(x) if x.requires_grad else 0
        return self.network(x)


class Averaged(nn.Module):
    """The mean of several passes of a network that answers differently from call to call (EOT)."""

    def __init__(self, network: Model, passes: int) -> None:
        super().__init__()
        self.network, self.passes = network, passes
        self.training = bool(getattr(network, "training", False))

    def forward(self, x: Tensor) -> Tensor:
        """Return mean logits (b, classes)."""
        return torch.stack([self.network(x) for _ in range(self.passes)]).mean(0)


class Logarithm(nn.Module):
    """log p of a network that returns probabilities: logits up to a constant, down to float's smallest."""

    def __init__(self, network: Model) -> None:
        super().__init__()
        self.network = network
        self.training = bool(getattr(network, "training", False))

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities (b, classes)."""
        p = self.network(x)
        return p.clamp_min(torch.finfo(p.dtype).tiny).log()


class Floating(nn.Module):
    """A network that answers in whole numbers (votes, 8-bit scores), in floats."""

    def __init__(self, network: Model) -> None:
        super().__init__()
        self.network = network
        self.training = bool(getattr(network, "training", False))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes)."""
        return self.network(x).to(x.dtype)


@dataclass(frozen=True)
class Carried:
    """Examples made on another network, tried on the one attacked; they go on after that one is fooled."""

    name: str
    source: Model = field(repr=False)
    attack: Attack

    def __call__(self, model: nn.Module, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Return the record with what ``model`` says of the examples."""
        made = self.attack(adapt(self.source), x, y)  # type: ignore[arg-type]
        prediction = predict(model, made.x).argmax(1)
        success = prediction != y
        first = torch.where(success, 1, -1)
        return replace(
            made, success=success, prediction=prediction, first_success=first,
            forward=made.forward + 1, attack=repr(self), logits=None,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Entrance:
    """A network on its way in.

    Attributes:
        model: the network, callable.
        attacked: what attacks ask: the network, with whatever is needed to give a useful gradient.
        kind: ``direct``, ``twin`` (a straight-through gradient) or ``none`` (queries only).
        path: how gradients flow in the network itself.
        through: how they flow in what attacks climb: the same, or the twin's.
        match: how near the twin is, where there is one.
        findings: the checks made before any attack.
        cost: passes of the network in one of ``attacked``.
        passes: forward and backward passes spent on looking.
        given: the twin that the caller gave.
    """

    model: Any
    attacked: Model
    kind: str
    path: GradientPath
    through: GradientPath
    match: TwinMatch | None
    findings: tuple[Finding, ...]
    cost: int
    passes: tuple[int, int]
    given: Model | None

    @property
    def suspicion(self) -> Suspicion:
        """What speaks for asking without gradients."""
        reasons = [f"{f.name}: {f.sentence}" for f in self.findings if f.level == "wrong"]
        if self.kind != "direct":
            reasons.append(self.path.sentence)
        return Suspicion(tuple(reasons), self.kind != "none")

    @property
    def misled(self) -> bool:
        """Whether gradients reach the input and yet say next to nothing of what the network does."""
        found = self.through
        return self.path.kind == found.kind == "wrong" and not found.agreement >= MISLED

    @property
    def sentence(self) -> str:
        """Say how the network is attacked."""
        if self.kind == "direct":
            return f"attacked directly: {self.path.sentence}"
        if self.kind == "none":
            return f"asked without gradients: {self.path.sentence}, and there is no twin"
        assert self.match is not None
        return (
            f"attacked through a straight-through twin: {self.path.sentence}; the twin agrees on "
            f"{self.match.agreement:.1%} of {self.match.examples} examples, "
            f"logits within {self.match.gap:.3g}"
        )

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "kind": self.kind, "sentence": self.sentence, "gradient": self.path.json(),
            "agreement": None if self.match is None else self.match.agreement,
            "gap": None if self.match is None else self.match.gap,
        }  # fmt: skip

    def fingerprint(self, points: Sequence[Tensor]) -> str:
        """Return a hash of the network, of its answers at ``points``, and of how it came in."""
        return fingerprint(marks(self.model, points), self.kind, self.cost)

    def transfers(
        self, stages: tuple[Stage, ...], surrogates: Mapping[str, Model]
    ) -> tuple[Stage, ...]:
        """Return the stages with one of transfer for each other network, behind the gradient stages."""
        sources = dict(surrogates)
        if self.given is not None:
            sources = {"the float network": self.given} | sources
        last = max((i for i, s in enumerate(stages) if s.family == "gradient"), default=-1) + 1
        more = tuple(Stage(f"from {n}", _carry(n, s), "transfer") for n, s in sources.items())
        return stages[:last] + more + stages[last:]


def _carry(name: str, source: Model) -> Any:
    def make(s: Setting) -> Attack:
        inner = pgd(
            s.eps, norm=s.norm, steps=20, early_stop=False, bounds=s.bounds, seed=s.seed,
            batch_size=s.batch_size,
        )  # fmt: skip
        return Carried(name, source, inner)

    return make


def enter(
    model: Any,
    x: Float[Tensor, " n *d"],
    y: Int[Tensor, " n"],
    twin: Model | None = None,
    batch_size: int = 512,
) -> Entrance:
    """Look at a network before it is attacked, and make what attacks will climb.

    A network that takes no small batch is asked 16 at a time, one that answers differently from call to call
    is averaged over 8 passes, probabilities are taken the logarithm of, and one without a useful gradient
    gets a straight-through twin: the one given, or one built (:func:`walnut.evaluate.twin.twin_of`), or none.
    So does one whose gradient is stopped in part, such as that of a few pixels: it predicts much, but the
    twin's predicts distinctly more.

    Args:
        model: any form that :func:`walnut.evaluate.adapt.adapt` takes.
        x: examples (n, ...) in [0, 1]; 16 of them are looked at.
        y: their labels (n,).
        twin: a differentiable network with the same answers, or nearly.
    """
    network = adapt(model)
    counted = _Counted(network)
    some = slice(0, min(LOOKED_AT, len(x)))
    findings = examine(counted, x[some], y[some], trained=False)
    shape = next((f for f in findings if f.name == "shape"), None)
    if shape is not None:
        raise WalnutError(f"{shape.sentence}: {shape.remedy}")
    levels = {f.name: f.level for f in findings}
    size = _least(network, x[some])
    network = _fitted(network, x[some], size)
    path = gradient_path(network, x)
    n, forward, backward = path.examples, counted.forward_passes, counted.backward_passes
    seen = (forward + n * path.forward, backward + n * path.backward)
    path, attacked, kind, match, through = _climbed(model, network, path, x, twin, size, batch_size)
    cost = 1
    if levels.get("randomness") == "wrong":
        attacked, cost = Averaged(attacked, AVERAGED), AVERAGED
    with torch.no_grad(), frozen(network):
        if looks_like_probabilities(network(x[some])):
            attacked = Logarithm(attacked)
    return Entrance(
        network, attacked, kind, path, through, match, tuple(findings), cost, seen, twin
    )  # fmt: skip


def _climbed(
    model: Any, network: Model, path: GradientPath, x: Tensor, twin: Model | None, size: int | None,
    batch_size: int,
) -> tuple[GradientPath, Model, str, TwinMatch | None, GradientPath]:  # fmt: skip
    """Return the network's path as it is to be told, and what attacks climb with its kind, match and path."""
    direct = path, network, "direct", None, path
    if path.kind == "direct" and path.agreement >= SURE:
        return direct
    soft = twin if twin is not None else _built(model)
    if path.kind == "direct" and isinstance(soft, Softened) and not soft.softens(x[:LOOKED_AT]):
        return direct
    if soft is None:
        return direct if path.kind == "direct" else (path, network, "none", None, path)
    soft = soft if size is None else FixedBatch(adapt(soft), size)
    attacked = straight_through(network, soft)
    through = gradient_path(attacked, x)
    if path.kind == "direct":
        if not through.agreement >= path.agreement + PARTLY:
            return direct
        path = replace(path, kind="wrong")
    match = twin_match(network, soft, x[: 8 * LOOKED_AT], batch_size)
    return path, attacked, "twin" if through.share > 0 else "none", match, through


def _least(network: Model, x: Tensor) -> int | None:
    """Return how many examples a network must be asked at a time, where it takes no single one."""
    with torch.no_grad(), frozen(network):
        try:
            network(x[:1])
        except Exception:  # whatever a network of the user's raises
            return len(x)
    return None


def _fitted(network: Model, x: Tensor, size: int | None) -> Model:
    """Return the network, taking any number of examples and answering in floats."""
    network = network if size is None else FixedBatch(network, size)
    with torch.no_grad(), frozen(network):
        votes = not network(x).is_floating_point()
    return Floating(network) if votes else network


def _built(model: Any) -> Model | None:
    try:
        return twin_of(model)
    except WalnutError:
        return None
