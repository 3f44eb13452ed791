"""The verdict: how many examples the strongest attack leaves, and whether to believe it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from walnut.attacks.common import ball, prepare
from walnut.core.constraints import linf
from walnut.core.errors import WalnutError, WalnutWarning
from walnut.core.queried import check_numbers, whole
from walnut.core.types import Model, Progress

from .accuracy import Share
from .adapt import as_asked
from .cascade import NAMES, Cascade
from .curve import CURVE, Curve, checked, curve, smallest
from .doubts import doubts
from .doubts_attack import PROBED, settled
from .entrance import LOOKED_AT, Entrance, enter
from .evidence import Evidence
from .floor import floor, provable
from .honesty import Finding
from .identity import around, marks
from .ledger import Ledger, fingerprint
from .probes import Probes, probe
from .stage import Setting, Stage
from .stages import plan, suspected
from .survey import StageRecord, Survey

VERSION = 6  # of the ledger: a change of what stages do makes old outcomes useless


@dataclass(frozen=True)
class Verdict:
    """What is left of a network's accuracy in a ball, and how that is known.

    Attributes:
        norm, eps, effort: what was asked.
        clean: right untouched, of all examples.
        robust: right, and nothing that was run breaks it: the worst case per example.
        stages: what was run, in order.
        curve: accuracy against the radius; None where it was not asked for or has no gradient.
        checks: every honesty check, good or not. One of level ``wrong`` is a red flag.
        entrance: how the network's form was attacked.
        forward, backward: mean passes per example, checks and curve included; a few dozen looks at the
            network as a whole (is it the ledger's, does it return probabilities, how near is its twin)
            are not: a few dozen, and a few hundred where it has a twin.
        seconds: wall clock of what was computed; stages read from a ledger count as they were.
        survey: the examples one by one.
        certified: examples that no perturbation can break, of all; None where that was not asked for or
            could not be had. The truth lies between it and ``robust``. Its passes are in the check
            "provable lower bound", not among ``forward`` and ``backward``.
    """

    norm: str
    eps: float
    effort: str
    clean: Share
    robust: Share
    stages: tuple[StageRecord, ...]
    curve: Curve | None
    checks: tuple[Finding, ...]
    entrance: Entrance
    forward: float
    backward: float
    seconds: float
    survey: Survey = field(repr=False)
    certified: Share | None = None

    @property
    def flags(self) -> tuple[Finding, ...]:
        """The red flags: reasons not to believe the figure."""
        return tuple(check for check in self.checks if check.level == "wrong")

    def json(self) -> dict[str, Any]:
        """Return plain numbers for a result file."""
        return {
            "norm": self.norm, "eps": self.eps, "effort": self.effort,
            "clean": self.clean.json(), "robust": self.robust.json(),
            "certified": None if self.certified is None else self.certified.json(),
            "forward": self.forward, "backward": self.backward, "seconds": round(self.seconds, 3),
            "stages": [stage.json() for stage in self.stages],
            "curve": None if self.curve is None else self.curve.json(),
            "checks": [check.json() for check in self.checks],
            "path": self.entrance.json(),
        }  # fmt: skip

    def arrays(self) -> dict[str, Tensor]:
        """Return what is known of each example, as tensors (n,)."""
        s = self.survey
        return {
            "label": s.y, "prediction": s.prediction, "fell_to": s.fell_to, "step": s.step,
            "radius": smallest(s, self.eps), "margin": s.hope, "forward": s.forward,
            "backward": s.backward, "adversarial": s.found,
        }  # fmt: skip


def robustness(
    model: Any,
    data: Any,
    norm: Any = linf,
    eps: float | None = None,
    *,
    effort: str | tuple[Stage, ...] = "standard",
    with_curve: bool = True,
    certify: bool = False,
    twin: Model | None = None,
    surrogates: Mapping[str, Model] | None = None,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    seed: int = 0,
    batch_size: int = 512,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Find the share of examples that no perturbation within ``eps`` is known to fool.

    Robust accuracy = mean_i [f(x_i) = y_i and no stage found ‖x̂ − x_i‖ ≤ eps, f(x̂) ≠ y_i].

    The stages are those of :mod:`walnut.evaluate.stages`: each has only what still stands. What the
    honesty checks find is in ``checks``; a red flag among ``flags`` means that the figure is likely too high.

    Args:
        model: anything that :func:`walnut.evaluate.entrance.enter` takes: a module, a compressed,
            exported or quantised form, a callable.
        data: a pair of examples (n, ...) in ``bounds`` and true labels (n,); or what has them as
            ``x`` and ``y``, a split of a data set for one; or a data set, of which the test split is used.
        norm: ``linf``, ``l2`` or ``l1``, or its name.
        eps: radius in input units, so 8/255 for 8-bit images. There is no default.
        effort: ``"standard"``, ``"autoattack"`` (the full protocol of that name), or stages of your own.
        with_curve: also search each example's smallest perturbation; never with ``"autoattack"``.
        certify: also prove what can be proven (L∞; layers of linear, convolution, ReLU, max-pool): a lower
            bound beside the figure, at tens to hundreds of passes an example more
            (:func:`walnut.evaluate.certified.certified`).
        twin: a differentiable network that the model was made from; built where that is possible.
        surrogates: other networks by name, whose adversarial examples are tried too.
        seed: of every draw.
        batch_size: rows at work at once, and the work that a kill can lose.
        folder: where the ledger is kept; the same call goes on from what is there.
        progress: called as work goes on.

    Raises:
        WalnutError: inputs, labels or radius that make no sense, a network whose answers are not
            numbers, or a ledger of something else.

    >>> import torch
    >>> net = torch.nn.Linear(2, 2, bias=False).eval()
    >>> _ = net.weight.data.copy_(torch.eye(2))
    >>> x, y = torch.tensor([[0.9, 0.1], [0.6, 0.5], [0.2, 0.9]]), torch.tensor([0, 0, 0])
    >>> found = robustness(net, (x, y), linf, 0.1)
    >>> found.clean.correct, found.robust.correct
    (2, 1)
    """
    x, y = examples(data)
    check_numbers(seed, batch_size)
    ball_of = named(norm)
    radius = _radius(eps)
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore", WalnutWarning)  # what they say is among the checks
        return _judge(
            model, as_asked(model, x), y.clone(), ball_of, radius, effort, with_curve, certify, twin,
            surrogates or {}, bounds, seed, batch_size, None if folder is None else Path(folder),
            progress,
        )  # fmt: skip


def _judge(
    model: Any, x: Tensor, y: Tensor, norm: Any, eps: float, effort: str | tuple[Stage, ...],
    with_curve: bool, certify: bool, twin: Model | None, surrogates: Mapping[str, Model],
    bounds: tuple[float, float] | None, seed: int, batch_size: int, folder: Path | None,
    progress: Progress | None,
) -> Verdict:  # fmt: skip
    began = time.perf_counter()
    stages = plan(effort, norm)
    room = 4 * (eps + 1e-3)
    span = (float(x.min()) - room, float(x.max()) + room) if bounds is None else bounds
    setting = Setting(norm, eps, bounds, seed, batch_size, span)
    prepare(None, x, ball(norm, eps, bounds))
    entrance = enter(model, x, y, twin, batch_size)
    name = effort if isinstance(effort, str) else "own"
    survey = Survey.of(x, y)
    helpers = {"twin": twin, **surrogates}
    identity = {} if folder is None else _identity(entrance, survey, setting, name, stages, helpers)
    ledger = Ledger(folder, identity)
    cascade = Cascade(entrance.attacked, setting, survey, ledger, entrance.cost, progress)
    probes = _attacked(cascade, entrance, entrance.transfers(stages, surrogates))
    found = _curve(cascade, entrance) if with_curve and name != "autoattack" else None
    proven = floor(entrance, survey, setting, ledger, progress) if certify else None
    forward, backward = (
        survey.forward.sum() + entrance.passes[0],
        survey.backward.sum() + entrance.passes[1],
    )
    verdict = Verdict(
        NAMES[norm], setting.eps, name, Share.of(survey.clean), Share.of(survey.fell_to == -1),
        tuple(survey.stages), found, (), entrance,
        float(forward + probes.forward) / len(y), float(backward + probes.backward) / len(y),
        time.perf_counter() - began, survey, None if proven is None else proven.share,
    )  # fmt: skip
    evidence = Evidence(survey, setting, entrance, probes, twin is not None, surrogates)
    more = [] if proven is None else [provable(proven, survey)]
    if found is not None:
        more.append(settled(found.check))
    return replace(verdict, checks=tuple(doubts(evidence, tuple(more))))


def _identity(
    entrance: Entrance, survey: Survey, s: Setting, effort: str, stages: tuple[Stage, ...],
    helpers: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return what tells one ledger from another."""
    points = around(survey.x[:LOOKED_AT], s.eps, s.bounds, s.seed)
    return {
        "walnut ledger": VERSION, "norm": NAMES[s.norm], "eps": s.eps, "effort": effort,
        "seed": s.seed, "batch size": s.batch_size, "examples": len(survey.y),
        "data": fingerprint(survey.x, survey.y, s.bounds),
        "plan": fingerprint([(stage.name, repr(stage.make(s))) for stage in stages]),
        "network": entrance.fingerprint(points),
        "twin or surrogates": fingerprint({k: marks(v, points) for k, v in helpers.items()}),
    }  # fmt: skip


def _curve(cascade: Cascade, entrance: Entrance) -> Curve | None:
    """Search every example's smallest perturbation; None where nothing could be searched."""
    cascade.run(CURVE, entrance.suspicion)
    if not any(s.family == "minimal" for s in cascade.survey.stages):
        return None
    check = checked(cascade)
    return curve(cascade.survey, cascade.setting.eps, check)


def _attacked(cascade: Cascade, entrance: Entrance, stages: tuple[Stage, ...]) -> Probes:
    """Run the stages; what the probes find odd is a reason for those that wait for one."""
    cascade.clean()
    waiting = next((i for i, s in enumerate(stages) if s.when is suspected), len(stages))
    cascade.run(stages[:waiting], entrance.suspicion)
    probes = probe(cascade, entrance.suspicion.gradients)
    evidence = Evidence(cascade.survey, cascade.setting, entrance, probes, False, {})
    odd = [f for f in (check(evidence) for check in PROBED) if f.level == "wrong"]
    reasons = (*entrance.suspicion.reasons, *(f"{f.name}: {f.sentence}" for f in odd))
    cascade.run(stages[waiting:], replace(entrance.suspicion, reasons=reasons))
    return probes


def named(norm: Any) -> Any:
    """Return the ball of a norm that is given as such, or by its name."""
    found = next((ball for ball, name in NAMES.items() if norm is ball or norm == name), None)
    if found is None:
        raise WalnutError(f"norm must be one of linf, l2, l1, not {norm!r}")
    return found


def examples(data: Any) -> tuple[Tensor, Tensor]:
    """Return examples and labels of a pair, a split, or a data set's test split."""
    data = getattr(data, "test", data)
    pair = (data.x, data.y) if hasattr(data, "x") and hasattr(data, "y") else data
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise WalnutError("data must be a pair (x, y) of examples and labels, or a data set")
    x, y = pair
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise WalnutError("examples and labels must be tensors: use torch.as_tensor(...)")
    y = whole(y)
    if len(x) != len(y) or len(x) == 0:
        raise WalnutError(f"there are {len(x)} examples and {len(y)} labels; give one label each")
    return x, y


def _radius(eps: Any) -> float:
    if eps is None:
        raise WalnutError("say how far an attack may go: eps=8/255, for one, in input units")
    try:
        radius = float(eps)
    except (TypeError, ValueError):
        raise WalnutError(f"eps is a number, such as 8/255, not {eps!r}") from None
    if not 0 <= radius < float("inf"):
        raise WalnutError(f"eps is a radius in input units, 0 or more, not {radius}")
    return radius
