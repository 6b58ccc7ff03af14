"""Callers that were rejected: counted, and few whatever is sent."""

from __future__ import annotations

from dataclasses import replace

from db import rejected_associations
from db.database import Database
from db.rejected_associations import KEPT, MOST, MOST_OF_ADDRESS, RejectedAssociation
from tests.db.examples import HOUR, MINUTE, NOW

MODALITY = RejectedAssociation("CT1", "PLEURA", "10.0.0.5", "calling AE title not recognized", 1, NOW, NOW)


def test_a_caller_is_one_row_that_counts(database: Database) -> None:
    other = replace(MODALITY, called_ae_title="PLEURO")
    database.write(rejected_associations.add, [MODALITY, other], NOW)
    later = replace(MODALITY, count=3, first_at=NOW + MINUTE, last_at=NOW + HOUR)
    database.write(rejected_associations.add, [later], NOW + HOUR)
    found = database.read(rejected_associations.latest, NOW - MINUTE)
    assert found == (replace(MODALITY, count=4, last_at=NOW + HOUR), other)
    assert database.read(rejected_associations.latest, NOW + MINUTE) == found[:1]


def test_made_up_titles_never_push_out_who_comes_again_and_again(database: Database) -> None:
    database.write(rejected_associations.add, [replace(MODALITY, count=2)], NOW)
    for number in range(MOST + 50):
        made_up = replace(MODALITY, calling_ae_title=f"X{number}", address=f"10.1.{number // 10}.1", last_at=NOW + HOUR)
        database.write(rejected_associations.add, [made_up], NOW)
    from_one = [replace(MODALITY, calling_ae_title=f"Y{number}", address="10.9.9.9") for number in range(100)]
    database.write(rejected_associations.add, from_one, NOW)
    found = database.read(rejected_associations.latest, NOW - HOUR)
    assert len(found) <= MOST
    assert sum(one.address == "10.9.9.9" for one in found) <= MOST_OF_ADDRESS
    assert MODALITY.calling_ae_title in {one.calling_ae_title for one in found}


def test_old_ones_are_forgotten(database: Database) -> None:
    database.write(rejected_associations.add, [MODALITY], NOW)
    database.write(rejected_associations.add, [], NOW + KEPT + MINUTE)
    assert database.read(rejected_associations.latest, NOW - HOUR) == ()
