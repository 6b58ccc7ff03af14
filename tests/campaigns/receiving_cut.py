"""Power cuts under a burst: ``python -P -m tests.campaigns.receiving_cut --seed 1 --cuts 10 --associations 8``.

Only the listener runs, with its store and SQLite on a disk of their own (:mod:`tests.campaigns.disk`), and as many
associations as are asked for send without a pause. So instances are recorded together
(:class:`db.group_commit.GroupCommit`), some while the power goes. What was answered 0x0000 must be in store and
database at the end, whole and once, and nothing must be there of which nobody knows.

``--without-fsync`` is the counter-proof, as in :mod:`tests.campaigns.power_cut`.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from itertools import count
from pathlib import Path
from random import Random

from tests.campaigns.command import Say, parser_of, run_campaign
from tests.campaigns.disk import Disk
from tests.campaigns.images import Image, image
from tests.campaigns.modality import Modalities
from tests.campaigns.outcome import Outcome
from tests.campaigns.power_cut import EAT_MY_DATA, MEGABYTES
from tests.orthanc import wait_until
from tests.ports import free_port, listens

_REPOSITORY = Path(__file__).resolve().parents[2]
_ON_AN_ASSOCIATION = 200


class Listener:
    """``pleura listen`` alone, without a broker."""

    def __init__(self, store: Path, log: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        self._log = log
        settings = {
            "PLEURA_STORE__FOLDER": str(store),
            "PLEURA_STORE__MINIMUM_FREE_BYTES": "0",
            "PLEURA_ELIGIBILITY__MINIMUM_PIXELS": "64",
            "PLEURA_LISTENER__PORT": str(self.port),
        }
        self._environment = os.environ | environment | settings

    def start(self) -> None:
        """Start, and wait until it listens."""
        command = [sys.executable, "-P", "-m", "node.cli.main", "listen"]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, cwd=_REPOSITORY, env=self._environment, stdout=log, stderr=log)
        wait_until(lambda: listens(self.port), "a listener", 120, 0.1, self._check)

    def kill(self) -> None:
        """Stop all its threads at once, and end it."""
        for each in (signal.SIGSTOP, signal.SIGKILL):
            self._process.send_signal(each)
        self._process.wait(60)

    def _check(self) -> None:
        assert self._process.poll() is None, self._log.read_text()


def run(
    folder: Path, seed: int, cuts: int, associations: int, say: Say, *, fsync: bool = True, longest: float = 3
) -> Outcome:
    """Cut the power ``cuts`` times, ``longest`` seconds after each other at most.

    Raises:
        DiskError: no disk can be mounted here.
    """
    random = Random(f"receiving {seed}")
    outcome = Outcome(f"power cut, {associations} associations{'' if fsync else ', without fsync'}", seed)
    disk = Disk(folder / "disk", MEGABYTES)
    try:
        store = disk.folder / "store"
        listener = Listener(store, folder / "listener.log", {} if fsync else {"LD_PRELOAD": EAT_MY_DATA})
        listener.start()
        images = (image(seed, number) for number in count())
        modalities = Modalities([listener.port], images, associations, each=_ON_AN_ASSOCIATION)
        modalities.start()
        for number in range(1, cuts + 1):
            time.sleep(random.uniform(longest / 3, longest))
            say(f"cut {number}/{cuts} ({len(modalities.accepted)} accepted)")
            listener.kill()
            disk.cut_power()
            listener.start()
        modalities.finish(120, stop=True)
        listener.kill()
        outcome.faults = faults_of(store, modalities.accepted)
        outcome.figures = {
            "power cuts": cuts,
            "images accepted": len(modalities.accepted),
            "sent again by modalities": modalities.failures(),
        }
    finally:
        disk.unmount()
    return outcome


def faults_of(store: Path, accepted: list[Image]) -> list[str]:
    """What is lost, changed or doubled, and what is there and unknown."""
    with closing(sqlite3.connect(store / "pleura.sqlite")) as database:
        rows = database.execute("select sop_instance_uid, digest, path from instances").fetchall()
        [(jobs,)] = database.execute("select count(*) from jobs")
    recorded = {uid: (digest, path) for uid, digest, path in rows}
    faults = [f"{len(rows)} instances are {len(recorded)} UIDs"] * (len(rows) != len(recorded))
    faults += [f"{len(rows)} instances have {jobs} jobs"] * (jobs != len(rows))
    for each in accepted:
        expected = hashlib.sha256(each.data_set).hexdigest()
        digest, path = recorded.get(each.sop_instance, ("", ""))
        if digest != expected:
            faults.append(f"{each.patient} was accepted and is {'another' if digest else 'not recorded'}")
        elif not (store / path).is_file() or not (store / path).read_bytes().endswith(each.data_set):
            faults.append(f"{each.patient} was accepted and its file is not whole")
    kept = {str(path.relative_to(store)) for path in (store / "instances").glob("*/*")}
    unknown = kept - {path for _, path in recorded.values()}
    return faults + [f"nobody knows of {path}" for path in sorted(unknown)]


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("--cuts", type=int, default=10, help="so many power cuts (default 10)")
    parser.add_argument("--associations", type=int, default=8, help="so many at once (default 8)")
    parser.add_argument("--without-fsync", action="store_true", help="the counter-proof: losses must be found")
    given = parser.parse_args()
    run_campaign(
        given,
        lambda folder, say: run(folder, given.seed, given.cuts, given.associations, say, fsync=not given.without_fsync),
    )


if __name__ == "__main__":
    main()
