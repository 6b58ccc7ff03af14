"""Files of an erased study go, whoever is killed when, and the bytes of one that has come again stay."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from db import erasures, jobs
from db.database import Database
from db.engine import connect
from db.errors import RecordNotFoundError
from db.records import Outcome, ResultRecord
from node.dicom.instance_store import InstanceStore
from tests.commands import record_instance
from tests.db.examples import MINUTE, PIPELINE, received
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.stores import store_away
from tests.viewers.phantoms import Look, as_bytes, radiograph
from tests.workers.builders import NOON
from workers.erasing import Eraser, Rounds
from workers.store_files import kept_if_recorded, remove_unless_recorded

NAME = b"Quxelbrandt"
UID = "1.2.826.0.2.77"


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    engine = connect(f"sqlite:///{tmp_path}/pleura.sqlite")
    migrate(engine)
    yield Database(engine, NO_RULES)
    engine.dispose()


@pytest.fixture
def eraser(database: Database, tmp_path: Path) -> Eraser:
    return Eraser(database, tmp_path, lambda: NOON)


def _write(path: Path, content: bytes = NAME) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _record(database: Database, folder: Path) -> tuple[Path, int]:
    """A received image with its file, and its job."""
    digest = "ab" * 32
    image = received(1, 77, patient_name=NAME.decode(), digest=digest, path=InstanceStore.path_of(digest))
    (job_id,) = record_instance(database, image, None, PIPELINE, NOON).job_ids
    return _write(folder / image.path), job_id


def _study(database: Database, folder: Path) -> list[Path]:
    """A study with an image and a result; its files."""
    image, job_id = _record(database, folder)
    result = ResultRecord("seg", "1.2", "2.25.77", "2.25.7", "c" * 64, f"results/cc/{'c' * 64}.dcm", 5)
    database.write(jobs.claim, job_id, "w", NOON, MINUTE)
    database.write(jobs.finish, job_id, "w", Outcome(results=(result,), destinations={"pacs": ("seg",)}), NOON)
    return [image, _write(folder / result.path)]


def _ask(database: Database, study_id: int = 1) -> None:
    database.write(erasures.request, study_id, "ann", "", "case 88", NOON)


def _found(folder: Path, *words: bytes) -> list[str]:
    """Files below a folder that hold one of these words."""
    return [path.name for path in folder.rglob("*") if path.is_file() and any(w in path.read_bytes() for w in words)]


def test_rows_and_files_go_and_nothing_is_left_to_do(database: Database, eraser: Eraser, tmp_path: Path) -> None:
    files = _study(database, tmp_path)
    _ask(database)
    eraser.once()
    assert not any(path.exists() for path in files)
    assert database.read(erasures.files_to_remove) == ()
    assert _found(tmp_path, NAME) == []


def test_the_database_file_keeps_no_trace(database: Database, eraser: Eraser, tmp_path: Path) -> None:
    """Neither in pages that were split or moved, nor in the write-ahead log, whatever this SQLite does by itself."""
    event.listen(database.engine, "connect", lambda driver, _record: driver.execute("PRAGMA secure_delete=OFF"))
    database.engine.dispose()
    for number in range(60):
        other = received(number, 1000 + number, patient_name=f"Other^{number}")
        record_instance(database, other, None, PIPELINE, NOON)
    _study(database, tmp_path)
    for number in range(60, 120):
        other = received(number, 1000 + number, patient_name=f"Other^{number}")
        record_instance(database, other, None, PIPELINE, NOON)
    words = (NAME, NAME.lower(), b"P77", b"A-77", b"1.2.826.0.1.77.")
    assert _found(tmp_path, *words)
    _ask(database, 61)
    eraser.once()
    # What stays is in the audit trail: the patient ID and the Study Instance UID.
    assert _found(tmp_path, NAME, NAME.lower(), b"A-77", b"1.2.826.0.1.77.", b"1.2.826.0.3.77") == []
    assert _found(tmp_path, b"P77") == ["pleura.sqlite"]


def test_files_are_not_taken_for_gone_while_the_store_is_away(database: Database, tmp_path: Path) -> None:
    """A file system that is not mounted has none of them, and all when it is back."""
    store = tmp_path / "store"
    eraser = Eraser(database, store, lambda: NOON)
    files = _study(database, store)
    _ask(database)
    with store_away(store):
        assert eraser.once()
        assert list(store.iterdir()) == []
    assert all(path.exists() for path in files)
    eraser.once()
    assert not any(path.exists() for path in files)


@pytest.mark.parametrize("step", ["after the rows", "before the files are forgotten"])
def test_whoever_is_killed_the_next_one_goes_on(
    database: Database, eraser: Eraser, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = _study(database, tmp_path)
    _ask(database)

    def kill(*_: object) -> None:
        raise Killed

    name = {"after the rows": "files_to_remove", "before the files are forgotten": "forget_files"}[step]
    with monkeypatch.context() as patched:
        patched.setattr(erasures, name, kill)
        with pytest.raises(Killed):
            eraser.once()
    assert database.read(erasures.requested) == (), "the rows are gone together"
    eraser.once()
    assert not any(path.exists() for path in files)
    assert database.read(erasures.files_to_remove) == ()


def test_bytes_that_have_come_again_stay(database: Database, eraser: Eraser, tmp_path: Path) -> None:
    image, result = _study(database, tmp_path)
    _ask(database)
    eraser.erase(1)
    _record(database, tmp_path)
    eraser.remove_files()
    assert image.read_bytes() == NAME
    assert not result.exists()


@pytest.mark.parametrize("commits", [1, 2], ids=["before it is moved aside", "after it is moved aside"])
def test_bytes_that_come_again_at_this_moment_stay(tmp_path: Path, commits: int) -> None:
    path = _write(tmp_path / "instances/ab/abab.dcm")
    looks = iter(range(10))
    assert not remove_unless_recorded(tmp_path, "instances/ab/abab.dcm", lambda: next(looks) >= commits - 1)
    assert path.read_bytes() == NAME
    assert list((tmp_path / "removing").iterdir()) == []


def test_what_was_moved_aside_by_a_killed_process_goes_back_or_away(tmp_path: Path) -> None:
    path = tmp_path / "instances/ab/abab.dcm"
    path.parent.mkdir(parents=True)
    aside = _write(tmp_path / "removing/abab.dcm")
    assert not remove_unless_recorded(tmp_path, "instances/ab/abab.dcm", lambda: True)
    assert path.read_bytes() == NAME
    path.rename(aside)
    assert remove_unless_recorded(tmp_path, "instances/ab/abab.dcm", lambda: False)
    assert _found(tmp_path, NAME) == []


def test_a_path_out_of_the_store_is_left_alone(tmp_path: Path) -> None:
    outside = _write(tmp_path / "outside")
    remove_unless_recorded(tmp_path / "store", "../outside", lambda: False)
    assert outside.exists()


def test_copies_that_killed_processes_have_left_go_as_well(database: Database, eraser: Eraser, tmp_path: Path) -> None:
    _study(database, tmp_path)
    picture = radiograph(Look())
    picture.StudyInstanceUID = UID
    mine = as_bytes(picture)
    picture.StudyInstanceUID = "1.2.826.0.2.78"
    others = as_bytes(picture)
    old, aside, spooled = (
        _write(tmp_path / "results/dd/orphan.dcm", mine),
        _write(tmp_path / "set-aside/1-2.2.part", mine),
        _write(tmp_path / f"spool/1-2.{'ab' * 32}.failed"),
    )
    half = _write(tmp_path / "results/dd/.00.part")
    stay = [
        _write(tmp_path / "results/dd/other.dcm", others),
        _write(tmp_path / "set-aside/3-4.2.part", others),
        _write(tmp_path / "set-aside/unreadable", b"?"),
        _write(tmp_path / "results/dd/just-made.dcm", mine),
    ]
    long_ago = time.time() - 3600
    for path in (old, half, stay[0]):
        os.utime(path, (long_ago, long_ago))
    _ask(database)
    eraser.once()
    assert [path.name for path in (old, aside, spooled, half) if path.exists()] == []
    assert all(path.exists() for path in stay)


def test_a_file_that_cannot_be_removed_is_tried_again(
    database: Database,
    eraser: Eraser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = _study(database, tmp_path)
    _ask(database)
    rename: Callable[..., Path] = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == files[0]:
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    rounds = Rounds(eraser)
    with caplog.at_level("ERROR"):
        for _ in range(30):
            rounds.once()
    assert caplog.text.count("cannot be removed") == 1, "half a minute later it is in the log once"
    assert eraser.remove_files() == 1
    assert files[0].exists()
    assert not files[1].exists()
    monkeypatch.undo()
    assert eraser.remove_files() == 0
    assert not files[0].exists()


def test_files_whose_study_was_erased_before_they_could_be_recorded_go(tmp_path: Path) -> None:
    path = _write(tmp_path / "results/ee/e.dcm")
    with pytest.raises(RecordNotFoundError), kept_if_recorded(tmp_path, ("results/ee/e.dcm",)):
        raise RecordNotFoundError("study", 1)
    assert not path.exists()
    path = _write(path)
    with pytest.raises(OSError, match="full"), kept_if_recorded(tmp_path, ("results/ee/e.dcm",)):
        raise OSError("full")
    assert path.exists(), "the next attempt records it"
