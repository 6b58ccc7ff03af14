"""The listener as ``pleura listen`` runs it: composed from settings, small, and stopped by an event."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from db.audit import AuditEntry, AuditTrail
from db.engine import connect
from node.listener_metrics import read_instruments
from tests.node.dicom.listening import chest, dcmtk
from workers.worker_id import occupied_places

REPOSITORY = Path(__file__).resolve().parents[3]


def _counted(store: Path) -> dict[tuple[str, str], float]:
    """What the listener tells the admin page, by metric and label."""
    assert list(occupied_places(store).values()) == ["listener"]
    samples = [sample for metric in read_instruments(store, occupied_places(store)) for sample in metric.samples]
    return {(sample.name, "".join(sample.labels.values())): sample.value for sample in samples}


def _trail(store: Path) -> dict[str, AuditEntry]:
    """The entries of the audit trail by their action; there are no two of one."""
    engine = connect(f"sqlite:///{store}/pleura.sqlite")
    entries = AuditTrail(engine).entries()
    engine.dispose()
    assert len({entry.action for entry in entries}) == len(entries)
    return {entry.action: entry for entry in entries}


@pytest.mark.peer("storescu", "echoscu")
def test_listens_without_a_broker_counts_stays_small_and_stops(tmp_path: Path) -> None:
    large = chest(Rows=4096, Columns=4096)
    large.BitsAllocated = large.BitsStored = 16
    large.HighBit = 15
    large.PixelData = bytes(2 * 4096 * 4096)
    large.save_as(tmp_path / "large.dcm", enforce_file_format=True)
    listener = subprocess.Popen(
        [sys.executable, "-P", "-m", "node.cli.main", "listen"],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ
        | {
            "PLEURA_STORE__FOLDER": str(tmp_path / "store"),
            "PLEURA_LISTENER__PORT": "0",
            "PLEURA_STORE__MINIMUM_FREE_BYTES": "0",
        },
    )
    try:
        assert listener.stderr is not None
        found = ""
        while not (ready := re.search(r"listens on 127\.0\.0\.1:(\d+)", found)):
            line = listener.stderr.readline()
            assert line, found
            found += line
        sent = dcmtk("storescu", "-aec", "PLEURA", "127.0.0.1", ready[1], tmp_path / "large.dcm")
        assert sent.returncode == 0, sent.stderr
        assert dcmtk("echoscu", "-aec", "ANOTHER", "127.0.0.1", ready[1]).returncode != 0
        counted = _counted(tmp_path / "store")
        status = Path(f"/proc/{listener.pid}/status").read_text()
        maps = Path(f"/proc/{listener.pid}/maps").read_text()
        listener.send_signal(signal.SIGTERM)
        assert listener.wait(60) == 0
    finally:
        listener.kill()
        listener.wait()
        assert listener.stderr is not None
        listener.stderr.close()

    assert counted["pleura_cstore_duration_seconds_count", "0x0000"] == 1
    assert 0 < counted["pleura_cstore_duration_seconds_sum", "0x0000"] < 60
    assert counted["pleura_associations_accepted_total", ""] == 1
    assert counted["pleura_associations_rejected_total", "called AE title not recognized"] == 1
    assert not occupied_places(tmp_path / "store")
    trail = _trail(tmp_path / "store")
    assert {"change configuration", "start", "receive", "reject association", "stop"} == set(trail)
    assert (trail["receive"].detail, trail["receive"].address) == ("1 instance", "127.0.0.1")
    assert trail["receive"].study_id == 1
    assert trail["receive"].data["instances"] == {large.SOPClassUID: 1}
    assert trail["reject association"].detail == "called AE title not recognized"
    highest = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]
    assert highest * 1024 < 150e6
    assert not re.search(r"onnxruntime|tensorflow|imagecodecs", maps)
