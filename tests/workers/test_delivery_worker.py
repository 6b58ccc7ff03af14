"""Delivery workers: a share for each destination, and nothing that waits is forgotten when a worker may not call."""

from __future__ import annotations

import hashlib
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import dcmwrite
from pynetdicom import AE, evt

from config.destinations import Destination
from config.settings import Settings, Workers, load
from db import jobs
from db.database import Database
from db.destinations import DestinationLeases, Lease
from db.engine import connect
from db.records import Outcome, ResultRecord
from db.states import JOBS
from tests.commands import record_instance
from tests.db.examples import received
from tests.fakes import RecordingTaskQueue
from tests.migrated import migrate
from tests.orthanc import wait_until
from tests.rules import NO_RULES
from tests.workers.builders import FakeClock
from tests.workers.conftest import Broker
from tests.workers.harness import CR, radiograph
from workers.celery import processes
from workers.delivery_worker import DeliveryWorkerTools, run_delivery
from workers.destinations.destination_kind import PeerContact
from workers.enqueue import DELIVERIES, TaskQueue


@dataclass
class FakeLeases(DestinationLeases):
    """One destination; ``free`` says whether it may be called, ``open`` are the ids that wait for it."""

    open: list[int]
    free: bool = True
    failures: int = 0
    notes: list[str] = field(default_factory=list)
    pause: timedelta = timedelta(0)

    def acquire(
        self, delivery_id: int, limits: Mapping[str, int], worker: str, now: datetime, lease: timedelta
    ) -> Lease | None:
        assert limits == {"pacs": 2}
        return Lease("pacs", self.failures) if self.free else None

    def release(self, worker: str) -> None:
        self.notes.append("left")

    def record_answer(self, destination: str) -> None:
        self.notes.append("answered")

    def record_no_answer(self, destination: str, until: datetime) -> None:
        self.notes.append("silent")
        self.pause = until - FakeClock()()

    def waiting(self, destination: str, now: datetime, limit: int = 50) -> tuple[int, ...]:
        return tuple(self.open[:limit])


@dataclass
class World:
    """What a worker meets: the associations, what each delivery's call comes to, and what was enqueued."""

    leases: FakeLeases
    contacts: dict[int, PeerContact] = field(default_factory=dict)
    verification: PeerContact = PeerContact.NONE
    seconds: float = 0.0
    each: float = 1.0
    sent: list[int] = field(default_factory=list)
    task_queue: RecordingTaskQueue = field(default_factory=RecordingTaskQueue)

    def deliver(self, delivery_id: int) -> PeerContact:
        self.seconds += self.each
        self.sent.append(delivery_id)
        contact = self.contacts.get(delivery_id, PeerContact.ANSWERED)
        if contact is PeerContact.ANSWERED and delivery_id in self.leases.open:
            self.leases.open.remove(delivery_id)
        return contact

    def tools(self) -> DeliveryWorkerTools:
        settings = Settings(
            workers=Workers(backoff_seconds=5),
            destinations=(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104),),
        )
        return DeliveryWorkerTools(
            settings,
            self.leases,
            self.task_queue,
            self.deliver,
            lambda _: self.verification,
            FakeClock(),
            lambda: self.seconds,
            "w",
        )


def test_a_worker_that_may_not_call_lets_the_message_go() -> None:
    world = World(FakeLeases([1, 2], free=False))
    run_delivery(1, world.tools())
    assert (world.sent, world.task_queue.dispatched, world.leases.notes) == ([], [], [])


def test_a_worker_works_off_what_waits_for_its_destination() -> None:
    world = World(FakeLeases([1, 2, 3]))
    run_delivery(2, world.tools())
    assert (world.sent, world.task_queue.dispatched) == ([2, 1, 3], [])
    assert world.leases.notes == ["left"]


def test_a_worker_does_not_stay_for_ever() -> None:
    world = World(FakeLeases(list(range(1, 100))), each=7.0)
    run_delivery(1, world.tools())
    assert world.sent == [1, 2, 3, 4]
    assert world.task_queue.dispatched == [5], "the next one is another message's"


def test_a_destination_that_does_not_answer_is_left_at_once_and_longer_each_time() -> None:
    leases = FakeLeases([1, 2, 3], failures=2)
    world = World(leases, {1: PeerContact.NO_ANSWER})
    run_delivery(1, world.tools())
    assert (world.sent, world.task_queue.dispatched) == ([1], [])
    assert (leases.notes, leases.pause) == (["silent", "left"], timedelta(seconds=20))


def test_a_destination_that_answers_again_is_called_as_usual() -> None:
    world = World(FakeLeases([1], failures=3))
    run_delivery(1, world.tools())
    assert world.leases.notes == ["answered", "left"]


def test_a_silent_peer_keeps_its_proofs_waiting_too() -> None:
    world = World(FakeLeases([1]), {9: PeerContact.NONE}, verification=PeerContact.NO_ANSWER)
    run_delivery(9, world.tools())
    assert (world.sent, world.leases.notes) == ([9], ["silent", "left"])


def test_each_destination_has_processes_of_its_own() -> None:
    def at(name: str, associations: int) -> Destination:
        return Destination(name=name, ae_title="A", host="h", port=1, associations=associations)

    assert processes(Settings(destinations=(at("a", 2), at("b", 3))), DELIVERIES) == 5
    assert processes(Settings(), DELIVERIES) == 1


def test_networks_have_two_processes_where_they_share_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, options, number in (
        ({0}, {"device": "cpu"}, 1),
        ({0, 1}, {"device": "cpu"}, 2),
        (set(range(64)), {"device": "cpu"}, 2),
        ({0, 1}, {"device": "gpu"}, 1),
        ({0, 1}, {"device": "gpu", "processes": 3}, 3),
    ):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: cores)
        assert processes(Settings(workers=Workers(**options)), JOBS) == number


def test_mute_destinations_do_not_delay_a_good_one(broker: Broker, tmp_path: Path) -> None:
    """Three peers that take a connection and say nothing, and one that answers: real workers, broker and database."""
    arrived: dict[str, float] = {}

    def store(event: evt.Event) -> int:
        arrived[str(event.request.AffectedSOPInstanceUID)] = time.monotonic()
        return 0x0000

    entity = AE("GOOD")
    entity.add_supported_context(CR)
    good = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    mute = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    called = called_at(mute)
    ports = {"good": good.server_address[1], **{f"mute{n}": one.getsockname()[1] for n, one in enumerate(mute)}}
    config = configuration(tmp_path, broker, ports)
    expected = prepared_deliveries(load(config), list(ports), images=8)
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "tests.workers.real_worker", "deliveries", str(config)]
        worker = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: expected <= set(arrived), "all results at the good one", seconds=240)
        # Each call of a mute one takes 10 s, and the eight processes begin with 24 of them.
        assert max(arrived.values()) - min(called.result(60), *arrived.values()) < 20
    finally:
        worker.terminate()
        worker.wait(60)
        good.shutdown()
        for one in mute:
            one.close()


def called_at(servers: Sequence[socket.socket]) -> Future[float]:
    """When the first of the servers is called."""
    first = Future[float]()

    def wait() -> None:
        select.select(servers, (), ())
        first.set_result(time.monotonic())

    threading.Thread(target=wait, daemon=True).start()
    return first


def configuration(folder: Path, broker: Broker, ports: Mapping[str, int]) -> Path:
    lines = [f'[store]\nfolder = "{folder / "store"}"', f'[broker]\nurl = "{broker.url}"']
    for name, port in ports.items():
        lines.append(f'[[destinations]]\nname = "{name}"\nae_title = "{name.upper()}"\nhost = "127.0.0.1"')
        lines.append(f"port = {port}\ntimeout_seconds = 10\nkinds = {json.dumps(['sr'])}")
    (folder / "pleura.toml").write_text("\n".join(lines))
    return folder / "pleura.toml"


def prepared_deliveries(settings: Settings, names: list[str], images: int) -> set[str]:
    """Finish a job for each image, with one result for each destination; enqueued are the mute ones first."""
    folder = settings.store.folder
    (folder / "results").mkdir(parents=True)
    engine = connect(settings.database_url)
    migrate(engine)
    database, task_queue, now = Database(engine, NO_RULES), TaskQueue(settings.broker_url), datetime.now(UTC)
    deliveries: list[int] = []
    uids = set()
    for number in range(1, images + 1):
        uid = f"1.2.3.{number}"
        path = folder / "results" / f"{number}.dcm"
        dcmwrite(path, radiograph(uid), enforce_file_format=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        record = ResultRecord("sr", CR, uid, f"{uid}.2", digest, f"results/{number}.dcm", 10)
        deliveries += finished_job(database, number, record, dict.fromkeys(sorted(names, reverse=True), ("sr",)), now)
        uids.add(uid)
    task_queue.enqueue_deliveries(deliveries)
    task_queue.close()
    return uids


def finished_job(
    database: Database, number: int, record: ResultRecord, to: dict[str, tuple[str, ...]], now: datetime
) -> tuple[int, ...]:
    (job_id,) = record_instance(database, received(1, number), None, "p" * 64, now).job_ids
    database.write(jobs.claim, job_id, "w", now, timedelta(minutes=1))
    deliveries = database.write(jobs.finish, job_id, "w", Outcome(results=(record,), destinations=to), now)
    assert deliveries is not None
    return deliveries
