"""``pleura erase`` on a running node beside a real PACS: nothing here names the patient any more but what may.

A radiograph whose every attribute has words that occur nowhere else is analysed, and its results go to Orthanc. Then
the study is erased, and store, database file, broker and log are searched for every word.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from tests.integration import patient_values
from tests.integration.patient_values import ID, found_below, found_in
from tests.integration.pleura import Pleura, running_pleura
from tests.integration.studies import frontal
from tests.integration.test_privacy import broker_content
from tests.orthanc import Orthanc, running_orthanc, wait_until
from tests.viewers.phantoms import as_bytes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.peer("Orthanc")]


def _store(port: int, *images: FileDataset) -> list[int]:
    entity = AE("SENDER")
    entity.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="PLEURA")
    try:
        return [int(association.send_c_store(image).Status) for image in images]
    finally:
        association.release()


def _command(node: Pleura, *arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "node.cli.main", "--config", str(node.config), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _studies(node: Pleura) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_command(node, "worklist", "--show", "all", "--json"))
    return found


def _database(node: Pleura) -> bytes:
    """The database's file, and its write-ahead log."""
    return b"".join(path.read_bytes() for path in (node.folder / "store").glob("pleura.sqlite*"))


def _results(pacs: Orthanc, study_uid: str) -> set[str]:
    """SOP Instance UIDs of what the PACS holds of a study, the radiograph aside."""
    found = pacs.instances(StudyInstanceUID=study_uid)
    return {one["MainDicomTags"]["SOPInstanceUID"] for one in found} - {study_uid}


def test_a_study_is_erased_where_it_is_and_named_where_it_stays(tmp_path: Path) -> None:
    image, other = patient_values.radiograph(), frontal(2)
    uid = str(image.StudyInstanceUID)
    with running_orthanc(tmp_path / "pacs", "PACS") as pacs:
        more = '\n[backfill]\narchive = "pacs"\n'
        with running_pleura(tmp_path / "node", pacs, verification="query", more=more) as node:
            pacs.know("pleura", "PLEURA", node.port)
            assert _store(node.port, image, other) == [0, 0]
            complete = {"seg", "sr", "summary"}

            def verified() -> bool:
                shown = json.loads(_command(node, "show", uid, "--json"))
                return complete <= {one["kind"] for one in shown["deliveries"] if one["state"] == "verified"}

            wait_until(verified, "the results in the PACS", 120, pause=1, alive=node.check_alive)
            assert {"name", "patient ID"} <= set(found_in(_database(node)))

            preview = _command(node, "erase", uid)
            assert "Nothing is erased" in preview
            named = set(re.findall(r"^ {4}(\S+)", preview, re.MULTILINE))
            assert named == _results(pacs, uid), "exactly what Orthanc holds"

            done = _command(node, "erase", uid, "--reason", "case 2026/88", "--yes")
            assert "Study #1 is erased" in done

            # Here: the ID in the audit trail, and nothing else.
            store = node.folder / "store"
            assert found_below(store, without=("pleura.sqlite",)) == {}
            assert not any(uid.encode() in path.read_bytes() for path in store.rglob("*.dcm"))
            assert set(found_in(_database(node))) == {ID}
            assert found_in(broker_content(node.folder)) == {}
            assert found_in(node.log_file.read_bytes()) == {}
            assert [study["study_id"] for study in _studies(node)] == [2]
            # There: everything.
            assert _results(pacs, uid) == named

            # No archive is asked for it; whoever sends it again means it.
            pacs.upload(as_bytes(image))
            day = str(image.StudyDate)
            said = _command(node, "backfill", "--from", day, "--to", day)
            assert "1 erased study is left out" in said
            assert [study["study_id"] for study in _studies(node)] == [2]
            assert _store(node.port, image) == [0]
            assert [study["study_id"] for study in _studies(node)] in ([2, 3], [3, 2])
            assert "Traceback" not in node.log_file.read_text()
