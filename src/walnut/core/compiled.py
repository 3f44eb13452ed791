"""Loops that numpy has no words for, compiled by numba when they are first called.

Only integers where a file depends on the result: every machine must count alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles a function of numbers and numpy arrays (``numba.njit``).

    The machine code is kept on disk where the package's folder, or the user's cache, can be written.
    numba is imported at the first call and not before: it takes half a second. A compiled function
    may call others of the same file; of other files it should not: a change there goes unnoticed by
    the machine code that is kept.

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
        """Return numba's function, with those that it calls compiled too."""
        if self._machine is None:
            from numba import njit

            linked = self._linked()
            try:
                self._machine = njit(cache=True, **self._options)(linked)
            except RuntimeError:  # no folder for the cache
                self._machine = njit(**self._options)(linked)
        return self._machine

    def _linked(self) -> Callable[..., Any]:
        """Return the function with the compiled functions that it names in place of lazy ones."""
        plain = cast(FunctionType, inspect.unwrap(self.__wrapped__))  # without checks of its types
        named = {name: plain.__globals__.get(name) for name in plain.__code__.co_names}
        others = {name: f.machine for name, f in named.items() if isinstance(f, _Lazy)}
        if not others:
            return plain
        space = {**plain.__globals__, **others}
        linked = FunctionType(plain.__code__, space, plain.__name__, plain.__defaults__)
        linked.__qualname__, linked.__module__ = plain.__qualname__, plain.__module__
        return linked
