"""highdicom's tables of the standard are searched once for each question, and a tag is made once."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ComputedRadiographyImageStorage, EnhancedCTImageStorage, SegmentationStorage

from tests.workers.results.sources import source
from tests.workers.results.test_objects import everything
from workers.results import standard_tables
from workers.results.standard_tables import ASKS, NAMED, NAMES, QUESTION, is_attribute_in_iod, named_tag


def test_every_module_of_highdicom_that_asks_does_so_here() -> None:
    assert [getattr(module, QUESTION) for module in ASKS] == [is_attribute_in_iod] * len(ASKS)


def test_every_module_of_pydicom_that_makes_tags_for_elements_does_so_here() -> None:
    assert [getattr(module, NAMED) for module in NAMES] == [named_tag] * len(NAMES)


def test_nothing_is_looked_up_again_for_the_second_object() -> None:
    everything(source())
    remembered = standard_tables._remembered, standard_tables._made
    before = [each.cache_info() for each in remembered]
    everything(source())
    for old, new in zip(before, (each.cache_info() for each in remembered), strict=True):
        assert new.misses == old.misses
        assert new.hits > old.hits, "nobody asks any more; is this still needed?"


@pytest.mark.parametrize("sop_class", [ComputedRadiographyImageStorage, EnhancedCTImageStorage, SegmentationStorage])
def test_the_answers_are_those_of_the_tables(sop_class: UID) -> None:
    for attribute in ("ContentDate", "NumberOfFrames", "PatientOrientation", "PixelData"):
        for excluded in (None, ["IconImageSequence"]):
            expected = standard_tables._look_up(attribute, sop_class, excluded)
            assert [is_attribute_in_iod(attribute, sop_class, excluded) for _ in range(2)] == [expected] * 2


def test_a_class_that_the_tables_lack_is_an_error_each_time() -> None:
    for _ in range(2):
        with pytest.raises(KeyError, match=r"1\.2\.3"):
            is_attribute_in_iod("PixelData", "1.2.3")


@pytest.mark.parametrize(
    "arguments",
    [("PatientName",), ("00100010",), (0x00100010,), (0x0010, 0x0010), ((0x0010, 0x0010),), ([0x0010, 0x0010],)],
)
def test_a_tag_is_the_one_that_pydicom_makes(arguments: tuple[Any, ...]) -> None:
    for _ in range(2):
        made = named_tag(*arguments)
        assert (made, type(made)) == (Tag(0x00100010), BaseTag)
    assert named_tag(made) is made


@pytest.mark.parametrize("wrong", ["NoKeyword", (1, "a"), 2**40, None, -1, {}])
def test_what_is_no_tag_is_the_error_that_pydicom_raises(wrong: Any) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whichever it is
        standard_tables._make(wrong)
    for _ in range(2):
        with pytest.raises(type(expected.value)) as found:
            named_tag(wrong)
        assert str(found.value) == str(expected.value)
