"""Operations that move, cut and join axes: what they do to channels. See ``trace_ops``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .trace_ops import Book, Rule
from .units import Axes, Ids

_MOVED = "a position among channels is picked by its number"


def transpose(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Swap two axes; ``t`` swaps the only two."""
    axes = list(book.axes(args[0]))
    if len(axes) < 2:
        return tuple(axes)
    i, j = (args[1], args[2]) if len(args) > 2 else (0, 1)
    axes[i], axes[j] = axes[j], axes[i]
    return tuple(axes)


def permute(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Put the axes into another order."""
    axes = book.axes(args[0])
    return tuple(axes[i] for i in args[1])


def unsqueeze(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Add an axis of length one."""
    axes = list(book.axes(args[0]))
    axes.insert(args[1] % out.ndim, None)
    return tuple(axes)


def squeeze(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Drop axes of length one."""
    x, axes = args[0], book.axes(args[0])
    which = range(x.ndim) if len(args) < 2 else [args[1]] if isinstance(args[1], int) else args[1]
    gone = {d % x.ndim for d in which if x.shape[d] == 1}
    return tuple(ids for i, ids in enumerate(axes) if i not in gone)


def expand(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Repeat axes of length one: what is repeated is rigid."""
    x, axes = args[0], book.axes(args[0])
    missing = out.ndim - x.ndim
    same = (ids if x.shape[i] == out.shape[i + missing] else None for i, ids in enumerate(axes))
    return (*[None] * missing, *same)


def slice_(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Cut a piece out of one axis."""
    axes = list(book.axes(args[0]))
    given: list[Any] = [*args[1:], *[0, None, None, 1][len(args) - 1 :]]
    dim, start, end, step = given
    ids = axes[dim]
    axes[dim] = None if ids is None else ids[slice(start, end, step)]
    return tuple(axes)


def select(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Take one position of an axis."""
    axes, dim = list(book.axes(args[0])), args[1]
    book.units.pin(axes.pop(dim), _MOVED)
    return tuple(axes)


def index_select(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Take positions of an axis in a given order; only plumbing knows how to tell it of removals."""
    x, dim, index = args[:3]
    axes = list(book.axes(x))
    ids = axes[dim]
    axes[dim] = None if ids is None else ids[index.numpy()]
    return tuple(axes)


def cat(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Lay tensors end to end along one axis; the other axes meet."""
    tensors = [t for t in args[0] if t.ndim == out.ndim]
    dim = (args[1] if len(args) > 1 else 0) % out.ndim
    ends: list[np.ndarray] = []
    found: list[Ids] = list(book.axes(tensors[0]))
    for t in tensors:
        axes = book.axes(t)
        own = axes[dim]
        ends.append(np.zeros(t.shape[dim], dtype=np.int64) if own is None else own)
        for i in set(range(out.ndim)) - {dim}:
            if out.shape[i] > 1:
                book.units.join(found[i], axes[i])
                found[i] = None if axes[i] is None else found[i]
    found[dim] = np.concatenate(ends)
    return tuple(found)


def stack(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Lay tensors along a new axis; all others meet."""
    dim = (args[1] if len(args) > 1 else 0) % out.ndim
    found: list[Ids] = list(book.axes(args[0][0]))
    for t in args[0][1:]:
        for i, ids in enumerate(book.axes(t)):
            if t.shape[i] > 1:
                book.units.join(found[i], ids)
                found[i] = None if ids is None else found[i]
    found.insert(dim, None)
    return tuple(found)


def split(book: Book, args: Sequence[Any], out: Sequence[Tensor]) -> Axes:
    """Cut an axis into pieces, one after the other."""
    dim = args[2] if len(args) > 2 else 0
    axes, start = book.axes(args[0]), 0
    dim %= len(axes)
    for piece in out:
        end = start + piece.shape[dim]
        own = list(axes)
        ids = own[dim]
        own[dim] = None if ids is None else ids[start:end]
        book.note(piece, tuple(own))
        start = end
    return book.axes(out[0])


def unbind(book: Book, args: Sequence[Any], out: Sequence[Tensor]) -> Axes:
    """Take every position of an axis by itself."""
    axes = list(book.axes(args[0]))
    book.units.pin(axes.pop(args[1] if len(args) > 1 else 0), _MOVED)
    for piece in out:
        book.note(piece, tuple(axes))
    return tuple(axes)


def pad(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Add constant positions at both ends of the last axes; cut where the count is negative."""
    x, counts = args[:2]
    axes = list(book.axes(x))
    for i in range(len(counts) // 2):
        dim, (before, after) = x.ndim - 1 - i, counts[2 * i : 2 * i + 2]
        ids = axes[dim]
        if ids is None or (before == 0 and after == 0):
            continue
        fresh = [book.units.fresh(max(0, n)) for n in (before, after)]
        ids = ids[max(0, -before) : len(ids) - max(0, -after)]
        axes[dim] = np.concatenate([fresh[0], ids, fresh[1]])
    return tuple(axes)


MOVES: dict[str, Rule] = {
    "transpose": transpose, "t": transpose, "permute": permute, "unsqueeze": unsqueeze,
    "squeeze": squeeze, "expand": expand, "slice": slice_, "select": select,
    "index_select": index_select, "cat": cat, "stack": stack, "split": split,
    "split_with_sizes": split, "unsafe_split": split, "unsafe_split_with_sizes": split,
    "unbind": unbind, "constant_pad_nd": pad,
}  # fmt: skip
