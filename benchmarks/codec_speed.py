"""How fast the entropy coders are, and how far from the entropy the layouts land. Seconds are CPU time.

python benchmarks/codec_speed.py          prints, and writes benchmarks/results/codec_speed.json
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from walnut.codec import ANS, FIXED, HUFFMAN, container, symbols, tensors
from walnut.codec.stream import Reader
from walnut.core.types import Packed

SEED = 0


def best_of(times: int, work: Callable[[], Any]) -> float:
    """Return the shortest of some timings, in seconds."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def coders(n: int = 4_000_000) -> list[dict[str, Any]]:
    """Time each coder on n symbols of a 15-letter geometric source."""
    p = np.exp(-np.arange(15) / 3.0)
    data = np.random.default_rng(SEED).choice(15, n, p=p / p.sum()).astype(np.uint16)
    counts = symbols.histogram(data, 15)
    share = counts / n
    limit = float(-(share * np.log2(share)).sum() * n / 8)
    rows = []
    for coder in (FIXED, HUFFMAN, ANS):
        written = coder.encode(data, counts)
        encode = best_of(3, partial(coder.encode, data, counts))
        decode = best_of(3, partial(_decode, coder, written, n))
        rows.append(
            {
                "coder": coder.name,
                "symbols": n,
                "bytes": len(written),
                "over_entropy": len(written) / limit - 1,
                "encode_million_per_s": n / encode / 1e6,
                "decode_million_per_s": n / decode / 1e6,
            }
        )
    return rows


def _decode(coder: symbols.Coder, written: bytes, n: int) -> np.ndarray:
    return coder.decode(Reader(written), n, 15)


def layouts(rows: int = 1000, columns: int = 2500) -> list[dict[str, Any]]:
    """Encode pruned, shared tensors of several densities; compare with the entropy of iid weights."""
    g = torch.Generator().manual_seed(SEED)
    found = []
    for density in (0.5, 0.25, 0.11, 0.08, 0.04, 0.02, 0.01):
        book = torch.randn(15, generator=g)
        values = book[torch.randint(15, (rows, columns), generator=g)]
        w = torch.where(torch.rand(rows, columns, generator=g) < density, values, 0.0)
        share = w.unique(return_counts=True)[1].double() / w.numel()
        limit = float(-(share * share.log2()).sum()) * w.numel() / 8
        row: dict[str, Any] = {"density": density, "weights": w.numel(), "entropy_bytes": limit}
        for name, allowed in (("ans", symbols.ALL), ("huffman", (FIXED, HUFFMAN))):
            start = time.process_time()
            written = tensors.encode(w, allowed)
            row[f"{name}_encode_s"] = time.process_time() - start
            row[f"{name}_over_entropy"] = len(written) / limit - 1
            start = time.process_time()
            back, row[f"{name}_layout"] = tensors.decode(Reader(written), w.dtype, tuple(w.shape))
            row[f"{name}_decode_s"] = time.process_time() - start
            assert torch.equal(back, w)
        found.append(row)
    return found


def network(layers: int = 11, shape: tuple[int, ...] = (512, 512, 3, 3)) -> dict[str, Any]:
    """Write and read a network of 26 million weights of 16 values each, none of them zero.

    Unpruned, it is what takes longest: four decisions a weight.
    """
    g = torch.Generator().manual_seed(SEED)
    book = torch.linspace(-1.5, 1.5, 16)
    records, count = {}, 0
    for i in range(layers):
        w = torch.randn(shape, generator=g) * torch.randn(shape[0], 1, 1, 1, generator=g).exp()
        index = torch.bucketize(w / w.std(), (book[1:] + book[:-1]) / 2)
        records[f"conv{i}.weight"] = Packed("tensor", {"w": book[index] * w.std()})
        count += w.numel()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.walnut"
        start = time.process_time()
        size = container.write(path, {}, records)
        written = time.process_time()
        _, back = container.read(path)
        read = time.process_time()
    assert all(torch.equal(back[n].tensors["w"], p.tensors["w"]) for n, p in records.items())
    return {"weights": count, "bytes": size, "write_s": written - start, "read_s": read - written}


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    today = datetime.date.today().isoformat()
    result = {"date": today, "seed": SEED, "machine": machine()}
    result |= {"coders": coders(), "layouts": layouts(), "network": network()}
    for row in [*result["coders"], *result["layouts"], result["network"]]:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    path = Path(__file__).parent / "results" / "codec_speed.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
