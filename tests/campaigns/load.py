"""Too much at once: ``make load`` or ``python -P -m tests.campaigns.load --seed 1 --studies 500``.

1. As many associations as the listener takes are held, and so many more are asked for: each of those is rejected as
   *local limit exceeded*, temporary (PS3.8 9.3.4), so that a sender tries again; those that are held still work.
2. Peers that send a byte now and then take places; they are aborted, and the others are answered meanwhile.
3. Studies arrive in a burst, with STAT studies among them: how long a STAT study takes from its 0x0000 to its first
   object at the destination, on an idle node and behind the burst.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.campaigns.command import Say, parser_of, run_campaign
from tests.campaigns.images import Image, image
from tests.campaigns.modality import Modalities
from tests.campaigns.outcome import Outcome
from tests.campaigns.whole_node import WholeNode, wait_and_count, whole_node
from tests.fuzz.peer import CR, EXPLICIT, BrokenError, Peer, associate_rq, p_data, store_rq
from tests.orthanc import wait_until

LIMIT = 25
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)
IDLE_SECONDS = 10
LIMITS = {
    "maximum_associations": LIMIT,
    "maximum_associations_per_address": LIMIT,
    "idle_timeout_seconds": IDLE_SECONDS,
}
_CONTEXTS = [(CR, EXPLICIT)]
_STAT, _HELD, _BESIDE = 500_000, 600_000, 700_000


def run(
    folder: Path,
    seed: int,
    studies: int,
    beyond: int,
    stat: int,
    database: str,
    say: Say,
    *,
    check_times: bool = True,
) -> Outcome:
    """Run the three parts: ``beyond`` associations too many, ``studies`` in a burst with ``stat`` STAT ones.

    Without ``judge_times`` no time is a fault: where other work shares the machine.
    """
    outcome = Outcome(f"load, {database}", seed)
    with whole_node(folder / "run", database, listener=LIMITS) as whole:
        images = associations(whole, seed, beyond, outcome, say)
        images += slow_peers(whole, seed, outcome, say)
        images += burst(whole, seed, studies, stat, outcome, say, check_times)
        _, faults = wait_and_count(whole, [each.patient for each in images], 600)
        outcome.faults += faults
    return outcome


def associations(whole: WholeNode, seed: int, beyond: int, outcome: Outcome, say: Say) -> list[Image]:
    """Hold as many as there may be, and ask for more; gives the images that were sent by those that were held."""
    images = [image(seed, _HELD + number) for number in range(LIMIT)]
    held = [Peer(whole.node.port, _CONTEXTS, calling=f"HELD-{number}") for number in range(LIMIT)]
    if any(peer.kind != 2 for peer in held):
        outcome.faults.append("an association below the limit was not accepted")
    with ThreadPoolExecutor(8) as pool:
        rejected = Counter(pool.map(lambda _: _rejection(whole.node.port), range(beyond)))
    say(f"{beyond} associations beyond {LIMIT}: {dict(rejected)}")
    if rejected != Counter({LOCAL_LIMIT_EXCEEDED: beyond}):
        outcome.faults.append(f"associations beyond the limit were answered {dict(rejected)}")
    for peer, each in zip(held, images, strict=True):
        if peer.store(each.data_set, each.sop_instance).status:
            outcome.faults.append("an association that was held did not take an image")
        peer.close()
    with Peer(whole.node.port, _CONTEXTS) as after:
        if after.kind != 2:
            outcome.faults.append("no association was accepted after the others had ended")
    outcome.figures |= {
        "associations beyond the limit": beyond,
        "rejected as local limit exceeded": sum(rejected.values()),
    }
    return images


def _rejection(port: int) -> tuple[int, ...]:
    try:
        peer = Peer(port, _CONTEXTS, calling="BEYOND")
    except (OSError, BrokenError):
        return ()
    peer.socket.close()
    return peer.rejection


def slow_peers(whole: WholeNode, seed: int, outcome: Outcome, say: Say, count: int = 15) -> list[Image]:
    """Peers that dribble a C-STORE; gives the images that others sent meanwhile."""
    ended: list[float] = []
    threads = [threading.Thread(target=_dribble, args=(whole.node.port, ended), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    images = [image(seed, _BESIDE + number) for number in range(40)]
    beside = Modalities([whole.node.port], iter(images), senders=1, pause=0.1)
    beside.start()
    beside.finish(60)
    for thread in threads:
        thread.join(10 * IDLE_SECONDS)
    say(f"{len(ended)} of {count} slow peers aborted, answers beside them {max(beside.seconds):.2f} s at most")
    if len(ended) < count or beside.failures():
        outcome.faults.append(
            f"{len(ended)} of {count} slow peers were aborted, others failed {beside.failures()} times"
        )
    outcome.figures |= {
        "slow peers aborted": f"{len(ended)} after {max(ended, default=0):.0f} s at most",
        "C-STORE beside them": f"{_ninety_five(beside.seconds):.2f} s (95 %)",
    }
    return images


def _dribble(port: int, ended: list[float]) -> None:
    """Send a C-STORE byte by byte until the listener has had enough."""
    begun = time.monotonic()
    message = p_data(1, 1, store_rq(CR, "1.2.3")) + p_data(1, 0, bytes(2000), 2000)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection, contextlib.suppress(OSError):
        connection.sendall(associate_rq(_CONTEXTS, calling="SLOW"))
        connection.recv(4096)
        connection.settimeout(0.2)
        for at in range(len(message)):
            connection.sendall(message[at : at + 1])
            with contextlib.suppress(TimeoutError):
                if not connection.recv(100):
                    break
                break  # A-ABORT
        else:
            return
    ended.append(time.monotonic() - begun)


def burst(
    whole: WholeNode, seed: int, studies: int, stat: int, outcome: Outcome, say: Say, check_times: bool
) -> list[Image]:
    """Measure STAT studies on the idle node, then behind a burst of others."""
    stuck = whole.wait_until_done(300)
    idle_images = [image(seed, _STAT + number, stat=True) for number in range(stat)]
    idle = _measure(whole, idle_images, wait=True)
    say(f"STAT on the idle node: {statistics.median(idle):.2f} s, 95 % {_ninety_five(idle):.2f} s")
    routine = [image(seed, number) for number in range(studies)]
    modalities = Modalities([whole.node.port], iter(routine), senders=4, each=50)
    begun = time.monotonic()
    modalities.start()
    modalities.finish(600)
    took = time.monotonic() - begun
    say(f"{studies} studies accepted in {took:.1f} s; waiting: {whole.unfinished()}")
    loaded_images = [image(seed, _STAT + stat + number, stat=True) for number in range(stat)]
    behind = whole.unfinished().get("job queued", 0)
    loaded = _measure(whole, loaded_images, wait=False)
    left = whole.unfinished().get("job queued", 0)
    say(f"STAT behind {behind} to {left} jobs: {statistics.median(loaded):.2f} s, 95 % {_ninety_five(loaded):.2f} s")
    if stuck:
        outcome.faults.append(stuck)
    if check_times and not left:
        outcome.faults.append(
            "the burst was over before the last STAT study: nothing was measured; take more --studies"
        )
    outcome.figures |= {
        "studies in the burst": studies,
        "C-STORE in the burst": f"{studies / took:.0f} a second, {_ninety_five(modalities.seconds):.2f} s (95 %)",
        "STAT, idle": f"{statistics.median(idle):.2f} s, 95 % {_ninety_five(idle):.2f} s",
        "STAT behind the burst": f"{statistics.median(loaded):.2f} s, 95 % {_ninety_five(loaded):.2f} s",
    }
    if check_times and _ninety_five(loaded) > 2 * _ninety_five(idle):
        outcome.faults.append("STAT studies took more than twice as long behind the burst as on the idle node (95 %)")
    return [*routine, *idle_images, *loaded_images]


def _arrived(whole: WholeNode, patient: str) -> bool:
    return patient in whole.destination.held().times


def _measure(whole: WholeNode, images: list[Image], *, wait: bool) -> list[float]:
    """Seconds from 0x0000 to the first object at the destination, one image after the other."""
    sent_at: dict[str, float] = {}
    for each in images:
        sender = Modalities([whole.node.port], iter([each]), senders=1)
        sender.start()
        sender.finish(60)
        sent_at |= sender.accepted_at
        if wait:
            wait_until(partial(_arrived, whole, each.patient), "a result", 60, 0.05)
        time.sleep(0.5)
    wait_until(lambda: sent_at.keys() <= whole.destination.held().times.keys(), "every STAT result", 300, 0.2)
    times = whole.destination.held().times
    return [times[patient] - at for patient, at in sent_at.items()]


def _ninety_five(values: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("--studies", type=int, default=500, help="so many studies in the burst (default 500)")
    parser.add_argument("--associations", type=int, default=200, help="so many beyond the limit (default 200)")
    parser.add_argument("--stat", type=int, default=20, help="STAT studies, idle and behind the burst (default 20)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    arguments = parser.parse_args()
    run_campaign(
        arguments,
        lambda folder, say: run(
            folder,
            arguments.seed,
            arguments.studies,
            arguments.associations,
            arguments.stat,
            arguments.database,
            say,
        ),
    )


if __name__ == "__main__":
    main()
