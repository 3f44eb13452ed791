"""The transfer table: examples made on each network, tried on every network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from walnut.core.errors import WalnutError
from walnut.core.types import Adversarial, Attack, Progress

from .accuracy import Share, accuracy


@dataclass(frozen=True)
class TransferTable:
    """Accuracies for one attack and one eps: row = network the examples were made on."""

    eps: float
    attack: str
    names: tuple[str, ...]
    accuracy: tuple[tuple[Share, ...], ...]
    clean: tuple[Share, ...]
    control: tuple[Share, ...]
    examples: dict[str, Adversarial] = field(repr=False)

    def json(self) -> dict[str, Any]:
        """Return plain numbers for a result file."""
        return {
            "eps": self.eps,
            "attack": self.attack,
            "names": list(self.names),
            "accuracy": [[share.value for share in row] for row in self.accuracy],
            "clean": [share.value for share in self.clean],
            "noise": [share.value for share in self.control],
            "examples": self.clean[0].total,
        }


def transfer_table(
    models: Mapping[str, Any],
    x: Float[Tensor, " n *d"],
    y: Int[Tensor, " n"],
    *,
    attack: Callable[[float], Attack] | Mapping[str, Callable[[float], Attack]],
    eps: tuple[float, ...],
    control: Callable[[float], Attack],
    progress: Progress | None = None,
) -> list[TransferTable]:
    """Return one table per eps: accuracy of every network on the examples made on each.

    Table[i][j] = accuracy of network j on x + r, with r made on network i (Szegedy et al. 2014, §4.2;
    there as error rates). The control is noise of the same size, made without any network.

    Args:
        models: networks by name, any number, all taking inputs like ``x``.
        x: examples (n, ...).
        y: labels (n,).
        attack: eps to attack; one that goes on after its own network is fooled
            (``early_stop=False``) transfers better. A mapping gives each network its own, by name:
            networks without a gradient need another attack than those with one.
        eps: radii.
        control: eps to a noise attack.
        progress: called as work goes on.
    """
    if not models:
        raise WalnutError("a transfer table needs at least one network")
    names = tuple(models)
    own = attack if isinstance(attack, Mapping) else dict.fromkeys(names, attack)
    missing = [name for name in names if name not in own]
    if missing:
        raise WalnutError(f"no attack is given for the network {missing[0]!r}")
    clean = tuple(accuracy(models[name], x, y) for name in names)
    tables = []
    for at, radius in enumerate(eps):
        made: dict[str, Adversarial] = {}
        rows = []
        for i, source in enumerate(names):
            if progress is not None:
                progress(f"transfer from {source} at eps {radius:g}", at * len(names) + i,
                         len(eps) * len(names))  # fmt: skip
            made[source] = own[source](radius)(models[source], x, y)
            rows.append(tuple(accuracy(models[t], made[source].x, y) for t in names))
        noisy = [control(radius)(models[name], x, y) for name in names]
        tables.append(
            TransferTable(
                eps=radius,
                attack="; ".join(dict.fromkeys(found.attack for found in made.values())),
                names=names,
                accuracy=tuple(rows),
                clean=clean,
                control=tuple(accuracy(models[n], r.x, y) for n, r in zip(names, noisy, strict=True)),
                examples=made,
            )
        )  # fmt: skip
    return tables
