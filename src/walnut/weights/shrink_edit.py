"""The edit "resize": tensors of a network made smaller, as JSON data, and made so again by a loader.

``{"kind": "resize", "shapes": {"conv1.weight": [8, 3], "bn1.*": [8]}, "plumbing": {...}}``: the new
lengths of a tensor's first axes, ``module.*`` for all tensors of one axis a module has, and what
modules without weights were told. Attributes such as ``out_channels`` follow from the shapes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .trace import Plumbing, named_tensors


def describe(before: Mapping[str, Tensor], after: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the ``shapes`` of an edit: those of ``after`` that differ from ``before``'s tensors."""
    flat: dict[str, set[int]] = defaultdict(set)
    for name, t in before.items():
        if t.ndim == 1:
            flat[name.rpartition(".")[0]].add(after.get(name, tuple(t.shape))[0])
    shapes: dict[str, list[int]] = {}
    for name, shape in after.items():
        old, module = tuple(before[name].shape), name.rpartition(".")[0]
        if shape == old:
            continue
        if len(old) == 1 and len(flat[module]) == 1 and module:
            shapes[f"{module}.*"] = list(shape)
            continue
        last = max(i for i in range(len(old)) if shape[i] != old[i])
        shapes[name] = list(shape[: last + 1])
    return shapes


def resize(model: nn.Module, edit: Mapping[str, Any]) -> None:
    """Make the tensors of a network as small as an edit says, in place; values are the leading ones.

    Raises:
        WalnutError: names, lengths or numbers that do not fit the network, or that leave one that
            does not run.
    """
    shapes, plumbing = edit.get("shapes"), edit.get("plumbing", {})
    if not isinstance(shapes, Mapping) or not isinstance(plumbing, Mapping):
        raise WalnutError("a change of shapes lists no shapes")
    tensors = named_tensors(model)
    new: dict[str, Tensor] = {}
    for key, lengths in shapes.items():
        for name in _meant(key, tensors):
            new[name] = _narrowed(name, tensors[name], lengths)
    replace(model, new)
    modules = dict(model.named_modules())
    for path, numbers in plumbing.items():
        module = modules.get(path)
        if not isinstance(module, Plumbing) or not isinstance(numbers, dict):
            raise WalnutError(f"{path!r:.80} cannot be told which channels are left")
        module.resize(numbers)
    check_runs(model)


def _meant(key: Any, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors that a key of ``shapes`` names."""
    if isinstance(key, str) and key.endswith(".*"):
        module = key.removesuffix(".*")
        names = [n for n, t in tensors.items() if n.rpartition(".")[0] == module and t.ndim == 1]
    else:
        names = [key] if isinstance(key, str) and key in tensors else []
    if not names:
        raise WalnutError(f"the network has no tensor {key!r:.80} to make smaller")
    return names


def _narrowed(name: str, t: Tensor, lengths: Any) -> Tensor:
    good = isinstance(lengths, list) and 0 < len(lengths) <= t.ndim
    if not good or not all(
        isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= size
        for n, size in zip(lengths, t.shape, strict=False)
    ):
        raise WalnutError(f"{name} of shape {tuple(t.shape)} cannot shrink to {lengths!r:.80}")
    return t.detach()[tuple(slice(0, n) for n in lengths)].clone()


def replace(model: nn.Module, new: Mapping[str, Tensor]) -> None:
    """Put tensors in the places of others, shared ones in all of theirs; attributes follow.

    Raises:
        WalnutError: a layer whose tensors do not fit each other.
    """
    tensors = named_tensors(model)
    by_identity = {id(tensors[name]): value for name, value in new.items()}
    made: dict[int, Tensor] = {}
    touched: dict[int, tuple[str, nn.Module]] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, old in tensors.items():
        if id(old) not in by_identity:
            continue
        value = by_identity[id(old)]
        if isinstance(old, nn.Parameter):
            value = made.setdefault(id(old), nn.Parameter(value, requires_grad=old.requires_grad))
        path, _, attribute = name.rpartition(".")
        owner = modules[path]
        touched[id(owner)] = (path, owner)
        if attribute in owner._buffers:
            owner._buffers[attribute] = made.setdefault(id(old), value)
        else:
            setattr(owner, attribute, value)
    for where, layer in touched.values():
        _follow(where, layer)


def _follow(path: str, m: Any) -> None:
    """Set the attributes of a layer that repeat its shapes."""
    if isinstance(m, nn.modules.conv._ConvNd):
        _follow_conv(path, m)
    elif isinstance(m, nn.Linear):
        m.out_features, m.in_features = m.weight.shape
        _agree(path, m.bias, m.out_features)
    elif isinstance(m, nn.modules.batchnorm._NormBase):
        vectors = [t for t in (m.weight, m.bias, m.running_mean, m.running_var) if t is not None]
        m.num_features = len(vectors[0]) if vectors else m.num_features
        for t in vectors:
            _agree(path, t, m.num_features)
    elif isinstance(m, nn.GroupNorm):
        each = m.num_channels // m.num_groups
        m.num_channels, m.num_groups = len(m.weight), len(m.weight) // each
        _agree(path, m.bias, m.num_groups * each)
    elif isinstance(m, nn.LayerNorm):
        m.normalized_shape = tuple(m.weight.shape)
    elif isinstance(m, nn.Embedding):
        m.num_embeddings, m.embedding_dim = m.weight.shape
    elif isinstance(m, nn.RNNBase | nn.RNNCellBase):
        _follow_recurrent(m)
    elif isinstance(m, nn.PReLU):
        m.num_parameters = len(m.weight)


def _follow_conv(path: str, m: Any) -> None:
    first, second = m.weight.shape[:2]
    if m.transposed:
        m.in_channels, m.out_channels = first, second * m.groups
    elif m.groups > 1 and m.groups == m.in_channels:  # depthwise: a group a channel
        fan = m.out_channels // m.groups
        m.out_channels, m.groups, m.in_channels = first, first // fan, first // fan
        if first % fan or second != 1:
            raise WalnutError(f"{path}: {first} outputs do not share depthwise inputs equally")
    else:
        m.out_channels, m.in_channels = first, second * m.groups
    if m.out_channels % m.groups:
        raise WalnutError(f"{path}: {m.out_channels} channels do not fall into {m.groups} groups")
    _agree(path, m.bias, m.out_channels)


def _follow_recurrent(m: Any) -> None:
    gates = 4 if "LSTM" in type(m).__name__ else 3 if "GRU" in type(m).__name__ else 1
    weight: Tensor = getattr(m, "weight_ih_l0" if isinstance(m, nn.RNNBase) else "weight_ih")
    rows, inputs = weight.shape
    m.hidden_size, m.input_size = rows // gates, inputs
    if getattr(m, "proj_size", 0):
        m.proj_size = len(m.weight_hr_l0)


def _agree(path: str, t: Tensor | None, length: int) -> None:
    if t is not None and len(t) != length:
        raise WalnutError(f"{path}: its tensors do not fit each other ({len(t)}, {length})")


def check_runs(model: nn.Module) -> None:
    """Run a described network on the meta device, where it costs nothing, to see that layers fit.

    Raises:
        WalnutError: they do not.
    """
    shape = getattr(model, "description", {}).get("arguments", {}).get("shape")
    if shape is None:
        return
    empty = {
        name: t if t.dtype == torch.int64 else torch.empty_like(t, device="meta")
        for name, t in named_tensors(model).items()
    }
    modes = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            torch.func.functional_call(model, empty, (torch.empty(1, *shape, device="meta"),))
    except Exception as error:
        raise WalnutError(
            f"the network does not run with its shapes so changed: {error!s:.200}"
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
