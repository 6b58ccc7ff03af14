"""What a person does to a study from a terminal, and that the audit trail has it."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import Engine

from db import feedback, jobs
from db.audit import AuditFilter, AuditTrail
from db.database import Database
from db.queries.worklist import Worklist
from db.records import FindingRecord, Outcome, ReceivedInstance
from db.states import Priority
from db.user_tables import Verdict
from tests.commands import record_instance, study_facts
from tests.rules import NO_RULES

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
WHO = f"cli:{getpass.getuser()}"

Run = Callable[..., Result]


@pytest.fixture
def study(engine: Engine) -> str:
    """A study with a pneumothorax, a lung opacity of each of two models, and a finding in shadow."""
    database = Database(engine, NO_RULES)
    received = ReceivedInstance(
        sop_instance_uid="1.2.3.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest="a" * 64,
        path="instances/00/a.dcm",
        byte_count=1,
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.0",
        patient_id="P1",
        accession_number="A1",
    )
    (job,) = record_instance(database, received, None, "pipeline", NOW).job_ids
    database.write(jobs.claim, job, "worker", NOW, timedelta(minutes=5))
    findings = (
        FindingRecord("pneumothorax", "one", "1", 0.9, 0.5, present=True, shadow=False),
        FindingRecord("lung_opacity", "one", "1", 0.8, 0.5, present=True, shadow=False),
        FindingRecord("lung_opacity", "two", "1", 0.7, 0.5, present=True, shadow=False),
        FindingRecord("pneumothorax", "two", "1", 0.6, 0.5, present=True, shadow=True),
    )
    database.write(jobs.finish, job, "worker", Outcome(findings=findings), NOW)
    return "1.2.3"


def _audited(engine: Engine) -> list[tuple[str, str, str]]:
    entries = AuditTrail(engine).entries(AuditFilter(study_id=1))
    assert {entry.actor for entry in entries} <= {WHO}
    return [(entry.action, entry.subject, entry.detail) for entry in reversed(entries)]


def test_reported_and_back(run: Run, engine: Engine, study: str) -> None:
    database = Database(engine, NO_RULES)
    shown = run("reported", study).output
    assert shown == "study #1 (patient P1, accession A1, of an unknown date) is reported\n"
    assert Worklist(database.engine).page() == ()
    assert "was reported already" in run("reported", "A1").output
    assert json.loads(run("worklist", "--show", "reported", "--json").output)[0]["reported_by"] == WHO
    assert "is on the worklist again" in run("reported", study, "--undo").output
    assert "was on the worklist already" in run("reported", study, "--undo").output
    assert [row.priority for row in Worklist(database.engine).page()] == [Priority.CRITICAL], (
        "triage has looked at it again"
    )
    assert _audited(engine) == [("reported", "study", ""), ("unreported", "study", "")]


def test_priority(run: Run, engine: Engine, study: str) -> None:
    database = Database(engine, NO_RULES)
    assert (
        "study #1 (patient P1, accession A1, of an unknown date) is critical" in run("priority", study, "urgent").output
    )
    assert "require a higher priority" in run("priority", study, "routine").output
    assert study_facts(database, 1).hospital_priority is Priority.ROUTINE
    assert run("priority", study, "by-triage").exit_code == 0
    assert study_facts(database, 1).hospital_priority is None
    assert _audited(engine) == [
        ("set priority", "study", "urgent"),
        ("set priority", "study", "routine"),
        ("set priority", "study", "by triage"),
    ]
    assert run("priority", study, "whenever").exit_code == 2


def test_what_is_not_on_hold_cannot_be_released(run: Run, engine: Engine, study: str) -> None:
    heard = run("release", study)
    assert (heard.exit_code, "(patient P1, accession A1, of an unknown date) is not on hold" in heard.stderr) == (
        1,
        True,
    )
    assert AuditTrail(engine).entries(AuditFilter(study_id=1)) == ()


def test_hold_and_release_are_audited(run: Run, engine: Engine, study: str) -> None:
    assert run("hold", study, "--reason", "wrong patient?").exit_code == 0
    assert "wrong patient?" in run("worklist", "--show", "on-hold").output
    assert run("release", study).exit_code == 0
    assert _audited(engine) == [("hold", "study", "wrong patient?"), ("release", "study", "")]


def test_feedback_by_label(run: Run, engine: Engine, study: str) -> None:
    result = run("feedback", study, "pneumothorax", "reject", "--comment", "a skin fold")
    assert result.exit_code == 0, result.output
    (given,) = Database(engine, NO_RULES).read(feedback.of_study, 1)
    assert (given.verdict, given.comment, given.actor, given.source) == (Verdict.REJECT, "a skin fold", WHO, "cli")
    assert (given.label, given.model) == ("pneumothorax", "one"), "not the one in shadow"
    assert _audited(engine) == [("feedback", f"finding {given.finding_id}", "reject")]


def test_feedback_by_number_where_the_label_is_not_enough(run: Run, engine: Engine, study: str) -> None:
    unclear = run("feedback", study, "lung opacity", "accept")
    assert unclear.exit_code == 1
    assert "name one by its number: 2, 3" in unclear.output
    assert run("feedback", study, "3", "modify").exit_code == 0
    assert [given.model for given in Database(engine, NO_RULES).read(feedback.of_study, 1)] == ["two"]
    listed = run("feedback", study).output
    assert "lung_opacity present 0.7 (threshold 0.5)" in listed
    assert f"modify by {WHO}" in listed


def test_feedback_on_what_is_not_there(run: Run, study: str) -> None:
    missing = run("feedback", study, "fracture", "accept")
    assert missing.exit_code == 1
    assert "it has: lung_opacity, pneumothorax" in missing.output
    assert run("feedback", study, "pneumothorax").exit_code == 2
    assert run("feedback", study, "pneumothorax", "perhaps").exit_code == 2


def test_parts_and_orders_of_the_list(run: Run, study: str) -> None:
    run("priority", study, "by-triage")
    assert "P1" in run("worklist", "--show", "critical").output
    assert "P1" not in run("worklist", "--show", "routine").output
    assert "P1" in run("worklist", "--order", "patient").output
    assert "P1" in run("worklist", "--open", "--order", "patient").output


@pytest.mark.parametrize(
    "command", [["reported"], ["priority", "?", "urgent"], ["feedback"], ["hold", "--reason", "x"]]
)
def test_an_unknown_study_is_told(run: Run, engine: Engine, command: list[str]) -> None:
    del engine
    arguments = ["nobody" if one == "?" else one for one in command]
    result = run(*(arguments if "?" in command else [*arguments, "nobody"]))
    assert result.exit_code == 1
    assert "no study matches nobody" in result.output


@pytest.mark.parametrize(
    "command",
    [
        ("reported", "A1"),
        ("reported", "A1", "--undo"),
        ("hold", "A1", "--reason", "why"),
        ("release", "A1"),
        ("retry", "A1", "--again"),
        ("priority", "A1", "urgent"),
        ("feedback", "A1", "pneumothorax", "accept"),
    ],
)
def test_every_action_repeats_whose_study_it_was(run: Run, study: str, command: tuple[str, ...]) -> None:
    assert study
    assert "study #1 (patient P1, accession A1, of an unknown date) " in run(*command).output


def test_a_row_is_written_with_its_sign(run: Run, engine: Engine, study: str) -> None:
    database = Database(engine, NO_RULES)
    assert study
    not_eligible = run("reported", "1")
    assert not_eligible.exit_code == 1
    assert "no study matches 1; the row of that number is written '#1'" in not_eligible.output
    assert Worklist(database.engine).page(), "nothing was done"
    assert run("reported", "#1").exit_code == 0
    assert Worklist(database.engine).page() == ()


def test_an_accession_number_of_two_studies_is_refused(run: Run, engine: Engine, study: str) -> None:
    database = Database(engine, NO_RULES)
    assert study
    other: dict[str, Any] = {
        "sop_instance_uid": "1.2.4.1",
        "study_instance_uid": "1.2.4",
        "series_instance_uid": "1.2.4.0",
    }
    received = ReceivedInstance(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1", transfer_syntax_uid="1.2.840.10008.1.2.1", digest="b" * 64,
        path="b.dcm", byte_count=1, patient_id="P2", accession_number="A1", study_date="20260130", **other,
    )  # fmt: skip
    record_instance(database, received, None, "pipeline", NOW)
    not_eligible = run("reported", "A1")
    assert not_eligible.exit_code == 1
    assert "study #1 (patient P1, accession A1, of an unknown date)" in not_eligible.output
    assert "study #2 (patient P2, accession A1, of 20260130)" in not_eligible.output
    assert len(Worklist(database.engine).page()) == 2
