"""``pleura simulate`` from the terminal."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner, Result

from config.settings import load
from db.database import Database
from db.engine import connect
from db.records import NotEligible, ReceivedInstance
from node.cli.main import cli
from tests.commands import record_instance
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.workers.simulation.rooms import scenario


@pytest.fixture
def room(tmp_path: Path) -> Path:
    path = tmp_path / "room.toml"
    path.write_text(tomli_w.dumps(scenario().model_dump(mode="json")), encoding="utf-8")
    return path


def _simulate(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--config", str(config), "simulate", "--replications", "2", *arguments])


def test_table_report_and_numbers(config: Path, room: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = _simulate(config, "--scenario", str(room), "--out", str(out), "--seed", "7")
    assert result.exit_code == 0, result.output
    assert "due time" in result.output
    assert "not a medical device" in result.output
    assert json.loads((out / "metrics.json").read_text())["seed"] == 7
    assert (out / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_without_matplotlib_the_table_is_printed_and_a_report_names_the_extra(
    config: Path, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    assert "due time" in _simulate(config, "--scenario", str(room)).output
    result = _simulate(config, "--scenario", str(room), "--out", str(tmp_path / "out"))
    assert (result.exit_code, "pip install 'pleura[reports]'" in result.output) == (1, True)
    assert not (tmp_path / "out").exists()


def test_the_rules_of_the_site_are_taken(config: Path, room: Path, tmp_path: Path) -> None:
    config.write_text(tomli_w.dumps({"triage": {"routine_minutes": 77}}), encoding="utf-8")
    result = _simulate(config, "--scenario", str(room), "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "metrics.json").read_text())["rules"]["routine_minutes"] == 77


def test_a_broken_scenario_is_one_clear_line(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("title = 3", encoding="utf-8")
    result = _simulate(config, "--scenario", str(path))
    assert result.exit_code == 1
    assert "title" in result.output


def test_from_the_database(config: Path, room: Path) -> None:
    settings = load(config)
    settings.store.folder.mkdir()
    engine = connect(settings.database_url)
    migrate(engine)
    database = Database(engine, NO_RULES)
    too_few = _simulate(config, "--scenario", str(room), "--observed")
    assert too_few.exit_code == 1
    assert "at least" in too_few.output
    now = datetime.now(UTC)
    for number in range(200):
        received = ReceivedInstance(
            sop_instance_uid=f"1.2.{number}.1",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            digest=f"{number:064}",
            path="instances/00/a.dcm",
            byte_count=1,
            study_instance_uid=f"1.2.{number}",
            series_instance_uid=f"1.2.{number}.0",
        )
        not_eligible = NotEligible("not-frontal", "The view is lateral.") if number % 10 == 0 else None
        outcome = record_instance(database, received, not_eligible, "pipeline", now - timedelta(hours=number))
        assert len(outcome.job_ids) == (0 if not_eligible else 1)
    # Only the refused ones have come to their end; the others still wait for their analysis.
    assert "has 20 complete studies" in _simulate(config, "--scenario", str(room), "--observed").output
