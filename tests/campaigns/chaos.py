"""Chaos under load: ``make chaos``, or ``python -P -m tests.campaigns.chaos --seed 1 --events 60``.

Modalities send radiographs without a pause while, at random moments, something of the node or around it dies, hangs or
misbehaves: kill -9 of listener, worker (parent with child, or child alone), delivery worker, scheduler, broker,
database, destination and the whole tree; the broker flushed and frozen; the database locked, hung and gone; the
destination rejecting, refusing, warning, aborting, and silent with and without having stored. Then peace returns, and
what counts is counted at the destination: each image that was answered 0x0000 has its results, once, byte by byte the
same however often they were sent; nothing waits for ever; nothing has failed; the audit trail tells of each.

What dies at *named* points inside listener and worker: ``tests/node/dicom/test_storage_scp_crash.py`` and
``tests/workers/test_killed.py``, which ``make chaos`` runs, too.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from itertools import accumulate, count
from pathlib import Path
from random import Random
from typing import TypeVar

from tests.campaigns.command import Say, parser_of, run_campaign
from tests.campaigns.destination import MOODS
from tests.campaigns.images import image
from tests.campaigns.modality import Modalities
from tests.campaigns.outcome import Outcome
from tests.campaigns.whole_node import WholeNode, wait_and_count, whole_node
from tests.integration.pleura import descendants
from tests.orthanc import wait_until

T = TypeVar("T")
Event = Callable[[WholeNode, Random], None]
_SENDERS = 3
_AUDITED_AFTER = 90.0


def _kill(part: str) -> Event:
    return lambda whole, random: whole.node.kill_part(part)


def _kill_child(part: str) -> Event:
    """Kill -9 what a part has forked: the part itself must notice and go on."""

    def event(whole: WholeNode, random: Random) -> None:
        parent = whole.node.parts().get(part)
        children = descendants(parent) if parent is not None else []
        if children:
            os.kill(random.choice(children), signal.SIGKILL)

    return event


def _kill_everything(whole: WholeNode, random: Random) -> None:
    whole.node.kill_everything()
    whole.node.start()


def _restart_destination(whole: WholeNode, random: Random) -> None:
    whole.destination.kill()
    time.sleep(random.uniform(0, 2))
    whole.destination.start()


def _mood(mood: str) -> Event:
    def event(whole: WholeNode, random: Random) -> None:
        whole.destination.be(mood)
        time.sleep(random.uniform(1, 4))
        whole.destination.be("well")

    return event


KILLS: dict[str, Event] = {
    "kill listener": _kill("listener"),
    "kill worker": _kill("worker"),
    "kill child of worker": _kill_child("worker"),
    "kill delivery worker": _kill("delivery"),
    "kill child of delivery worker": _kill_child("delivery"),
    "kill scheduler": _kill("scheduler"),
    "kill broker": lambda whole, random: whole.broker.kill(),
    "kill destination": _restart_destination,
    "kill whole tree": _kill_everything,
}
KILL_DATABASE: dict[str, Event] = {
    "kill database": lambda whole, random: whole.database.gone(random.uniform(0, 3)),
    "hang database": lambda whole, random: whole.database.hang(random.uniform(1, 6)),
}
TROUBLES: dict[str, Event] = {
    "flush broker": lambda whole, random: whole.broker.flush(),
    "freeze broker": lambda whole, random: whole.broker.freeze(random.uniform(1, 6)),
    "lock database": lambda whole, random: whole.database.lock(random.uniform(1, 6)),
    **{f"destination: {mood}": _mood(mood) for mood in MOODS},
}


def events_of(database: str) -> dict[str, Event]:
    """What may happen to a node with this database."""
    return KILLS | TROUBLES | (KILL_DATABASE if database == "postgresql" else {})


def sequence(random: Random, names: Sequence[T], length: int) -> list[T]:
    """So many events in random order, each as often as the others, give or take one."""
    drawn: list[T] = []
    while len(drawn) < length:
        drawn += random.sample(names, len(names))
    return drawn[:length]


def until_kills(random: Random, names: Sequence[str], kills: int) -> list[str]:
    """Events in random order until ``kills`` of them were kills, each of which comes three times as often as another
    event.
    """
    weighted = [name for name in names for _ in range(3 if _is_kill(name) else 1)]
    drawn = sequence(random, weighted, kills * len(weighted))
    counted = list(accumulate(int(_is_kill(name)) for name in drawn))
    return drawn[: counted.index(kills) + 1]


def _is_kill(name: str) -> bool:
    return name.startswith("kill")


def run(
    folder: Path,
    seed: int,
    events: int,
    database: str,
    pause: float,
    say: Say,
    finishing_seconds: float = 1800,
    kills: int | None = None,
    rest: float = 0.6,
    seconds: float = math.inf,
) -> Outcome:
    """Run a campaign; ``pause``: the longest time between two events, ``finishing_seconds``: so long the rest may take.

    With ``kills`` it goes on until there were so many of them, however many ``events`` that takes. ``rest``: seconds
    between two images of one modality; ``seconds``: so long things happen at most.
    """
    random = Random(f"chaos {seed}")
    outcome = Outcome(f"chaos, {database}", seed)
    known = events_of(database)
    names = sorted(known)
    drawn = sequence(random, names, events) if kills is None else until_kills(random, names, kills)
    events = len(drawn)
    with whole_node(folder, database) as whole:
        modalities = Modalities([whole.node.port], (image(seed, number) for number in count()), _SENDERS, rest)
        modalities.start()
        end = time.monotonic() + seconds
        for number, name in enumerate(drawn, 1):
            if time.monotonic() > end:
                del drawn[number - 1 :]
                break
            time.sleep(random.uniform(0.2, pause))
            say(f"{number}/{events} {name} ({len(modalities.accepted)} accepted)")
            known[name](whole, random)
        modalities.finish(180, stop=True)
        patients = [each.patient for each in modalities.accepted]
        say(f"peace: {len(patients)} accepted, {whole.unfinished()}")
        held, outcome.faults = wait_and_count(whole, patients, finishing_seconds)
        outcome.faults += untold(whole, {each.study for each in modalities.accepted})
        outcome.figures = _figures(drawn, modalities, held.sent_again)
        outcome.figures |= {"objects at the destination": sum(sum(kinds.values()) for kinds in held.objects.values())}
    return outcome


def untold(whole: WholeNode, studies: set[str]) -> list[str]:
    """What the audit trail does not tell of; a listener that was killed leaves that to the next one."""
    with contextlib.suppress(AssertionError):
        wait_until(
            lambda: studies <= whole.database.audited(), "the audit trail", _AUDITED_AFTER, 1, whole.node.check_alive
        )
    return [f"the audit trail does not tell of {uid}" for uid in sorted(studies - whole.database.audited())]


def _figures(drawn: list[str], modalities: Modalities, sent_again: int) -> dict[str, int | float | str]:
    kills = sum(map(_is_kill, drawn))
    return {
        "kill -9": kills,
        "other events": len(drawn) - kills,
        "images accepted": len(modalities.accepted),
        "sent again by modalities": modalities.failures(),
        "objects sent again": sent_again,
    }


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("--events", type=int, default=60, help="so many kills and troubles (default 60)")
    parser.add_argument("--kills", type=int, help="go on until there were so many kill -9, whatever --events says")
    parser.add_argument(
        "--rest", type=float, default=0.6, help="seconds between two images of a modality (default 0.6)"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="let peace return after so long (no limit)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two events, at most (default 3)")
    arguments = parser.parse_args()
    run_campaign(
        arguments,
        lambda folder, say: run(
            folder / "run",
            arguments.seed,
            arguments.events,
            arguments.database,
            arguments.pause,
            say,
            kills=arguments.kills,
            rest=arguments.rest,
            seconds=60 * arguments.minutes,
        ),
    )


if __name__ == "__main__":
    main()
