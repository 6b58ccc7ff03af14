"""A disk that is full, and is not: ``python -P -m tests.campaigns.full_disk --seed 1 --rounds 5``.

Store and database lie on a small disk. First images fill it themselves: the listener must answer 0xA700 while there is
room for what was accepted (``store.minimum_free_bytes``). Then, in each round under load, a file of somebody else takes
every byte that is left, at a random moment, and goes away again. Whatever was answered 0x0000 must have its results at
the end, once, and nothing may have failed.
"""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from random import Random

from tests.campaigns.command import Say, run_counted
from tests.campaigns.disk import Disk
from tests.campaigns.images import image
from tests.campaigns.modality import Modalities
from tests.campaigns.outcome import Outcome
from tests.campaigns.whole_node import wait_and_count, whole_node
from tests.orthanc import wait_until

MEGABYTES = 96
LEAST_FREE = 32 * 1024 * 1024
_ROOM = 12 * 1024 * 1024
_LARGE_SIDE = 640
_SENDERS = 2
_SECOND = 100_000
_OUT_OF_RESOURCES = 0xA700


def run(folder: Path, seed: int, rounds: int, database: str, say: Say, finishing_seconds: float = 300) -> Outcome:
    """Run a campaign.

    Raises:
        DiskError: no disk can be mounted here.
    """
    random = Random(f"disk {seed}")
    outcome = Outcome(f"full disk, {database}", seed)
    disk = Disk(folder / "disk", MEGABYTES + (96 if database == "postgresql" else 0))
    try:
        with whole_node(folder / "run", database, disk.folder, store={"minimum_free_bytes": LEAST_FREE}) as whole:
            disk.fill(leave=LEAST_FREE + _ROOM)
            large = Modalities(
                [whole.node.port], (image(seed, number, side=_LARGE_SIDE) for number in count()), _SENDERS
            )
            large.start()
            wait_until(lambda: large.answers.get(_OUT_OF_RESOURCES), "0xA700", 120, 0.02)
            free = disk.free()
            say(f"{len(large.accepted)} images, then 0xA700 with {free >> 20} MiB free")
            if free < LEAST_FREE // 2:
                outcome.faults.append(f"0xA700 came late, with {free >> 20} MiB free")
            disk.empty()
            large.finish(120, stop=True)
            small = Modalities(
                [whole.node.port], (image(seed, _SECOND + number) for number in count()), _SENDERS, pause=0.4
            )
            small.start()
            for number in range(1, rounds + 1):
                say(f"full {number}/{rounds} ({len(large.accepted) + len(small.accepted)} accepted)")
                disk.fill()
                time.sleep(random.uniform(1, 5))
                disk.empty()
                time.sleep(random.uniform(1, 4))
            small.finish(120, stop=True)
            accepted = large.accepted + small.accepted
            held, faults = wait_and_count(whole, [each.patient for each in accepted], finishing_seconds)
            outcome.faults += faults
        outcome.figures = {
            "times full": rounds,
            "free at the first 0xA700": f"{free >> 20} MiB of {LEAST_FREE >> 20} MiB",
            "0xA700": large.answers.get(_OUT_OF_RESOURCES, 0) + small.answers.get(_OUT_OF_RESOURCES, 0),
            "images accepted": len(accepted),
            "objects sent again": held.sent_again,
        }
    finally:
        disk.unmount()
    return outcome


if __name__ == "__main__":
    run_counted(__doc__, "rounds", 5, "the disk is full so often", run)
