"""Which network is it: the same one again, in another process, or one that only looks like it?"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from walnut.core.draws import Draws
from walnut.core.frozen import frozen

from .accuracy import predict
from .adapt import adapt
from .honesty import randomness
from .ledger import fingerprint, sketch

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_COMPILED = ("_torchdynamo", "_is_torch_compile")  # notes of torch.compile, some with addresses


def around(
    x: Float[Tensor, " n *d"], eps: float, bounds: tuple[float, float] | None, seed: int
) -> list[Tensor]:
    """Return examples, and a few of them with ±eps and ±eps/4 of random sign: where attacks will ask."""
    few = x[:4]
    signs = 2 * Draws.of(few, seed).integers(2, *x.shape[1:]).to(x.dtype) - 1
    moved = [few + share * eps * signs for share in (1, -1, 0.25, -0.25)]
    return [x, *(moved if bounds is None else (m.clamp(*bounds) for m in moved))]


def marks(network: Any, points: Sequence[Tensor]) -> str:
    """Return a hash of a network: of its state, its traits, and its answers where it repeats them.

    The answers tell apart what has neither: functions, and networks in ONNX Runtime. A trait that a pass
    changes is a counter, and is left out.
    """
    if network is None:
        return ""
    asked = adapt(network)
    with frozen(asked):
        repeats = randomness(asked, points[0]).level == "good"
    before = traits(network)  # after a pass: what a first pass fills in is filled in
    answers = [sketch(predict(asked, p)) for p in points] if repeats else []
    after = traits(network)
    same = {name: value for name, value in before.items() if after.get(name) == value}
    return fingerprint(network, same, *answers)


def traits(network: Any) -> dict[str, str]:
    """Return what makes a network besides its state: every part's class, and its plain attributes.

    Plain is what is the same in every process: numbers, strings, None, tensors, lists. The mode is left
    out. A function has none of these.
    """
    found = {}
    for path, part in network.named_modules() if isinstance(network, nn.Module) else ():
        kind = type(part)
        found[path] = f"{kind.__module__}.{kind.__qualname__}"
        for name, value in vars(part).items():
            own = name not in _OF_EVERY_MODULE and not name.startswith(_COMPILED)
            if own and (isinstance(value, Tensor) or _plain(value)):
                found[f"{path}.{name}"] = fingerprint(value)
    return found


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(item) for item in value)
    return value is None or isinstance(value, Number | str | torch.dtype)
