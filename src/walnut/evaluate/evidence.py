"""What the honesty checks look at, and how a check that found nothing, or something, is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .entrance import Entrance
from .honesty import Finding, Level
from .probes import Probes
from .stage import Setting
from .survey import StageRecord, Survey

CLEAR = 0.02  # share of the examples tried: ten times the threshold of AutoAttack's own check


@dataclass(frozen=True)
class Evidence:
    """All that the checks look at."""

    survey: Survey
    setting: Setting
    entrance: Entrance
    probes: Probes
    twinned: bool
    surrogates: Mapping[str, Any]

    @property
    def stages(self) -> list[StageRecord]:
        """The stages as they went."""
        return self.survey.stages

    def family(self, *names: str) -> list[StageRecord]:
        """Return the stages of some families."""
        return [s for s in self.stages if s.family in names]

    def finding(self, name: str) -> Finding | None:
        """Return a check made before any attack."""
        return next((f for f in self.entrance.findings if f.name == name), None)


def good(name: str, sentence: str, **shown: Any) -> Finding:
    """Return a check that found nothing."""
    return Finding(name, "good", sentence, **shown)


def only(e: Evidence, name: str, stages: list[StageRecord], what: str, remedy: str) -> Finding:
    """Judge stages that must not break what the gradient stages have left."""
    tried = sum(s.entered for s in stages)
    rows = tuple(sorted({row for s in stages for row in s.examples}))
    names = tuple(s.name for s in stages if s.broke)
    if not tried:
        none = "nothing stood to be tried" if not len(e.survey.standing) else "was not run"
        level: Level = "good" if "stood" in none else "odd"
        return Finding(name, level, f"{what}: {none}")
    share = len(rows) / max(s.entered for s in stages)
    if not rows:
        return good(name, f"{what} broke none of {max(s.entered for s in stages)} examples")
    clear = share > CLEAR and len(rows) >= 2 and e.entrance.suspicion.gradients
    return Finding(
        name,
        "wrong" if clear else "odd",
        f"{what} broke {len(rows)} examples that gradients had not",
        remedy,
        rows,
        names,
    )
