"""The audit trail: a hash chain that nobody can change unseen, on both databases."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from db import audit_chain
from db.audit import AuditEntry, AuditFilter, AuditTrail, entries_after, remove_old, write_entries, write_entry
from db.audit_chain import Link, anchors_in
from db.audit_events import AuditEvent
from db.audit_tables import AuditCheckpointRow, AuditRow
from db.database import Database
from db.engine import writing
from tests.db.examples import record

NOW = datetime(2026, 3, 1, 8, 30, 15, 250_000, tzinfo=UTC)
DIGEST = "623e9da048a4a4741008b8a016dc2c5b50c621d35941bcf302fd60d46edb10b4"


def _fill(engine: Engine, count: int, at: datetime = NOW) -> AuditTrail:
    trail = AuditTrail(engine)
    for number in range(count):
        trail.add(AuditEntry(at + timedelta(seconds=number), "ada", "view study", f"study {number}", detail="Zoë"))
    return trail


def _leave_triggers_out(connection: Connection) -> None:
    """As the owner of the tables can."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL session_replication_role = replica"))
    else:
        for name in ("audit_is_not_updated", "audit_is_not_deleted", "audit_checkpoints_is_not_deleted"):
            connection.execute(text(f"DROP TRIGGER IF EXISTS {name}"))


def _without_triggers(engine: Engine, change: Any) -> None:
    with writing(engine).begin() as connection:
        _leave_triggers_out(connection)
        connection.execute(change)


def test_entries_are_numbered_and_chained(engine: Engine) -> None:
    trail = _fill(engine, 3)
    latest, *others = trail.entries()
    assert [latest.position, *(one.position for one in others)] == [3, 2, 1]
    found = trail.verify()
    assert (found.problem, found.entries, found.head) == ("", 3, Link(3, latest.digest))
    assert latest.meaning.event is AuditEvent.ACCESSED


def test_entries_written_together_are_those_written_one_by_one(engine: Engine) -> None:
    trail = _fill(engine, 1)
    several = [AuditEntry(NOW, "MODALITY", "receive", study_instance_uid=f"1.2.{number}") for number in range(3)]
    with writing(engine).begin() as connection:
        last = write_entries(connection, several)
        assert write_entries(connection, ()) == last
    found = trail.verify()
    assert (found.problem, found.entries, found.head) == ("", 4, last)
    assert [one.study_instance_uid for one in trail.every()] == ["", "1.2.0", "1.2.1", "1.2.2"]


def test_an_empty_trail_holds(engine: Engine) -> None:
    found = AuditTrail(engine).verify()
    assert (found.problem, found.entries, found.head) == ("", 0, audit_chain.START)


CHANGES: tuple[tuple[Any, int, str], ...] = (
    (update(AuditRow).where(AuditRow.id == 3).values(actor="eve"), 3, "was changed"),
    (update(AuditRow).where(AuditRow.id == 3).values(at=NOW - timedelta(hours=1)), 3, "was changed"),
    (update(AuditRow).where(AuditRow.id == 3).values(failed=True), 3, "was changed"),
    (update(AuditRow).where(AuditRow.id == 2).values(digest="0" * 64), 2, "was changed"),
    (delete(AuditRow).where(AuditRow.id == 3), 3, "entry 3 is missing"),
    (delete(AuditRow).where(AuditRow.id.in_((3, 4))), 3, "entries 3 to 4 are missing"),
    (delete(AuditRow).where(AuditRow.id <= 2), 1, "entries 1 to 2 are missing"),
)


def test_a_change_shows_at_its_entry(engine: Engine) -> None:
    trail = _fill(engine, 6)
    for change, at, message in CHANGES:
        with engine.connect() as connection:
            _leave_triggers_out(connection)
            connection.execute(change)
            found = audit_chain.verify(connection)
            connection.rollback()
        assert found.broken_at == at
        assert message in found.problem
    assert trail.verify().problem == ""


def test_what_is_cut_off_at_the_end_shows_by_a_digest_that_was_kept_elsewhere(engine: Engine) -> None:
    trail = _fill(engine, 5)
    log = f"Mar  1 08:30 node pleura[77]: {trail.verify().head}; and so on"
    _without_triggers(engine, delete(AuditRow).where(AuditRow.id > 3))
    assert trail.verify().problem == ""
    found = trail.verify(anchors_in([log]))
    assert found.broken_at == 4
    assert "cut off" in found.problem
    # Others in their place do not help.
    _fill(engine, 2)
    assert trail.verify().problem == ""
    assert trail.verify(anchors_in([log])).broken_at == 5


def test_the_latest_entries_can_be_verified_alone(engine: Engine) -> None:
    trail = _fill(engine, 8)
    assert trail.verify(latest=3).entries == 3
    _without_triggers(engine, update(AuditRow).where(AuditRow.id == 2).values(actor="eve"))
    assert trail.verify(latest=3).problem == ""
    assert trail.verify().broken_at == 2


def test_the_database_refuses_to_change_the_trail(engine: Engine) -> None:
    _fill(engine, 2)
    with writing(engine).begin() as connection:
        assert remove_old(connection, NOW + timedelta(seconds=1), None, NOW) == 1
    for change in (
        update(AuditRow).values(actor="eve"),
        delete(AuditRow),
        update(AuditCheckpointRow).values(position=9),
        delete(AuditCheckpointRow),
    ):
        with pytest.raises(DBAPIError, match="append-only"), writing(engine).begin() as connection:
            connection.execute(change)


def test_old_entries_go_and_the_chain_holds(engine: Engine) -> None:
    trail = _fill(engine, 6)
    kept = trail.verify().head
    with writing(engine).begin() as connection:
        assert remove_old(connection, NOW + timedelta(seconds=4), None, NOW + timedelta(days=1)) == 4
        assert remove_old(connection, NOW + timedelta(seconds=4), None, NOW + timedelta(days=1)) == 0
    assert [one.position for one in trail.entries()] == [7, 6, 5]
    assert trail.entries()[0].detail.startswith("4 entries, up to entry 4")
    assert trail.verify([kept]).problem == ""
    with writing(engine).begin() as connection:
        assert remove_old(connection, NOW + timedelta(days=9), 6, NOW + timedelta(days=2)) == 2
    assert [one.position for one in trail.entries()] == [8, 7]
    assert trail.verify().problem == ""


def test_a_checkpoint_that_was_put_in_by_hand_shows(engine: Engine) -> None:
    trail = _fill(engine, 6)
    digest = trail.entries(limit=1, offset=2)[0].digest
    _without_triggers(engine, insert(AuditCheckpointRow).values(position=4, digest=digest, at=NOW))
    with writing(engine).begin() as connection:
        connection.execute(delete(AuditRow).where(AuditRow.id <= 4))  # the trigger lets it
    assert "no entry tells of it" in trail.verify().problem


def test_several_processes_append_to_one_chain(url: str) -> None:
    from db.engine import connect

    def append(name: str) -> None:
        engine = connect(url)
        for _ in range(10):
            AuditTrail(engine).add(AuditEntry(NOW, name, "log in", name))
        engine.dispose()

    threads = [threading.Thread(target=append, args=(name,)) for name in ("ada", "ben", "cy", "di")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine = connect(url)
    found = AuditTrail(engine).verify()
    engine.dispose()
    assert (found.problem, found.entries) == ("", 40)


def test_an_entry_names_study_and_patient_as_they_were(database: Database) -> None:
    record(database)

    def change(connection: Connection) -> None:
        write_entry(connection, AuditEntry(NOW, "ada", "hold", "study", 1))
        connection.execute(text("UPDATE studies SET patient_id = 'CORRECTED'"))
        write_entry(connection, AuditEntry(NOW, "ada", "release", "study", 1))

    database.write(change)
    later, earlier = AuditTrail(database.engine).entries()
    assert later.study_instance_uid == earlier.study_instance_uid != ""
    assert (earlier.patient_id != "CORRECTED", later.patient_id) == (True, "CORRECTED")


def test_entries_are_filtered(engine: Engine) -> None:
    trail = AuditTrail(engine)
    trail.add(AuditEntry(NOW, "ada", "log in", "ada", address="10.0.0.1"))
    trail.add(AuditEntry(NOW, "eve", "log in failed", "eve", failed=True))
    trail.add(AuditEntry(NOW + timedelta(days=1), "ada", "hold", "study", 12))
    trail.add(AuditEntry(NOW + timedelta(days=2), "MODALITY", "receive", data={"instances": {"1.2": 3}}))

    def found(**wanted: object) -> list[str]:
        return [one.action for one in trail.entries(AuditFilter(**wanted))]  # type: ignore[arg-type]

    assert found(actor="ada") == ["hold", "log in"]
    assert found(event=AuditEvent.USER_AUTHENTICATION) == ["log in failed", "log in"]
    assert found(failed=True) == ["log in failed"]
    assert found(study_id=12) == ["hold"]
    assert found(since=NOW + timedelta(days=1)) == ["receive", "hold"]
    assert found(until=NOW + timedelta(days=1), action="log in") == ["log in"]
    assert [one.action for one in trail.every(AuditFilter(actor="ada"))] == ["log in", "hold"]
    with engine.connect() as connection:
        (last,) = entries_after(connection, 3, 10)
    assert last.data == {"instances": {"1.2": 3}}


def test_what_is_digested_does_not_change_unseen(engine: Engine) -> None:
    """Trails that were written by an earlier version must verify for ever: this digest is not to change."""
    data = {"b": 1, "a": 2}
    AuditTrail(engine).add(AuditEntry(NOW, "ada", "log in", "ada", address="10.0.0.1", detail="Zoë", data=data))
    with engine.connect() as connection:
        assert connection.scalar(select(AuditRow.digest)) == DIGEST
