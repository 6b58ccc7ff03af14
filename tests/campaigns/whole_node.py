"""A whole node for a campaign: ``pleura serve`` with a small network, a destination that counts, either database."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaigns.destination import Destination, Held
from tests.campaigns.parts import Broker, Database, Embedded, Postgresql, RedisServer, Sqlite
from tests.integration.pleura import Pleura, handwritten_network
from tests.orthanc import wait_until
from tests.ports import free_port

SEG, SR_3D = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"
KINDS = {"seg": SEG, "sr": SR_3D, "summary": SR_3D}
"""What an image with a finding has in the PACS: a segmentation, a report, and its study's summary."""
COMPLETE = Counter(KINDS.values())
_UNFINISHED = re.compile(r"job (queued|running|retrying)|delivery (pending|sending)|study open")
_FAILED = re.compile(r"(job|delivery) (failed|on_hold|withdrawn)")


@dataclass
class WholeNode:
    """The node with its surroundings."""

    node: Pleura
    store: Path
    database: Database
    broker: Broker
    destination: Destination

    def unfinished(self) -> dict[str, int]:
        """What still is to be done, by kind and state."""
        return {name: count for name, count in self.database.counts().items() if _UNFINISHED.fullmatch(name)}

    def wait_until_done(self, seconds: float) -> str:
        """Wait until nothing is to be done; an empty string, or a sentence that says what is stuck."""
        try:
            wait_until(lambda: not self.unfinished(), "the end of all work", seconds, 1, self.node.check_alive)
        except AssertionError as error:
            # What has ended since the last look, a second ago, is not stuck.
            left, ended = self.unfinished(), not str(error).startswith("waited")
            return f"{error}; there still are {left}" if left or ended else ""
        return ""


@contextmanager
def whole_node(
    folder: Path,
    database: str,
    disk: Path | None = None,
    environment: dict[str, str] | None = None,
    fsync: bool = True,
    server: Postgresql | None = None,
    **sections: dict[str, Any],
) -> Iterator[WholeNode]:
    """Run a node until the end of the block. ``database``: *sqlite* (with the node's own broker) or *postgresql* (with
    Redis; ``server`` is one that runs, which is ended, too). ``disk``: where store and database lie, if not in
    ``folder``. ``sections`` change settings: ``listener={"maximum_associations": 4}``; ``destination`` those of the
    destination.
    """
    store = (disk or folder) / "store"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ending:  # each is ended, whatever happens to the others
        destination = Destination(folder / "pacs")
        destination.start()
        ending.callback(destination.kill)
        redis = None
        if database == "postgresql":
            server = server or Postgresql((disk or folder) / "postgresql", fsync=fsync)
            ending.callback(server.stop)
            redis = RedisServer(folder / "redis")
        port = free_port()
        config = folder / "pleura.toml"
        urls = {"database": server.url if server else None, "broker": redis.url if redis else None}
        peer = {"port": destination.port, **sections.pop("destination", {})}
        models = handwritten_network(folder / "models")
        config.write_text(settings_text(models, store, port, peer, urls, **sections))
        node = Pleura(folder, port, config, environment or {})
        broker: Broker = redis or Embedded(node, store / "broker.sock")
        ending.callback(broker.stop)
        ending.callback(node.stop)
        node.start()
        yield WholeNode(node, store, server or Sqlite(store), broker, destination)


def settings_text(
    models: str, folder: Path, port: int, destination: dict[str, Any], urls: dict[str, str | None], **sections: Any
) -> str:
    """A node's configuration file. ``folder`` is its store; ``urls``: of *database* and *broker*, None for the node's
    own; ``sections`` are added last, ``destination`` to the table of the one destination.
    """
    settings: dict[str, dict[str, Any]] = {
        "listener": {"port": port, "idle_timeout_seconds": 30},
        "store": {"folder": str(folder), "minimum_free_bytes": 1024 * 1024},
        "eligibility": {"minimum_pixels": 64},
        "workers": {
            "attempts": 1000,
            "unreachable_attempts": 1000,
            "backoff_seconds": 0.5,
            "maximum_backoff_seconds": 4,
            "reenqueue_after_seconds": 3,
            "scheduler_interval_seconds": 0.5,
            "job_timeout_seconds": 60,
            "threads": 1,
        },
        "triage": {"completion_seconds": 1},
        "admin": {"enabled": False},
    }
    for name, url in urls.items():
        if url is not None:
            settings[name] = {"url": url}
    for name, values in sections.items():
        settings.setdefault(name, {}).update(values)
    peer = {
        "name": "pacs",
        "ae_title": "PACS",
        "host": "127.0.0.1",
        "kinds": list(KINDS),
        "timeout_seconds": 3,
        **destination,
    }
    tables = {f"[{name}]": values for name, values in settings.items()} | {"[[destinations]]": peer}
    lines = [models, 'lungs = ""']
    for head, values in tables.items():
        lines += [head, *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def faults_of(held: Held, patients: list[str], complete: Counter[str] = COMPLETE) -> list[str]:
    """What is lost or doubled in the destination, one sentence a patient."""
    found = []
    for patient in patients:
        objects = held.objects.get(patient, Counter())
        if missing := complete - objects:
            found.append(f"{patient} lacks {dict(missing)}")
        if more := objects - complete:
            found.append(f"{patient} has too many: {dict(more)}")
    found += [f"{patient} was never accepted and has results" for patient in held.objects.keys() - set(patients)]
    found += [f"{patient}: {uid} was sent again with other bytes" for uid, patient in held.different.items()]
    return found


def wait_and_count(
    whole: WholeNode, patients: list[str], seconds: float, complete: Counter[str] = COMPLETE
) -> tuple[Held, list[str]]:
    """Wait until all is done, and a moment longer, and count."""
    stuck = whole.wait_until_done(seconds)
    time.sleep(3)
    held = whole.destination.held()
    faults = [f"stuck: {stuck}"] if stuck else []
    counts = whole.database.counts()
    faults += [f"{count} {name}" for name, count in counts.items() if _FAILED.fullmatch(name)]
    if counts["instance"] != len(patients):
        faults.append(f"{counts['instance']} instances are recorded, {len(patients)} were accepted")
    # What was answered with a failure leaves a note there until the next start.
    left = list((whole.store / "spool").glob("*.part"))
    faults += [f"{path.name} is left in the spool" for path in left]
    return held, faults + faults_of(held, patients, complete)
