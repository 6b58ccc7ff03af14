"""A PACS that counts, and that can be told to misbehave: ``python -P -m tests.campaigns.destination HOST PORT FOLDER``.

Each object that it has is one line of ``FOLDER/received``: SOP Instance UID, patient ID, SOP Class UID, digest and
time. By C-FIND it says whether it has one. What it does is the word in ``FOLDER/mood``, which is read for each
association and for each object:

``well``
    stores and answers 0x0000.
``reject``
    rejects associations for a while (transient, local limit exceeded).
``refuse``
    answers 0xA700 and keeps nothing.
``warn``
    stores and answers 0xB000 (coercion of data elements).
``abort``
    stores, then aborts instead of answering.
``mute``
    stores and never answers.
``hang``
    stores nothing and never answers.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt

from tests.orthanc import wait_until
from tests.ports import free_port, listens

MOODS = ("reject", "refuse", "warn", "abort", "mute", "hang")
AE_TITLE = "PACS"
_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_LONGEST_SILENCE = 60.0


def main(host: str, port: int, folder: Path) -> None:
    """Run until the process is killed."""
    ae = AE(ae_title=AE_TITLE)
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context("1.2.840.10008.1.1")
    ae.add_supported_context(_STUDY_ROOT_FIND)
    ae.maximum_associations = 40
    keeping = threading.Lock()

    def requested(event: evt.Event) -> None:
        if _mood(folder) == "reject":
            event.assoc.acse.send_reject(0x02, 0x03, 0x02)
            event.assoc.kill()

    def store(event: evt.Event) -> int:
        mood = _mood(folder)
        if mood == "refuse":
            return 0xA700
        if mood != "hang":
            with keeping:
                _keep(folder, event)
        if mood == "abort":
            event.assoc.abort()
        elif mood in ("mute", "hang"):
            _be_silent(folder, mood)
            event.assoc.abort()
        return 0xB000 if mood == "warn" else 0x0000

    held = _Index(folder / "received")

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if held.has(str(event.identifier.SOPInstanceUID)):
            yield 0xFF00, event.identifier

    handlers = [(evt.EVT_REQUESTED, requested), (evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find)]
    server = ae.start_server((host, port), block=False, evt_handlers=handlers)
    threading.Event().wait()
    server.shutdown()


class _Index:
    """The UIDs in a file that grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._lock = path, 0, threading.Lock()
        self._known: set[str] = set()

    def has(self, uid: str) -> bool:
        with self._lock, self._path.open() as file:
            file.seek(self._at)
            self._known.update(line.split()[0] for line in file.read().splitlines())
            self._at = file.tell()
        return uid in self._known


def _mood(folder: Path) -> str:
    return (folder / "mood").read_text()


def _be_silent(folder: Path, mood: str) -> None:
    end = time.monotonic() + _LONGEST_SILENCE
    while _mood(folder) == mood and time.monotonic() < end:
        time.sleep(0.1)


def _keep(folder: Path, event: evt.Event) -> None:
    encoded = event.request.DataSet.getvalue()
    data_set: Dataset = event.dataset
    fields = (data_set.SOPInstanceUID, data_set.PatientID, data_set.SOPClassUID, hashlib.sha256(encoded).hexdigest())
    line = " ".join(map(str, fields)) + f" {time.time():.3f}\n"
    descriptor = os.open(folder / "received", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


@dataclass
class Held:
    """What the destination holds: objects by patient and SOP class, and what was sent again, byte by byte the same or
    ``different`` (with the patient); ``times`` says when the first object of a patient came.
    """

    objects: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    times: dict[str, float] = field(default_factory=dict)
    sent_again: int = 0
    different: dict[str, str] = field(default_factory=dict)


def read_held(folder: Path) -> Held:
    """Count the lines that the process has written."""
    held, digests = Held(), dict[str, str]()
    path = folder / "received"
    for line in path.read_text().splitlines() if path.exists() else ():
        uid, patient, sop_class, digest, at = line.split()
        if uid in digests:
            held.sent_again += 1
            if digests[uid] != digest:
                held.different[uid] = patient
            continue
        digests[uid] = digest
        held.objects[patient][sop_class] += 1
        held.times.setdefault(patient, float(at))
    return held


class Destination:
    """The process, from outside."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        folder.mkdir(parents=True)
        self.folder, self.host, self.port = folder, host, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.be("well")

    def be(self, mood: str) -> None:
        """Behave so from now on."""
        part = self.folder / "mood.part"
        part.write_text(mood)
        part.rename(self.folder / "mood")

    def start(self) -> None:
        """Start it and wait until it listens."""
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-P", "-m", "tests.campaigns.destination", self.host, str(self.port)]
            self.process = subprocess.Popen([*command, str(self.folder)], stdout=log, stderr=log)
        wait_until(lambda: listens(self.port, self.host), "the destination", pause=0.1)

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def held(self) -> Held:
        """What it holds now."""
        return read_held(self.folder)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
