"""Tensors as bytes: identical bits back, in every dtype and layout, and near the entropy."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from walnut.codec import ANS, FIXED, HUFFMAN, integers, tensors
from walnut.codec.stream import Reader
from walnut.core.errors import WalnutError

STATIC = (FIXED, HUFFMAN, ANS)
ALL_DTYPES = list(tensors.DTYPES.values())


def raw(tensor: Tensor) -> bytes:
    flat = tensor.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def back(tensor: Tensor, **coders: tuple) -> tuple[int, str]:
    """Round-trip a tensor; return the length and the layout."""
    written = tensors.encode(tensor, **coders)
    reader = Reader(written)
    found, layout = tensors.decode(reader, tensor.dtype, tuple(tensor.shape))
    reader.done()
    assert found.shape == tensor.shape
    assert found.dtype == tensor.dtype
    assert raw(found) == raw(tensor)
    return len(written), layout


def pruned(shape: tuple[int, ...], density: float, levels: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(levels, generator=g)[torch.randint(levels, shape, generator=g)]
    return torch.where(torch.rand(shape, generator=g) < density, values, 0.0)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (7,), (300,), (20, 5, 3, 3)])
def test_random_bits_of_every_dtype_come_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape)) * torch.empty((), dtype=dtype).element_size()
    bits = np.random.default_rng(len(shape)).integers(0, 256, count).astype(np.uint8)
    if dtype == torch.bool:
        bits = bits % 2
    tensor = torch.from_numpy(bits).view(dtype).reshape(shape) if count else torch.empty(shape)
    back(tensor.to(dtype))


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=100), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_any_float_bits_come_back(bits: list[int], repeat: int) -> None:
    words = torch.tensor(bits * (1 + repeat), dtype=torch.int32)
    back(words.view(torch.float32))


@given(
    st.sampled_from([(64,), (16, 16), (8, 3, 3, 3), (4, 100), (1, 70), (300, 1)]),
    st.floats(0.0, 1.0),
    st.sampled_from([1, 2, 15, 300]),
    st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_pruned_and_shared_tensors_come_back(
    shape: tuple[int, ...], density: float, levels: int, seed: int
) -> None:
    tensor = pruned(shape, density, levels, seed)
    back(tensor)
    back(tensor, coders=(FIXED, HUFFMAN))
    back(tensor.bfloat16())


def test_nan_payloads_and_minus_zero_come_back() -> None:
    bits = [0x7FC00000, 0x7FC00001, -0x3FFFFF, -0x80000000, 0, 0x7F800000, 1]
    back(torch.tensor(bits * 40, dtype=torch.int32).view(torch.float32))
    sparse = torch.zeros(40, 50)
    sparse[3] = -0.0
    sparse[7, 1] = float("nan")
    back(sparse)


def test_strided_and_transposed_tensors_come_back() -> None:
    base = pruned((40, 60), 0.1, 9)
    for tensor in (base.t(), base[::2, 1::3], base[0].expand(5, 60)):
        back(tensor)


@pytest.mark.parametrize("density", [0.5, 0.25, 0.08, 0.04, 0.02])
def test_a_uniform_mask_costs_its_entropy(density: float) -> None:
    tensor = pruned((500, 800), density, 15)
    p = float(tensor.count_nonzero()) / tensor.numel()
    mask_bits = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    limit = tensor.numel() * (mask_bits + p * np.log2(15)) / 8
    size, _ = back(tensor)
    assert size <= 1.005 * limit + 110  # 15 centroids of 4 bytes, tables
    plain, _ = back(tensor, coders=(FIXED, HUFFMAN))
    assert plain <= 1.03 * limit + 150


def test_dead_rows_and_columns_cost_next_to_nothing() -> None:
    small = pruned((150, 200), 0.1, 15)
    large = torch.zeros(300, 784)
    rows = torch.randperm(300, generator=torch.Generator().manual_seed(1))[:150].sort().values
    columns = torch.randperm(784, generator=torch.Generator().manual_seed(2))[:200].sort().values
    large[rows[:, None], columns] = small
    size, layout = back(large)
    assert layout in ("mixed, codebook", "sparse, codebook")
    assert size < back(small)[0] + 300 / 8 + 784 / 8 + 20
    assert back(large, coders=(FIXED, HUFFMAN))[0] < 1.1 * size


def test_uneven_rows_are_cheaper_than_their_mean_density() -> None:
    g = torch.Generator().manual_seed(0)
    density = torch.linspace(0.01, 0.4, 200)[:, None]
    mask = torch.rand(200, 400, generator=g) < density
    shuffled = mask.flatten()[torch.randperm(80_000, generator=g)].view(200, 400)
    assert back(mask.float())[0] < 0.93 * back(shuffled.float())[0]


@pytest.mark.parametrize(
    ("tensor", "layout"),
    [
        (torch.arange(10, dtype=torch.float32).sin(), "raw"),
        (torch.randn(4000, generator=torch.Generator().manual_seed(0)), "planes"),
        (torch.ones(1000), "planes"),
        (torch.tensor([1.1, -2.3, 0.7, 4.9]).repeat(500), "codebook"),
        (torch.cat([torch.zeros(30, 40), torch.randn(2, 40)]), "sparse, planes"),
    ],
)
def test_the_layout_fits_the_values(tensor: Tensor, layout: str) -> None:
    assert back(tensor, coders=STATIC)[1] == layout


FORMS = [
    (torch.randint(-7, 8, (40, 60)).float() * 0.037, "grid"),
    (torch.randint(-99, 99, (9, 60)).float() * torch.rand(9, 1), "row grid"),
    (torch.randn(3)[torch.randint(3, (50, 60))], "codebook"),
    (torch.randn(50).half().float(), "half"),
    ((1e9 * torch.randn(50)).bfloat16().float(), "brain"),
    (torch.randn(60), "bits"),
    (torch.randn(60).half(), "bits"),
    (torch.randint(-9, 9, (200,)), "integers"),
    (torch.tensor([[-128, 127], [0, 1]], dtype=torch.int8), "integers"),
    (torch.tensor([[0, 255], [3, 1]], dtype=torch.uint8), "integers"),
]


@pytest.mark.parametrize(("tensor", "form"), FORMS, ids=[form for _, form in FORMS])
def test_each_form_of_mixed_numbers_comes_back(tensor: Tensor, form: str) -> None:
    words = tensors._to_words(tensor)
    book, shape = partial(tensors._book, dtype=tensor.dtype, coders=STATIC), tuple(tensor.shape)
    few = tensors._few_distinct(words)
    found = {}
    for written in integers.encode(words, tensor.dtype, shape, few, book):
        reader = Reader(written)
        back, layout = tensors.decode(reader, tensor.dtype, shape)
        reader.done()
        assert raw(back) == raw(tensor)
        found[layout] = len(written)
    assert f"mixed, {form}" in found


def test_random_floats_shrink_by_their_exponents_and_nothing_else() -> None:
    size, _ = back(torch.randn(100_000, generator=torch.Generator().manual_seed(0)))
    assert 0.80 * 400_000 < size < 0.86 * 400_000  # 24 bits of sign and mantissa, ~2.5 of exponent


@pytest.mark.parametrize("kind", ["sparse", "dtype"])
def test_what_cannot_be_held_is_refused(kind: str) -> None:
    tensor = torch.eye(3).to_sparse() if kind == "sparse" else torch.ones(2, dtype=torch.complex128)
    with pytest.raises(WalnutError, match="dense tensors of"):
        tensors.encode(tensor)


def test_sorted_values_cost_less_than_shuffled_ones() -> None:
    g = torch.Generator().manual_seed(0)
    w = torch.randn(200, generator=g).sort().values.half().float()
    written = tensors.encode(w)
    found, layout = tensors.decode(Reader(written), w.dtype, (200,))
    assert torch.equal(found, w)
    assert layout == "mixed, half"
    shuffled = tensors.encode(w[torch.randperm(200, generator=g)])
    # log2(200!) / 200 = 6.2 bits a number are the order's; a byte is not worth less than one of them
    assert len(shuffled) - len(written) > 200 * 3 / 8


def test_differences_that_leave_the_numbers_are_refused() -> None:
    w = torch.tensor([2.0, 1.0, 3e38, -3e38, 1e38])
    written = bytearray(tensors.encode(torch.arange(40).float() / 7))
    for value in range(256):
        written[3] = value
        try:
            found, _ = tensors.decode(Reader(bytes(written)), torch.float32, (40,))
        except WalnutError:
            continue
        assert found.shape == (40,)
    assert torch.equal(tensors.decode(Reader(tensors.encode(w)), w.dtype, (5,))[0], w)
