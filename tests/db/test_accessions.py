"""A study with several accession numbers (``B100\\B101``: two orders, one exposure) is found by each of them."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from db.accessions import numbers_of
from db.queries.worklist import ReadingList
from db.records import Priority
from db.worklist import Worklist
from tests.db.examples import NOW, record, study_of
from tests.db.test_orders import STAT, message, order

BOTH = "B100\\B101"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", ()), ("A1", ("A1",)), (BOTH, (BOTH, "B100", "B101")), ("B1\\ B1 \\", ("B1\\ B1 \\", "B1"))],
)
def test_the_numbers_of_a_text(text: str, numbers: tuple[str, ...]) -> None:
    assert numbers_of(text) == numbers


@pytest.mark.parametrize("number", ["B100", "B101", BOTH])
def test_an_order_and_a_report_for_any_of_them_meet_the_study(worklist: Worklist, number: str) -> None:
    record(worklist, accession_number=BOTH)
    study = study_of(worklist)
    assert worklist.receive_message(message(1, order(number, **STAT)), NOW).study_ids == (study,)
    assert worklist.study_facts(study).hospital_priority is Priority.URGENT
    assert worklist.receive_message(message(2, order(number, reported=True)), NOW).study_ids == (study,)
    assert worklist.study_facts(study).reported


@pytest.mark.parametrize("number", ["B100", "B101", BOTH])
def test_what_was_said_of_any_of_them_before_the_images_came_is_applied(worklist: Worklist, number: str) -> None:
    assert worklist.receive_message(message(1, order(number, reported=True)), NOW).remembered == 1
    record(worklist, accession_number=BOTH)
    assert worklist.study_facts(study_of(worklist)).reported


def test_numbers_that_come_with_a_later_image_count_too(worklist: Worklist) -> None:
    record(worklist, accession_number="")
    record(worklist, 2, accession_number=BOTH)
    assert worklist.receive_message(message(1, order("B101", **STAT)), NOW).study_ids == (study_of(worklist),)


@pytest.mark.parametrize("number", ["B10", "00", "B100\\", "B102"])
def test_a_part_of_a_number_is_another_number(worklist: Worklist, number: str) -> None:
    record(worklist, accession_number=BOTH)
    assert worklist.receive_message(message(1, order(number)), NOW).study_ids == ()


def test_people_find_it_by_any_of_them(worklist: Worklist, engine: Engine) -> None:
    record(worklist, accession_number=BOTH)
    for wanted in ("B100", "B101", BOTH):
        assert worklist.find_study(wanted) == study_of(worklist)
        assert [row.accession_number for row in ReadingList(engine).page(search=wanted)] == [BOTH]
