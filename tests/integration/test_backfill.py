"""``pleura backfill`` against a real PACS: what it holds and the node has not comes once, and nothing else."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config.listener import Listener
from node.cli.main import cli
from tests.integration.studies import frontal, whole_study
from tests.node.dicom.listening import Listening, listening
from tests.orthanc import running_orthanc
from tests.ports import free_port
from tests.viewers.phantoms import as_bytes

pytestmark = [pytest.mark.slow, pytest.mark.peer("Orthanc")]

CONFIG = """
[listener]
port = {port}
[store]
folder = "{folder}"
[database]
url = "sqlite:///{folder}/test.sqlite"
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
[backfill]
archive = "pacs"
"""


def _backfill(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--config", str(config), "backfill", *arguments])


def _numbers(config: Path, *arguments: str) -> tuple[int, int, int, int]:
    result = _backfill(config, "--json", *arguments)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    return answer["studies"], answer["incomplete"], answer["images"], answer["failed"]


def _received(node: Listening) -> set[str]:
    return {str(uid) for (uid,) in node.rows("sop_instance_uid")}


def test_what_the_pacs_holds_comes_once(tmp_path: Path) -> None:
    port, today = free_port(), date.today()
    here, whole, old = frontal(1), whole_study(), frontal(3)
    for one, day in ((here, today), (old, today - timedelta(days=14)), *((each, today) for each in whole.values())):
        one.StudyDate = f"{day:%Y%m%d}"
    for one in whole.values():
        one.AccessionNumber, one.PatientID = "A0002", "P0002"
    folder = tmp_path / "node"
    folder.mkdir()
    with (
        running_orthanc(tmp_path / "pacs", "PACS") as pacs,
        listening(folder, Listener(port=port)) as node,
    ):
        config = tmp_path / "pleura.toml"
        config.write_text(CONFIG.format(port=port, folder=folder, pacs=pacs.dicom_port))
        for one in (here, old, *whole.values()):
            pacs.upload(as_bytes(one))
        pacs.know("caller", "PLEURA", 1)
        refused = _backfill(config)
        assert refused.exit_code == 1
        assert "move destination" in refused.output or "0x" in refused.output, refused.output

        pacs.know("caller", "PLEURA", port)
        pacs.store_to("caller", *(each["ID"] for each in pacs.instances(SOPInstanceUID=here.SOPInstanceUID)))
        images = {whole["pa"].SOPInstanceUID, whole["lateral"].SOPInstanceUID}
        assert _numbers(config, "--dry-run") == (2, 1, 2, 0)
        assert _numbers(config) == (2, 1, 2, 0)
        assert _received(node) == {here.SOPInstanceUID, *images}, "neither key objects nor pages, nor older studies"
        assert _numbers(config) == (2, 0, 0, 0), "a second run finds nothing"
        old_days = ("--from", f"{today - timedelta(days=15):%Y-%m-%d}", "--to", f"{today - timedelta(days=13):%Y%m%d}")
        assert _numbers(config, *old_days) == (1, 1, 1, 0)
        asked = node.engine.connect()
        with asked as connection:
            rows = connection.exec_driver_sql("select study_instance_uid from backfilled_studies").scalars().all()
        assert set(rows) == {old.StudyInstanceUID}, "what came by itself, or is of today, is not silenced"


def test_an_archive_that_is_down_is_named(tmp_path: Path) -> None:
    config = tmp_path / "pleura.toml"
    config.write_text(CONFIG.format(port=free_port(), folder=tmp_path, pacs=free_port()))
    result = _backfill(config)
    assert result.exit_code == 1
    assert "pacs cannot be searched: the peer cannot be reached" in result.output
