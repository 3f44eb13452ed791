"""Reasons to doubt a robustness figure, looked for in what the cascade found.

The checklist of Carlini et al. 2019 ("On evaluating adversarial robustness", §5), as far as a program
can check it; each check returns one finding, good or not. The provable lower bound (row 21) costs so much
that it is only there where it was asked for.
"""

from __future__ import annotations

from . import doubts_attack as attack
from . import doubts_network as network
from .evidence import Evidence
from .honesty import Finding

CHECKS = (
    network.clean_reported,
    attack.steps_beat_one,
    attack.radius_helps,
    attack.far_breaks_all,
    attack.chance_at_large,
    network.worst_case,
    attack.black_box,
    attack.hard_label,
    attack.transfer,
    attack.noise_control,
    attack.gradient_leads,
    attack.converged,
    attack.step_size,
    attack.restarts,
    attack.targeted,
    network.randomised,
    network.differentiable,
    network.diverse,
    network.must_break,
    attack.undefended,
    network.broader,
    network.described,
    network.not_only_training,
    network.outcomes_finite,
)
"""In the checklist's order, rows 1 to 20, 22 and 23; the last, and whether gradients lead, are our own."""


def doubts(e: Evidence, more: tuple[Finding, ...] = ()) -> list[Finding]:
    """Return every check's finding and what was found otherwise, the red flags first."""
    before = [f for f in e.entrance.findings if f.name not in ("randomness", "gradients")]
    found = [*before, *(check(e) for check in CHECKS), *more]
    order = {"wrong": 0, "odd": 1, "good": 2}
    return sorted(found, key=lambda f: order[f.level])
