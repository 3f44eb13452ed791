"""Data of one's own: folders of images, arrays, Parquet files; and what is wrong with them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from walnut import data
from walnut.core.errors import WalnutError

RNG = np.random.default_rng(0)


def picture(path, size=(6, 5), mode="L", value=None):
    pixels = RNG.integers(0, 256, (size[1], size[0], *([] if mode == "L" else [3])), np.uint8)
    image = Image.fromarray(pixels if value is None else np.full_like(pixels, value))
    path.parent.mkdir(exist_ok=True, parents=True)
    image.save(path)
    return pixels


def folder(tmp_path, mode="L", n=10):
    for label, name in enumerate(("cat", "dog")):
        for i in range(n):
            picture(tmp_path / name / f"{i}.png", mode=mode, value=100 * label + i)
    return tmp_path


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_folder_of_images(mode, tmp_path):
    found = data.load(f"folder:{folder(tmp_path, mode)}")
    assert found.classes == ("cat", "dog")
    assert found.shape == (1 if mode == "L" else 3, 5, 6)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [12, 4, 4]
    for split in (found.train, found.validation, found.test):
        value = (split.x[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(split.y, (value >= 100).long())  # pixels and labels belong together


def test_one_colour_image_makes_all_colour(tmp_path):
    folder(tmp_path)
    picture(tmp_path / "cat" / "z.png", mode="RGB")
    assert data.load(f"folder:{tmp_path}").shape == (3, 5, 6)


def test_mixed_sizes_are_refused_or_resized(tmp_path):
    folder(tmp_path)
    picture(tmp_path / "dog" / "z.png", size=(9, 9))
    with pytest.raises(WalnutError, match=r"6x5.*9x9.*\?size=32"):
        data.load(f"folder:{tmp_path}")
    assert data.load(f"folder:{tmp_path}?size=4").shape == (1, 4, 4)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(WalnutError, match="holds no images: put one sub-folder a class"):
        data.load(f"folder:{tmp_path}")
    picture(tmp_path / "cat" / "a.png")
    with pytest.raises(WalnutError, match="one class"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    with pytest.raises(WalnutError, match="dog holds no images"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "dog" / "b.png").write_text("no image either")
    with pytest.raises(WalnutError, match=r"b\.png cannot be read as an image"):
        data.load(f"folder:{tmp_path}")
    cut = (tmp_path / "cat" / "a.png").read_bytes()[:60]
    (tmp_path / "dog" / "b.png").write_bytes(cut)
    with pytest.raises(WalnutError, match=r"b\.png cannot be read as an image"):
        data.load(f"folder:{tmp_path}")


def arrays(tmp_path, **kept):
    np.savez(tmp_path / "a.npz", **kept)
    return f"npz:{tmp_path}/a.npz"


Y = np.arange(40) % 4


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (RNG.integers(0, 256, (40, 6, 7), np.uint8), (1, 6, 7)),
        (RNG.integers(0, 256, (40, 6, 7, 3), np.uint8), (3, 6, 7)),
        (RNG.integers(0, 256, (40, 3, 6, 7), np.uint8), (3, 6, 7)),
        (RNG.random((40, 1, 6, 7)), (1, 6, 7)),
        (RNG.random((40, 9)), (9,)),
        (RNG.random((40, 9)).astype(np.float16), (9,)),
    ],
)
def test_arrays_of_every_layout(x, shape, tmp_path):
    found = data.load(arrays(tmp_path, x=x, y=Y))
    assert found.shape == shape
    assert found.classes == ("0", "1", "2", "3")
    assert found.train.x.shape[1:] == shape
    assert len(found.train) == 24
    assert 0 <= float(found.train.x.min()) <= float(found.train.x.max()) <= 1
    last = x.transpose(0, 3, 1, 2) if x.ndim == 4 and x.shape[3] == 3 else x
    expected = last.reshape(40, -1).astype(np.float64) / (255 if x.dtype == np.uint8 else 1)
    together = torch.cat([s.x for s in (found.train, found.validation, found.test)]).flatten(1)
    labels = torch.cat([s.y for s in (found.train, found.validation, found.test)])
    for row, label in zip(together.double().numpy(), labels.tolist(), strict=True):
        nearest = np.abs(expected - row).max(1)
        assert nearest.min() < 1e-6
        assert Y[nearest.argmin()] == label


def test_arrays_with_a_test_split_of_their_own(tmp_path):
    x = RNG.random((40, 9))
    spec = arrays(tmp_path, x_train=x, y_train=Y, x_test=x[:8], y_test=Y[:8], classes=list("abcd"))
    found = data.load(spec)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [36, 4, 8]
    assert torch.equal(found.test.x, torch.from_numpy(x[:8]).float())  # in its own order
    assert found.classes == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ({"x": RNG.random((40, 9)) * 255, "y": Y}, "divide images by 255"),
        ({"x": RNG.random((40, 9)) - 0.1, "y": Y}, r"works in \[0, 1\]"),
        ({"x": np.full((40, 9), np.nan), "y": Y}, r"works in \[0, 1\]"),
        ({"x": RNG.integers(0, 200, (40, 9)), "y": Y}, "store uint8"),
        ({"x": RNG.random((40, 9)), "y": Y + 1}, r"labels must be 0\.\.K-1"),
        ({"x": RNG.random((40, 9)), "y": Y - 1}, r"labels must be 0\.\.K-1"),
        ({"x": RNG.random((40, 9)), "y": Y * 2}, r"labels must be 0\.\.K-1"),
        ({"x": RNG.random((40, 9)), "y": Y * 0}, "two classes or more"),
        ({"x": RNG.random((40, 9)), "y": Y * 1.0}, "y must be whole numbers"),
        ({"x": RNG.random((40, 9)), "y": Y[:30]}, "40 examples but 30 labels"),
        ({"x": RNG.random((40, 2, 2, 2, 2)), "y": Y}, "has shape"),
        ({"x": RNG.random((40, 9)), "z": Y}, "must hold x and y"),
        ({"x": np.array([{}] * 40, dtype=object), "y": Y}, "plain arrays"),
        ({"x": RNG.random((40, 9)), "y": Y, "classes": ["a"]}, "labels must be"),
    ],
)
def test_arrays_that_cannot_be_used(kept, says, tmp_path):
    with pytest.raises(WalnutError, match=says):
        data.load(arrays(tmp_path, **kept))


def test_files_that_are_no_arrays(tmp_path):
    (tmp_path / "a.npz").write_text("hello")
    with pytest.raises(WalnutError, match=r"not a sound \.npz") as refusal:
        data.load(f"npz:{tmp_path}/a.npz")
    assert "unsafe" not in str(refusal.value)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(WalnutError, match="single array"):
        data.load(f"npz:{tmp_path}/b.npy")
    spec = arrays(tmp_path, x=RNG.random((40, 9)), y=Y)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WalnutError, match=r"not a sound \.npz"):
        data.load(spec)


def png(size=(28, 28)):
    kept = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, size[::-1], np.uint8)).save(kept, "PNG")
    return kept.getvalue()


def parquet(root, columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    for part in ("train", "test"):
        (root / "mnist").mkdir(exist_ok=True)
        files.write_table(pyarrow.table(columns), root / "mnist" / f"{part}.parquet")


def test_small_parquet_files(tmp_path, monkeypatch):
    monkeypatch.setenv("WALNUT_DATA", str(tmp_path))
    n = 5100
    one = [png() for _ in range(50)]
    images = [{"bytes": one[i % 50], "path": None} for i in range(n)]
    parquet(tmp_path, {"image": images, "label": [i % 10 for i in range(n)]})
    found = data.load("mnist")
    assert [len(s) for s in (found.train, found.validation, found.test)] == [100, 5000, 5100]
    first = np.asarray(Image.open(io.BytesIO(one[0]))) / np.float32(255)
    assert torch.equal(found.test.x[0, 0], torch.from_numpy(first))
    assert torch.equal(found.test.y, torch.arange(n) % 10)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"pixels": [1], "label": [1]}, "has columns"),
        ({"image": [{"bytes": png(), "path": None}], "label": [10]}, "labels must be 0 to 9"),
        ({"image": [{"bytes": b"hello", "path": None}], "label": [1]}, "image 0 cannot be read"),
        ({"image": [{"bytes": png()[:80], "path": None}], "label": [1]}, "image 0 cannot be read"),
        ({"image": [{"bytes": None, "path": "x"}], "label": [1]}, "image 0 cannot be read|struct"),
        ({"image": [{"bytes": png((8, 8)), "path": None}], "label": [1]}, "image 0 is .8, 8."),
        ({"image": [3], "label": [1]}, "struct with bytes"),
    ],
)
def test_parquet_files_that_cannot_be_used(columns, says, tmp_path, monkeypatch):
    monkeypatch.setenv("WALNUT_DATA", str(tmp_path))
    parquet(tmp_path, columns)
    with pytest.raises(WalnutError, match=says):
        data.load("mnist")


def test_a_damaged_parquet_file(tmp_path, monkeypatch):
    monkeypatch.setenv("WALNUT_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train.parquet").write_text("hello")
    with pytest.raises(WalnutError, match="not a sound Parquet file"):
        data.load("mnist")


def test_without_the_files_both_ways_are_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    monkeypatch.setenv("WALNUT_DATA", str(tmp_path))
    with pytest.raises(WalnutError, match=r"set WALNUT_DATA.*walnut-nn\[hub\].*ylecun/mnist"):
        data.load("mnist")
    monkeypatch.delenv("WALNUT_DATA")
    with pytest.raises(WalnutError, match=r"WALNUT_DATA is not set.*uoft-cs/cifar10"):
        data.load("cifar10")


def test_the_hub_is_asked_for_the_right_files(tmp_path, monkeypatch):
    import sys
    import types

    asked = []

    def hf_hub_download(repository, file, *, repo_type):
        asked.append((repository, file, repo_type))
        raise OSError("no network")

    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.delenv("WALNUT_DATA", raising=False)
    for name in ("mnist", "fashion_mnist", "cifar10"):
        with pytest.raises(WalnutError, match=r"fetching it failed \(no network"):
            data.load(name)
    assert asked == [
        ("ylecun/mnist", "mnist/train-00000-of-00001.parquet", "dataset"),
        ("zalando-datasets/fashion_mnist", "fashion_mnist/train-00000-of-00001.parquet", "dataset"),
        ("uoft-cs/cifar10", "plain_text/train-00000-of-00001.parquet", "dataset"),
    ]


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setenv("WALNUT_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train.parquet").write_text("hello")
    with pytest.raises(WalnutError, match=r"pip install 'walnut-nn\[parquet\]'"):
        data.load("mnist")
