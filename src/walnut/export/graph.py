"""Small changes to an ONNX graph after which its runtimes have less to do, and answer the same."""

from __future__ import annotations

from typing import Any

import numpy as np


def merge_slices(graph: Any) -> None:
    """Make one ``Slice`` of two in a row along different axes, in place: ``x[:, :, ::2, ::2]`` is two.

    An element is copied once where it was copied twice.
    """
    from onnx import numpy_helper

    known, readers = _constants(graph), _readers(graph)
    for second in [n for n in graph.node if n.op_type == "Slice"]:
        first = next((n for n in graph.node if n.output[0] == second.input[0]), None)
        if first is None or first.op_type != "Slice" or readers[first.output[0]] != 1:
            continue
        if any(len(n.input) != 5 or set(n.input[1:]) - known.keys() for n in (first, second)):
            continue  # bounds that are computed, or left to their defaults
        given = [[known[name] for name in n.input[1:]] for n in (first, second)]
        axes = [a for of in given for a in of[2].tolist()]
        if len(set(axes)) < len(axes) or min(axes) < 0 <= max(axes):
            continue  # the same axis twice, or axes counted from both ends
        for k, (a, b) in enumerate(zip(*given, strict=True)):
            name = f"{second.output[0]}_{('starts', 'ends', 'axes', 'steps')[k]}"
            graph.initializer.append(numpy_helper.from_array(np.concatenate([a, b]), name))
            second.input[k + 1] = name
        second.input[0] = first.input[0]
        graph.node.remove(first)
    _drop_unread(graph)


def integer_pads(graph: Any) -> None:
    """Let a ``Pad`` with zeros fill integers with their zero point, in place.

    The quantiser writes DequantizeLinear → Pad → QuantizeLinear, and runtimes compute all three.
    Where both sides have the same scale and zero point z, the pair may go: q ↦ s·(q − z) ↦ q, and
    0 is the integer z. The answers are the same to the last bit.
    """
    from onnx import helper

    known, readers = _constants(graph), _readers(graph)
    maker = {output: node for node in graph.node for output in node.output}
    reader = {name: node for node in graph.node for name in node.input}
    for pad in [n for n in graph.node if n.op_type == "Pad"]:
        before, after = maker.get(pad.input[0]), reader.get(pad.output[0])
        if before is None or before.op_type != "DequantizeLinear":
            continue
        if after is None or after.op_type != "QuantizeLinear" or readers[pad.output[0]] != 1:
            continue
        if not _with_zeros(pad, known) or not _same_grid(before, after, known):
            continue
        moved = helper.make_node(
            "Pad", [before.input[0], pad.input[1], after.input[2]], [after.output[0]],
            name=pad.name, mode="constant",
        )  # fmt: skip
        graph.node.insert(list(graph.node).index(pad), moved)
        graph.node.remove(pad)
        graph.node.remove(after)
        if readers[before.output[0]] == 1:
            graph.node.remove(before)
    _drop_unread(graph)


def _with_zeros(pad: Any, known: dict[str, Any]) -> bool:
    mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
    fill = pad.input[2] if len(pad.input) > 2 else ""
    whole = len(pad.input) < 4 or not pad.input[3]  # no axes named: pads speak of all of them
    return mode == b"constant" and whole and (not fill or bool(np.all(known.get(fill, 1) == 0)))


def _same_grid(before: Any, after: Any, known: dict[str, Any]) -> bool:
    """Say whether two nodes have one scale and one zero point, for the whole tensor."""
    if len(before.input) != 3 or len(after.input) != 3:
        return False
    pairs = [[known.get(n.input[k]) for n in (before, after)] for k in (1, 2)]
    return all(
        a is not None and b is not None and a.size == 1 and a.dtype == b.dtype and np.all(a == b)
        for a, b in pairs
    )


def _constants(graph: Any) -> dict[str, Any]:
    """Return the values of a graph's initializers."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _drop_unread(graph: Any) -> None:
    """Remove the constants that no node reads any more: runtimes warn of them."""
    readers = _readers(graph)
    for tensor in [t for t in graph.initializer if t.name not in readers]:
        graph.initializer.remove(tensor)


def _readers(graph: Any) -> dict[str, int]:
    """Return how many inputs each tensor is, a graph's output counting as one."""
    counts: dict[str, int] = {}
    for name in [i for n in graph.node for i in n.input] + [o.name for o in graph.output]:
        counts[name] = counts.get(name, 0) + 1
    return counts
