"""highdicom's tables of the standard are searched once for each question."""

from __future__ import annotations

import pytest
from pydicom.uid import UID, ComputedRadiographyImageStorage, EnhancedCTImageStorage, SegmentationStorage

from tests.workers.results.sources import source
from tests.workers.results.test_objects import everything
from workers.results import standard_tables
from workers.results.standard_tables import ASKS, QUESTION, is_attribute_in_iod


def test_every_module_of_highdicom_that_asks_does_so_here() -> None:
    assert [getattr(module, QUESTION) for module in ASKS] == [is_attribute_in_iod] * len(ASKS)


def test_nothing_is_looked_up_again_for_the_second_object() -> None:
    everything(source())
    before = standard_tables._remembered.cache_info()
    everything(source())
    after = standard_tables._remembered.cache_info()
    assert after.misses == before.misses
    assert after.hits > before.hits, "highdicom does not ask any more; does it still need this?"


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
