"""What a network costs: parameters, non-zeros, multiply-adds, and time by the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen


@dataclass(frozen=True)
class Cost:
    """Counts for one network. Multiply-adds are per example and for the dense shapes: a zero weight
    is still multiplied, and the counter says so."""

    parameters: int
    nonzeros: int
    multiply_adds: int

    @property
    def fp32_bytes(self) -> int:
        """Four bytes a parameter: what the dense network weighs before anything is done."""
        return 4 * self.parameters


def cost(model: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Count parameters, non-zero parameters and multiply-adds of one example.

    Multiply-adds are half of torch's floating-point operation count of matrix products and
    convolutions (``torch.utils.flop_counter``); additions, activations and norms are left out, as is
    usual.

    Args:
        model: network.
        shape: of one example, (C, H, W) or (d,).

    >>> cost(nn.Linear(10, 3), (10,))
    Cost(parameters=33, nonzeros=33, multiply_adds=30)
    """
    weights = _effective_weights(model)
    reference = next(model.parameters(), torch.zeros(1))
    x = torch.zeros(1, *shape, dtype=reference.dtype, device=reference.device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), frozen(model), counter:
        model(x)
    return Cost(
        parameters=sum(w.numel() for w in weights),
        nonzeros=sum(int(torch.count_nonzero(w)) for w in weights),
        multiply_adds=counter.get_total_flops() // 2,
    )


def _effective_weights(model: nn.Module) -> list[Tensor]:
    """Return each weight as the network uses it, in place of the numbers that carry it."""
    carriers, weights = set(), []
    for module in model.modules():
        for name, parts in getattr(module, "parametrizations", {}).items():
            carriers |= {id(p) for p in parts.parameters()}
            weights.append(getattr(module, name).detach())
    return weights + [p.detach() for p in model.parameters() if id(p) not in carriers]


@dataclass(frozen=True)
class Latency:
    """Milliseconds per forward pass: the median, the middle half, and the ratio to the baseline.

    The ratio is the median over rounds of (this network's time / the baseline's time in the same
    round); ``ratio_low`` and ``ratio_high`` are its quartiles.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    ratio_to_dense: float
    ratio_low: float
    ratio_high: float
    batch: int
    threads: int

    def json(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)


def latency(models: Mapping[str, Any], x: Tensor, *, rounds: int = 30) -> dict[str, Latency]:
    """Time one forward pass of each network on ``x``, alternating, after a warm-up.

    The first network is the baseline. All are timed in turn in each round, so that a slow moment of
    the machine hits them alike.

    Args:
        models: networks by name.
        x: a batch (b, ...).
        rounds: counted rounds, ≥ 3.

    Raises:
        WalnutError: fewer rounds, or a clock that does not move: a time is measured or not given.
    """
    if rounds < 3:
        raise WalnutError("latency needs at least 3 rounds")
    times: dict[str, list[float]] = {name: [] for name in models}
    with ExitStack() as held, torch.no_grad():
        for model in models.values():
            held.enter_context(frozen(model))
        for i in range(rounds + 3):
            for name, model in models.items():
                began = time.perf_counter()
                model(x)
                if i >= 3:
                    times[name].append(1e3 * (time.perf_counter() - began))
    for name, found in times.items():
        if min(found) <= 0:
            raise WalnutError(
                f"the clock did not move while {name} ran: take a larger batch, so that its time can "
                "be measured"
            )
    base = times[next(iter(models))]
    return {name: _summary(times[name], base, len(x)) for name in models}


def _summary(times: list[float], base: list[float], batch: int) -> Latency:
    ratios = [mine / theirs for mine, theirs in zip(times, base, strict=True)]
    low, median, high = statistics.quantiles(times, n=4)
    ratio_low, ratio, ratio_high = statistics.quantiles(ratios, n=4)
    return Latency(
        median_ms=round(median, 4),
        low_ms=round(low, 4),
        high_ms=round(high, 4),
        ratio_to_dense=round(ratio, 4),
        ratio_low=round(ratio_low, 4),
        ratio_high=round(ratio_high, 4),
        batch=batch,
        threads=torch.get_num_threads(),
    )
