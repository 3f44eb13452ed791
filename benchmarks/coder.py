"""Our coder beside others on the same integers: pruned and shared weights of three networks.

    python benchmarks/coder.py            2 minutes; the first call also trains (coder_streams.py)

Counted are index streams alone, a matrix at a time, codebooks left out everywhere: ours with its two
bytes of plan; our own model's ideal length; the entropy of independent weights; the same where the
scales of rows and columns are known for nothing; Han's Huffman (gaps
of 5 bits with fillers for dense layers, 8 for convolutions, values and gaps with a Huffman table
each); NNCodec 2.1.3's CABAC (WALNUT_NNCODEC names its compiled deepCABAC.so; its licence grants no
patent rights, so it is compared with and never depended on); xz -9e and zstd -19 of one byte a
weight and of packed bits, the smaller. Throughput is in million weights a second of CPU time, the
best of up to three. Prints, and writes benchmarks/results/coder.json.
"""

from __future__ import annotations

import importlib.util
import lzma
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

import coder_streams
import record
from walnut.codec import huffman, integers, mixing, tensors
from walnut.codec.stream import Reader

SEED = 0
Coder = Callable[[np.ndarray, bool], bytes]


def whole(w: Tensor) -> np.ndarray:
    """Return a shared weight as a matrix of integers: its values' ranks, signed, zero for zero."""
    words = tensors._to_words(w)
    few = np.unique(words, return_inverse=True)
    _, ranks = integers._book(w.dtype, few, lambda book: b"")
    return ranks.reshape(integers.matrix_shape(tuple(w.shape)))


def entropy(k: np.ndarray) -> float:
    """Return the bytes of independent weights with these counts."""
    counts = np.unique(k, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def oracle(k: np.ndarray, classes: int = 16) -> float:
    """Return the bytes of weights whose filter's and input's mean magnitudes are known for nothing.

    Weights are sorted into classes by the product of the two means over the whole matrix, itself
    included, and each class costs its entropy; neither means nor histograms are counted. No decoder
    has these, so a model of scales that adapts cannot be expected below it.
    """
    size = np.abs(k).astype(np.float64)
    product = size.mean(1, keepdims=True) * size.mean(0, keepdims=True)
    edges = np.quantile(product, np.arange(1, classes) / classes)
    place = np.searchsorted(edges, product.reshape(-1))
    return sum(entropy(k.reshape(-1)[place == c]) for c in np.unique(place))


def han(k: np.ndarray, convolution: bool) -> int:
    """Return the bytes of gaps and values, each with its Huffman table (Han et al. 2016)."""
    flat = k.reshape(-1)
    places = np.flatnonzero(flat)
    skip = (1 << (8 if convolution else 5)) - 1
    gaps = np.diff(places, prepend=-1) - 1
    counts = np.bincount(gaps % (skip + 1), minlength=skip + 1)
    counts[skip] += (gaps // (skip + 1)).sum()  # a filler: the widest gap, and a zero for value
    values = flat[places] - flat.min()
    of_values = np.bincount(values)
    of_values[-flat.min()] += (gaps // (skip + 1)).sum()
    return huffman.size(counts) + huffman.size(of_values)


def nncodec() -> Any:
    """Return NNCodec's compiled coder, or None where it is not built."""
    path = os.environ.get("WALNUT_NNCODEC", "")
    if not path:
        return None
    spec = importlib.util.spec_from_file_location("deepCABAC", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cabac(k: np.ndarray, module: Any) -> bytes:
    """Return NNCodec's stream: its standard settings, empty rows skipped."""
    off = [module.HdspMode.AlwaysOff, np.array((0, 0), np.int8)]
    skipped = (~k.any(1)).astype(np.int32)
    encoder = module.Encoder()
    encoder.initCtxModels(10, 1)
    encoder.encodeLayer(np.ascontiguousarray(k), 0, 0, 1, 0, 1, skipped, *off, 0, 0)
    return bytes(encoder.finish())


def cabac_back(data: bytes, shape: tuple[int, ...], module: Any) -> np.ndarray:
    """Return what NNCodec's decoder makes of a stream."""
    off = [module.HdspMode.AlwaysOff, np.array((0, 0), np.int8)]
    decoder, out = module.Decoder(), np.zeros(shape, np.int32)
    stream = np.frombuffer(data, np.uint8)
    decoder.setStream(stream)
    decoder.initCtxModels(10)
    decoder.decodeLayer(out, 0, 0, 1, 0, *off, 0, 0)
    return out


def packed(k: np.ndarray) -> list[bytes]:
    """Return the indices as one byte a weight, and as packed bits."""
    index = (k.reshape(-1) - k.min()).astype(np.uint8)
    bits = max(int(index.max()).bit_length(), 1)
    dense = np.packbits((index[:, None] >> np.arange(bits - 1, -1, -1)) & 1)
    return [index.tobytes(), dense.tobytes()]


def fastest(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the shortest of up to three CPU times in seconds, and what was returned."""
    seconds, out = [], None
    while len(seconds) < 3 and sum(seconds) < 0.3:
        start = time.process_time()
        out = work()
        seconds.append(time.process_time() - start)
    return min(seconds), out


def measure(weights: dict[str, Tensor], module: Any) -> dict[str, Any]:
    """Return bytes by each coder, and the seconds of ours, xz, zstd and NNCodec."""
    total: dict[str, float] = {}
    seconds: dict[str, float] = {}

    def add(where: dict[str, float], name: str, value: float) -> None:
        where[name] = where.get(name, 0) + value

    for w in weights.values():
        k = whole(w)
        plan = integers.best_plan(k, tuple(w.shape))
        taken, ours = fastest(lambda k=k, plan=plan: mixing.encode(k, plan))
        add(seconds, "ours encode", taken)
        taken, back = fastest(lambda k=k, p=plan, d=ours: mixing.decode(Reader(d), k.shape, p))
        assert np.array_equal(back, k)
        add(seconds, "ours decode", taken)
        add(total, "ours", len(ours) + 2)
        add(total, "ideal", mixing.measure(k.copy(), plan))
        add(total, "entropy", entropy(k))
        add(total, "oracle", oracle(k))
        add(total, "han_huffman", han(k, w.ndim == 4))
        raw = packed(k)
        for name, squeeze, swell in general():
            taken, best = fastest(lambda raw=raw, f=squeeze: min(map(f, raw), key=len))
            add(seconds, f"{name} encode", taken / len(raw))
            add(seconds, f"{name} decode", fastest(lambda f=swell, d=best: f(d))[0])
            add(total, name, len(best))
        if module is not None:
            taken, theirs = fastest(lambda k=k: cabac(k, module))
            add(seconds, "nncodec encode", taken)
            add(total, "nncodec", len(theirs))
            taken, back = fastest(lambda k=k, d=theirs: cabac_back(d, k.shape, module))
            assert np.array_equal(back, k)
            add(seconds, "nncodec decode", taken)
    count = sum(w.numel() for w in weights.values())
    row: dict[str, Any] = {"weights": count, "bytes": {k: round(v) for k, v in total.items()}}
    row["over_ideal"] = round(total["ours"] / total["ideal"] - 1, 5)
    for name in ("entropy", "oracle", "han_huffman", "nncodec", "xz", "zstd"):
        if name in total:
            row[f"below_{name}"] = round(1 - total["ours"] / total[name], 4)
    row["million_per_s"] = {name: round(count / s / 1e6, 2) for name, s in seconds.items()}
    return row


def general() -> list[tuple[str, Callable[[bytes], bytes], Callable[[bytes], bytes]]]:
    """Return the general compressors: name, squeeze, and swell."""
    return [
        (
            "xz",
            lambda d: lzma.compress(d, preset=9 | lzma.PRESET_EXTREME),
            lzma.decompress,
        ),
        (
            "zstd",
            zstandard.ZstdCompressor(level=19).compress,
            zstandard.ZstdDecompressor().decompress,
        ),
    ]


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    module = nncodec()
    rows = []
    for net, by_density in coder_streams.streams().items():
        for density, weights in by_density.items():
            rows.append({"net": net, "density": density, **measure(weights, module)})
            print(rows[-1], flush=True)
    record.write("coder", SEED, {"nncodec": "2.1.3" if module else "not built", "rows": rows})


if __name__ == "__main__":
    main()
