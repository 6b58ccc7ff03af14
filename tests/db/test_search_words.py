"""People find a study by what they type, whatever case, accents, commas and order, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine

from db.database import Database
from db.prepared_statements import Prepared
from db.queries import worklist_filters
from db.queries.worklist import Worklist, WorklistPart
from db.queries.worklist_filters import Filters
from db.search_words import asked_words, fold, words_of
from db.states import StudyState
from tests.commands import receive_message, record_instance
from tests.db.examples import NOW, finished, received, record, study_of
from tests.db.plans import page_plan
from tests.db.test_orders import corrected, message

MUELLER: dict[str, Any] = {
    "patient_name": "MÜLLER-LÜDENSCHEIDT^HANS^^DR.",
    "patient_id": "K-20418",
    "accession_number": "RX/2026.77",
    "study_description": "Thorax p.a. (Röntgen)",
    "study_date": "20260131",
    "patient_birth_date": "19610312",
    "station_name": "CR-Raum 2",
}
SMITH: dict[str, Any] = {"patient_name": "Mueller^Jøhn=山田^太郎", "patient_id": "K-2", "study_date": "20260201"}


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("MÜLLER", {1, 2}),
        ("müller", {1, 2}),
        ("Mueller", {1, 2}),
        ("muller", {1}),
        ("MÜLLER-LÜDENSCHEIDT, HANS", {1}),
        ("hans lüd", {1}),
        ("Hans^Müller", {1}),
        ("John mueller", {2}),
        ("MUELLER, JØHN", {2}),
        ("山田", {2}),
        ("K-20418", {1}),
        ("k-2", {1, 2}),
        ("20418", {1}),
        ("RX/2026.77", {1}),
        ("rontgen thorax", {1}),
        ("2026-01-31", {1}),
        ("31.01.2026", {1}),
        ("20260131", {1}),
        ("2026-02 mueller", {2}),
        ("12.3.1961", {1}),
        ("cr-raum", {1}),
        ("raum hans", {1}),
        ("1.2.826.0.2.1", {1}),  # the study
        ("1.2.826.0.3.2", {2}),  # a series
        ("1.2.826.0.1.1.1", {1}),  # an instance
        ("1.2.826.0.1.1", set()),
        ("ller", set()),
        ("^", set()),
        ("' OR 1=1 --", set()),
    ],
)
def test_what_people_type_finds_it(database: Database, search: str, found: set[int]) -> None:
    for study, header in ((1, MUELLER), (2, SMITH)):
        record(database, study=study, **header)
    reading = Worklist(database.engine)
    assert {row.study_id for row in reading.page(filters=Filters(search))} == found
    assert reading.count(WorklistPart.UNREPORTED, Filters(search)) == len(found)


def test_a_common_word_and_a_rare_one_find_the_same(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for study in range(1, 8):
        record(database, study=study, patient_name=f"Common^Name{study}")
    for few, listed in ((500, 20_000), (3, 20_000), (0, 20_000), (0, 0)):
        monkeypatch.setattr(worklist_filters, "_RARE_WORD_LIMIT", few)
        monkeypatch.setattr(worklist_filters, "_LISTED_WORD_ROWS", listed)
        reading = Worklist(database.engine)
        assert len(reading.page(filters=Filters("common"))) == 7
        assert [row.patient_name for row in reading.page(filters=Filters("common name5"))] == ["Common^Name5"]


def test_what_is_corrected_or_added_is_found_and_what_was_wrong_is_not(database: Database) -> None:
    wrong: dict[str, Any] = {"study": 1, "patient_name": "Wrong^Name"}
    record(database, accession_number="", **wrong)
    record(database, 2, accession_number="LATE-7", series_instance_uid="1.9", station_name="Portable 3", **wrong)
    receive_message(database, message(1, patient=corrected(name="Right^Name")), NOW)
    reading = Worklist(database.engine)
    for search in ("right", "late-7", "portable", "name"):
        assert len(reading.page(filters=Filters(search))) == 1, search
    assert reading.page(filters=Filters("wrong")) == ()


def test_filters(database: Database) -> None:
    finished(database, study=1)
    record(database, study=2, modality="CR", study_date="20260131", station_name="Room 2", calling_ae_title="CR2")
    reading = Worklist(database.engine)
    for filters, found in (
        (Filters(modality="cr"), {2}),
        (Filters(station="ROOM 2"), {2}),
        (Filters(calling_ae_title="CR2"), {2}),
        (Filters(date_from="20260131"), {2}),
        (Filters(date_to="20260130"), set()),
        (Filters(date_from="20260101", date_to="20260131"), {2}),
        (Filters(destination="pacs"), {1}),
        (Filters(finding="pneumothorax"), {1}),
        (Filters(finding="effusion"), set()),
        (Filters(state=StudyState.OPEN), {1, 2}),
        (Filters(state=StudyState.COMPLETE), set()),
        (Filters("jane", modality="DX"), {1}),
    ):
        assert {row.study_id for row in reading.page(filters=filters)} == found, filters
        assert reading.count(WorklistPart.ALL, filters) == len(found)
    assert reading.choices() == {
        "modality": ("CR", "DX"),
        "station": ("Room 2",),
        "calling_ae_title": ("CR2",),
        "finding": ("pneumothorax",),
    }
    assert Filters(modality="CR", state=StudyState.OPEN).active == {"modality": "CR", "state": "open"}


def test_all_studies_are_reported_ones_too(database: Database) -> None:
    from db import study_status

    finished(database, study=1)
    record(database, study=2)
    database.write(study_status.report, study_of(database, 1), NOW, actor="ann", cause="read")
    reading = Worklist(database.engine)
    assert {row.study_id for row in reading.page(show=WorklistPart.ALL)} == {1, 2}
    assert WorklistPart.ALL not in reading.counts()


def test_a_search_uses_the_index(database: Database, engine: Engine) -> None:
    for study in range(1, 40):
        record_instance(database, received(study=study), None, "p" * 64, NOW)
    plan = page_plan(engine, WorklistPart.UNREPORTED, Filters("doe p7"))
    assert "study_words" in plan
    assert "SCAN study_words" not in plan
    assert "Seq Scan on study_words" not in plan


def test_folding() -> None:
    assert fold("Straße ÅNGSTRÖM Łódź") == "strasse angstrom lodz"
    assert asked_words("Müller 31.1.2026") == (("muller", "mueller"), ("20260131",))
    assert words_of(["O'Neill^Fergus", ""]) == ("o'neill", "o", "neill", "fergus")
    assert max(map(len, words_of(["x" * 300]))) == 64
    assert len(words_of([" ".join(map(str, range(500)))])) == 80


@pytest.mark.parametrize(
    ("search", "most"),
    [("", 2), ("miller", 3), ("miller ann", 3), ("1.2.826.0.2.1", 3)],
    ids=["first page", "name", "two words of which one is rare", "UID"],
)
def test_a_page_is_few_statements(database: Database, monkeypatch: pytest.MonkeyPatch, search: str, most: int) -> None:
    """Each is a round trip to PostgreSQL."""
    record(database, patient_name="Miller^Ann")
    executed: list[object] = []
    execute = Prepared._execute

    def counted(*given: Any) -> Any:
        executed.append(given)
        return execute(*given)

    monkeypatch.setattr(Prepared, "_execute", counted)
    assert len(Worklist(database.engine).page(show=WorklistPart.ALL, filters=Filters(search), as_listed=True)) == 1
    assert len(executed) <= most


def test_sqlite_lists_the_studies_of_words_before_it_walks_all(
    database: Database, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two words that many have and few have both: among a million studies it walked for three seconds."""
    record(database, patient_name="Common^Name")
    monkeypatch.setattr(worklist_filters, "_RARE_WORD_LIMIT", 0)
    texts: list[str] = []
    execute = Prepared._execute

    def noted(prepared: Prepared, connection: Any, compiled: Any, *values: Any) -> Any:
        texts.append(compiled.text)
        return execute(prepared, connection, compiled, *values)

    monkeypatch.setattr(Prepared, "_execute", noted)
    assert len(Worklist(engine).page(filters=Filters("common name"))) == 1
    listing = [text.count("IN (SELECT study_words.study_id") for text in texts if "FROM studies" in text]
    assert listing == [2 if engine.dialect.name == "sqlite" else 0]
