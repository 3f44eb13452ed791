"""Pictures: the PNG in the page is the array, magnified by the factor that is stated."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

import report_results as results
from walnut.core.errors import WalnutError
from walnut.report import images


def decoded(source: str) -> np.ndarray:
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 6), (8, 8), (16,)])
def test_the_png_is_the_array(shape):
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    found = images.picture(array, "words")
    wanted = np.round(255 * array.astype(np.float64))
    if len(shape) == 3:
        wanted = wanted.transpose(1, 2, 0)
    np.testing.assert_array_equal(
        decoded(found.source), wanted.squeeze().reshape(decoded(found.source).shape)
    )
    assert found.alt == "words"


def test_odd_channels_are_averaged_and_odd_numbers_survive():
    array = np.stack([np.full((4, 4), value) for value in (0.0, 1.0)])
    assert (decoded(images.picture(array, "").source) == 128).all()
    array = np.array([[[np.nan, -3.0, 7.0, np.inf]]])
    assert decoded(images.picture(array, "").source).tolist() == [[128, 0, 255, 255]]


def test_pictures_grow_by_a_whole_factor_and_large_ones_shrink():
    assert images.picture(np.zeros((1, 28, 28)), "").width == 84
    assert images.picture(np.zeros((3, 32, 32)), "").width == 64
    large = images.picture(np.zeros((3, 224, 448)), "")
    assert (large.width, large.height) == (96, 48)


@pytest.mark.parametrize(
    ("wanted", "drawn"), [([3.0], 3.0), ([10.0], 5.0), ([None], 5.0), ([], 5.0)]
)
def test_the_factor_never_clips(wanted, drawn):
    deltas = np.array([[0.05, -0.1], [0.0, 0.02]])
    assert images.magnification(deltas, wanted) == pytest.approx(drawn)
    assert images.magnification(np.zeros((1, 2)), []) == 1


def test_a_perturbation_is_drawn_around_grey_by_the_stated_factor():
    pictures = {kind: np.zeros((1, 1, 2, 2), np.float32) for kind in images.KINDS}
    pictures["perturbation"][0, 0] = [[0.1, -0.1], [0.05, 0]]
    record = {"form": "dense", "attack": "pgd", "eps": 0.1, "prediction": "1", "success": True}
    (group,), omitted = images.groups([{**record, "array": 0}], pictures, ["dense"], 10**6)
    assert omitted == 0
    assert "drawn 5 times" in group.intro
    shown = group.examples[0].attempts[0].perturbation
    np.testing.assert_allclose(decoded(shown.source), [[255, 0], [191, 128]], atol=1)
    assert "5 times" in shown.alt


def test_forms_of_one_example_share_its_original():
    records = results.picture_records(3)
    made, omitted = images.groups(records, results.arrays(), results.FORMS, 10**7)
    assert omitted == 0
    assert [group.title.replace("\u00a0", " ") for group in made] == [
        "PGD at ε = 0.1",
        "Noise at ε = 0.1",
    ]
    assert all(len(example.attempts) == 4 for group in made for example in group.examples)
    held = [a.form for e in made[0].examples for a in e.attempts if not a.fooled]
    assert held == ["shared"]


def test_what_was_wrong_before_is_not_called_fooled():
    record = {**results.picture_records(1)[0], "clean_prediction": "7"}
    made, _ = images.groups([record], results.arrays(), results.FORMS, 10**6)
    attempt = made[0].examples[0].attempts[0]
    assert (attempt.outcome, attempt.fooled) == ("already read 7", False)


@pytest.mark.parametrize("row", [-1, 24, 1.0, "0", None])
def test_a_row_that_is_not_there_is_refused(row):
    record = {**results.picture_records(1)[0], "array": row}
    with pytest.raises(WalnutError, match="wants row"):
        images.groups([record], results.arrays(), results.FORMS, 10**6)


def test_arrays_that_cannot_be_shown():
    assert "no arrays" in images.readable(None)
    assert "too many" in images.readable(results.arrays(shape=(2000,)))
    assert "no picture" in images.readable(results.arrays(2, (2, 2, 2, 2)))
    assert images.readable(results.arrays()) == ""
    with pytest.raises(WalnutError, match="lack adversarial"):
        images.readable({k: v for k, v in results.arrays().items() if k != "adversarial"})
    with pytest.raises(WalnutError, match="different shapes"):
        images.readable({**results.arrays(), "original": np.zeros((2, 1, 8, 8))})
