"""Doubts about the network and the bookkeeping: what was measured, and is it what it is called?

Rows of the checklist of Carlini et al. 2019 ("On evaluating adversarial robustness", §5), by number.
"""

from __future__ import annotations

import torch

from .evidence import Evidence, good
from .honesty import Finding, Level
from .probes import SIGMAS, sound
from .survey import STANDING


def clean_reported(e: Evidence) -> Finding:
    """Row 1: clean accuracy stands beside the figure, and what was wrong counts as broken."""
    right, n = int(e.survey.clean.sum()), len(e.survey.y)
    if right == 0:
        return Finding(
            "clean accuracy",
            "wrong",
            "the network gets no example right untouched",
            "check the labels, the weights and the input range",
        )
    return good("clean accuracy", f"{right} of {n} are right untouched; the rest count as broken")


def worst_case(e: Evidence) -> Finding:
    """Row 6: the figure is the worst case for each example, and inside the ball."""
    n, standing = len(e.survey.y), int((e.survey.fell_to == STANDING).sum())
    broken = sum(s.broke for s in e.stages) + int((~e.survey.clean).sum())
    if standing + broken != n:
        return Finding(
            "per-example worst case",
            "wrong",
            f"{standing} stand and {broken} fell of {n}",
            "the ledger does not add up: delete it and run again",
        )
    return Finding(
        "per-example worst case",
        "good",
        "an example counts as robust only where every stage failed",
    )


def randomised(e: Evidence) -> Finding:
    """Row 15: the network answers the same twice, or its mean answer was attacked."""
    found = e.finding("randomness")
    if found is not None and found.level == "wrong":
        return Finding(
            "randomised",
            "wrong",
            f"{found.sentence}; the mean of {e.entrance.cost} passes was attacked",
            found.remedy,
        )
    return good("randomised", "two passes over the same examples agree")


def differentiable(e: Evidence) -> Finding:
    """Row 16: a useful gradient flows from the logits to the input.

    The look before any attack is at the cross-entropy, which saturates on a sound network that is sure of
    its answers; attacks climb the margin. It is a red flag only where that one is dead on some too, and
    examples stand.
    """
    before = e.finding("gradients")
    if e.entrance.kind == "none":
        return Finding(
            "non-differentiable part",
            "wrong",
            e.entrance.sentence,
            "give the float network as twin=, or trust queries and transfer only",
        )
    if e.entrance.kind == "twin":
        return Finding(
            "masked gradient" if e.entrance.misled else "non-differentiable part",
            "wrong" if e.entrance.misled else "odd",
            e.entrance.sentence,
            "a straight-through gradient flatters the network: look at queries and transfer",
        )
    if before is not None and before.level != "good":
        alive = e.entrance.path.share
        sure = before.level == "wrong" and alive < 1 and len(e.survey.standing) > 0
        return Finding(
            "masked gradient",
            "wrong" if sure else "odd",
            f"{before.sentence}; the margin, which attacks climb, has one on {alive:.0%}",
            before.remedy,
        )
    return good("non-differentiable part", e.entrance.sentence)


def diverse(e: Evidence) -> Finding:
    """Row 17: attacks of different kinds were run on what stands."""
    kinds = sorted({s.family for s in e.stages})
    alone = {s.name: s.broke for s in e.stages if s.broke}
    told = ", ".join(f"{name} {broke}" for name, broke in alone.items()) or "nothing fell"
    level: Level = "good" if len(kinds) > 1 or not len(e.survey.standing) else "odd"
    return Finding(
        "diverse attacks", level, f"families run: {', '.join(kinds)}; first to break: {told}"
    )


def must_break(e: Evidence) -> Finding:
    """Row 18: this build breaks exactly what can be broken on a network where that is known."""
    if sound():
        return good("broken-model validation", "a linear network falls exactly where theory says")
    return Finding(
        "broken-model validation",
        "wrong",
        "on a linear network this build does not find what theory says",
        "this build of walnut, torch or the processor is broken: run the tests",
    )


def broader(e: Evidence) -> Finding:
    """Row 20: plain Gaussian noise of several widths."""
    shares = [(s, e.probes.share(f"sigma {s:g}")) for s in SIGMAS]
    known = [f"{share:.0%} at σ {s:g} of the range" for s, share in shares if share is not None]
    if not known:
        return good("broader threats", "nothing stands: plain noise was not tried")
    return good("broader threats", f"plain Gaussian noise makes wrong: {', '.join(known)}")


def described(e: Evidence) -> Finding:
    """Row 22: every attack's settings and the seed are in the result."""
    nameless = [s.name for s in e.stages if "(" not in s.attack]
    if nameless:
        return Finding(
            "attacks described", "odd", f"{', '.join(nameless)} have no record of settings"
        )
    return Finding(
        "attacks described",
        "good",
        f"{len(e.stages)} stages with all settings, seed {e.setting.seed}",
    )


def not_only_training(e: Evidence) -> Finding:
    """Row 23: the figure does not rest on the attack a network is commonly trained with."""
    first = next((s for s in e.stages if s.name == "single step"), None)
    later = sum(s.broke for s in e.family("gradient") if s is not first)
    if first is None or not int(e.survey.clean.sum()):
        return good("not only the training attack", "several attacks decide the figure")
    right = int(e.survey.clean.sum())
    if first.broke < 0.2 * right and later > 0.5 * right:
        return Finding(
            "not only the training attack",
            "odd",
            f"one step breaks {first.broke} of {right}, later stages {later}: trained with single steps?",
            "quote the figure of the cascade, never that of FGSM",
        )
    return Finding(
        "not only the training attack",
        "good",
        f"{len(e.family('gradient'))} gradient attacks decide the figure",
    )


def outcomes_finite(e: Evidence) -> Finding:
    """Ask whether any failed attempt ended at a margin that is no number."""
    bad = torch.isnan(e.survey.hope)
    rows = tuple(bad.nonzero()[:, 0].tolist())
    if rows:
        return Finding(
            "finite answers",
            "wrong",
            f"{len(rows)} attempts ended where the network is not finite",
            "check the weights",
            rows,
        )
    return good("finite answers", "every attempt ended at a finite answer")
