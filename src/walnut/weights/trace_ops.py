"""What each ATen operation does to channels: which ids its outputs carry, and which become one.

A rule gets the note-book, the operation's arguments and its result, and returns the axes of the
(first) result. An operation without a rule pins every channel that enters it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from .units import Axes, Ids, Units, joined, reshape


@runtime_checkable
class Book(Protocol):
    """What the rules read and write."""

    units: Units

    def axes(self, t: Tensor) -> Axes:
        """Return what is known of a tensor."""
        ...

    def note(self, t: Tensor, axes: Axes) -> None:
        """Note the axes of a tensor."""
        ...

    def product(self, constant: int, *axes: tuple[int, Ids]) -> None:
        """Note multiply-adds: ``constant`` times what is left of each axis (size, ids)."""
        ...


Rule = Callable[[Book, Sequence[Any], Any], Axes]


def broadcast(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Join what meets in an operation that works number by number."""
    found: list[Ids] = [None] * out.ndim
    seen = [False] * out.ndim
    for t in args:
        if not isinstance(t, Tensor) or t.ndim == 0:
            continue
        axes, shift = book.axes(t), out.ndim - t.ndim
        for i, ids in enumerate(axes):
            if t.shape[i] != out.shape[i + shift] or t.shape[i] == 1:
                continue
            if seen[i + shift]:
                book.units.join(found[i + shift], ids)
            found[i + shift] = found[i + shift] if ids is None else ids
            seen[i + shift] = True
    return tuple(found)


def convolution(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Join a convolution's input channels with its weight's second axis."""
    x, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    units, w, channels = book.units, book.axes(weight), book.axes(x)[1]
    units.pin_all(book.axes(x)[2:], "pixels")
    units.pin_all(w[2:], "a kernel's side")
    first, second = (w[1], w[0]) if transposed else (w[0], w[1])
    if groups == 1:
        units.join(channels, second)
    elif transposed:
        units.pin_all((channels, first, second), "a grouped transposed convolution")
    elif weight.shape[1] == 1 and channels is not None and first is not None:
        fan = weight.shape[0] // groups  # depthwise: an input channel and all its outputs are one
        units.join(np.repeat(channels, fan), first)
    else:
        if channels is not None:
            units.join(joined(units, channels.reshape(groups, -1), 0), second)
        else:
            units.pin(second, "the input")
        first = None if first is None else joined(units, first.reshape(groups, -1), 0)
        first = first if first is None else np.tile(first, groups)
    if bias is not None:
        units.join(book.axes(bias)[0], first)
    positions = (x if transposed else out)[0, 0].numel() * len(x) * weight[0, 0].numel()
    book.product(positions, (weight.shape[0], w[0]), (weight.shape[1], w[1]))
    return (book.axes(x)[0], first, *[None] * (out.ndim - 2))


def batch_norm(book: Book, args: Sequence[Any], out: Any) -> Axes:
    """Join the channels with scale, shift and statistics."""
    x = args[0]
    axes = book.axes(x)
    for t in args[1:5]:
        if isinstance(t, Tensor):
            book.units.join(axes[1], book.axes(t)[0])
    return axes


def layer_norm(book: Book, args: Sequence[Any], out: Any) -> Axes:
    """Pin what is normalised over: without a channel the others would be scaled otherwise."""
    x, shape = args[:2]
    axes = book.axes(x)
    book.units.pin_all(axes[-len(shape) :], "a layer norm runs over it")
    for t in args[2:4]:
        if isinstance(t, Tensor):
            book.units.pin_all(book.axes(t), "a layer norm runs over it")
    return axes


def group_norm(book: Book, args: Sequence[Any], out: Any) -> Axes:
    """Make the channels that are normalised together one."""
    groups, axes = args[6], book.axes(args[0])
    for t in (axes[1], *(book.axes(t)[0] for t in args[1:3] if isinstance(t, Tensor))):
        book.units.join(axes[1], t)
    if axes[1] is not None:
        joined(book.units, axes[1].reshape(groups, -1), 1)
    return axes


def matmul(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Join the axes that a matrix product sums over: mm, bmm."""
    a, b = args[:2]
    left, right = book.axes(a), book.axes(b)
    book.units.join(left[-1], right[-2])
    batch: list[Ids] = []
    if a.ndim == 3:
        book.units.join(left[0], right[0])
        batch = [left[0]]
    sizes = [(a.shape[i], left[i]) for i in range(a.ndim)]
    book.product(1, *sizes, (b.shape[-1], right[-1]))
    return (*batch, left[-2], right[-1])


def addmm(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Return the axes of bias + a·b."""
    book.note(out, matmul(book, args[1:3], out))
    return broadcast(book, (args[0], out), out)


def linear(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Return the axes of x·wᵀ + bias."""
    x, weight = args[:2]
    axes, w = book.axes(x), book.axes(weight)
    book.units.join(axes[-1], w[1])
    if len(args) > 2 and isinstance(args[2], Tensor):
        book.units.join(w[0], book.axes(args[2])[0])
    book.product(x[..., 0].numel(), (weight.shape[0], w[0]), (weight.shape[1], w[1]))
    return (*axes[:-1], w[0])


def attention(book: Book, args: Sequence[Any], out: Any) -> Axes:
    """Join queries' and keys' channels; a scale that is not given follows their number."""
    q, k, v = (book.axes(t) for t in args[:3])
    sizes = args[0].shape
    for i in (*range(len(q) - 2), -1):
        book.units.join(q[i], k[i])
    for i in range(len(q) - 1):
        book.units.join(k[i], v[i])
    batch = [(sizes[i], q[i]) for i in range(len(q) - 1)]
    book.product(args[1].shape[-2], *batch, (sizes[-1], q[-1]))
    book.product(args[1].shape[-2], *batch, (args[2].shape[-1], v[-1]))
    return (*q[:-1], v[-1])


def embedding(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Pin the words; the channels go on."""
    words, channels = book.axes(args[0])
    book.units.pin(words, "the words of an embedding")
    return (*[None] * (out.ndim - 1), channels)


def kept(book: Book, args: Sequence[Any], out: Any) -> Axes:
    """Return the axes of the first argument."""
    return book.axes(args[0])


def pooled(book: Book, args: Sequence[Any], out: Any) -> Axes:
    """Return the axes of pooled images: channels stay, pixels are rigid."""
    axes = book.axes(args[0])
    channel = len(axes) - (3 if args[0].ndim >= 4 else 2)
    book.units.pin_all(axes[channel + 1 :], "pixels")
    return (*axes[: channel + 1], *[None] * (len(axes) - channel - 1))


def reduced(book: Book, args: Sequence[Any], out: Any) -> Axes:
    """Pin the axes that are summed, averaged or searched over."""
    x, which = args[0], args[1] if len(args) > 1 and args[1] is not None else range(args[0].ndim)
    gone = {d % x.ndim for d in ([which] if isinstance(which, int) else (which or range(x.ndim)))}
    axes = book.axes(x)
    book.units.pin_all((axes[i] for i in gone), "it is summed or averaged over")
    first = out if isinstance(out, Tensor) else out[0]
    if first.ndim == x.ndim:
        return tuple(None if i in gone else ids for i, ids in enumerate(axes))
    return tuple(ids for i, ids in enumerate(axes) if i not in gone)


def softmax(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Pin the axis of a softmax."""
    axes = book.axes(args[0])
    book.units.pin(axes[args[1]], "a softmax runs over it")
    return axes


def view(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Return the axes under another shape."""
    return reshape(book.units, book.axes(args[0]), tuple(args[0].shape), tuple(out.shape))


def constant(book: Book, args: Sequence[Any], out: Tensor) -> Axes:
    """Return axes of one number repeated, which may take any length."""
    return tuple(book.units.fresh(size) if size > 1 else None for size in out.shape)


_POINT = (
    "add add_ sub sub_ mul mul_ div div_ relu relu_ clone copy_ detach alias _to_copy "
    "contiguous lift_fresh native_dropout masked_fill where clamp clamp_ hardtanh hardtanh_"
)
_POOL = (
    "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool2d max_pool1d "
    "avg_pool1d _adaptive_avg_pool1d max_pool2d adaptive_max_pool2d upsample_nearest2d "
    "upsample_bilinear2d reflection_pad2d replication_pad2d mkldnn_max_pool2d"
)
_CONSTANT = "zeros ones full empty new_zeros new_ones new_full new_empty"

RULES: dict[str, Rule] = {
    "convolution": convolution, "mm": matmul, "bmm": matmul, "addmm": addmm, "linear": linear,
    "native_batch_norm": batch_norm, "_native_batch_norm_legit": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm, "cudnn_batch_norm": batch_norm,
    "native_layer_norm": layer_norm, "native_group_norm": group_norm, "embedding": embedding,
    "_scaled_dot_product_flash_attention_for_cpu": attention, "_softmax": softmax,
    "_log_softmax": softmax, "mean": reduced, "sum": reduced, "amax": reduced, "amin": reduced,
    "view": view, "_unsafe_view": view, "reshape": view, "_reshape_alias": view,
    **{name: broadcast for name in _POINT.split()},
    **{name: pooled for name in _POOL.split()},
    **{name: constant for name in _CONSTANT.split()},
}  # fmt: skip
"""Rules by the operation's name; those that move axes are in ``trace_moves``."""
