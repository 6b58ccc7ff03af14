"""``pleura erase``: a preview by default, a reason and a yes to carry it out, and nobody by name."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import Engine

from config.settings import load
from db import deliveries, erasures, jobs
from db.audit import AuditFilter, AuditTrail
from db.database import Database
from db.queries.worklist import Worklist, WorklistPart
from db.records import Outcome, ReceivedInstance, ResultRecord
from node.cli import erase as command
from tests.commands import record_instance
from tests.rules import NO_RULES
from workers.erasing import eraser_of

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LEASE = timedelta(minutes=1)
Run = Callable[..., Result]


def _study(database: Database, number: int, **changes: Any) -> None:
    """A study with one result, which pacs has."""
    digest = f"{number:064x}"
    values: dict[str, Any] = {
        "patient_id": "P-100",
        "patient_name": "Quxelbrandt^Zoe",
        "accession_number": f"A{number}",
        **changes,
    }
    received = ReceivedInstance(
        sop_instance_uid=f"1.2.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=digest,
        path=f"instances/00/{digest}.dcm",
        byte_count=1_000_000,
        study_instance_uid=f"1.3.{number}",
        series_instance_uid=f"1.4.{number}",
        **values,
    )
    (job,) = record_instance(database, received, None, "pipeline", NOW).job_ids
    database.write(jobs.claim, job, "w", NOW, LEASE)
    record = ResultRecord("seg", "1.2", f"1.5.{number}", "1.6", "d", f"results/00/{number}.dcm", 1)
    (delivery,) = database.write(
        jobs.finish, job, "w", Outcome(results=(record,), destinations={"pacs": ("seg",)}), NOW
    ) or (0,)
    database.write(deliveries.claim, delivery, "d", NOW, LEASE)
    database.write(deliveries.sent, delivery, "d", NOW)


@pytest.fixture
def studies(database: Database, config: Path) -> Engine:
    """Two studies of a patient, one of another, one of the same ID from elsewhere; a file of the first."""
    _study(database, 1)
    _study(database, 2)
    _study(database, 3, patient_id="P-200")
    _study(database, 4, issuer_of_patient_id="ELSEWHERE")
    file = load(config).store.folder / f"instances/00/{1:064x}.dcm"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    return database.engine


def _left(engine: Engine) -> list[int]:
    return sorted(row.study_id for row in Worklist(engine).page(show=WorklistPart.ALL))


def test_without_yes_it_only_says_what_would_go_and_what_stays(run: Run, studies: Engine) -> None:
    result = run("erase", "A1")
    assert result.exit_code == 0, result.output
    assert "Study #1 of patient P-100 Quxelbrandt^Zoe, accession A1" in result.output
    assert "goes: 1 image, 1 result (1.0 MB), 1 job" in result.output
    assert "STAYS at pacs: 1 object\n    1.5.1  seg      sent 2026-01-31" in result.output
    assert "Nothing is erased." in result.output
    assert _left(studies) == [1, 2, 3, 4]
    (seen,) = AuditTrail(studies).entries(AuditFilter(action="view study"))
    assert seen.study_id == 1


def test_a_study_goes_with_its_files_and_the_audit_trail_says_who(run: Run, studies: Engine, config: Path) -> None:
    result = run("erase", "1.3.1", "--reason", " case  88 ", "--yes")
    assert result.exit_code == 0, result.output
    assert "Study #1 is erased." in result.output
    assert _left(studies) == [2, 3, 4]
    assert not any(path.is_file() for path in (load(config).store.folder / "instances").rglob("*"))
    (entry,) = AuditTrail(studies).entries(AuditFilter(action="erase study"))
    assert (entry.actor, entry.detail) == (f"cli:{getpass.getuser()}", "1 images, 1 results: case 88")
    assert run("show", "1.3.1").exit_code == 1


def test_a_patient_is_an_id_and_its_issuer_and_never_a_name(run: Run, studies: Engine) -> None:
    several = run("erase", "--patient", "P-100", "--reason", "case 88", "--yes")
    assert several.exit_code == 1
    assert "several have given the ID P-100; say whose: --issuer '', --issuer 'ELSEWHERE'" in several.output
    assert run("erase", "--patient", "Quxelbrandt^Zoe").exit_code == 1
    unknown = run("erase", "--patient", "P-100", "--issuer", "NOBODY")
    assert "nothing is here of a patient with the ID P-100" in unknown.output
    done = run("erase", "--patient", "P-100", "--issuer", "", "--reason", "case 88", "--yes")
    assert done.exit_code == 0, done.output
    assert "Patient P-100 is erased." in done.output
    assert _left(studies) == [3, 4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("erase",), "name one STUDY, or a patient by --patient ID"),
        (("erase", "A1", "--patient", "P-100"), "name one STUDY, or a patient by --patient ID"),
        (("erase", "A1", "--issuer", "X"), "name one STUDY, or a patient by --patient ID"),
        (("erase", "A1", "--yes"), "say why: --reason TEXT"),
        (("erase", "A1", "--yes", "--reason", "of QUXELBRANDT"), "the reason names the patient"),
        (("erase", "A1", "--yes", "--reason", "P-100 asks"), "the reason names the patient"),
        (("erase", "A9"), "no study matches A9"),
    ],
)
def test_what_is_unclear_erases_nothing(run: Run, studies: Engine, arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert said in result.output
    assert _left(studies) == [1, 2, 3, 4]


def test_in_a_terminal_the_patient_id_is_typed(run: Run, studies: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    assert "Nothing is erased." in run("erase", "A1", input="\n").output
    assert "Nothing is erased." in run("erase", "A1", input="yes\n").output
    assert _left(studies) == [1, 2, 3, 4]
    done = run("erase", "A1", input="P-100\ncase 88\n")
    assert done.exit_code == 0, done.output
    assert _left(studies) == [2, 3, 4]


def test_programs_get_json_before_and_after(run: Run, studies: Engine) -> None:
    before = json.loads(run("erase", "A1", "--json").stdout)
    assert before["erased"] is False
    assert before["studies"][0]["held"][0]["sop_instance_uid"] == "1.5.1"
    after = json.loads(run("erase", "A1", "--json", "--reason", "case 88", "--yes").stdout)
    assert after["erased"] is True
    assert after["studies"][0]["left"] == {"pacs": ["1.5.1"]}
    assert _left(studies) == [2, 3, 4]


def test_what_is_sent_while_it_is_waited_for_is_told(
    run: Run, studies: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    record = ResultRecord("sr", "1.2", "1.5.99", "1.6", "d", "results/00/99.dcm", 1)
    received = ReceivedInstance("1.2.9", "1.2", "1.2", "9" * 64, "instances/00/9.dcm", 1, "1.3.9", "1.4.9", "P-9")
    (job,) = record_instance(database, received, None, "pipeline", now).job_ids
    database.write(jobs.claim, job, "w", now, LEASE)
    (delivery,) = database.write(
        jobs.finish, job, "w", Outcome(results=(record,), destinations={"pacs": ("sr",)}), now
    ) or (0,)
    database.write(deliveries.claim, delivery, "d", now, LEASE)

    def arrive(_seconds: float) -> None:
        assert database.read(erasures.requested) == (5,)
        database.write(deliveries.sent, delivery, "d", datetime.now(UTC))

    monkeypatch.setattr("node.cli.erase.time.sleep", arrive)
    result = run("erase", "1.3.9", "--reason", "case 88", "--yes")
    assert result.exit_code == 0, result.output
    assert "Study #5 waits: a result is being sent" in result.output
    assert "STAYS at pacs, sent meanwhile: 1.5.99" in result.output
    assert _left(studies) == [1, 2, 3, 4]


def test_the_databases_files_are_made_anew(run: Run, studies: Engine) -> None:
    del studies
    result = run("db", "compact")
    assert result.exit_code == 0, result.output
    assert "made anew" in result.output


def test_who_gets_a_rejection_note_first_is_told(run: Run, studies: Engine, config: Path) -> None:
    database = Database(studies, NO_RULES)
    address = '[[destinations]]\nname = "pacs"\nae_title = "P"\nhost = "h"\nport = 104\nrejection_notes = true\n'
    config.write_text(f"{config.read_text()}\n{address}erasure_notes = true\n")
    assert "STAYS at pacs, which gets a rejection note first: 1 object" in run("erase", "A1").output
    assert json.loads(run("erase", "A1", "--json").output)["studies"][0]["noted_first"] == ["pacs"]
    database.write(erasures.request, 1, "ann", "", "case 88", datetime.now(UTC))
    waits = eraser_of(load(config), database, lambda: datetime.now(UTC)).erase(1)
    assert waits is not None
    assert waits.why == "a rejection note is being made"
