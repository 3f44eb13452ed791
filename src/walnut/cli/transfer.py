"""``walnut transfer``: attack every network with every other's examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import tyro

from walnut.core.errors import WalnutError

from .options import ExampleOptions, Options
from .run import Run, network_name, resolve
from .tables import transfer_tables
from .values import EpsList, KeyValues, Names, OptionalPath, OptionalText

FOLDER = True


Specs = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=SPEC")]


class Config(ExampleOptions, Options):
    """Make adversarial examples on each network and try them on all: one table per radius.

    Example: walnut transfer --models A=a.walnut B=b.walnut --data mnist --eps 0.05 0.1 0.2
    """

    model: Specs = ()
    """A network, optionally named; give it once for each."""
    models: Names = ()
    """All networks at once, optionally named: A=a.walnut B=b.walnut."""
    weights: OptionalPath = None
    """The weights of a registered name or a factory."""
    net: OptionalText = None
    """The registered name of the networks in bare .safetensors files."""
    net_arg: KeyValues = ()
    """An argument of the networks, such as width=32."""
    attack: Names = ("pgd",)
    """The methods, made to transfer: fgsm, bim, pgd, mi-fgsm, di-fgsm."""
    eps: EpsList = (0.05, 0.1, 0.2)
    """Radii in input units."""


def run(config: Config, run: Run) -> None:
    """Attack every network with every other's examples, and print a table per radius."""
    specs = named([*config.model, *config.models])
    dataset = run.dataset()
    models = {
        name: resolve(spec, config.weights, config.net, config.net_arg, dataset)
        for name, spec in specs.items()
    }
    from walnut.recipes.transfer import transfer

    result = transfer(
        models,
        dataset,
        attacks=config.attack,
        eps=config.eps,
        examples=config.examples,
        seed=config.seed,
        out=run.folder,
        progress=run.screen.progress,
    )
    whole = run.deliver(result)
    transfer_tables(run.screen, whole["transfer"])
    run.screen.say(f"page {run.folder / 'report.html'}")


def named(specs: list[str]) -> dict[str, str]:
    """Return the networks of a transfer, two or more, each under a name of its own."""
    found = by_name(specs)
    if len(found) < 2:
        raise WalnutError(
            "walnut transfer needs two networks or more: --models A=a.walnut B=b.walnut"
        )
    return found


def by_name(specs: Iterable[str]) -> dict[str, str]:
    """Return a network's specification under a short name, each name once.

    >>> by_name(["A=a.walnut", "runs/b/model.safetensors", "runs/c/model.safetensors"])
    {'A': 'a.walnut', 'b': 'runs/b/model.safetensors', 'c': 'runs/c/model.safetensors'}
    """
    found: dict[str, str] = {}
    for spec in specs:
        name, equals, rest = spec.partition("=")
        if not (equals and rest and "/" not in name and ":" not in name):
            name, rest = network_name(spec), spec
        elif name in found:
            raise WalnutError(f"two networks are named {name}; give each a name of its own")
        unique, count = name, 1
        while unique in found:
            count += 1
            unique = f"{name}-{count}"
        found[unique] = rest
    return found
