"""``pleura audit``: what an admin sees of the trail in a terminal, and what ``pleura doctor`` says of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from config.settings import load
from db.audit import AuditEntry, AuditTrail
from db.engine import connect
from node.cli.main import cli
from node.monitoring.health import check_audit
from tests.migrated import migrate

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
Run = Callable[..., Result]


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "pleura.toml"
    down = {"name": "arr", "host": "127.0.0.1", "port": 9}
    path.write_text(tomli_w.dumps({"store": {"folder": str(tmp_path)}, "audit": {"repositories": [down]}}))
    return path


@pytest.fixture
def engine(configuration: Path) -> Iterator[Engine]:
    engine = connect(load(configuration).database_url)
    migrate(engine)
    for number, action in enumerate(("log in", "view study", "hold", "log out")):
        AuditTrail(engine).add(AuditEntry(NOW + timedelta(hours=number), "ada", action, "=1+1", address="10.0.0.7"))
    yield engine
    engine.dispose()


@pytest.fixture
def run(configuration: Path, engine: Engine) -> Run:
    del engine
    return lambda *arguments: CliRunner().invoke(cli, ["--config", str(configuration), "audit", *arguments])


def _tamper(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        for trigger in ("audit_is_not_updated", "audit_is_not_deleted"):
            connection.exec_driver_sql(f"DROP TRIGGER {trigger}")
        connection.exec_driver_sql(statement)


def test_a_trail_that_holds_is_verified_and_that_is_in_it(run: Run, engine: Engine) -> None:
    done = run("verify")
    assert done.exit_code == 0, done.output
    assert "4 entries hold; the last is audit entry 4 sha256:" in done.output
    entry = AuditTrail(engine).entries()[0]
    assert (entry.action, entry.detail) == ("verify audit", "4 entries hold, up to 4")
    assert entry.actor.startswith("cli:")


def test_a_broken_trail_is_told_with_the_entry(run: Run, engine: Engine, configuration: Path) -> None:
    _tamper(engine, "UPDATE audit SET actor = 'eve' WHERE id = 2")
    done = run("verify")
    assert done.exit_code == 1
    assert "broken at entry 2: entry 2 was changed" in done.output
    trail, _ = check_audit(load(configuration), peers=False)
    assert (trail.ok, "entry 2 was changed" in trail.found) == (False, True)


def test_what_was_cut_off_shows_by_what_was_kept(run: Run, engine: Engine, tmp_path: Path) -> None:
    kept = tmp_path / "scheduler.log"
    kept.write_text(f"2026-03-01 INFO {AuditTrail(engine).verify().head}\n")
    agreed = run("verify", "--anchors", str(kept))
    assert agreed.exit_code == 0, agreed.output
    assert "1 digests that were kept elsewhere agree" in agreed.output
    _tamper(engine, "DELETE FROM audit WHERE id > 2")
    done = run("verify", "--anchors", str(kept))
    assert done.exit_code == 1
    assert "broken at entry 3: it was cut off" in done.output


def test_it_is_exported_as_csv_and_json(run: Run, engine: Engine, tmp_path: Path) -> None:
    done = run("export")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["action"] for row in rows] == ["log in", "view study", "hold", "log out"]
    assert rows[0]["subject"] == "'=1+1", "no formula for a spreadsheet"
    assert rows[0]["event"] == "User Authentication"
    path = tmp_path / "trail.json"
    since = ["--since", "2026-03-01T09:30:00", "--until", "2026-03-01T11:00:00"]
    assert run("export", "--format", "json", *since, "--output", str(path)).exit_code == 0
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert [one["action"] for one in entries] == ["view study", "hold"]
    assert entries[0]["sha256"] == rows[1]["sha256"]
    assert json.loads(run("export", "--format", "json", "--actor", "nobody").stdout) == []
    assert {one.action for one in AuditTrail(engine).entries(limit=3)} == {"export audit"}


def test_doctor_tells_of_a_repository_that_is_down(configuration: Path, engine: Engine) -> None:
    del engine
    trail, repository = check_audit(load(configuration))
    assert (trail.ok, trail.found) == (True, "its last 4 entries hold, up to 4")
    assert not repository.ok
    assert "4 entries wait, since 2026-03-01 08:30 UTC" in repository.found
