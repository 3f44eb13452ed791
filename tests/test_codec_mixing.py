"""Mixed contexts: round trips, an ideal length that is met, and streams made to mislead."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from walnut.codec import integers, kernel, mixing, tensors
from walnut.codec.mixing import Plan
from walnut.codec.stream import Reader
from walnut.core.compiled import PATIENCE, Lazy
from walnut.core.errors import WalnutError


def back(k: np.ndarray, plan: Plan) -> bytes:
    """Round-trip a matrix with other bytes after it; return the stream."""
    written = mixing.encode(k.copy(), plan)
    for after in (b"", b"\x00" * 5, b"\xff" * 5):
        reader = Reader(written + after)
        assert np.array_equal(mixing.decode(reader, k.shape, plan), k)
        assert reader.at == len(written)  # it knows itself where it ends
    return written


def planned(k: np.ndarray, near: int = 0, period: int = 0) -> Plan:
    return integers.plan_of(k.reshape(-1), (near, period or k.shape[1]))


def sparse(rows: int, columns: int, density: float, most: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    k = rng.integers(1, most + 1, (rows, columns)) * rng.choice([-1, 1], (rows, columns))
    return (k * (rng.random((rows, columns)) < density)).astype(np.int32)


@given(
    st.integers(1, 12),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    st.sampled_from([1, 2, 9, 1000, 2**31 - 1]),
    st.integers(0, 40),
    st.integers(1, 40),
)
@settings(max_examples=80, deadline=None)
def test_matrices_come_back(
    rows: int, columns: int, density: float, most: int, near: int, period: int
) -> None:
    k = sparse(rows, columns, density, most, rows + columns)
    back(k, planned(k, min(near, columns), min(period, columns)))


def test_the_stream_is_as_long_as_the_model_says() -> None:
    k = sparse(200, 300, 0.1, 5)
    plan = planned(k, 20, 20)
    ideal = mixing.measure(k.copy(), plan)
    assert ideal - 1 <= len(back(k, plan)) <= 1.001 * ideal + 3


def test_random_numbers_cost_their_entropy_and_little_to_learn() -> None:
    k = sparse(200, 500, 0.05, 2)
    n, p = k.size, float((k != 0).mean())
    limit = (n * -(p * math.log2(p) + (1 - p) * math.log2(1 - p)) + n * p * 2) / 8
    assert len(back(k, planned(k))) < 1.015 * limit


def test_structure_is_found() -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.random((100, 1)) ** 4, rng.random((1, 400)) ** 4
    k = (rng.random((100, 400)) < rows * columns).astype(np.int32)
    p = float(k.mean())
    iid = k.size * -(p * math.log2(p) + (1 - p) * math.log2(1 - p)) / 8
    product = rows * columns
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = product * np.log2(product) + (1 - product) * np.log2(1 - product)
    limit = -np.nan_to_num(terms).sum() / 8
    assert len(back(k, planned(k))) < limit + 0.35 * (iid - limit)


def test_the_pixel_above_is_found() -> None:
    rng = np.random.default_rng(0)
    blobs = np.repeat(np.repeat(rng.random((60, 7, 7)) < 0.15, 4, 1), 4, 2)
    k = blobs.reshape(60, 784).astype(np.int32)
    with_stride = len(back(k, planned(k, 28, 28)))
    assert with_stride < 0.6 * len(back(k, planned(k)))
    plan = integers.best_plan(k, (60, 784))
    assert plan.near == 28


@pytest.mark.parametrize("value", [0, 1, -5])
def test_one_value_everywhere_costs_next_to_nothing(value: int) -> None:
    k = np.full((400, 500), value, np.int32)
    assert len(back(k, planned(k))) <= 90  # of 200,000 numbers, four decisions each


def test_dead_rows_and_columns_of_a_huge_matrix_cost_next_to_nothing() -> None:
    k = np.zeros((3000, 3000), np.int32)
    k[1234, 567] = -3
    assert len(back(k, planned(k))) < 24


def test_a_flipped_byte_is_refused_or_decodes_to_numbers_in_range() -> None:
    k = sparse(30, 50, 0.2, 6)
    plan = planned(k, 5, 10)
    written = back(k, plan)
    for place in range(len(written)):
        for value in (0, 255, written[place] ^ 1, written[place] ^ 128):
            changed = bytearray(written)
            changed[place] = value
            reader = Reader(bytes(changed))
            try:
                found = mixing.decode(reader, k.shape, plan)
            except WalnutError:
                continue
            assert np.abs(found).max() < 2 ** (plan.depth + 1)
            assert reader.at <= len(changed)


def test_a_cut_stream_is_refused_and_soon() -> None:
    k = sparse(100, 200, 0.5, 100)
    plan = planned(k)
    written = back(k, plan)
    for length in (0, 1, 5, len(written) // 2):
        with pytest.raises(WalnutError, match="cut off"):
            mixing.decode(Reader(written[:length]), k.shape, plan)


@pytest.mark.parametrize(
    "change",
    [{"near": 51}, {"near": -1}, {"period": 0}, {"period": 51}, {"depth": 32}],
)
def test_plans_that_cannot_be_are_refused(change: dict[str, int]) -> None:
    k = sparse(30, 50, 0.2, 6)
    with pytest.raises(WalnutError):
        mixing.decode(Reader(bytes(100)), k.shape, replace(planned(k), **change))


def test_a_matrix_too_wide_for_its_contexts_is_refused() -> None:
    assert not mixing.fits(1, 1 << 20)
    with pytest.raises(WalnutError):
        mixing.decode(Reader(bytes(100)), (1, 1 << 20), Plan(0, 1, True, True, 3))


def test_every_byte_of_a_tensor_may_be_wrong() -> None:
    """Any first bytes, any form: an error of ours, or a tensor of the right shape."""
    w = torch.randn(5)[torch.randint(5, (12, 20), generator=torch.Generator().manual_seed(0))]
    w = torch.where(torch.rand(12, 20, generator=torch.Generator().manual_seed(1)) < 0.3, w, 0.0)
    written = tensors.encode(w)
    rng = np.random.default_rng(0)
    for place in range(len(written)):
        for value in (*rng.integers(0, 256, 4).tolist(), written[place] ^ 16):
            changed = bytearray(written)
            changed[place] = value
            for dtype in (torch.float32, torch.int8) if place < 3 else (torch.float32,):
                try:
                    found, _ = tensors.decode(Reader(bytes(changed)), dtype, (12, 20))
                except WalnutError:
                    continue
                assert found.shape == w.shape


def test_plain_python_and_machine_code_write_the_same_bytes() -> None:
    k = sparse(30, 40, 0.3, 200)
    plan = planned(k, 5, 20)
    loop = kernel.matrix
    assert isinstance(loop, Lazy)
    assert callable(loop.machine)  # from here on it is used
    fast = mixing.encode(k.copy(), plan)
    del loop.__dict__["machine"]
    loop._asked = 0
    assert not loop.pays(30 * 40)
    assert mixing.encode(k.copy(), plan) == fast
    assert np.array_equal(mixing.decode(Reader(fast), k.shape, plan), k)
    assert loop.pays(PATIENCE)


def test_the_tables_are_what_their_formulas_say() -> None:
    table = mixing.tables()
    assert table.dtype == np.int32
    x = np.arange(-kernel.STRETCH, kernel.STRETCH + 1) / 256
    squash = table[: 2 * kernel.STRETCH + 1]
    assert np.abs(squash - np.clip(65536 / (1 + np.exp(-x)), 1, 65535)).max() <= 1
    for start, (s, prior) in ((kernel.FIRST, (1.5, 1.25)), (kernel.LATER, (1, 5))):
        told = np.arange(kernel.RATES) / 8
        found = table[start : start + kernel.RATES] / 65536
        assert np.abs(found - s / (prior + told)).max() < 2**-16
    assert table[kernel.LEVEL : kernel.LEVEL + 9].tolist() == [0, 0, 2, 3, 4, 4, 5, 5, 6]


def test_the_same_numbers_give_the_same_bytes() -> None:
    # Written once, on another day: the format's tables, contexts and learning may not drift.
    k = (np.arange(40 * 60) * 7919 % 31 % 9 - 4).reshape(40, 60).astype(np.int32)
    k[(np.arange(40 * 60) * 104729 % 17 > 5).reshape(40, 60)] = 0
    written = back(k, planned(k, 6, 12))
    assert written == back(k, planned(k, 6, 12))
