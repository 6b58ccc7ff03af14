"""Killed with -9 between the parts of a request: what was recorded is there once, and the request may be sent again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
from pydicom import dcmread
from sqlalchemy import text

from config.settings import load
from db.engine import connect
from db.user_tables import Role
from db.users import Accounts
from tests.migrated import migrate
from tests.node.dicom.listening import chest
from tests.node.dicomweb.conftest import SENDER, DicomWeb
from tests.node.dicomweb.test_store import RELATED, body_of, file_of, post
from tests.orthanc import wait_until
from tests.ports import free_port
from workers.clock import utc_now

REPOSITORY = Path(__file__).resolve().parents[3]


def started(config: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "node.cli.main", "--config", str(config), "dicomweb"]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, env=os.environ)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.campaign
def test_nothing_recorded_is_lost_or_doubled(tmp_path: Path) -> None:
    config, port = tmp_path / "pleura.toml", free_port()
    values = {"store": {"folder": str(tmp_path / "var")}, "dicomweb": {"enabled": True, "port": port}}
    config.write_text(tomli_w.dumps(values))
    settings = load(config)
    settings.store.folder.mkdir()
    engine = connect(settings.database_url)
    migrate(engine)
    _, token = Accounts(engine).add_token(SENDER, Role.SENDER, utc_now(), actor="test")
    web = DicomWeb(port, settings, engine, {Role.SENDER: token})
    images = [chest() for _ in range(3)]
    body = body_of(list(map(file_of, images)))
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {RELATED}B\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    process = started(config)
    try:
        wait_until(lambda: answers(port), "the server")
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode() + body[: len(body) * 5 // 6])
            wait_until(lambda: len(web.rows()) == 2, "two whole parts are recorded")
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
        assert len(web.leftovers()) == 1

        process = started(config)
        wait_until(lambda: answers(port), "the server again")
        assert not web.leftovers()
        assert post(web, body)[0] == 200
    finally:
        process.kill()
        process.wait(30)
    assert sorted(web.rows()) == sorted(str(image.SOPInstanceUID) for image in images)
    for uid, path in web.rows("sop_instance_uid, path"):
        assert dcmread(settings.store.folder / path).SOPInstanceUID == uid
    with engine.connect() as database:
        assert database.execute(text("select count(*) from jobs")).scalar_one() == len(images)
    engine.dispose()
