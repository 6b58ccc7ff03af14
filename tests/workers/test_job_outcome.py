"""Results as bytes: written as pydicom writes them, without its repeated work."""

from __future__ import annotations

from copy import deepcopy
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmwrite, filewriter
from pydicom.dataset import Dataset

from tests.workers.harness import radiograph
from workers.job_outcome import as_file


def nested(depth: int) -> Dataset:
    """Items in items, with a text that its character set must encode and an element whose value representation pydicom
    has to find out.
    """
    item = Dataset()
    item.SeriesDescription = "Thorax \N{LATIN SMALL LETTER U WITH DIAERESIS}bersicht"
    item.SmallestImagePixelValue, item.PixelRepresentation = 3, 0
    if depth:
        item.ReferencedSeriesSequence = [nested(depth - 1), nested(depth - 1)]
    return item


@pytest.fixture
def made() -> Dataset:
    dataset = radiograph("1.2.3.1")
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ReferencedStudySequence = [nested(3)]
    return dataset


def test_an_object_is_written_as_pydicom_writes_it(made: Dataset) -> None:
    plain = BytesIO()
    dcmwrite(plain, deepcopy(made), enforce_file_format=True)
    assert as_file("sr", made).content == plain.getvalue()


def test_value_representations_are_looked_at_once_and_not_for_each_level(
    made: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct, looked_at = filewriter.correct_ambiguous_vr, []

    def counted(dataset: Dataset, *arguments: Any) -> Dataset:
        looked_at.append(dataset)
        return correct(dataset, *arguments)

    monkeypatch.setattr(filewriter, "correct_ambiguous_vr", counted)
    as_file("sr", made)
    items = 1 + 2 + 4 + 8
    file_meta = 1
    assert len(looked_at) == items + 1 + file_meta
