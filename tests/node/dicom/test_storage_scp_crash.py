"""Killed with -9 at every point, under load: what was answered 0x0000 is there, and nothing is there twice."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from db.engine import connect
from tests.node.dicom.crashing_listener import POINTS
from tests.node.dicom.listening import chest, data_set_bytes, dcmtk

REPOSITORY = Path(__file__).resolve().parents[3]
SENDERS, IMAGES = 3, 4
# The moments around the answer are part of `make test`, the others of `make campaigns`.
FAST = ("linked", "committing", "recorded")
CAMPAIGN = pytest.mark.campaign


def written(folder: Path, count: int) -> dict[str, Path]:
    """Files to send, by SOP Instance UID."""
    (folder / "outgoing").mkdir()
    files = {}
    for number in range(count):
        image = chest()
        path = folder / "outgoing" / f"{number}.dcm"
        image.save_as(path, enforce_file_format=True)
        files[str(image.SOPInstanceUID)] = path
    return files


@contextmanager
def crashing(folder: Path, point: str, passage: int) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.node.dicom.crashing_listener", str(folder), point, str(passage)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process
    finally:
        process.kill()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def send_all(port: int, images: dict[str, Path], accepted: set[str]) -> None:
    """Send what is not accepted yet, until the listener is gone."""
    for uid, path in images.items():
        if uid in accepted:
            continue
        if dcmtk("storescu", "-aec", "PLEURA", "127.0.0.1", port, path).returncode:
            return
        accepted.add(uid)


def send_under_load(port: int, images: dict[str, Path], accepted: set[str]) -> None:
    shares = [dict(list(images.items())[start::SENDERS]) for start in range(SENDERS)]
    senders = [threading.Thread(target=send_all, args=(port, share, accepted)) for share in shares]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(120)
        assert not sender.is_alive()


def recorded(folder: Path) -> dict[str, str]:
    """Path of each instance by its UID, after checking that the bytes are those of its digest."""
    engine = connect(f"sqlite:///{folder / 'test.sqlite'}")
    with engine.connect() as connection:
        rows = connection.execute(text("select sop_instance_uid, digest, path from instances")).all()
        jobs = connection.execute(text("select count(*) from jobs")).scalar_one()
    engine.dispose()
    for _, digest, path in rows:
        assert hashlib.sha256(data_set_bytes(folder / path)).hexdigest() == digest
    assert jobs == len(rows) == len({uid for uid, _, _ in rows})
    return {uid: path for uid, _, path in rows}


@pytest.mark.slow
@pytest.mark.peer("storescu")
@pytest.mark.parametrize("point", [point if point in FAST else pytest.param(point, marks=CAMPAIGN) for point in POINTS])
def test_nothing_accepted_is_lost(tmp_path: Path, point: str) -> None:
    images = written(tmp_path, SENDERS * IMAGES)
    accepted: set[str] = set()
    for passage in (1, 4):
        with crashing(tmp_path, point, passage) as (port, process):
            send_under_load(port, images, accepted)
            assert process.wait(60) == -9, "the point was not passed"
        assert len(accepted) < len(images)
        assert accepted <= set(recorded(tmp_path))
    with crashing(tmp_path, "none", 1) as (port, _):
        assert list((tmp_path / "spool").iterdir()) == []
        send_under_load(port, images, accepted)

    assert (tmp_path / "hits").read_text().split() == [point, point]
    assert accepted == set(images)
    kept = recorded(tmp_path)
    assert set(kept) == accepted
    assert sorted(kept.values()) == sorted(
        str(path.relative_to(tmp_path)) for path in (tmp_path / "instances").glob("*/*")
    )
