"""Low rank over a whole network: large layers become two, three or four small ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from walnut.core.errors import WalnutError

from .decompose import finite
from .lowrank_budget import COUNTED, budget, sizes, spend
from .lowrank_edit import within
from .lowrank_layer import replace
from .lowrank_moments import Moments, Sampler, Shapes, gather, order, targets
from .lowrank_parts import Form, energy, response_energy
from .represent import select

Look = Callable[[nn.Module, str], Moments | None]


@runtime_checkable
class Fit(Protocol):
    """What small layers are fitted to."""

    @property
    def example(self) -> Tensor | None:
        """Return a batch the network takes, where there is one."""
        ...

    def start(self, model: nn.Module, layers: Sequence[str]) -> Look:
        """Return what gives a layer's moments, later, in the network as it is then."""
        ...


@dataclass(frozen=True)
class by_weights:
    """Small layers as near as can be to the weight itself, in the sum of squares; no data."""

    @property
    def example(self) -> Tensor | None:
        return None

    def start(self, model: nn.Module, layers: Sequence[str]) -> Look:
        return lambda model, name: None


@dataclass(frozen=True, eq=False)
class by_responses:
    """Small layers that answer like the original *network* on data: layer by layer from the input.

    Each is fitted to the original network's responses y given what now reaches it, x̂, so it takes
    back what the layers before it have done ("asymmetric", Zhang et al. 2016, §2.3).

    Args:
        x: examples (n, ...), as the network takes them; no labels. Some thousands are good.
        places: of a convolution's output that are looked at, in each example.
        seed: which places.
        batch: examples at a time.
    """

    x: Tensor = field(repr=False)
    places: int = 10
    seed: int = 0
    batch: int = 64

    @property
    def example(self) -> Tensor | None:
        return self.x

    def start(self, model: nn.Module, layers: Sequence[str]) -> Look:
        if len(self.x) < 2 or not bool(torch.isfinite(self.x).all()):
            raise WalnutError("responses need at least two examples, all of their values finite")
        sampler = Sampler(self.places, self.seed)
        wanted = targets(model, self.x, layers, sampler, self.batch)
        return lambda now, name: gather(now, self.x, name, wanted[name], sampler, self.batch)


@dataclass(frozen=True)
class Factorised:
    """The network, changed in place; each changed layer's form and ranks; why others were left.

    ``errors``: the share that each changed layer loses, of its responses' variance where it was
    fitted to responses (given what now reaches it), else of its weight's energy Σ w².
    """

    model: nn.Module
    layers: dict[str, tuple[str, tuple[int, ...]]]
    left: dict[str, str]
    errors: dict[str, float]


def factorise(
    model: nn.Module,
    forms: Mapping[str, Form],
    *,
    fit: Fit = by_weights(),
    ranks: budget | None = None,
) -> Factorised:
    """Put small layers in the places of large ones, in place.

    Args:
        model: any network; layers of torch's own classes Linear and Conv2d can change.
        forms: ``{pattern: form}`` over the layers' names ("fc1", "layer1.*"); of two patterns that
            match a layer, the first counts.
        fit: what the small layers are fitted to: :class:`by_weights` or :class:`by_responses`.
        ranks: a budget that chooses the rank of every form that leaves its own open.

    Returns:
        what was done. A layer that cannot be factorised, or whose small layers would hold more
        weights than it does, is left alone and named with the reason.

    Raises:
        WalnutError: a rank above the maximum, weights that are not finite, layers that share their
            weights, data that do not fit, a budget out of reach; the network is then as it was.
    """
    chosen, left = _chosen(model, forms)
    shapes = _shapes(model, chosen, fit, ranks)
    absent = [name for name in chosen if shapes is not None and name not in shapes]
    left |= dict.fromkeys(absent, "it does not run when the network does")
    chosen = {n: f for n, f in chosen.items() if n not in absent}
    found = _ranks(model, chosen, fit, ranks, shapes)
    for name in [n for n in chosen if n not in found]:
        left[name] = "the budget is met without it"
    for name, number in list(found.items()):
        layer = model.get_submodule(name)
        small, large = sum(sizes(chosen[name], layer, number)), _weight(model, name).numel()
        if small >= large:
            left[name] = f"rank {_said(number)} would take {small:,} weights, and it has {large:,}"
            del found[name]
    if shapes is not None:
        found = {name: found[name] for name in shapes if name in found}
    errors = _replace_all(model, {n: chosen[n] for n in found}, found, fit)
    return Factorised(model, {n: (chosen[n].name, r) for n, r in found.items()}, left, errors)


def _said(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))


def _chosen(model: nn.Module, forms: Mapping[str, Form]) -> tuple[dict[str, Form], dict[str, str]]:
    """Return the layers that can change with their forms, and those that cannot with the reasons."""
    modules = dict(model.named_modules(remove_duplicate=False))
    leaves = {n: m for n, m in modules.items() if n and _has_matrix(n, m)}
    picked = select(leaves, forms)
    _refuse_tied(model, leaves, picked)
    chosen, left = {}, {}
    for name, form in picked.items():
        reason = _refusal(modules, name, form)
        if reason is None:
            finite(_weight(model, name), name)
            chosen[name] = form
        else:
            left[name] = reason
    return chosen, left


def _weight(model: nn.Module, name: str) -> Tensor:
    return model.get_submodule(name).get_parameter("weight").detach()


def _has_matrix(name: str, module: nn.Module) -> bool:
    if "parametrizations" in name.split("."):
        return False
    held = any(p is not None and p.ndim >= 2 for p in module._parameters.values())
    return held or parametrize.is_parametrized(module)


def _refusal(modules: Mapping[str, nn.Module], name: str, form: Form) -> str | None:
    module, parent = modules[name], modules[name.rpartition(".")[0]]
    if parametrize.is_parametrized(module):
        return "its weight is represented: bake the network first"
    if type(module) is not form.layer:
        return f"it is a {type(module).__name__}, and {form.name} is for {form.layer.__name__}"
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        return f"it has {module.groups} groups"
    if isinstance(parent, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        return f"{type(parent).__name__} reads its weight itself"
    return None


def _refuse_tied(
    model: nn.Module, leaves: Mapping[str, nn.Module], picked: Mapping[str, Form]
) -> None:
    """Refuse layers that stand, or whose weights stand, in two places."""
    at: dict[int, str] = {}
    for name, module in leaves.items():
        for p in module._parameters.values():
            if p is None:
                continue
            first = at.setdefault(id(p), name)
            if first != name and (first in picked or name in picked):
                raise WalnutError(
                    f"{first} and {name} share a weight: factorising one would part them; leave "
                    "both out of the patterns, or give each its own copy"
                )


def _shapes(
    model: nn.Module, chosen: Mapping[str, Form], fit: Fit, ranks: budget | None
) -> dict[str, Shapes] | None:
    """Return the layers in their order of running; None where nothing needs to run."""
    example = fit.example
    if example is None and ranks is not None and ranks.multiply_adds is not None:
        if ranks.shape is None:
            raise WalnutError("a budget of multiply-adds needs the shape of an example: shape=")
        like = next(model.parameters())
        example = torch.zeros(1, *ranks.shape, dtype=like.dtype, device=like.device)
    if example is None:
        return None
    layers = {n: m for n, m in model.named_modules() if isinstance(m, COUNTED)}
    found = order(model, example, layers)
    return found


def _ranks(
    model: nn.Module,
    chosen: Mapping[str, Form],
    fit: Fit,
    aim: budget | None,
    shapes: Mapping[str, Shapes] | None,
) -> dict[str, tuple[int, ...]]:
    """Return each layer's ranks as numbers."""
    numbers: dict[str, tuple[int, ...]] = {}
    unsettled = {n: f for n, f in chosen.items() if any(r is None for r in f.ranks)}
    if unsettled and aim is None:
        name = next(iter(unsettled))
        raise WalnutError(f"{name}: {unsettled[name].name} has no rank: give one, or a budget")
    for name, form in chosen.items():
        if name not in unsettled:
            numbers[name] = _settled(model, name, form)
    if aim is not None:
        look = fit.start(model, list(unsettled))
        spectra = {n: _spectra(model, n, f, look(model, n)) for n, f in unsettled.items()}
        numbers |= spend(aim, model, unsettled, spectra, shapes or {})
    return numbers


def _spectra(
    model: nn.Module, name: str, form: Form, moments: Moments | None
) -> tuple[Tensor, ...]:
    return form.spectra(_weight(model, name).double().cpu(), moments)


def _settled(model: nn.Module, name: str, form: Form) -> tuple[int, ...]:
    """Return the ranks of one form: its numbers, or what its shares of the energy come to."""
    limits = form.limits(model.get_submodule(name))
    if all(isinstance(r, int) for r in form.ranks):
        return within(name, form, form.ranks, limits)
    known: dict[int, tuple[Tensor, ...]] = {}
    found = []
    for mode, rank in enumerate(form.ranks):
        if not isinstance(rank, energy):
            found.append(rank)
            continue
        if id(rank) not in known:
            look = by_responses(rank.x) if isinstance(rank, response_energy) else by_weights()
            known[id(rank)] = _spectra(model, name, form, look.start(model, [name])(model, name))
        if not known[id(rank)]:
            raise WalnutError(f"{name}: {form.name} has no spectrum: give its rank as a number")
        found.append(rank.rank(known[id(rank)][mode]))
    return within(name, form, found, limits)


def _replace_all(
    model: nn.Module, forms: Mapping[str, Form], ranks: Mapping[str, tuple[int, ...]], fit: Fit
) -> dict[str, float]:
    """Replace the layers in their order; the network is as it was where one of them fails."""
    before = {name: model.get_submodule(name) for name in forms}
    description = getattr(model, "description", None)
    try:
        look = fit.start(model, list(forms))
        return {n: replace(model, n, f, ranks[n], look(model, n)) for n, f in forms.items()}
    except BaseException:
        for name, layer in before.items():
            model.set_submodule(name, layer)
        if description is not None:
            model.description = description
        raise
