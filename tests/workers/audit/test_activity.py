"""A part of the node starts and stops, and what of its configuration has changed since it last did."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from config.servers import Database
from config.settings import Admin, Settings
from config.triage import Triage
from db.audit import AuditTrail, RecordedEntry
from db.audit_events import AuditEvent
from db.engine import connect
from tests.migrated import migrate
from workers.audit.activity import application_activity
from workers.worker_id import host_name


@pytest.fixture
def trail(settings: Settings) -> Iterator[AuditTrail]:
    engine = connect(settings.database_url)
    migrate(engine)
    yield AuditTrail(engine)
    engine.dispose()


def _run(settings: Settings, part: str = "listener") -> None:
    with application_activity(settings, part):
        pass


def _changes(trail: AuditTrail) -> list[RecordedEntry]:
    return [one for one in trail.entries() if one.action == "change configuration"]


def test_a_restart_leaves_its_entries(settings: Settings, trail: AuditTrail) -> None:
    _run(settings)
    _run(settings)
    stopped, started, *_ = trail.entries()
    assert [one.action for one in trail.entries()] == ["stop", "start", "stop", "start", "change configuration"]
    assert (started.actor, started.subject) == (f"listener@{host_name()}", "listener")
    assert started.detail.startswith("Pleura ")
    assert stopped.meaning.event is AuditEvent.APPLICATION_ACTIVITY


def test_a_changed_configuration_says_which_keys_and_no_secret(settings: Settings, trail: AuditTrail) -> None:
    _run(settings)
    changed = settings.model_copy(
        update={
            "triage": Triage(critical=("pneumothorax", "lung_opacity")),
            "admin": Admin(metrics_token=SecretStr("hunter2-hunter2")),
        }
    )
    _run(changed)
    latest, first = _changes(trail)
    assert first.detail == "the first one of this machine"
    assert set(latest.data["keys"]) == {"admin.metrics_token", "triage.critical"}
    assert 'admin.metrics_token: nothing to "**********"' in latest.detail
    assert latest.data["sha256"] != first.data["sha256"]
    assert "hunter2" not in "".join(map(repr, trail.entries()))
    _run(changed)
    assert len(_changes(trail)) == 2


def test_parts_that_start_together_tell_of_a_change_once(settings: Settings, trail: AuditTrail) -> None:
    threads = [threading.Thread(target=_run, args=(settings, part)) for part in ("listener", "admin", "scheduler")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_changes(trail)) == 1
    assert len(trail.entries()) == 7
    assert trail.verify().problem == ""


def test_a_part_starts_without_a_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(database=Database(url=SecretStr(f"sqlite:///{tmp_path}/missing/pleura.sqlite")))
    _run(settings)
    assert "no entry of the start of the listener" in caplog.text
