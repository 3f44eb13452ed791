"""``walnut substitute``: fool what gives away its answers only, through a network trained on them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from walnut.core.errors import WalnutError

from .options import ExampleOptions, NetworkOptions, Options
from .run import Run, network_name
from .tables import forms_table, percent
from .techniques import chosen
from .values import Count, KeyValues, OptionalEps, OptionalText, arguments, number, one

FOLDER = True
RADIUS = 0.2

Rounds = Annotated[int, Field(ge=0, le=20), one("N")]
Step = Annotated[float, BeforeValidator(number), Field(gt=0, le=1), one("X")]
Name = Annotated[str, one("NAME")]


class Config(ExampleOptions, NetworkOptions, Options):
    """Train a substitute on a network's answers, attack that, and try the examples on the network.

    Example: walnut substitute --model runs/lenet/model.safetensors --data mnist --eps 0.2

    Costs seeds × 2^rounds queries. With --technique the one attacked is no network at all.
    """

    technique: OptionalText = None
    """In place of --model, trained here: k-nn, tree, forest, boosting, svm-linear, svm-rbf, ..."""
    train_examples: Count = 2000
    """How many examples a --technique is trained on."""
    substitute: Name = "lenet-300-100"
    """The registered name of the substitute."""
    substitute_arg: KeyValues = ()
    """An argument of the substitute, such as width=32."""
    eps: OptionalEps = RADIUS
    """Radius in input units."""
    seeds: Count = 100
    """Examples that the first round is made from."""
    rounds: Rounds = 6
    """How often the examples are doubled."""
    step: Step = 0.1
    """How far new examples lie from old ones (λ), in input units."""
    epochs: Count = 10
    """Passes over the answers in each round."""


def run(config: Config, run: Run) -> None:
    """Train, attack, and print what is left and what it cost."""
    oracle, dataset, name = asked(config, run)
    from walnut.recipes.jacobian import turning
    from walnut.recipes.substitute import substitute

    result = substitute(
        oracle,
        dataset,
        out=run.folder,
        name=name,
        net=config.substitute,
        arguments=arguments(config.substitute_arg),
        eps=RADIUS if config.eps is None else config.eps,
        seeds=config.seeds,
        rounds=config.rounds,
        step=turning(config.step),
        epochs=config.epochs,
        examples=config.examples,
        seed=config.seed,
        progress=run.screen.progress,
    )
    whole = run.deliver(result)
    forms_table(run.screen, whole["rows"])
    run.screen.table(
        "the substitute, round by round",
        ["round", "examples", "queries", "fits, in %"],
        (
            [r["round"], r["examples"], r["queries"], percent(r["fitted"])]
            for r in whole["substitute"]["rounds"]
        ),
        left=0,
    )
    run.screen.say(f"queries            {whole['substitute']['queries']}")
    run.screen.say(f"answers alike      {percent(whole['substitute']['agreement'])} %")
    run.screen.say(f"weights            {run.folder / 'substitute.safetensors'}")
    run.screen.say(f"page {run.folder / 'report.html'}")


def asked(config: Config, run: Run) -> tuple[Any, Any, str]:
    """Return what answers, the data, and its name."""
    if config.technique is None:
        model, dataset = run.subject()
        return model, dataset, network_name(config.model)
    if config.model:
        raise WalnutError("give --model or --technique: one of them answers, not both")
    dataset = run.dataset()
    import dataclasses

    from walnut.recipes.learners import techniques_for

    make = chosen(techniques_for(dataset), (config.technique,))[config.technique]
    small = dataclasses.replace(dataset, train=dataset.train.first(config.train_examples))
    run.screen.progress(f"training {config.technique}", 0, 1)
    return make(small, config.seed), dataset, config.technique
