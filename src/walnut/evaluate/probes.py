"""Small experiments on what still stands: does more radius, or a smaller step, do what it must?

They cost some passes on at most a few dozen examples, and nothing where nothing stands.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from walnut.attacks.common import ball, steepest
from walnut.attacks.gradient import pgd
from walnut.attacks.odi import odi_pgd
from walnut.core.constraints import l1, l2, linf
from walnut.core.draws import Draws
from walnut.core.frozen import frozen
from walnut.core.gradients import plain
from walnut.core.objectives import margin
from walnut.core.queried import Queried
from walnut.core.types import Attack

from .accuracy import predict
from .cascade import Cascade
from .stage import Setting
from .stages import climb

ROWS = 24
STARTS = 2  # random points of each example's ball
RADII = (2.0, 4.0)
SIGMAS = (0.05, 0.1, 0.2)  # of the inputs' range


@dataclass
class Probes:
    """What the experiments found, by name: (rows tried, rows that fell), and the passes they took.

    ``led`` says from which random points a step along the gradient ended above one against it.
    """

    outcomes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    led: list[list[bool]] = field(default_factory=list)
    forward: int = 0
    backward: int = 0

    def share(self, name: str) -> float | None:
        """Return the share that fell; None where the experiment was not made."""
        tried, fell = self.outcomes.get(name, ((), ()))
        return len(fell) / len(tried) if tried else None


def reach(norm: Any, x: Tensor, bounds: tuple[float, float]) -> float:
    """Return a radius within which every input of the box lies."""
    width = bounds[1] - bounds[0]
    d = x[0].numel()
    return {linf: width, l2: width * d**0.5, l1: width * d}[norm]


def probe(cascade: Cascade, gradients: bool) -> Probes:
    """Make the experiments."""
    made = Probes({})
    if not gradients:
        return made
    survey, setting = cascade.survey, cascade.setting
    standing = survey.sample(ROWS)
    if len(standing):
        whole = reach(setting.norm, survey.x, setting.bounds or setting.span)
        for factor in RADII:
            wider = replace(setting, eps=min(factor * setting.eps, whole))
            _try(cascade, made, f"{factor:g}", wider, climb(10)(wider), standing)
        far = replace(setting, eps=whole)
        _try(cascade, made, "unbounded", far, climb(20)(far), standing)
        _leads(cascade, made, standing)
    jumped = ((survey.fell_to == 0) & (survey.step == 1)).nonzero()[:, 0][:ROWS]
    if len(jumped) and len(standing):
        _try(cascade, made, "small steps", setting, _careful(setting), jumped)
    right = survey.clean.nonzero()[:, 0][: 2 * ROWS]
    if len(right) and len(standing):
        _corrupt(cascade, made, right)
    return made


def _careful(s: Setting) -> Attack:
    return pgd(
        s.eps, norm=s.norm, steps=20, step_size=s.eps / 8, random_start=False, objective=margin(),
        bounds=s.bounds, seed=s.seed, batch_size=s.batch_size,
    )  # fmt: skip


def _try(
    cascade: Cascade, made: Probes, name: str, setting: Setting, attack: Attack, rows: Int[Tensor, " m"]
) -> None:  # fmt: skip
    """Attack some rows at another setting; what falls there has not fallen at the radius asked for."""
    other = replace(cascade, setting=setting)
    key = f"probe-{name.replace(' ', '-')}"
    outcome = cascade.ledger.cell(key, rows, lambda: other.attempt(attack, rows))
    fell = rows[outcome["success"].bool()]
    made.outcomes[name] = (tuple(rows.tolist()), tuple(fell.tolist()))
    made.forward += int(outcome["forward"].sum())
    made.backward += int(outcome["backward"].sum())


def _leads(cascade: Cascade, made: Probes, rows: Int[Tensor, " m"]) -> None:
    """Note from which random points of the ball a step along the gradient ends above one against it.

    Where a gradient says nothing, half of them do, whatever the norm and the number of entries.
    """
    s, x, y = cascade.setting, cascade.survey.x[rows], cascade.survey.y[rows]
    inside, step_of = ball(s.norm, s.eps, s.bounds), steepest(s.norm)
    higher = torch.ones_like(y, dtype=torch.bool)
    with torch.inference_mode(False), frozen(cascade.attacked):
        asked = Queried(cascade.attacked)

        def value(z: Tensor) -> Tensor:
            return margin()(asked, z, y)

        for turn in range(STARTS):
            draws = Draws.of(x, s.seed).fold(turn)
            z = inside.sample(x, draws)
            with torch.enable_grad():
                step = s.eps / 4 * step_of.update(plain()(value, z, draws)[1], ())[0]
            ends = [z + step, z - step]
            if s.bounds is not None:
                ends = [end.clamp(*s.bounds) for end in ends]
            with torch.no_grad():
                up, down = (value(end) for end in ends)
            made.led.append((up >= down).tolist())
            higher &= up >= down
    made.outcomes["along the gradient"] = (tuple(rows.tolist()), tuple(rows[higher].tolist()))
    made.forward += cascade.cost * asked.forward
    made.backward += cascade.cost * asked.backward


def _corrupt(cascade: Cascade, made: Probes, rows: Int[Tensor, " m"]) -> None:
    """Count what plain Gaussian noise of a few widths does to examples that are right."""
    x, y = cascade.survey.x[rows], cascade.survey.y[rows]
    draws = Draws.of(x, cascade.setting.seed)
    low, high = cascade.setting.bounds or (float(x.min()), float(x.max()))
    for sigma in SIGMAS:
        noisy = x + sigma * (high - low) * draws.normal(*x.shape[1:], dtype=x.dtype)
        if cascade.setting.bounds is not None:
            noisy = noisy.clamp(*cascade.setting.bounds)
        wrong = predict(cascade.attacked, noisy).argmax(1) != y
        made.outcomes[f"sigma {sigma:g}"] = (tuple(rows.tolist()), tuple(rows[wrong].tolist()))
        made.forward += cascade.cost * len(rows)


@functools.cache  # it asks about the build, not about a network
def sound() -> bool:
    """Say whether the first stages break exactly what can be broken on a network where that is known.

    On f(x) = W x with two classes an example falls under L∞ iff |f₁ − f₀| < eps · ‖w₁ − w₀‖₁ (the box
    left out), so a build that attacks wrongly is found out.
    """
    draws = Draws.keyed(torch.arange(64))
    x = draws.uniform(6, dtype=torch.float64)
    net = nn.Linear(6, 2, bias=False, dtype=torch.float64).eval()
    with torch.no_grad():
        net.weight.copy_(Draws.keyed(torch.arange(2)).normal(6))
        z = net(x)
    y, eps = z.argmax(1), 0.1
    gap = (z[:, 0] - z[:, 1]).abs()
    weight = (net.weight[0] - net.weight[1]).detach().abs().sum()
    found = odi_pgd(eps, steps=5, restarts=1, bounds=None)(net, x, y)
    return bool((found.success == (gap < eps * weight)).all())
