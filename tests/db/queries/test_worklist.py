"""The worklist: what its rows say, their order, and how the database finds them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, Select, insert, select, text

from db import holds, jobs, studies
from db.database import Database
from db.engine import writing
from db.queries.worklist import Order, Worklist, WorklistPart, counts_statement, page_statement
from db.queries.worklist_filters import Filters
from db.records import TriageDecision
from db.states import Analysis, Priority, StudyState
from db.tables import Study
from tests.commands import record_triage
from tests.db.examples import MINUTE, NOW, SECOND, claim, finding, finished, outcome, received, record, study_of
from tests.db.plans import page_plan


def test_a_list_reads_of_the_findings_what_it_shows(database: Database) -> None:
    """A study that only models in shadow have analysed must not look like a negative, as one without findings does."""
    absent, shadow = finding("effusion", present=False), finding("mass", shadow=True)
    for study, found in enumerate(((finding(), absent, shadow), (absent, shadow), (shadow,), ()), start=1):
        job_id = record(database, 1, study)
        claim(database, job_id)
        database.write(jobs.finish, job_id, "w1", outcome(1000 * study, findings=found), NOW)
    worklist = Worklist(database.engine)
    listed = {row.study_instance_uid[-1]: row for row in worklist.page(as_listed=True)}
    assert {uid: row.findings for uid, row in listed.items()} == {"1": (finding(),), "2": (), "3": (shadow,), "4": ()}
    rows = worklist.page()
    assert [row.findings for row in rows] == [(finding(), absent, shadow), (absent, shadow), (shadow,), ()]
    assert [replace(row, findings=(), jobs={}) for row in rows] == [
        replace(row, findings=()) for row in worklist.page(as_listed=True)
    ]
    assert (rows[0].jobs, rows[0].deliveries, rows[0].modalities) == ({"done": 1}, {"pending": 2}, ("DX",))


def test_what_a_row_counts_is_of_its_own_study(database: Database) -> None:
    finished(database)
    record(database, 2, modality="CR", series_instance_uid="1.2.826.0.3.9")
    record(database, 3, modality="CR", series_instance_uid="1.2.826.0.3.10")
    record(database, 1, study=2, modality="")
    (first, second) = Worklist(database.engine).page(order=Order.STUDY)
    assert (first.jobs, first.deliveries) == ({"done": 1, "queued": 2}, {"pending": 2})
    assert first.modalities == ("CR", "DX")
    assert (second.jobs, second.deliveries, second.modalities) == ({"queued": 1}, {}, ())
    first.jobs["done"] = 7
    assert Worklist(database.engine).rows([first.study_id])[0].jobs["done"] == 1, "rows do not share what is counted"


def test_the_worklist_comes_in_the_order_in_which_studies_are_due(database: Database) -> None:
    for study, minutes in ((1, 30), (2, 10), (3, 20), (4, 10)):
        record(database, study=study)
        decision = TriageDecision(Priority.ROUTINE, NOW + minutes * MINUTE, Analysis.ANALYSED, "")
        record_triage(database, study_of(database, study), decision, NOW)
    assert [row.patient_id for row in Worklist(database.engine).page()] == ["P2", "P4", "P3", "P1"]
    assert [row.patient_id for row in Worklist(database.engine).page(limit=2, offset=1)] == ["P4", "P3"]


def test_complete_studies_may_be_left_out(database: Database) -> None:
    finished(database, study=1)
    record(database, study=2)
    database.write(studies.complete, study_of(database, 1), (), {}, NOW)
    assert [row.patient_id for row in Worklist(database.engine).page(only_open=True)] == ["P2"]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("doe^jane", ["P1", "P2"]),
        ("jane p2", ["P2"]),
        ("p2", ["P2"]),
        ("A-1", ["P1"]),
        ("%", []),
        ("_", []),
        ("\\", []),
        (received(study=2).study_instance_uid, ["P2"]),
        (received(study=2).study_instance_uid[:-1], []),
    ],
)
def test_searching(database: Database, search: str, found: list[str]) -> None:
    for study in (1, 2):
        record(database, study=study)
    assert [row.patient_id for row in Worklist(database.engine).page(filters=Filters(search=search))] == found


def test_the_view_says_what_the_worklist_says(database: Database, engine: Engine) -> None:
    finished(database, study=1)
    record(database, study=2, stat=True)
    database.write(holds.hold, study_of(database, 2), "merged", "admin", NOW)
    with engine.connect() as connection:
        view = connection.execute(text("SELECT * FROM worklist ORDER BY due_at, study_id")).all()
    rows = Worklist(database.engine).page()
    assert len(view) == len(rows) == 2
    for seen, row in zip(view, rows, strict=True):
        for name in ("study_id", "patient_id", "state", "priority", "analysis", "images", "not_eligible"):
            assert getattr(seen, name) == getattr(row, name)
        assert seen.reason == (row.hold_reason or row.reason)
        assert (seen.deliveries_open, seen.deliveries_failed) == (row.deliveries_open, row.deliveries_failed)
        assert seen.findings_present == len(row.present)
        assert bool(seen.on_hold) is row.on_hold


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order", Order)
def test_pages_follow_each_other_in_every_order(database: Database, order: Order, descending: bool) -> None:
    for study in (1, 2, 3, 4):
        record(database, study=study, patient_name=f"{'ab'[study % 2]}^Name", study_date=f"2026010{study % 3 + 1}")
    reading = Worklist(database.engine)
    whole = reading.page(order=order, descending=descending)
    pages = [reading.page(order=order, descending=descending, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [row.study_id for page in pages for row in page] == [row.study_id for row in whole]
    key = {
        Order.PATIENT: lambda row: row.patient_name,
        Order.STUDY: lambda row: row.study_date,
        Order.DUE: lambda row: row.due_at,
        Order.RECEIVED: lambda row: row.received_at,
        Order.PRIORITY: lambda row: row.priority,
    }[order]
    assert [key(row) for row in whole] == sorted(map(key, whole), reverse=descending)


@pytest.mark.parametrize(
    ("show", "filters", "index"),
    [
        (WorklistPart.UNREPORTED, Filters(), "ix_studies_unreported_due_at_id"),
        (WorklistPart.ALL, Filters(date_from="20260102", date_to="20260102"), "ix_studies_study_date_due_at_id"),
    ],
    ids=["first page", "day"],
)
def test_a_page_reads_no_more_than_it_shows(
    database: Database, engine: Engine, show: WorklistPart, filters: Filters, index: str
) -> None:
    """SQLite finds the numbers of its studies in an index alone, and then each row by its number."""
    record(database)
    plan = page_plan(engine, show, filters)
    assert index in plan
    assert "jobs" not in plan, "a list shows none"
    if engine.dialect.name == "sqlite":
        assert f"COVERING INDEX {index}" in plan
        assert "SEARCH studies USING INTEGER PRIMARY KEY" in plan


@pytest.mark.parametrize("show", [WorklistPart.UNREPORTED, WorklistPart.CRITICAL])
@pytest.mark.parametrize("order", [Order.PATIENT, Order.RECEIVED, Order.PRIORITY])
def test_what_is_sorted_afterwards_is_read_in_the_order_of_the_table(
    database: Database, engine: Engine, order: Order, show: WorklistPart
) -> None:
    """In that of the due times each row of SQLite would lie on another page: 0.8 s for 200,000 studies."""
    record(database)
    plan = page_plan(engine, show, Filters(), order)
    if engine.dialect.name == "sqlite":
        assert "ix_studies_unreported_counted" in plan
    for filters in (Filters("doe"), Filters(date_from="20260102"), Filters(finding="pneumothorax")):
        assert Worklist(engine).page(show=show, filters=filters, order=order) in ((), Worklist(engine).page(show=show))


def _plan(engine: Engine, statement: Select[Any]) -> str:
    """The plan before the values are known, as a prepared statement has it."""
    postgresql = engine.dialect.name == "postgresql"
    sql = str(statement.compile(engine, compile_kwargs={"literal_binds": postgresql}))
    with engine.connect() as connection:
        if not postgresql:
            values = tuple(statement.compile(engine).params.values())
            return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values))
        return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"EXPLAIN {sql}"))


@pytest.mark.parametrize("include_complete", [True, False])
def test_old_reported_studies_do_not_slow_the_worklist_down(
    database: Database, engine: Engine, include_complete: bool
) -> None:
    """The database must walk the unreported studies only: the oldest million was reported long ago."""
    record(database)
    with writing(engine).begin() as connection:
        template = dict(connection.execute(select(Study.__table__)).one()._mapping)
        complete = {"state": StudyState.COMPLETE, "reported_at": NOW}
        rows = [
            {
                **template,
                **(complete if number < 5000 else {}),
                "id": number,
                "study_instance_uid": f"1.9.{number}",
                "due_at": NOW + number * SECOND,
            }
            for number in range(2, 5200)
        ]
        needs_a_person = {WorklistPart.NOT_ANALYSED: 5190, WorklistPart.FAILED: 5191, WorklistPart.ON_HOLD: 5192}
        rows[5190 - 2]["analysis"], rows[5191 - 2]["analysis"] = Analysis.NOT_ANALYSED, Analysis.FAILED
        rows[5192 - 2]["on_hold"] = True
        connection.execute(insert(Study), rows)
        connection.execute(text("ANALYZE"))
    plan = _plan(engine, page_statement(WorklistPart.UNREPORTED, Order.DUE, False, not include_complete))
    for part, number in needs_a_person.items():
        index = "ix_studies_on_hold_due_at_id" if part is WorklistPart.ON_HOLD else "ix_studies_not_analysed_due_at_id"
        assert index in _plan(engine, page_statement(part, Order.DUE, False, False)), part
        assert [row.study_id for row in Worklist(engine).page(show=part)] == [number]
    if engine.dialect.name == "sqlite":  # PostgreSQL has none of its index-only scans of a table that was not vacuumed
        counted = _plan(engine, counts_statement())
        assert "COVERING INDEX ix_studies_unreported_counted" in counted
        assert "TEMP B-TREE" not in counted
    assert Worklist(engine).counts() == {
        **dict.fromkeys(set(WorklistPart) - {WorklistPart.ALL}, 0),
        WorklistPart.UNREPORTED: 201,
        WorklistPart.ROUTINE: 201,
        WorklistPart.NOT_ANALYSED: 1,
        WorklistPart.FAILED: 1,
        WorklistPart.ON_HOLD: 1,
    }
    assert "ix_studies_unreported_due_at_id" in plan or (not include_complete and "ix_studies_state_due_at_id" in plan)
    assert {row.study_id for row in Worklist(database.engine).page(only_open=not include_complete)} == set(
        range(5000, 5050)
    )
