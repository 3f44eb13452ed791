"""Entropy coders: round trips, and lengths held against the entropy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walnut.codec import ANS, FIXED, HUFFMAN, MIXED, ans, huffman, symbols
from walnut.codec.stream import Reader, inflate, short, varint
from walnut.core.errors import WalnutError

CODERS = (FIXED, HUFFMAN, ANS)
EVERY = (*CODERS, MIXED)


def geometric(n: int, alphabet: int, ratio: float, seed: int = 0) -> np.ndarray:
    p = ratio ** np.arange(alphabet)
    return np.random.default_rng(seed).choice(alphabet, n, p=p / p.sum()).astype(np.uint16)


def entropy_bits(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum() * counts.sum())


@st.composite
def arrays(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    alphabet = draw(st.sampled_from([1, 2, 3, 16, 17, 255, 256, 4096]))
    values = st.lists(st.integers(0, alphabet - 1), max_size=300)
    return np.array(draw(values), np.uint16), alphabet


@given(arrays())
@settings(max_examples=150, deadline=None)
def test_symbols_come_back(case: tuple[np.ndarray, int]) -> None:
    data, alphabet = case
    written = symbols.encode(data, alphabet)
    reader = Reader(written)
    assert symbols.decode(reader, len(data), alphabet).tolist() == data.tolist()
    reader.done()


@pytest.mark.parametrize("coder", EVERY, ids=lambda c: c.name)
@pytest.mark.parametrize("n", [2, 9, 1000, 70_001])
@pytest.mark.parametrize(("alphabet", "ratio"), [(2, 0.02), (15, 0.7), (256, 0.98), (4096, 0.999)])
def test_each_coder_comes_back(coder: symbols.Coder, n: int, alphabet: int, ratio: float) -> None:
    data = geometric(n, alphabet, ratio)
    data[:2] = 0, 1
    counts = symbols.histogram(data, alphabet)
    written = coder.encode(data, counts)
    reader = Reader(written)
    assert np.array_equal(coder.decode(reader, n, alphabet), data)
    reader.done()
    slack = 8 if coder is not MIXED or n > 1 << 16 else 20 + 0.3 * len(written)
    assert n > 1 << 16 or abs(coder.size(counts) - len(written)) <= slack


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.7, 0.9, 0.99])
def test_huffman_is_between_entropy_and_entropy_plus_one_bit(ratio: float) -> None:
    data = geometric(50_000, 64, ratio)
    counts = symbols.histogram(data, 64)
    bits = int((counts * huffman.lengths(counts).astype(int)).sum())
    assert entropy_bits(counts) <= bits < entropy_bits(counts) + len(data)


def test_huffman_code_is_optimal_on_a_textbook_case() -> None:
    # Cover & Thomas, Elements of Information Theory, example 5.6.1: lengths 2, 2, 2, 3, 3.
    lengths = huffman.lengths(np.array([25, 25, 20, 15, 15]))
    assert sorted(lengths.tolist()) == [2, 2, 2, 3, 3]


def test_huffman_codes_never_exceed_16_bits() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    counts = np.array(fibonacci)
    lengths = huffman.lengths(counts)
    assert lengths.max() <= 16
    assert (0.5 ** lengths.astype(float)).sum() == 1.0
    bits = float((counts * lengths.astype(int)).sum())
    golden = (1 + 5**0.5) / 2
    assert bits < 1.001 * golden**2 * counts.sum()  # golden²: the mean length without a limit


@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.7, 0.95])
def test_ans_is_within_a_thousandth_of_entropy(ratio: float) -> None:
    data = geometric(400_000, 32, ratio)
    counts = symbols.histogram(data, 32)
    size = 8 * len(ANS.encode(data, counts))
    limit = entropy_bits(counts)
    assert limit - 64 <= size <= 1.001 * limit + 8 * 48


def test_the_smallest_coder_is_taken() -> None:
    flat = np.random.default_rng(0).integers(0, 16, 5000).astype(np.uint16)
    for data in (flat, geometric(30, 16, 0.8), geometric(20_000, 16, 0.6), flat * 0):
        counts = symbols.histogram(data, 16)
        sizes = [len(c.encode(data, counts)) for c in CODERS if counts.max() < len(data)]
        assert len(symbols.encode(data, 16)) <= 1 + min(sizes, default=1) + 8


def test_only_the_coders_asked_for_are_used() -> None:
    data = geometric(20_000, 16, 0.6)
    reader = Reader(symbols.encode(data, 16, (FIXED, HUFFMAN)))
    symbols.decode(reader, len(data), 16)
    assert reader.met() == ["huffman"]


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=300).filter(any))
@settings(max_examples=100, deadline=None)
def test_frequencies_sum_to_the_total_and_miss_no_symbol(counts: list[int]) -> None:
    table = np.array(counts)
    found = ans.frequencies(ans.histogram_codes(table))
    assert found.sum() == ans.TOTAL
    assert np.array_equal(found > 0, table > 0)


@given(st.integers(0, 2**60))
def test_varints_come_back(number: int) -> None:
    reader = Reader(varint(number))
    assert reader.varint(2**60) == number
    reader.done()


@given(st.binary(max_size=200))
def test_short_tables_come_back(data: bytes) -> None:
    reader = Reader(short(data))
    assert reader.short(len(data)) == data
    reader.done()


def test_inflating_stops_at_the_limit() -> None:
    bomb = short(bytes(1_000_000))[2:]
    with pytest.raises(WalnutError, match="not as long"):
        inflate(bomb, 1000)


@given(st.binary(min_size=1, max_size=60), st.integers(0, 400), st.sampled_from([2, 16, 256, 4096]))
@settings(max_examples=400, deadline=None)
def test_rubbish_is_refused_or_decodes_to_symbols(data: bytes, count: int, alphabet: int) -> None:
    reader = Reader(data)
    try:
        found = symbols.decode(reader, count, alphabet)
    except WalnutError:
        return
    assert found.shape == (count,)
    assert count == 0 or found.max() < alphabet


def test_an_alphabet_too_large_is_refused() -> None:
    with pytest.raises(WalnutError, match="4096"):
        symbols.encode(np.zeros(3, np.uint16), 5000)
