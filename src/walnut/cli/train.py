"""``walnut train``: train a network."""

from __future__ import annotations

from typing import Annotated

from walnut.core.errors import WalnutError

from .options import DataOptions, Options
from .run import Run
from .tables import history_table, percent
from .values import KeyValues, OptionalCount, OptionalNumber, arguments, one

FOLDER = True


class Config(DataOptions, Options):
    """Train a registered network by its documented recipe, or with what is given in its place.

    Example: walnut train --net lenet-5 --data mnist --epochs 12
    """

    net: Annotated[str, one("NAME")] = ""
    """A reference network, such as lenet-5, resnet-20 or vgg-11."""
    model: Annotated[str, one("NAME")] = ""
    """Another name for --net."""
    net_arg: KeyValues = ()
    """An argument of the network, such as width=32."""
    epochs: OptionalCount = None
    """Passes over the training split."""
    lr: OptionalNumber = None
    """Learning rate."""
    batch_size: OptionalCount = None
    """Examples per step."""


def run(config: Config, run: Run) -> None:
    """Train, and say where the weights are."""
    name = config.net or config.model
    if not name or (config.net and config.model and config.net != config.model):
        raise WalnutError("walnut train needs one network: --net lenet-5, for example")
    dataset = run.dataset()
    from walnut.recipes.train import train

    result = train(
        name,
        dataset,
        arguments=arguments(config.net_arg) or None,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        seed=config.seed,
        out=run.folder,
        progress=run.screen.progress,
    )
    run.deliver(run.written())
    history_table(run.screen, result.history)
    run.screen.say(f"validation accuracy {percent(result.validation)} %")
    run.screen.say(f"test accuracy       {percent(result.test)} %")
    run.screen.say(f"weights             {result.path}")
