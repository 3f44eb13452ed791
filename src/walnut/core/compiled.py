"""Loops that numpy has no words for, compiled by numba when they are first called.

Only integers where a file depends on the result: every machine must count alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles a function of numbers and numpy arrays (``numba.njit``).

    The machine code is kept on disk where the package's folder, or the user's cache, can be written.
    numba is imported at the first call and not before: it takes half a second.

    >>> @compiled()
    ... def total(x):
    ...     s = 0
    ...     for value in x:
    ...         s += value
    ...     return s
    >>> import numpy as np
    >>> int(total(np.arange(5)))
    10
    """

    def decorate(function: _Function) -> _Function:
        return cast(_Function, _Lazy(function, options))

    return decorate


class _Lazy:
    """A function that becomes machine code when it is called."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.__doc__, self.__name__ = function.__doc__, function.__name__
        self.__module__, self.__wrapped__ = function.__module__, function
        self._options = options
        self._machine: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        return self.machine(*arguments)

    @property
    def machine(self) -> Callable[..., Any]:
        """Return numba's function: for calls from another compiled function, name it there."""
        if self._machine is None:
            from numba import njit

            try:
                self._machine = njit(cache=True, **self._options)(self.__wrapped__)
            except RuntimeError:  # no folder for the cache
                self._machine = njit(**self._options)(self.__wrapped__)
        return self._machine
