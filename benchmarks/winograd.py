"""Winograd convolution beside torch's own: error, multiplications, and time, on ten layer shapes.

    python benchmarks/winograd.py       # one minute on one idle core

Every round times each way once, by the wall clock and by the thread's own clock, which stands still
while other programs have the core: torch's convolution on both layouts, F(2×2,3×3) and F(4×4,3×3) by
the compiled kernel, and, in fewer rounds, by plain tensor operations. A ratio is torch's better layout
against Winograd: of the least wall times over all rounds (what an undisturbed moment gives), and, with
its quartiles, round by round on the thread's clock. Beside it stands what the machine allows: the rate
of the matrix products in the sizes of the layer.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import record
from walnut.evaluate import cost
from walnut.weights import f2, f4, tiles, winograd, winograd_conv2d

SEED, ROUNDS, PLAIN_ROUNDS = 0, 40, 4
SHAPES = [(32, 112), (64, 56), (128, 28), (256, 14), (512, 7)]
BATCHES = (1, 8)


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def least(call: Callable[[], Any], rounds: int = 10) -> float:
    return min(seconds(call) for _ in range(rounds))


def products(channels: int, side: int, batch: int, tile: tiles) -> dict[str, float]:
    """Return the multiply-adds of the products alone, and their best rate with nothing round them."""
    count = batch * (-(-side // tile.outputs)) ** 2
    v = torch.randn(tile.side**2, count, channels)
    u, out = torch.randn(tile.side**2, channels, channels), torch.empty_like(v)
    done = tile.side**2 * count * channels * channels
    took = least(lambda: torch.bmm(v, u, out=out))
    return {"ms": round(1e3 * took, 4), "gflops": round(2e-9 * done / took, 1)}


def machine() -> dict[str, float]:
    """Return what the machine gives at best: a large product, and a large copy."""
    a, b, big = torch.randn(1024, 1024), torch.randn(1024, 1024), torch.randn(1 << 24)
    other = torch.empty_like(big)
    near = torch.randn(1 << 17)  # 0.5 MB: within the second-level cache
    close = torch.empty_like(near)
    return {
        "gemm_gflops": round(2e-9 * 1024**3 / least(lambda: a @ b), 1),
        "copy_gb_per_s": round(8e-9 * big.numel() / least(lambda: other.copy_(big)), 1),
        "cache_copy_gb_per_s": round(
            8e-9 * near.numel() / least(lambda: close.copy_(near), 200), 1
        ),
    }


def error(y: Tensor, exact: Tensor) -> float:
    """Return max |y − exact| / max |exact|."""
    return float(f"{float((y - exact).abs().max() / exact.abs().max()):.2e}")


def row(channels: int, side: int, batch: int) -> dict[str, Any]:
    """Return all figures of one layer."""
    layer = nn.Conv2d(channels, channels, 3, padding=1).eval()
    x = torch.randn(batch, channels, side, side)
    last = x.contiguous(memory_format=torch.channels_last)
    direct_last = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    exact = copy.deepcopy(layer).double()(x.double())
    swapped = {f"F{t.outputs}": winograd(nn.Sequential(copy.deepcopy(layer)), t) for t in (f2, f4)}
    ways: dict[str, Callable[[], Tensor]] = {
        "torch": lambda: layer(x),
        "torch, channels last": lambda: direct_last(last),
        "F2": lambda: swapped["F2"].model(last),
        "F4": lambda: swapped["F4"].model(last),
    }
    plain = {
        f"plain F{t.outputs}": lambda t=t: winograd_conv2d(x, layer.weight, layer.bias, tile=t)
        for t in (f2, f4)
    }
    shape = (channels, side, side)
    whole = cost(nn.Sequential(layer), shape).multiply_adds
    return {
        "channels": channels,
        "side": side,
        "batch": batch,
        "error": {n: error(way(), exact) for n, way in {**ways, **plain}.items()},
        "multiplications saved": {
            n: round(whole / cost(done.model, shape).multiply_adds, 3)
            for n, done in swapped.items()
        },
        "products alone": {f"F{t.outputs}": products(channels, side, batch, t) for t in (f2, f4)},
        **timed(ways, plain),
    }


def timed(ways: dict[str, Callable[[], Tensor]], plain: dict[str, Callable[[], Tensor]]) -> dict:
    """Return times and ratios, all ways alternating."""
    wall: dict[str, list[float]] = {name: [] for name in [*ways, *plain]}
    own: dict[str, list[float]] = {name: [] for name in [*ways, *plain]}
    for turn in range(ROUNDS + 2):
        for name, way in (ways if turn >= PLAIN_ROUNDS + 2 else {**ways, **plain}).items():
            began, mine = time.perf_counter(), time.thread_time()
            way()
            if turn >= 2:
                own[name].append(time.thread_time() - mine)
                wall[name].append(time.perf_counter() - began)
    both = ("torch", "torch, channels last")
    base = min(min(wall[name]) for name in both)
    own_base = [min(pair) for pair in zip(*(own[name] for name in both), strict=True)]
    mine_ = ("F2", "F4", *plain)
    return {
        "least_ms": {name: round(1e3 * min(t), 4) for name, t in wall.items()},
        "times_faster_wall": {name: round(base / min(wall[name]), 3) for name in mine_},
        "times_faster_thread": {
            name: record.spread([b / t for b, t in zip(own_base, own[name], strict=False)])
            for name in mine_
        },
    }


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    rows = []
    with torch.no_grad():
        limits = machine()
        for batch in BATCHES:
            for channels, side in SHAPES:
                rows.append(row(channels, side, batch))
                print(channels, side, batch, rows[-1]["times_faster_wall"], flush=True)
    best = [max(r["times_faster_wall"][t] for t in ("F2", "F4")) for r in rows]
    steady = [max(r["times_faster_thread"][t]["median"] for t in ("F2", "F4")) for r in rows]
    figures = {
        "threads": 1,
        "machine_limits": limits,
        "load_average": [round(v, 1) for v in os.getloadavg()],
        "shapes_at_least_1.3_times_faster": {
            "wall": sum(b >= 1.3 for b in best),
            "thread": sum(b >= 1.3 for b in steady),
        },
        "rows": rows,
    }
    record.write("winograd", SEED, figures)


if __name__ == "__main__":
    main()
