"""What was done to a network's shape since it was built, as plain data, so that a file can say it.

A shrunk or factorised network is no longer what its description's ``net`` and ``arguments`` build.
Each change is a dictionary of JSON data with a ``kind``; they are listed in order in
``model.description["edits"]``, and a loader makes them again on the empty network, on the meta
device, before it reads a weight. An edit may come from a hostile file: every kind checks its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from walnut.core.errors import WalnutError

from .lowrank_edit import rebuild
from .shrink_edit import resize

Edit = Mapping[str, Any]
"""``{"kind": "resize", ...}``: what a kind needs besides is its own affair."""

KINDS: dict[str, Callable[[nn.Module, Edit], None]] = {
    "resize": resize,
    "factorise": rebuild,
}
"""What makes each kind of edit, in place, on a network whose weights may be on the meta device."""


def _input_grids(model: nn.Module, edit: Edit) -> None:
    from .input_grid import again

    again(model, edit)


KINDS["input-grids"] = _input_grids

MOST = 10_000
"""The most edits a file may list."""


def apply(model: nn.Module, edits: Iterable[Any]) -> nn.Module:
    """Make edits again, in place and in order, and note them in the network's description.

    Raises:
        WalnutError: a kind this version does not know, or an edit that does not fit the network.
    """
    for number, edit in enumerate(edits):
        if number >= MOST:
            raise WalnutError(f"a network with more than {MOST} changes of its shape is refused")
        kind = edit.get("kind") if isinstance(edit, Mapping) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise WalnutError(
                f"the network was changed in a way unknown here ({kind!r:.40}): update walnut"
            )
        KINDS[kind](model, edit)
        record(model, edit)
    return model


def record(model: nn.Module, edit: Edit) -> None:
    """Note an edit that was made in the network's description, where it has one."""
    description = getattr(model, "description", None)
    if isinstance(description, dict):
        earlier = description.get("edits", [])
        model.description = {**description, "edits": [*earlier, dict(edit)]}  # type: ignore[assignment]
