"""The floor under a verdict: examples proven to hold, and whether any attack claims to have broken one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from walnut.core.constraints import linf
from walnut.core.types import Progress

from .accuracy import Share
from .certified import certified
from .entrance import Entrance
from .honesty import Finding
from .ledger import Ledger, Outcome
from .recorded import NotApplicable
from .stage import Setting
from .survey import Survey

ROWS = 64  # examples at once, and the work that a kill can lose
CONTROLS = 24  # fallen examples that get the expensive bound too: it must not prove them


@dataclass(frozen=True)
class Floor:
    """What is proven.

    Attributes:
        proven: (n,) which examples no perturbation within the radius makes wrong.
        why: why nothing could be proven, or "".
        forward, backward: mean passes an example, those of a verdict not among them.
        tried: how many fallen examples were tried as thoroughly as those that stand.
    """

    proven: Bool[Tensor, " n"] = field(repr=False)
    why: str = ""
    forward: float = 0.0
    backward: float = 0.0
    tried: int = 0

    @property
    def share(self) -> Share | None:
        """The provable accuracy; None where none could be had."""
        return None if self.why else Share.of(self.proven)


def floor(
    entrance: Entrance, survey: Survey, setting: Setting, ledger: Ledger,
    progress: Progress | None = None,
) -> Floor:  # fmt: skip
    """Prove what can be proven of the examples that are right, most thoroughly of those that stand."""
    nothing = torch.zeros_like(survey.y, dtype=torch.bool)
    why = _unfit(entrance, setting)
    if why:
        return Floor(nothing, why)
    fell = (survey.fell_to >= 0).nonzero()[:, 0]
    few = min(CONTROLS, len(fell))
    spread = fell[torch.arange(few, device=fell.device) * len(fell) // max(few, 1)]
    thorough = nothing.clone()
    thorough[survey.standing] = True
    thorough[spread] = True
    rows, proven, passes = survey.clean.nonzero()[:, 0], nothing.clone(), [0.0, 0.0]
    for at, part in enumerate(rows.split(ROWS) if len(rows) else ()):
        if progress is not None:
            progress("proving", at * ROWS, len(rows))
        try:
            found = ledger.cell(
                f"certified-{at:04d}", part, _prover(entrance, survey, setting, thorough, part)
            )
        except NotApplicable as error:
            return Floor(nothing, str(error))
        proven[part] = found["proven"].bool()
        for i, key in enumerate(("forward", "backward")):
            passes[i] += float(found[key]) * len(part)
    n = max(len(survey.y), 1)
    return Floor(proven, "", passes[0] / n, passes[1] / n, len(spread))


def _prover(
    entrance: Entrance, survey: Survey, setting: Setting, thorough: Tensor, part: Tensor
) -> Callable[[], Outcome]:
    def prove() -> Outcome:
        found = certified(
            entrance.model, survey.x[part], survey.y[part], setting.eps, bounds=setting.bounds,
            thorough=thorough[part], batch_size=ROWS,
        )  # fmt: skip
        return {
            "proven": found.proven, "margin": found.margin,
            "forward": torch.tensor(found.forward), "backward": torch.tensor(found.backward),
        }  # fmt: skip

    return prove


def _unfit(entrance: Entrance, setting: Setting) -> str:
    """Say why a network cannot be bounded in this ball, if that is plain beforehand."""
    if setting.norm is not linf:
        return "the bound is for L∞ only"
    if entrance.kind != "direct":
        return "the network is not a chain of layers that torch can follow"
    if entrance.cost > 1:
        return "the network's answers differ from call to call"
    return ""


def provable(found: Floor, survey: Survey) -> Finding:
    """Row 21: nothing that is proven to hold has fallen, and the truth lies between floor and figure."""
    name, n = "provable lower bound", len(survey.y)
    if found.share is None:
        return Finding(name, "odd", f"not applicable: {found.why}")
    broken = found.proven & (survey.fell_to != -1)
    rows = tuple(broken.nonzero()[:, 0].tolist())
    if rows:
        stages = sorted({int(s) for s in survey.fell_to[broken].tolist() if s >= 0})
        return Finding(
            name,
            "wrong",
            f"{len(rows)} examples are proven to hold and were broken all the same",
            "one of the two is a bug of this build: do not use the figure, and report it",
            rows,
            tuple(survey.stages[s].name for s in stages),
        )
    upper = len(survey.standing)
    proven = int(found.proven.sum())
    return Finding(
        name,
        "good",
        f"between {proven / n:.1%} (proven) and {upper / n:.1%} (nothing found) is the truth; none of "
        f"{int((survey.fell_to >= 0).sum())} fallen examples is proven to hold, {found.tried} of them "
        f"tried thoroughly; {found.forward:.0f} forward and {found.backward:.0f} backward passes an example",
    )
