"""Which rows a stage has, and when it is worth running, from the survey of what has fallen so far."""

from __future__ import annotations

from .stage import Rows, Suspicion, When
from .survey import Survey


def share(part: float, least: int) -> Rows:
    """Return a part of the standing rows, the most hopeful; ``least`` of them where few stand."""
    return lambda survey: survey.hopeful(max(round(part * len(survey.standing)), least))


def sampled(count: int) -> Rows:
    """Return at most ``count`` standing rows, half of them the most hopeful."""
    return lambda survey: survey.sample(count)


def canary(passes: float, queries: int, most: int) -> Rows:
    """Return a sample of what stands, as large as so many passes per standing row pay for."""
    return lambda survey: survey.sample(
        min(most, max(int(passes * len(survey.standing) / queries), 8))
    )


def gradients(survey: Survey, suspicion: Suspicion) -> str:
    """Say whether there is a gradient to climb."""
    return "always" if suspicion.gradients else ""


def blind(survey: Survey, suspicion: Suspicion) -> str:
    """Give the reason to begin with queries: there is no gradient."""
    return "" if suspicion.gradients else "there is no gradient to climb"


def still_breaking(stages: int, least: int) -> When:
    """Give a reason to go on where the last gradient stages broke ``least`` of 500 examples or more."""

    def when(survey: Survey, suspicion: Suspicion) -> str:
        last = [s for s in survey.stages if s.family == "gradient"][-stages:]
        broke = sum(s.broke for s in last)
        if suspicion.gradients and broke >= least * max(1, len(survey.y) / 500):
            return f"{', '.join(s.name for s in last)} still broke {broke}"
        return ""

    return when


def often(part: float) -> When:
    """Give a reason to go on where the last gradient stage broke ``part`` of what it had, or more."""

    def when(survey: Survey, suspicion: Suspicion) -> str:
        last = next((s for s in reversed(survey.stages) if s.family == "gradient"), None)
        if suspicion.gradients and last is not None and last.broke >= part * last.entered:
            return f"{last.name} broke {last.broke} of {last.entered}"
        return ""

    return when


def suspected(survey: Survey, suspicion: Suspicion) -> str:
    """Give a reason to ask without gradients: something odd, or the query-only canary found more."""
    reasons = list(suspicion.reasons)
    for s in survey.stages:
        if s.family in ("query", "noise", "transfer") and s.broke:
            reasons.append(f"{s.name} broke {s.broke} that gradients had not")
    return "; ".join(reasons)
