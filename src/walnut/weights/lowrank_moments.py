"""What a layer reads and should answer, over a data set: second moments of patches and responses.

A convolution is a matrix product on patches; all that least squares needs to know of the data is
the covariance of the patches x̂ that reach the layer, and their covariance with the responses y
that the original network gives there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen

Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""What goes into a layer and what comes out, for one example."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Centred second moments of patches x (n, p) and responses y (n, o), in float64.

    ``xx`` (p, p) = E (x−x̄)(x−x̄)ᵀ, ``yx`` (o, p) = E (y−ȳ)(x−x̄)ᵀ, the variance Σ E (y−ȳ)²
    of all responses together, the means, and the number of examples.
    """

    xx: Float[Tensor, "p p"]
    yx: Float[Tensor, "o p"]
    x_mean: Float[Tensor, " p"]
    y_mean: Float[Tensor, " o"]
    variance: float
    count: int

    def error(self, w: Float[Tensor, "o p"]) -> float:
        """Return E‖y − ŷ‖² / E‖y − ȳ‖² of the responses ŷ = w x + the best bias."""
        rest = self.variance - 2 * (w * self.yx).sum() + ((w @ self.xx) * w).sum()
        return float(rest.clamp_min(0)) / max(self.variance, 1e-300)


def moments(x: Float[Tensor, "n p"], y: Float[Tensor, "n o"]) -> Moments:
    """Return the moments of patches and responses; n ≥ 2.

    >>> m = moments(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]]))
    >>> float(m.xx), float(m.yx)
    (1.0, 2.0)
    """
    n = len(x)
    x_mean, y_mean = x.double().mean(0), y.double().mean(0)
    # centred first, so that single precision is enough for the products, which take all the time
    x, y = x - x_mean.to(x.dtype), y - y_mean.to(y.dtype)
    variance = float(y.double().square().sum()) / n
    return Moments((x.T @ x).double() / n, (y.T @ x).double() / n, x_mean, y_mean, variance, n)


def of_patches(covariance: Tensor, axes: tuple[int, ...], keep: tuple[int, ...]) -> Tensor:
    """Return the covariance over some axes of a patch, averaged over where the others agree.

    covariance (p, p) with p = Π axes; e.g. axes (i, h, w), keep (0,): of the channels.
    """
    whole = covariance.reshape(*axes, *axes)
    letters = "abcdefgh"
    left = letters[: len(axes)]
    right = "".join(c.upper() if k in keep else c for k, c in enumerate(left))
    out = "".join(left[k] for k in keep)
    summed = torch.einsum(f"{left}{right}->{out}{out.upper()}", whole)
    size = 1
    for k in keep:
        size *= axes[k]
    return summed.reshape(size, size) / (covariance.shape[0] / size)


class _Enough(Exception):
    """The layer that was asked for has run."""


@contextmanager
def _watched(
    layers: Mapping[str, nn.Module], see: Callable[[str, nn.Module, Tensor, Tensor], None]
) -> Iterator[None]:
    handles = []
    try:
        for name, layer in layers.items():

            def hook(
                module: nn.Module, given: tuple[Tensor, ...], out: Tensor, n: str = name
            ) -> None:
                see(n, module, given[0].detach(), out.detach())

            handles.append(layer.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def run(
    model: nn.Module,
    x: Tensor,
    layers: Mapping[str, nn.Module],
    see: Callable[[str, nn.Module, Tensor, Tensor], None],
    batch: int,
) -> None:
    """Run a network on x, and show ``see(name, layer, input, output)`` what watched layers do.

    With one layer watched, each batch ends there.
    """

    def seen(name: str, module: nn.Module, given: Tensor, out: Tensor) -> None:
        see(name, module, given, out)
        if len(layers) == 1:
            raise _Enough

    with torch.no_grad(), frozen(model), _watched(layers, seen):
        for part in x.split(batch):
            try:
                model(part)
            except _Enough:
                pass
            except (RuntimeError, IndexError) as error:
                shape = tuple(x.shape[1:])
                raise WalnutError(
                    f"the network does not take the data given, examples of shape {shape}: {error}"
                ) from error


def order(model: nn.Module, x: Tensor, layers: Mapping[str, nn.Module]) -> dict[str, Shapes]:
    """Return the layers in the order in which they run, with the shapes of one example in and out.

    Raises:
        WalnutError: a layer that runs more than once in one pass.
    """
    found: dict[str, Shapes] = {}

    def see(name: str, _: nn.Module, given: Tensor, out: Tensor) -> None:
        if name in found:
            raise WalnutError(f"{name} runs more than once in a pass: leave it out of the patterns")
        found[name] = tuple(given.shape[1:]), tuple(out.shape[1:])

    watch = {**layers, "": nn.Identity()}  # a second, idle one: the pass goes to its end
    run(model, x[:1], watch, see, 1)
    return found


@dataclass(frozen=True)
class Sampler:
    """Which places of an output are looked at: ``places`` per example, drawn by ``seed``."""

    places: int = 10
    seed: int = 0

    def rows(self, out: Tensor, first: int, linear: bool) -> Tensor:
        """Return indices (b, places) into the places of each example's output."""
        size = out[0].numel() // (out.shape[-1] if linear else out.shape[1])
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + first)
        if size <= self.places:
            return torch.arange(size).expand(len(out), -1)
        return torch.randint(size, (len(out), self.places), generator=draw)


def responses_at(layer: nn.Module, out: Tensor, rows: Tensor) -> Tensor:
    """Return outputs (b·places, o) at the sampled places."""
    if isinstance(layer, nn.Conv2d):
        out = out.flatten(2).transpose(1, 2)
    else:
        out = out.reshape(len(out), -1, out.shape[-1])
    return out.gather(1, rows[..., None].expand(-1, -1, out.shape[-1])).flatten(0, 1)


def patches_at(layer: nn.Module, x: Tensor, out: Tensor, rows: Tensor) -> Tensor:
    """Return what the layer reads (b·places, p) for its outputs at the sampled places."""
    if not isinstance(layer, nn.Conv2d):
        return responses_at(layer, x, rows)
    x, (up, across) = padded(layer, x), layer.stride
    height, width = layer.kernel_size
    top, left = rows // out.shape[3] * up, rows % out.shape[3] * across
    down = top[..., None] + torch.arange(height) * layer.dilation[0]
    right = left[..., None] + torch.arange(width) * layer.dilation[1]
    which = torch.arange(len(x))[:, None, None, None]
    found = x.permute(0, 2, 3, 1)[which, down[..., :, None], right[..., None, :]]  # b, n, h, w, c
    return found.permute(0, 1, 4, 2, 3).flatten(2).flatten(0, 1)


def padded(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return images with the margin that the convolution reads."""
    around = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, list(around), mode=mode)


def targets(
    model: nn.Module, x: Tensor, layers: Iterable[str], sampler: Sampler, batch: int
) -> dict[str, Tensor]:
    """Return the network's own responses (n, o) of each layer at the sampled places."""
    modules = {name: model.get_submodule(name) for name in layers}
    found: dict[str, list[Tensor]] = {name: [] for name in modules}

    def see(name: str, layer: nn.Module, _: Tensor, out: Tensor) -> None:
        rows = sampler.rows(out, len(found[name]), isinstance(layer, nn.Linear))
        found[name].append(responses_at(layer, out, rows).clone())

    run(model, x, {**modules, "": nn.Identity()}, see, batch)
    return {name: torch.cat(parts) for name, parts in found.items()}


def gather(
    model: nn.Module, x: Tensor, name: str, wanted: Tensor, sampler: Sampler, batch: int
) -> Moments:
    """Return the moments of a layer's input in this network against the responses wanted there."""
    found: list[Tensor] = []

    def see(_: str, layer: nn.Module, given: Tensor, out: Tensor) -> None:
        rows = sampler.rows(out, len(found), isinstance(layer, nn.Linear))
        found.append(patches_at(layer, given, out, rows))

    run(model, x, {name: model.get_submodule(name)}, see, batch)
    return moments(torch.cat(found).float(), wanted.float())
