"""One list of result kinds, for settings, pages, delivery and series alike."""

from __future__ import annotations

from typing import get_args

from config.value_types import Kind
from db.records import NOTE
from workers.results.result_kinds import STORING_ORDER, series_description, series_number


def test_a_destination_can_ask_for_every_kind_but_the_note() -> None:
    assert {*get_args(Kind), NOTE} == set(STORING_ORDER)


def test_no_new_kind_moves_the_series_of_the_others() -> None:
    """A PACS may sort and hang by them."""
    assert STORING_ORDER[:6] == ("seg", "sr", "sc", "gsps", "summary", NOTE)


def test_each_kind_has_a_series_of_its_own_that_says_research_use() -> None:
    assert [series_number(kind, 9000) for kind in STORING_ORDER] == [9001, 9002, 9003, 9004, 9005, 9006, 9007]
    assert series_description("seg") == "Pleura AI segmentation (research use)"
    assert series_description("summary", 3) == "Pleura AI study summary, revision 3 (research use)"
    assert all(len(series_description(kind, 999)) <= 64 for kind in STORING_ORDER)
