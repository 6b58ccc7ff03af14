"""Run-length codes: by hand, by property, and every row of the real SIIM-ACR table."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from models.training.datasets import rle
from models.training.datasets.rle import RleCode, RleError


def test_relative_code_by_hand() -> None:
    # Three rows, two columns. Skip 1, two pixels (column 0, rows 1 and 2); skip 1, one pixel (column 1, row 1).
    mask = rle.decode("1 2 1 1", 3, 2)
    assert mask.tolist() == [[False, False], [True, True], [True, False]]
    assert rle.encode(mask) == "1 2 1 1"
    assert rle.area("1 2 1 1", 3, 2) == 3


def test_absolute_code_by_hand() -> None:
    # The same mask: pixels are counted from 1 down the columns.
    mask = rle.decode("2 2 5 1", 3, 2, RleCode.ABSOLUTE)
    assert mask.tolist() == [[False, False], [True, True], [True, False]]
    assert rle.encode(mask, RleCode.ABSOLUTE) == "2 2 5 1"


def test_a_run_goes_on_in_the_next_column() -> None:
    assert rle.decode("1 4", 3, 2).T.ravel().tolist() == [False, True, True, True, True, False]


@pytest.mark.parametrize("code", list(RleCode))
def test_no_pixel_and_every_pixel(code: RleCode) -> None:
    empty, full = np.zeros((4, 3), bool), np.ones((4, 3), bool)
    assert rle.encode(empty, code) == "-1"
    assert not rle.decode("-1", 4, 3, code).any()
    assert rle.decode(rle.encode(full, code), 4, 3, code).all()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", "relative", "the text is empty"),
        ("1 2 3", "relative", "3 numbers make no pairs"),
        ("1 x", "relative", "no whole number"),
        ("1.5 2", "relative", "no whole number"),
        ("1 2 3 0", "relative", "run 2 of 2 has no length"),
        ("1 2 -1 2", "relative", "run 2 of 2 begins before"),
        ("1 2 2 2", "relative", "run 2 of 2 ends outside the image of 6 pixels"),
        ("9 1", "relative", "run 1 of 1 does not fit into 6 pixels"),
        ("9223372036854775807 1 1 1", "relative", "run 1 of 2 does not fit"),
        ("99999999999999999999 1", "relative", "no whole number"),
        ("0 1", "absolute", "run 1 of 1 begins before pixel 1"),
        ("1 3 2 1", "absolute", "run 2 of 2 begins before the run before it ends"),
        ("5 3", "absolute", "run 1 of 1 ends outside"),
        ("-1 -1", "relative", "has no length"),
    ],
)
def test_a_wrong_text_is_told_precisely(text: str, code: str, message: str) -> None:
    with pytest.raises(RleError, match=message):
        rle.decode(text, 3, 2, RleCode(code))


def test_several_texts_are_joined_though_they_overlap() -> None:
    whole = rle.decode_all(["0 2", "1 2"], 3, 2)
    assert whole.T.ravel().tolist() == [True, True, True, False, False, False]
    assert not rle.decode_all([], 3, 2).any()


def slowly(text: str, rows: int, columns: int) -> np.ndarray:
    """The challenge's own description, pixel by pixel."""
    flat, at = [0] * (rows * columns), 0
    numbers = [int(word) for word in text.split()]
    for skip, length in zip(numbers[::2], numbers[1::2], strict=True):
        at += skip
        for _ in range(length):
            flat[at] = 1
            at += 1
    return np.array([[flat[column * rows + row] for column in range(columns)] for row in range(rows)], bool)


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.random((rows, columns)) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))


@settings(deadline=None)
@given(masks(), st.sampled_from(RleCode))
def test_there_and_back(mask: np.ndarray, code: RleCode) -> None:
    text = rle.encode(mask, code)
    rows, columns = mask.shape
    assert np.array_equal(rle.decode(text, rows, columns, code), mask)
    assert rle.area(text, rows, columns, code) == mask.sum()
    assert rle.encode(np.asfortranarray(mask), code) == text
    if code is RleCode.RELATIVE and text != rle.NOTHING:
        assert np.array_equal(slowly(text, *mask.shape), mask)


@settings(deadline=None)
@given(masks())
def test_against_coco(mask: np.ndarray) -> None:
    # COCO walks the grid as SIIM-ACR does, and its own codec is written in C: the same pixels, the same area.
    rows, columns = mask.shape
    text = rle.encode(mask)
    numbers = [] if text == rle.NOTHING else [int(word) for word in text.split()]
    rest = rows * columns - sum(numbers)
    packed = coco.frPyObjects({"counts": [*numbers, *([rest] if rest else [])], "size": [rows, columns]}, rows, columns)
    assert np.array_equal(coco.decode(packed).astype(bool), rle.decode(text, rows, columns))
    assert coco.area(packed) == rle.area(text, rows, columns)


@settings(deadline=None)
@given(st.text(alphabet="0123456789 -.x", max_size=24), st.sampled_from(RleCode))
def test_any_text_is_decoded_or_refused(text: str, code: RleCode) -> None:
    try:
        mask = rle.decode(text, 5, 4, code)
    except RleError:
        return
    assert mask.shape == (5, 4)
    assert mask.sum() == rle.area(text, 5, 4, code)


@pytest.mark.peer("shared-data")
def test_every_row_of_the_real_table_comes_back(shared_data: Path) -> None:
    with gzip.open(shared_data / "siim" / "train-rle.csv.gz", "rt", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    assert len(rows) == 12954
    empty, changed, areas = 0, [], []
    for uid, text in rows:
        wanted = text.strip()
        mask = rle.decode(wanted)
        if rle.encode(mask) != wanted:
            changed.append(uid)
        area = rle.area(wanted)
        if wanted == rle.NOTHING:
            empty += 1
        else:
            areas.append(area)
            assert area == np.count_nonzero(mask)
    assert changed == []  # all rows are canonical: no run of length 0, none that touches the one before
    assert empty == 9378
    assert min(areas) > 0
    assert max(areas) < rle.SIDE**2 / 4
