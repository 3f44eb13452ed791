"""Doubts about the attack: does it behave as one that sees the gradient, on what it could not break?

Rows of the checklist of Carlini et al. 2019 ("On evaluating adversarial robustness", §5), by number.
"""

from __future__ import annotations

from .curve import Check
from .evidence import CLEAR, Evidence, good, only
from .honesty import Finding
from .probes import RADII

LEADS = 0.75  # share; noise in the gradient's place has one half


def steps_beat_one(e: Evidence) -> Finding:
    """Row 2: what one big step breaks, small steps must break too."""
    tried, fell = e.probes.outcomes.get("small steps", ((), ()))
    if not tried:
        return Finding(
            "single step against many",
            "good",
            "there was nothing to compare: one step broke nothing that stands apart",
        )
    missed = tuple(sorted(set(tried) - set(fell)))
    if len(missed) > 0.25 * len(tried) and len(missed) >= 3:
        return Finding(
            "single step against many",
            "wrong",
            f"20 small steps fail on {len(missed)} of {len(tried)} examples that one big step breaks",
            "the gradient near the examples is masked: attack with large steps, transfer, or queries",
            missed,
            ("single step",),
        )
    return Finding(
        "single step against many",
        "good",
        f"20 small steps break {len(fell)} of {len(tried)} that one step breaks",
    )


def radius_helps(e: Evidence) -> Finding:
    """Row 3: a larger radius breaks more."""
    shares = [(r, e.probes.share(f"{r:g}")) for r in RADII]
    known = [(r, s) for r, s in shares if s is not None]
    if not known:
        return good("larger radius", "nothing stood to be tried at larger radii")
    told = ", ".join(f"{s:.0%} at {r:g} eps" for r, s in known)
    if len(known) == 2 and known[1][1] < known[0][1] - 0.05:
        return Finding(
            "larger radius",
            "wrong",
            f"a larger radius breaks fewer of what stands: {told}",
            "the attack gets stuck: the gradient is masked",
        )
    return good("larger radius", f"of what stands, falls: {told}")


def far_breaks_all(e: Evidence, name: str = "unbounded") -> Finding:
    """Rows 4 and 5: with the whole box to move in, every example falls."""
    tried, fell = e.probes.outcomes.get(name, ((), ()))
    left = tuple(sorted(set(tried) - set(fell)))
    if left:
        return Finding(
            "unbounded attack",
            "wrong",
            f"{len(left)} of {len(tried)} examples stand even where any picture is allowed",
            "no network is that robust: the attack does not see its gradient",
            left,
            (name,),
        )
    return good("unbounded attack", f"with the whole box allowed all {len(tried)} tried fall")


def gradient_leads(e: Evidence) -> Finding:
    """Our own: in the ball of what stands a step along the gradient ends above a step against it."""
    name = "gradient leads"
    tried, always = e.probes.outcomes.get("along the gradient", ((), ()))
    steps = [led for turn in e.probes.led for led in turn]
    if not steps:
        return good(name, "nothing stood, or there is no gradient to follow")
    told = (
        f"from {sum(steps)} of {len(steps)} random points round what stands a step along the gradient "
        "ends above one against it"
    )
    if sum(steps) < LEADS * len(steps):
        return Finding(
            name,
            "wrong",
            told,
            "the gradient is masked: give a network that has one as twin=, or surrogates=",
            tuple(sorted(set(tried) - set(always))),
        )
    return good(name, told)


def chance_at_large(e: Evidence) -> Finding:
    """Row 4: at four times the radius accuracy on what stands has fallen a long way."""
    share = e.probes.share(f"{RADII[-1]:g}")
    if share is None:
        return good("high distortion", "nothing stood to be tried")
    if share < 0.05:
        return Finding(
            "high distortion",
            "odd",
            f"{RADII[-1]:g} times the radius breaks only {share:.0%} of what stands",
            "a small radius for this network, or a masked gradient: look at the curve",
        )
    return Finding(
        "high distortion",
        "good",
        f"{RADII[-1]:g} times the radius breaks {share:.0%} of what stands",
    )


def black_box(e: Evidence) -> Finding:
    """Row 7: attacks without gradients are weaker than those with."""
    return only(
        e,
        "black box beats white box",
        e.family("query"),
        "asking without gradients",
        "the gradient is masked: use the figure with suspicion, and more queries",
    )


def hard_label(e: Evidence) -> Finding:
    """Row 8: an attack that sees labels only was run."""
    entered = max((s.entered for s in e.stages if "label" in s.name), default=0)
    if entered or not len(e.survey.standing):
        return good("labels-only attack", f"run on {entered} examples that stood")
    return Finding(
        "labels-only attack",
        "odd",
        "no attack that sees labels only was run",
        "use effort='standard'",
    )


def transfer(e: Evidence) -> Finding:
    """Row 9: examples made on other networks are weaker than the network's own."""
    stages = e.family("transfer")
    if not stages and len(e.survey.standing):
        return Finding(
            "transfer beats white box",
            "odd",
            "no second network was given to transfer from",
            "give surrogates={name: network}, the uncompressed one for example",
        )
    return only(
        e,
        "transfer beats white box",
        stages,
        "examples made on other networks",
        "the gradient is masked: the network is as easily fooled as the ones it resembles",
    )


def noise_control(e: Evidence) -> Finding:
    """Row 10: random noise of the same size breaks nothing that stands."""
    return only(
        e,
        "noise breaks it",
        e.family("noise"),
        "random noise of the same size",
        "examples lie so near the boundary that gradients should have found it",
    )


def converged(e: Evidence) -> Finding:
    """Row 11: the last gradient stages break next to nothing."""
    ladder = [s for s in e.family("gradient") if "steps" not in s.name]
    if len(ladder) < 2 or not len(e.survey.standing):
        return (
            good("converged", "nothing stood after the first stages")
            if not len(e.survey.standing)
            else Finding("converged", "odd", "only one gradient stage was run")
        )
    last = ladder[-1]
    share = last.broke / len(e.survey.y)
    if share > 0.005:
        return Finding(
            "converged",
            "wrong" if share > CLEAR else "odd",
            f"the last stage ({last.name}) still broke {last.broke} examples",
            "run more restarts: effort='autoattack'",
            last.examples,
            (last.name,),
        )
    return good("converged", f"the last stage ({last.name}) broke {last.broke} of {last.entered}")


def step_size(e: Evidence) -> Finding:
    """Row 12: half and double steps find nothing new."""
    stages = [s for s in e.stages if s.name in ("half steps", "double steps")]
    return only(
        e, "step size", stages, "half and double steps", "the step size matters here: take the best"
    )


def restarts(e: Evidence) -> Finding:
    """Row 13: how much other starting points found."""
    names = ("diversified", "more diversified", "diversified cross-entropy", "many starts")
    stages = [s for s in e.stages if s.name in names]
    if not stages:
        return good("random starts", "nothing stood to be started again")
    return good(
        "random starts",
        f"{sum(s.broke for s in stages)} of {stages[0].entered} fell to other starting points only",
        examples=tuple(sorted(r for s in stages for r in s.examples)),
        attacks=tuple(s.name for s in stages),
    )


def targeted(e: Evidence) -> Finding:
    """Row 14: targeted and untargeted attacks were both run."""
    names = ("targeted", "wider targeted", "every target", "apgd-t", "fab-t")
    stages = [s for s in e.stages if s.name in names]
    if not stages:
        return Finding(
            "targeted and untargeted",
            "good" if not len(e.survey.standing) else "odd",
            "no targeted stage was run",
        )
    rows = tuple(sorted({r for s in stages for r in s.examples}))
    return good(
        "targeted and untargeted",
        f"{len(rows)} fell to targeted attacks only",
        examples=rows,
        attacks=tuple(s.name for s in stages),
    )


def undefended(e: Evidence) -> Finding:
    """Row 19: the network that it was made from is no easier to break."""
    stage = next((s for s in e.stages if s.name == "from the float network"), None)
    if stage is None:
        return Finding(
            "like the network it came from",
            "odd" if e.twinned else "good",
            "there was nothing to compare with" if not e.twinned else "nothing stood to compare on",
        )
    share = stage.broke / max(stage.entered, 1)
    if share > CLEAR and stage.broke >= 2:
        return Finding(
            "like the network it came from",
            "wrong",
            f"the float network's examples break {stage.broke} of {stage.entered} that stood",
            "compression masks the gradient: it gives no robustness",
            stage.examples,
            (stage.name,),
        )
    return Finding(
        "like the network it came from",
        "good",
        f"the float network's examples break {stage.broke} of {stage.entered} that stood",
    )


def settled(check: Check | None) -> Finding:
    """Our own: a longer attack finds little that the curve counts as right away from the radius asked for."""
    name = "curve"
    if check is None:
        return good(name, "no example is in doubt at the other radii of the curve")
    told = (
        f"of {check.tried} examples in doubt at {check.eps:.4g} a longer attack broke {check.fell}"
    )
    if check.excess > CLEAR:
        return Finding(
            name,
            "odd",
            f"{told}: the curve is too high there by about {100 * check.excess:.0f} points",
            "it is an upper bound but at the radius asked for: ask for a verdict at that radius",
        )
    return good(name, told)


PROBED = (steps_beat_one, radius_helps, far_breaks_all, gradient_leads)
"""What the probes alone can show, before any attack without gradients."""
