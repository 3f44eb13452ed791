"""What a step of an attack is: the part that :mod:`.rows` repeats on every row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from .draws import Draws

Value = Callable[[Tensor], Tensor]


@runtime_checkable
class Method(Protocol):
    """What a step is. ``state`` is a tuple of tensors (or of tuples), each with the batch first."""

    def start(self, x0: Tensor, restart: Tensor, draws: Draws) -> Any:
        """Return the state of rows that enter or start again."""
        ...

    def point(self, state: Any) -> Tensor:
        """Return the input each row stands at."""
        ...

    def evaluate(self, value: Value, state: Any, draws: Draws) -> tuple[Tensor, Any]:
        """Return the objective (b,) at the rows' points, and what :meth:`advance` needs to know."""
        ...

    def advance(
        self, state: Any, seen: Any, values: Tensor, x0: Tensor, progress: Tensor, draws: Draws
    ) -> Any:
        """Return the state one step further; ``progress`` is step / steps per row."""
        ...


@runtime_checkable
class Resumable(Protocol):
    """A method that can begin elsewhere than at the example."""

    def resume(self, state: Any, x: Tensor) -> Any:
        """Return the state of rows that enter, standing at ``x``."""
        ...
