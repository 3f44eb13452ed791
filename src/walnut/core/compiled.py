"""Loops that numpy has no words for: plain Python for a little work, machine code by numba for more.

Only integers where a file depends on the result: every machine must count alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from types import FunctionType
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])

PATIENCE = 50_000
"""Steps of a loop that plain Python takes in about half a second, less than compiling it takes."""


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
    >>> total.plain([1, 2])
    3
    """

    def decorate(function: _Function) -> _Function:
        return cast(_Function, Lazy(function, options))

    return decorate


class Lazy:
    """A function that becomes machine code when it is called."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.__doc__, self.__name__ = function.__doc__, function.__name__
        self.__module__, self.__wrapped__ = function.__module__, function
        self._options = options
        self._asked = 0

    def __call__(self, *arguments: Any) -> Any:
        return self.machine(*arguments)

    def pays(self, steps: int) -> bool:
        """Say whether to use the machine code for a loop of so many steps, by all asked before.

        It does once it is there, or once Python would take longer than compiling.
        """
        self._asked += steps
        return "machine" in self.__dict__ or self._asked > PATIENCE

    @cached_property
    def plain(self) -> Callable[..., Any]:
        """The function as it was written, in Python: quickest with lists instead of arrays."""
        return self._linked("plain")

    @cached_property
    def machine(self) -> Callable[..., Any]:
        """numba's function, with those that it calls compiled too."""
        from numba import njit

        linked = self._linked("machine")
        try:
            return cast(Callable[..., Any], njit(cache=True, **self._options)(linked))
        except RuntimeError:  # no folder for the cache
            return cast(Callable[..., Any], njit(**self._options)(linked))

    def _linked(self, form: str) -> Callable[..., Any]:
        """Return the function with the lazy functions that it names replaced by one of their forms."""
        plain = cast(FunctionType, inspect.unwrap(self.__wrapped__))  # without checks of its types
        named = {name: plain.__globals__.get(name) for name in plain.__code__.co_names}
        others = {name: getattr(f, form) for name, f in named.items() if isinstance(f, Lazy)}
        if not others:
            return plain
        space = {**plain.__globals__, **others}
        linked = FunctionType(plain.__code__, space, plain.__name__, plain.__defaults__)
        linked.__qualname__, linked.__module__ = plain.__qualname__, plain.__module__
        return linked
