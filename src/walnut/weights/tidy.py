"""Clean-ups that keep a network's function: dead units go, constant ones fold into biases, the rest
is put in an order that a coder likes. For baked networks, after pruning and before packing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen

from .couple import couple, same
from .groups import Group, Groups, Place
from .importance import Importance, Scores
from .shrink import remove
from .trace import named_tensors, plain

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class nonzeros:
    """The number of a unit's weights that are not zero: its rows and columns together."""

    def __call__(self, model: nn.Module, groups: Groups, example: Tensor) -> Scores:
        tensors, scores = named_tensors(model), {}
        for group in groups.all:
            count = np.zeros(len(group))
            for place in group.places:
                count += _nonzero(tensors[place.tensor], place)
            scores[group.name] = count
        return scores


def _nonzero(t: Tensor, place: Place) -> np.ndarray:
    """Return how many numbers of each unit's slices are not zero."""
    others = [i for i in range(t.ndim) if i != place.axis]
    live = (t.detach() != 0).double()
    by_position = (live.sum(others) if others else live).cpu().numpy()
    return np.asarray(by_position[place.rows].sum(1))


@dataclass
class Ends:
    """The places where a group's units are made and read; None where a layer is of another kind."""

    made: list[Place] = field(default_factory=list)
    read: list[Place] = field(default_factory=list)


def _ends(model: nn.Module, group: Group) -> Ends | None:
    modules, tensors, ends = dict(model.named_modules()), named_tensors(model), Ends()
    for place in group.places:
        t, layer = tensors[place.tensor], modules[place.tensor.rpartition(".")[0]]
        if t.ndim < 2:
            continue
        if not isinstance(layer, _LAYERS) or place.axis > 1:
            return None
        if isinstance(layer, nn.modules.conv._ConvNd) and t.shape[1] == 1 and layer.groups > 1:
            continue  # depthwise: a unit passes through
        transposed = bool(getattr(layer, "transposed", False))
        (ends.made if (place.axis == 0) != transposed else ends.read).append(place)
    return ends if ends.made and ends.read else None


def _unread(model: nn.Module, groups: Groups) -> dict[str, np.ndarray]:
    """Return the units whose outgoing weights are all zero."""
    tensors, found = named_tensors(model), {}
    for group in groups.all:
        ends = _ends(model, group)
        if ends is not None:
            live = sum(_nonzero(tensors[p.tensor], p) for p in ends.read)
            found[group.name] = np.asarray(live == 0)
    return found


def silence(model: nn.Module, example: Tensor) -> int:
    """Set all weights of units that nothing reads to zero, in place; shapes stay. Return how many.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> _ = net[2].weight.data[:, :5].zero_()
    >>> silence(net, torch.rand(1, 4)), int((net[0].weight == 0).all(1).sum())
    (5, 5)
    """
    groups, count = couple(model, example), 0
    tensors = named_tensors(model)
    for name, dead in _unread(model, groups).items():
        count += int(dead.sum())
        for place in groups[name].places:
            t = tensors[place.tensor]
            rows = torch.from_numpy(place.rows[dead].reshape(-1)).to(t.device)
            with torch.no_grad():
                t.index_fill_(place.axis, rows, 0)
    return count


def tidy(model: nn.Module, example: Tensor) -> dict[str, tuple[int, int]]:
    """Remove units that nothing reads and units that are constant, in place; the function stays.

    A unit whose incoming weights are all zero has a constant output c. Where it is zero it goes;
    else W·c goes into the biases of the layers that read it, where that is exact: linear layers and
    convolutions without padding that have a bias. Other units stay. One unit of each group stays.

    Returns:
        units of each changed group (before, after).

    Raises:
        WalnutError: the result differs from the network by more than 1e-5 of its largest logit (or of
            1); it is then as it was.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> _ = net[0].weight.data[:5].zero_()
    >>> x = torch.rand(6, 4)
    >>> before = net(x)
    >>> tidy(net, x), torch.allclose(net(x), before, atol=1e-6)
    ({'0': (8, 3)}, True)
    """
    trial = copy.deepcopy(model)
    done = _tidied(trial, example)
    difference, scale = same(model, trial, example)
    if not difference <= 1e-5 * max(1.0, scale):
        raise WalnutError(f"tidying would change the network's answers by {difference:.2g}")
    return _tidied(model, example) if done else {}


def _tidied(model: nn.Module, example: Tensor) -> dict[str, tuple[int, int]]:
    total: dict[str, tuple[int, int]] = {}
    while True:
        groups = couple(model, example)
        removal = _unread(model, groups)
        inputs = _inputs(model, example)
        for group in groups.all:
            constant = _constant(model, group, inputs)
            if constant is not None:
                removal[group.name] = removal[group.name] | constant
        for which in removal.values():
            if which.all():  # one stays
                which[0] = False
        removal = {name: which for name, which in removal.items() if which.any()}
        if not removal:
            return total
        for name, which in removal.items():
            _fold(model, groups[name], which, inputs)
        for name, (before, after) in remove(model, example, removal, groups).units.items():
            total[name] = (total.get(name, (before,))[0], after)


def _inputs(model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """Return what each linear or convolutional layer reads, (b, channels, positions)."""
    found: dict[str, Tensor] = {}
    with _listening(model, found), frozen(model), plain():
        model(example)
    return found


@contextmanager
def _listening(model: nn.Module, found: dict[str, Tensor]) -> Iterator[None]:
    def listen(path: str, layer: nn.Module) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach()
            x = x.movedim(-1, 1) if isinstance(layer, nn.Linear) else x
            x = x.reshape(*x.shape[:2], -1)
            seen = found.get(path)
            found[path] = x if seen is None else torch.cat([seen, x], 2)

        return layer.register_forward_pre_hook(hook)

    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    handles = [listen(p, m) for p, m in model.named_modules() if isinstance(m, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _constant(model: nn.Module, group: Group, inputs: dict[str, Tensor]) -> np.ndarray | None:
    """Return the units with no incoming weight and an output that is zero or can be folded."""
    ends = _ends(model, group)
    if ends is None:
        return None
    tensors, modules = named_tensors(model), dict(model.named_modules())
    which = np.asarray(sum(_nonzero(tensors[p.tensor], p) for p in ends.made) == 0)
    for place in ends.read:
        path = place.tensor.rpartition(".")[0]
        if path not in inputs or (
            isinstance(modules[path], nn.Conv2d) and modules[path].groups > 1
        ):
            return np.zeros(len(group), dtype=bool)
        x = inputs[path][:, place.rows.reshape(-1)].transpose(0, 1).flatten(1)
        flat = (x == x[:, :1]).all(1).reshape(place.rows.shape).all(1).cpu().numpy()
        zero = (x == 0).all(1).reshape(place.rows.shape).all(1).cpu().numpy()
        which &= zero | (flat & _folds(modules[path]))
    return which


def _folds(layer: nn.Module) -> bool:
    """Say whether a constant input is the same as a bias."""
    if getattr(layer, "bias", None) is None:
        return False
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and not isinstance(layer.padding, str)
        and all(side == 0 for side in layer.padding)
    )


def _fold(model: nn.Module, group: Group, which: np.ndarray, inputs: dict[str, Tensor]) -> None:
    """Add what constant units give to the biases of the layers that read them."""
    ends, tensors, modules = _ends(model, group), named_tensors(model), dict(model.named_modules())
    assert ends is not None
    for place in ends.read:
        path = place.tensor.rpartition(".")[0]
        layer: Any = modules[path]
        if path not in inputs or not _folds(layer):
            continue
        positions = torch.from_numpy(place.rows[which].reshape(-1))
        value = inputs[path][0, positions, 0].double()
        w = tensors[place.tensor].detach()[:, positions].double()
        with torch.no_grad():
            layer.bias += (w.reshape(*w.shape[:2], -1).sum(2) @ value).to(layer.bias.dtype)


def arrange(model: nn.Module, example: Tensor, importance: Importance | None = None) -> None:
    """Sort the units of every group by falling importance, in place; the function stays.

    Every slice of a unit moves with it, so only the order of summation changes: logits agree to
    rounding. By default units with many non-zero weights come first, so that rows and columns of like
    density lie together, which a coder with adaptive contexts makes use of.

    Raises:
        WalnutError: the result differs by more than rounding; the network is then as it was.

    >>> net = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> net[0].weight.data = torch.tensor([[0.0], [1.0], [2.0]])
    >>> arrange(net, torch.rand(1, 1))
    >>> net[0].weight.flatten()
    tensor([1., 2., 0.], grad_fn=<ViewBackward0>)
    """
    groups = couple(model, example)
    scores = (importance or nonzeros())(model, groups, example)
    orders = {name: np.argsort(-score, kind="stable") for name, score in scores.items()}
    trial = copy.deepcopy(model)
    _permute(trial, groups, orders)
    difference, scale = same(model, trial, example)
    if not difference <= 1e-5 * max(1.0, scale):
        raise WalnutError(f"another order of units would change the answers by {difference:.2g}")
    _permute(model, groups, orders)


def _permute(model: nn.Module, groups: Groups, orders: dict[str, np.ndarray]) -> None:
    moves: dict[str, dict[int, np.ndarray]] = {}
    tensors = named_tensors(model)
    for name, order in orders.items():
        for place in groups[name].places:
            size = tensors[place.tensor].shape[place.axis]
            move = moves.setdefault(place.tensor, {}).setdefault(place.axis, np.arange(size))
            move[place.rows] = place.rows[order]
    for name, axes in moves.items():
        t = tensors[name]
        for axis, move in axes.items():
            with torch.no_grad():
                t.copy_(t.index_select(axis, torch.from_numpy(move).to(t.device)))
