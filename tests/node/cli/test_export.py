"""``pleura export`` on a real database and real files."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from pydicom import dcmread

from config.settings import load
from db import holds
from db.audit import AuditTrail
from db.database import Database
from tests.workers.deidentification.samples import KEY, receive

NOW = datetime(2026, 3, 1, 13, tzinfo=UTC)
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEURA_DEIDENTIFICATION__KEY", KEY)


@pytest.fixture
def store(config: Path, database: Database) -> Path:
    return load(config).store.folder


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


def test_studies_leave_without_a_name_and_with_a_report(
    run: Run, database: Database, store: Path, tmp_path: Path
) -> None:
    receive(database, store, "1.2.3.1")
    receive(database, store, "1.2.3.2", burned := "Zqroe", BurnedInAnnotation="YES")
    out = tmp_path / "out"
    result = run("export", "--deidentified", "--out", str(out), "--modality", "CR")
    assert result.exit_code == 0, result.output
    assert "1 gsps, 1 image, 1 lungs, 1 seg, 1 sr of 1 patients" in result.output
    assert "1 image not exported: Burned In Annotation does not say NO" in result.output
    assert {str(dcmread(path).Modality) for path in _files(out)} == {"CR", "SEG", "SR", "PR"}
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"zq" not in everything.lower()
    assert b"zq" not in result.output.encode().lower()
    report = json.loads((out / "report.json").read_text())
    assert report["exported"] == {"gsps": 1, "image": 1, "lungs": 1, "seg": 1, "sr": 1}
    assert {"tag": "(0010,0010)", "attribute": "PatientName", "action": "replaced", "count": 5} in report["attributes"]
    text = (out / "report.txt").read_text()
    assert "not anonymous by law" in text
    assert "nobody has looked into the pixels" in text
    assert KEY not in everything.decode("latin-1")
    assert burned not in result.output


def test_every_study_is_in_the_audit_trail(run: Run, database: Database, store: Path, tmp_path: Path) -> None:
    studies = [receive(database, store, uid, uid[-1]) for uid in ("1.2.3.1", "1.2.3.2")]
    assert run("export", "--deidentified", "--out", str(tmp_path / "out"), "--modality", "CR").exit_code == 0
    entries = AuditTrail(database.engine).entries()
    found = {entry.study_id: entry for entry in entries if entry.action == "export de-identified"}
    assert set(found) == set(studies)
    assert all(str(tmp_path / "out") in entry.detail and entry.actor.startswith("cli:") for entry in found.values())


def test_an_export_that_was_stopped_goes_on(
    run: Run, database: Database, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        receive(database, store, f"1.2.3.{number}", str(number))
    out = tmp_path / "out"
    replace, calls = Path.replace, iter(range(100))

    def full(self: Path, target: Path) -> Path:
        if next(calls) == 5:
            raise OSError(28, os.strerror(28), str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    stopped = run("export", "--deidentified", "--out", str(out), "--modality", "CR")
    monkeypatch.setattr(Path, "replace", replace)
    assert stopped.exit_code == 1
    assert "No space left" in stopped.output
    assert "--resume" in stopped.output
    times = {path: path.stat().st_mtime_ns for path in _files(out)}
    assert len(times) == 4
    again = run("export", "--deidentified", "--out", str(out), "--modality", "CR")
    assert again.exit_code == 1
    assert "--resume goes on" in again.output
    resumed = run("export", "--deidentified", "--out", str(out), "--modality", "CR", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert len(_files(out)) == 10
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert json.loads((out / "report.json").read_text())["patients"] == 2


def test_a_zip_file_holds_the_same(run: Run, database: Database, store: Path, tmp_path: Path) -> None:
    receive(database, store, "1.2.3.1")
    out = tmp_path / "out.zip"
    assert run("export", "--deidentified", "--out", str(out), "ZQ1").exit_code == 0
    with zipfile.ZipFile(out) as packed:
        names = packed.namelist()
        assert packed.testzip() is None
    assert len([name for name in names if name.endswith(".dcm")]) == 5
    assert "out/report.txt" in names
    assert not any("journal" in name for name in names)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out.zip"]
    assert "not overwritten" in run("export", "--deidentified", "--out", str(out), "ZQ1").output


def test_nothing_is_overwritten(run: Run, database: Database, store: Path, tmp_path: Path) -> None:
    receive(database, store, "1.2.3.1")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    result = run("export", "--deidentified", "--out", str(tmp_path / "out"), "ZQ1")
    assert result.exit_code == 1
    assert "not empty" in result.output
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_resumed_export_keeps_its_settings(
    run: Run, database: Database, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(database, store, "1.2.3.1")
    out = str(tmp_path / "out")
    assert run("export", "--deidentified", "--out", out, "ZQ1").exit_code == 0
    monkeypatch.setenv("PLEURA_DEIDENTIFICATION__DATES", "removed")
    result = run("export", "--deidentified", "--out", out, "ZQ1", "--resume")
    assert result.exit_code == 1
    assert "other settings: dates" in result.output


def test_a_study_on_hold_stays_here(run: Run, database: Database, store: Path, tmp_path: Path) -> None:
    study = receive(database, store, "1.2.3.1")
    database.write(holds.hold, study, "whose is it?", "anna", NOW)
    result = run("export", "--deidentified", "--out", str(tmp_path / "out"), "ZQ1")
    assert "on hold" in result.output
    assert _files(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--deidentified"], "filters"),
        (["ZQ1"], "say --deidentified"),
        (["--deidentified", "ZQ1", "--modality", "CR"], "filters"),
        (["--deidentified", "--modality", "MR"], "no study matches"),
    ],
)
def test_what_is_missing_is_said(
    run: Run, database: Database, store: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run("export", "--out", str(tmp_path / "out"), *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_without_a_key_nothing_leaves(
    run: Run, database: Database, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(database, store, "1.2.3.1")
    monkeypatch.delenv("PLEURA_DEIDENTIFICATION__KEY")
    result = run("export", "--deidentified", "--out", str(tmp_path / "out"), "ZQ1")
    assert result.exit_code == 1
    assert "openssl rand" in result.output
    assert not (tmp_path / "out").exists()
