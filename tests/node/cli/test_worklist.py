"""The commands of an admin on a real database, with a real broker that is not running."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydicom.data import get_testdata_file

from config.notice import NOTICE
from config.settings import load
from db import deliveries, jobs, rejection_notes
from db.audit import AuditFilter, AuditTrail
from db.database import Database
from db.queries import study_details
from db.records import FindingRecord, NotEligible, Outcome, ReceivedInstance, RejectionNote, ResultRecord
from db.states import JobState
from node.cli.main import COMMANDS, cli
from tests.commands import record_instance

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LEASE = timedelta(minutes=5)

Run = Callable[..., Result]


def _received(path: str = "instances/00/a.dcm", **changes: str) -> ReceivedInstance:
    values: dict[str, Any] = {
        "sop_instance_uid": "1.2.3.1",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "digest": "a" * 64,
        "study_instance_uid": "1.2.3",
        "series_instance_uid": "1.2.3.0",
        "patient_id": "P1",
        "accession_number": "A1",
        "study_description": "CHEST PA",
        "modality": "CR",
    } | changes
    return ReceivedInstance(path=path, byte_count=1, **values)


def _failed_job(database: Database) -> int:
    (job_id,) = record_instance(database, _received(), None, "pipeline", NOW).job_ids
    assert database.write(jobs.claim, job_id, "worker", NOW, LEASE) is not None
    assert database.write(jobs.fail, job_id, "worker", "the network gave no answer", NOW)
    return job_id


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage:")


def test_the_help_names_every_command_and_what_pleura_is_not() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    assert all(f"  {command} " in text for command in COMMANDS)
    assert "not a medical device" in text


def test_without_a_database_the_command_says_what_makes_it(run: Run) -> None:
    result = run("worklist")
    assert result.exit_code == 1
    assert "pleura serve" in result.output


def test_the_worklist_shows_studies_and_why(run: Run, database: Database) -> None:
    not_eligible = NotEligible("not_a_chest", "The image shows no chest.")
    other = _received(sop_instance_uid="1.2.4.1", digest="b" * 64, study_instance_uid="1.2.4", patient_id="P2")
    record_instance(database, other, not_eligible, "pipeline", NOW)
    _failed_job(database)
    text = run("worklist").output
    assert text.endswith(f"{NOTICE}\n")
    assert "P1" in text
    assert "P2" in text
    rows = json.loads(run("worklist", "--json").output)
    received = datetime.fromisoformat(rows[0]["received_at"])
    assert (received.isoformat(), received.tzinfo is not None) == (rows[0]["received_at"], True)
    assert {row["notice"] for row in rows} == {NOTICE}
    assert {row["patient_id"]: (row["images"], row["not_eligible"]) for row in rows} == {"P1": (1, 0), "P2": (1, 1)}
    for options in (
        ("--search", "p2"),
        ("--search", "P2", "--state", "open", "--to", "2030-01-01", "--from", "1.1.1990"),
    ):
        found = json.loads(run("worklist", "--json", *options).output)
        assert [row["patient_id"] for row in found] == (["P2"] if len(options) == 2 else [])
    assert "must be a date such as" in run("worklist", "--from", "soon").stderr


def test_show_tells_everything_and_an_unknown_study_is_an_error(run: Run, database: Database) -> None:
    _failed_job(database)
    text = run("show", "A1").output
    assert text.endswith(f"{NOTICE}\n")
    assert "the network gave no answer" in text
    assert "claimed" in text, "the history belongs to it"
    assert json.loads(run("show", "1.2.3", "--json").output)["row"]["patient_id"] == "P1"
    seen = AuditTrail(database.engine).entries(AuditFilter(action="view study"))
    assert [one.detail for one in seen] == ["in a terminal"] * 2
    unknown = run("show", "nobody")
    assert unknown.exit_code == 1
    assert "no study matches nobody" in unknown.output


def test_retry_queues_a_failed_job_even_while_the_broker_is_down(run: Run, database: Database) -> None:
    job_id = _failed_job(database)
    result = run("retry", "1.2.3")
    assert "1 jobs and 0 deliveries are queued again" in result.output
    assert "the scheduler enqueues them" in result.output
    detail = database.read(study_details.study_detail, 1)
    assert [(job.id, job.state) for job in detail.jobs] == [(job_id, JobState.QUEUED)]
    assert [event.actor.startswith("cli:") for event in detail.events if event.entity == "job"][-1]


def test_problems_are_printed_with_what_to_do_and_retried_together(run: Run, database: Database) -> None:
    assert run("problems").output == "nothing fails\n"
    _failed_job(database)
    printed = " ".join(run("problems").output.split())
    assert "1 job, 1 given up" in printed
    [problem] = json.loads(run("problems", "--json").output)
    assert (problem["entity"], problem["failed"]) == ("job", 1)
    assert "there is no destination nowhere" in run("retry", "--destination", "nowhere").stderr
    assert run("retry").exit_code == run("retry", "1.2.3", "--all").exit_code == 2
    assert "1 jobs and 0 deliveries are tried again" in run("retry", "--all").output
    assert run("problems").output == "nothing fails\n"


def test_hold_and_release(run: Run, database: Database) -> None:
    record_instance(database, _received(), None, "pipeline", NOW)
    assert run("hold", "1.2.3", "--reason", "wrong patient?").exit_code == 0
    assert database.read(study_details.study_detail, 1).row.on_hold
    assert "wrong patient?" in run("worklist").output
    assert "1 jobs are queued" in run("release", "1.2.3").output
    assert not database.read(study_details.study_detail, 1).row.on_hold


def test_explain_writes_one_page_without_the_patient(
    run: Run, database: Database, config: Path, tmp_path: Path
) -> None:
    source = Path(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    target = load(config).store.folder / "a.dcm"
    target.write_bytes(source.read_bytes())
    received = _received("a.dcm", patient_name="Secret^Name", patient_id="SECRET-ID")
    (job_id,) = record_instance(database, received, None, "pipeline", NOW).job_ids
    database.write(jobs.claim, job_id, "worker", NOW, LEASE)
    shown = FindingRecord("lung_opacity", "chest-classifier", "1", 0.81, 0.5, present=True, shadow=False)
    hidden = FindingRecord("pneumothorax", "chest-classifier", "1", 0.98765, 0.5, present=True, shadow=True)
    database.write(jobs.finish, job_id, "worker", Outcome(findings=(shown, hidden)), NOW)
    result = run("explain", "1.2.3", "--out", str(tmp_path / "page.html"))
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "0.81" in page
    assert "Not a medical device" in page
    assert "data:image/" in page
    for absent in ("Secret", "SECRET-ID", "0.988", "0.98765"):
        assert absent not in page


def test_users_are_made_and_listed(run: Run) -> None:
    assert run("user", "add", "anna", "--role", "admin", input="correct horse battery\n").exit_code == 0
    assert "anna" in run("user", "list").output
    again = run("user", "add", "anna", "--role", "viewer", input="correct horse battery\n")
    assert again.exit_code == 1
    assert "already" in again.output
    assert run("user", "change", "anna", "--sign-on").exit_code == 0
    assert run("user", "token", "dashboard", "--role", "viewer").output.startswith("pleura_")
    assert run("user", "revoke", "1").exit_code == 0
    assert "revoked" in run("user", "tokens").output


def test_doctor_finds_what_is_missing_and_says_how_to_fix_it(run: Run, database: Database) -> None:
    result = run("doctor")
    assert result.exit_code == 1, "no destination is configured"
    assert "add [[destinations]]" in result.output
    assert "schema is up to date" in result.output
    assert "chest-gate, chest-lungs, chest-classifier" in result.output


def test_a_mistake_in_the_settings_is_one_line(config: Path) -> None:
    import subprocess

    from node.supervisor import pleura_command

    config.write_text("[listener]\nport = 'many'\n", encoding="utf-8")
    done = subprocess.run(pleura_command(config, "worklist"), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("pleura: listener.port")
    assert done.stderr.count("\n") == 1


def test_show_lists_what_must_be_removed_by_hand(run: Run, database: Database) -> None:
    (job_id,) = record_instance(database, _received(), None, "pipeline", NOW).job_ids
    database.write(jobs.claim, job_id, "worker", NOW, LEASE)
    made = ResultRecord("sr", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.77", "2.25.78", "d", "p", 1)
    delivery_ids = database.write(
        jobs.finish, job_id, "worker", Outcome(results=(made,), destinations={"pacs": ("sr",)}), NOW
    )
    for delivery in delivery_ids or ():
        database.write(deliveries.claim, delivery, "worker", NOW, LEASE)
        database.write(deliveries.sent, delivery, "worker", NOW)
    assert "remove by hand" not in run("show", "A1").output
    uid = database.read(study_details.study_detail, 1).instances[0].sop_instance_uid
    database.write(rejection_notes.reject, RejectionNote("1.9", "113001", "The hospital has rejected it.", (uid,)), NOW)
    text = run("show", "A1").output
    assert "To remove by hand" in text
    assert "2.25.77" in text.partition("To remove by hand")[2]


def test_times_for_people_are_in_the_zone_of_the_site_and_json_is_not(
    run: Run, database: Database, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _failed_job(database)
    monkeypatch.setenv("PLEURA_SITE__TIME_ZONE", "Asia/Kolkata")
    shown = run("show", "1.2.3")
    assert f"{NOW:%Y-%m-%d} 17:30:00 IST" in shown.output
    assert "IST" in run("problems").output
    answer = json.loads(run("show", "1.2.3", "--json").output)
    assert answer["row"]["received_at"] == "2026-01-31T12:00:00+00:00"
    monkeypatch.setenv("PLEURA_SITE__TIME_ZONE", "Europe/Bielefeld")
    assert "Europe/Bielefeld' is not a time zone" in run("problems").output
