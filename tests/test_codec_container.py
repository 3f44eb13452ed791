"""The .walnut file: round trips, and files made to mislead."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from walnut import codec
from walnut.codec import container, header
from walnut.codec.stream import deflate, varint
from walnut.core.errors import WalnutError
from walnut.core.types import Packed

DESCRIPTION = {"net": "lenet-300-100", "arguments": {"shape": [1, 8, 8], "classes": 10}}


def small_state() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    book = torch.randn(7, generator=g)
    shared = book[torch.randint(7, (24, 64), generator=g)]
    live = (torch.rand(24, 1, generator=g) < 0.6) & (torch.rand(64, generator=g) < 0.4)
    return {
        "fc1.weight": torch.where(live & (torch.rand(24, 64, generator=g) < 0.4), shared, 0.0),
        "fc2.weight": torch.where(torch.rand(40, 100, generator=g) < 0.1, book[:1], 0.0),
        "fc1.bias": torch.randn(24, generator=g),
        "conv.weight": book[torch.randint(7, (6, 4, 3, 3), generator=g)],
        "bn.running_mean": torch.zeros(24),
        "bn.num_batches_tracked": torch.tensor(1234),
        "mask": torch.rand(5, 20, generator=g) < 0.3,
    }


def packed(state: dict[str, Tensor]) -> dict[str, Packed]:
    return {name: Packed("tensor", {"w": t}) for name, t in state.items()}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.walnut"
    codec.write(path, DESCRIPTION, packed(small_state()))
    return path


def sealed(body: bytes) -> bytes:
    return body + hashlib.blake2b(body, digest_size=4).digest()


START = container.MAGIC + bytes([container.VERSION])


def with_text(text: bytes, body: bytes = b"") -> bytes:
    squeezed = deflate(text, header._dictionary())
    return sealed(START + varint(len(squeezed)) + squeezed + body)


def with_header(what: object, body: bytes = b"") -> bytes:
    return with_text(json.dumps(what).encode(), body)


def test_everything_comes_back(small: Path) -> None:
    description, records = codec.read(small)
    assert description == DESCRIPTION
    assert list(records) == list(small_state())
    for name, tensor in small_state().items():
        assert records[name].kind == "tensor"
        assert torch.equal(records[name].tensors["w"], tensor)
        assert records[name].tensors["w"].dtype == tensor.dtype


def test_size_is_the_length_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.walnut"
    assert codec.write(path, DESCRIPTION, packed(small_state())) == os.path.getsize(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.walnut"]


def test_records_of_other_kinds_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.walnut"
    parts = {"u": torch.randn(4, 2), "v": torch.randn(2, 5)}
    codec.write(path, {}, {"fc.weight": Packed("low_rank", parts, {"rank": 2})})
    _, records = codec.read(path)
    assert records["fc.weight"].kind == "low_rank"
    assert records["fc.weight"].arguments == {"rank": 2}
    assert all(torch.equal(records["fc.weight"].tensors[k], parts[k]) for k in parts)
    assert [row["name"] for row in codec.inspect(path)] == ["fc.weight/u", "fc.weight/v"]


def test_an_empty_file_of_no_tensors_comes_back(tmp_path: Path) -> None:
    codec.write(tmp_path / "a.walnut", {}, {})
    assert codec.read(tmp_path / "a.walnut") == ({}, {})


def test_inspect_accounts_for_every_tensor(small: Path) -> None:
    rows = {row["name"]: row for row in codec.inspect(small)}
    state = small_state()
    assert list(rows) == list(state)
    for name, row in rows.items():
        assert row["shape"] == list(state[name].shape)
        assert row["weights"] == state[name].numel()
        assert row["nonzeros"] == int(state[name].count_nonzero())
        assert row["distinct"] == len(state[name].unique())
        assert row["bits"] == 8 * row["bytes"] / row["weights"]
    assert rows["fc1.weight"]["layout"] == "mixed, codebook"
    assert rows["fc1.weight"]["coder"] == "mixed"
    total = sum(row["bytes"] for row in rows.values())
    assert 0 < os.path.getsize(small) - total < 150  # the header


def test_peek_decodes_no_tensor(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container.tensors, "decode", None)
    description, shapes = codec.peek(small)
    assert description == DESCRIPTION
    assert shapes == {n: (tuple(t.shape), t.dtype) for n, t in small_state().items()}


def test_what_the_network_does_not_expect_is_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {n: (tuple(t.shape), t.dtype) for n, t in small_state().items()}
    codec.read(small, expect=good)
    monkeypatch.setattr(container.tensors, "decode", None)  # refused before anything is decoded
    for expect, words in [
        (good | {"fc9.weight": ((1,), torch.float32)}, "lacks 'fc9.weight'"),
        ({k: v for k, v in good.items() if k != "mask"}, "holds 'mask'"),
        (good | {"mask": ((20, 5), torch.bool)}, r"'mask' is torch.bool \(5, 20\)"),
        (good | {"mask": ((5, 20), torch.uint8)}, "torch.uint8"),
    ]:
        with pytest.raises(WalnutError, match=words):
            codec.read(small, expect=expect)


def test_every_bit_flip_and_every_truncation_is_refused(small: Path) -> None:
    data = small.read_bytes()
    rng = np.random.default_rng(0)
    flips = rng.choice(8 * len(data), size=min(3000, 8 * len(data)), replace=False)
    assert len(flips) >= 2000
    hurt = small.with_name("hurt.walnut")

    def refused(content: bytes) -> None:
        hurt.write_bytes(content)
        with pytest.raises(WalnutError) as caught:
            codec.read(hurt)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(hurt))

    for flip in flips.tolist():
        changed = bytearray(data)
        changed[flip // 8] ^= 1 << flip % 8
        refused(bytes(changed))
    for length in range(len(data)):
        refused(data[:length])
    refused(data + b"\x00")
    refused(data + data)


def test_a_newer_version_says_so(small: Path) -> None:
    data = bytearray(small.read_bytes()[:-4])
    for version, words in ((container.VERSION + 1, "newer walnut"), (0, "early walnut")):
        data[len(container.MAGIC)] = version
        small.write_bytes(sealed(bytes(data)))
        with pytest.raises(WalnutError, match=words):
            codec.read(small)


def test_another_file_and_no_file_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.walnut").write_bytes(b"PK\x03\x04 a pickle in a zip")
    with pytest.raises(WalnutError, match=r"not a \.walnut file"):
        codec.read(tmp_path / "a.walnut")
    for missing in (tmp_path / "b.walnut", tmp_path):
        with pytest.raises(WalnutError, match="cannot be used"):
            codec.read(missing)


def test_trailing_bytes_under_a_good_checksum_are_refused(small: Path) -> None:
    small.write_bytes(sealed(small.read_bytes()[:-4] + b"\x00"))
    with pytest.raises(WalnutError, match="left over"):
        codec.read(small)


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with contextlib.suppress(WalnutError):
        work()
    return tracemalloc.get_traced_memory()[1] - before


def mutations(data: bytes, count: int) -> list[bytes]:
    """Return changed bodies: bytes overwritten, taken out, put in, swapped, cut off."""
    rng = np.random.default_rng(1)
    out = []
    for i in range(count):
        body = bytearray(data[:-4])
        for _ in range(int(rng.integers(1, 5))):
            at = int(rng.integers(len(container.MAGIC) + 1, len(body)))
            if i % 4 == 0:
                body[at:at] = rng.bytes(1)
            elif i % 4 == 1:
                del body[at]
            else:
                body[at] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
        out.append(sealed(bytes(body)))
    return out


def test_crafted_files_never_crash_hang_or_take_much_memory(small: Path) -> None:
    data = small.read_bytes()
    crafted = small.with_name("crafted.walnut")
    codec.read(small)
    tracemalloc.start()
    try:
        honest = peak_of(lambda: codec.read(small))
        start, slowest, largest = time.process_time(), 0.0, 0
        for content in mutations(data, 500):
            crafted.write_bytes(content)
            begin = time.process_time()
            largest = max(largest, peak_of(lambda: codec.read(crafted)))
            slowest = max(slowest, time.process_time() - begin)
    finally:
        tracemalloc.stop()
    assert largest <= 10 * honest
    assert slowest < 1.0
    assert time.process_time() - start < 60


@pytest.mark.parametrize(
    "coders",
    [codec.ALL, (codec.FIXED, codec.HUFFMAN), (codec.ANS,)],
    ids=["all", "huffman", "ans"],
)
def test_mutated_bodies_under_an_honest_header(small: Path, coders: tuple) -> None:
    """Mutations aimed at the records alone, where a deflated header does not catch them."""
    codec.write(small, DESCRIPTION, packed(small_state()), coders)
    data = small.read_bytes()
    squeezed = data[len(container.MAGIC) + 1]  # the header is below 16384 bytes: 2-byte length
    length = squeezed & 127 | data[len(container.MAGIC) + 2] << 7 if squeezed > 127 else squeezed
    first = len(container.MAGIC) + (3 if squeezed > 127 else 2) + length
    rng = np.random.default_rng(2)
    crafted = small.with_name("crafted.walnut")
    shapes = {n: (t.shape, t.dtype) for n, t in small_state().items()}
    read = 0
    for _ in range(400):
        body = bytearray(data[:-4])
        body[int(rng.integers(first, len(body)))] = int(rng.integers(256))
        crafted.write_bytes(sealed(bytes(body)))
        try:
            _, records = codec.read(crafted)
        except WalnutError:
            continue
        read += 1
        found = {n: (p.tensors["w"].shape, p.tensors["w"].dtype) for n, p in records.items()}
        assert found == shapes  # other values, but still what the header says
    assert 0 < read < 400


GOOD = {"description": {}, "records": [["a", "float32", [4]]]}


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"description": {}},
        {"records": []},
        GOOD | {"description": []},
        GOOD | {"records": [["a", "float32", [-4]]]},
        GOOD | {"records": [["a", "float32", [4.0]]]},
        GOOD | {"records": [["a", "float32", [True]]]},
        GOOD | {"records": [["a", "float32", [[4]]]]},
        GOOD | {"records": [["a", "float32", "4"]]},
        GOOD | {"records": [["a", "object", [4]]]},
        GOOD | {"records": [["a", ["float32"], [4]]]},
        GOOD | {"records": [["a"]]},
        GOOD | {"records": [[1, "float32", [4]]]},
        GOOD | {"records": ["abc"]},
        GOOD | {"records": [["a", "low_rank", {}, []]]},
        GOOD | {"records": [["a", "low_rank", [], {}]]},
        GOOD | {"records": [["a", "low_rank", {}, {"u": [4]}]]},
        GOOD | {"records": [["a", "float32", [2]], ["a", "float32", [2]]]},
        GOOD | {"records": [["a", "float32", [0, 1 << 39, 1 << 39]]]},
        GOOD | {"records": [["a", "uint8", [1 << 25, 1 << 25]]]},
        GOOD | {"records": [["a", "uint8", [1 << 40]]]},
        GOOD | {"records": [["a", "uint8", [1 << 30]]]},
        GOOD | {"records": [["a", "float32", [1] * 17]]},
    ],
)
def test_headers_that_cannot_be_are_refused(tmp_path: Path, header: object) -> None:
    path = tmp_path / "a.walnut"
    path.write_bytes(with_header(header, bytes([0]) + bytes(16)))
    with pytest.raises(WalnutError):
        codec.read(path)


@pytest.mark.parametrize("text", [b"{", b"[" * 100_000, b"9" * 10_000, b"\xff\xfe", b""])
def test_headers_that_are_no_json_are_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.walnut"
    path.write_bytes(with_text(text))
    with pytest.raises(WalnutError):
        codec.read(path)


def test_a_header_that_inflates_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.walnut"
    path.write_bytes(with_text(b" " * (1 << 25)))
    tracemalloc.start()
    try:
        assert peak_of(lambda: codec.read(path)) < 12 << 20
    finally:
        tracemalloc.stop()


def test_a_truth_value_of_two_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.walnut"
    header = {"description": {}, "records": [["a", "bool", [2]]]}
    path.write_bytes(with_header(header, bytes([0, 1, 2])))
    with pytest.raises(WalnutError, match="truth value"):
        codec.read(path)


def test_a_large_declared_size_needs_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.walnut"
    codec.write(path, {}, {"a": Packed("tensor", {"w": torch.zeros(1 << 20)})})
    with pytest.raises(WalnutError, match="limit"):
        codec.read(path, limit=1 << 20)
    assert codec.read(path)[1]["a"].tensors["w"].numel() == 1 << 20


@pytest.mark.parametrize("description", [{"a": torch.ones(1)}, {"a": float("nan")}, {"a": {1, 2}}])
def test_a_description_that_is_no_json_is_refused(tmp_path: Path, description: dict) -> None:
    with pytest.raises(WalnutError, match="plain JSON"):
        codec.write(tmp_path / "a.walnut", description, {})
    assert not list(tmp_path.iterdir())


def test_a_panic_in_the_coder_is_an_error_of_ours(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        pass

    def panic(*_: object, **__: object) -> None:
        raise Panic

    codec.write(small, DESCRIPTION, packed(small_state()), (codec.ANS,))
    monkeypatch.setattr("constriction.stream.stack.AnsCoder", panic)
    with pytest.raises(WalnutError, match="does not decode"):
        codec.read(small)


def test_a_grid_is_expected_as_the_weight_it_stands_for(tmp_path: Path) -> None:
    path = tmp_path / "a.walnut"
    k = torch.randint(-7, 8, (30, 40), generator=torch.Generator().manual_seed(0))
    parts = {"k": k.to(torch.int8), "scale": torch.rand(30) + 0.1}
    codec.write(path, {}, {"fc.weight": Packed("grid", parts)})
    expect = {"fc.weight": ((30, 40), torch.float32)}
    _, records = codec.read(path, expect)
    assert all(torch.equal(records["fc.weight"].tensors[name], t) for name, t in parts.items())
    assert codec.peek(path)[1] == expect
    with pytest.raises(WalnutError, match="float32"):
        codec.read(path, {"fc.weight": ((30, 40), torch.int8)})
    (row,) = codec.inspect(path)
    assert row["name"] == "fc.weight"
    assert row["bytes"] > 120
    assert row["nonzeros"] == int(k.count_nonzero())
    with pytest.raises(WalnutError, match="limit"):
        codec.read(path, limit=1200)  # the weight is four times its whole numbers


def test_a_disk_that_fills_leaves_the_old_file(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WalnutError, match=r"No space left on device.*untouched"):
        codec.write(small, {}, packed({"a": torch.randn(100)}))
    monkeypatch.undo()
    assert small.read_bytes() == before
    assert [path.name for path in small.parent.iterdir()] == [small.name]


def lenet_5(value: float) -> dict[str, Tensor]:
    shapes = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.full(shape, value)
        state[f"{name}.bias"] = torch.full(shape[:1], value)
    return state


def test_the_fixed_cost_of_a_lenet_5_is_below_80_bytes(tmp_path: Path) -> None:
    arguments = {"shape": [1, 28, 28], "classes": 10, "mean": None, "std": None}
    description = {"net": "lenet-5", "arguments": arguments}
    path = tmp_path / "a.walnut"
    size = codec.write(path, description, packed(lenet_5(0.0)))
    assert size < 80
    assert codec.peek(path)[0] == description
