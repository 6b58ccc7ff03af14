"""A study with several accession numbers (``B100\\B101``: two orders, one exposure) is found by each of them."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from db.accessions import numbers_of
from db.database import Database
from db.queries import study_details
from db.queries.worklist import Worklist
from db.queries.worklist_filters import Filters
from db.states import Priority
from tests.commands import receive_message, study_facts
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
def test_an_order_and_a_report_for_any_of_them_meet_the_study(database: Database, number: str) -> None:
    record(database, accession_number=BOTH)
    study = study_of(database)
    assert receive_message(database, message(1, order(number, **STAT)), NOW).study_ids == (study,)
    assert study_facts(database, study).hospital_priority is Priority.URGENT
    assert receive_message(database, message(2, order(number, reported=True)), NOW).study_ids == (study,)
    assert study_facts(database, study).reported


@pytest.mark.parametrize("number", ["B100", "B101", BOTH])
def test_what_was_said_of_any_of_them_before_the_images_came_is_applied(database: Database, number: str) -> None:
    assert receive_message(database, message(1, order(number, reported=True)), NOW).remembered == 1
    record(database, accession_number=BOTH)
    assert study_facts(database, study_of(database)).reported


def test_numbers_that_come_with_a_later_image_count_too(database: Database) -> None:
    record(database, accession_number="")
    record(database, 2, accession_number=BOTH)
    assert receive_message(database, message(1, order("B101", **STAT)), NOW).study_ids == (study_of(database),)


@pytest.mark.parametrize("number", ["B10", "00", "B100\\", "B102"])
def test_a_part_of_a_number_is_another_number(database: Database, number: str) -> None:
    record(database, accession_number=BOTH)
    assert receive_message(database, message(1, order(number)), NOW).study_ids == ()


def test_people_find_it_by_any_of_them(database: Database, engine: Engine) -> None:
    record(database, accession_number=BOTH)
    for wanted in ("B100", "B101", BOTH):
        assert database.read(study_details.find_study, wanted) == study_of(database)
        assert [row.accession_number for row in Worklist(engine).page(filters=Filters(search=wanted))] == [BOTH]
