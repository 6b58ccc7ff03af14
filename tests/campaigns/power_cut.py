"""Power cuts: ``python -P -m tests.campaigns.power_cut --seed 1 --cuts 10 --database postgresql``.

Store and database lie on a disk of their own (:mod:`tests.campaigns.disk`). At a random moment under load every process
of the node stops, a copy of the disk is taken as it is, and the node goes on with the copy: what was written and not
synced is gone. Whatever was answered 0x0000 must have its results in the destination at the end, once.

``--without-fsync`` is the counter-proof: fsync does nothing (Debian's eatmydata), and the campaign must find losses.
Otherwise it would prove nothing.
"""

from __future__ import annotations

import signal
import time
from itertools import count
from pathlib import Path
from random import Random

from tests.campaigns.command import Say, parser_of, run_campaign
from tests.campaigns.disk import Disk
from tests.campaigns.images import image
from tests.campaigns.modality import Modalities
from tests.campaigns.outcome import Outcome
from tests.campaigns.parts import is_alive, signal_all
from tests.campaigns.whole_node import WholeNode, wait_and_count, whole_node
from tests.integration.pleura import descendants
from tests.orthanc import wait_until

MEGABYTES = 384
EAT_MY_DATA = "libeatmydata.so"
_SENDERS = 3


def run(
    folder: Path,
    seed: int,
    cuts: int,
    database: str,
    say: Say,
    *,
    fsync: bool = True,
    longest: float = 6,
    finishing_seconds: float = 300,
) -> Outcome:
    """Cut the power ``cuts`` times, ``longest`` seconds after each other at most.

    Raises:
        DiskError: no disk can be mounted here.
    """
    random = Random(f"power {seed}")
    outcome = Outcome(f"power cut, {database}" + ("" if fsync else ", without fsync"), seed)
    disk = Disk(folder / "disk", MEGABYTES)
    try:
        environment = {} if fsync else {"LD_PRELOAD": EAT_MY_DATA}
        with whole_node(folder / "run", database, disk.folder, environment, fsync) as whole:
            modalities = Modalities([whole.node.port], (image(seed, number) for number in count()), _SENDERS, 0.4)
            modalities.start()
            if database == "postgresql":
                disk.sync()  # initdb was told not to
            for number in range(1, cuts + 1):
                time.sleep(random.uniform(1, longest))
                say(f"cut {number}/{cuts} ({len(modalities.accepted)} accepted)")
                cut(whole, disk)
            modalities.finish(180, stop=True)
            patients = [each.patient for each in modalities.accepted]
            say(f"peace: {len(patients)} accepted, {whole.unfinished()}")
            held, outcome.faults = wait_and_count(whole, patients, finishing_seconds)
        outcome.figures = {
            "power cuts": cuts,
            "images accepted": len(patients),
            "sent again by modalities": modalities.failures(),
            "objects sent again": held.sent_again,
        }
    finally:
        disk.unmount()
    return outcome


def cut(whole: WholeNode, disk: Disk) -> None:
    """Stop everything that writes to the disk at once, lose what was not synced, and start again."""
    assert whole.node.process is not None
    roots = [whole.node.process.pid, *whole.database.processes()]
    processes = [each for root in roots for each in (root, *descendants(root))]
    signal_all(processes, signal.SIGSTOP)
    whole.node.kill_everything()
    whole.database.kill()
    signal_all(processes, signal.SIGKILL)
    # Whoever was inside fsync ends a moment later; the copy of the disk must not change while it is made.
    wait_until(lambda: not any(map(is_alive, processes)), "the end of every process", 60, 0.02)
    disk.cut_power()
    whole.database.start()
    whole.node.start()


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("--cuts", type=int, default=10, help="so many power cuts (default 10)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--without-fsync", action="store_true", help="the counter-proof: losses must be found")
    arguments = parser.parse_args()
    run_campaign(
        arguments,
        lambda folder, say: run(
            folder, arguments.seed, arguments.cuts, arguments.database, say, fsync=not arguments.without_fsync
        ),
    )


if __name__ == "__main__":
    main()
