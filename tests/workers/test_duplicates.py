"""A peer that says "duplicate SOP instance" (0x0111) after a crash before we noted its answer: real associations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from config.settings import Destination, Settings, Store
from db.records import DeliveryState
from tests.workers.builders import FakeClock, delivery
from tests.workers.harness import CR, radiograph
from tests.workers.test_delivery import FakeDeliveries
from workers.delivery import DeliveryTools, deliver
from workers.destinations.destination_kinds import KINDS

UID = "1.2.3.1"


@contextmanager
def archive(*on_hold: str, queries: bool = True) -> Iterator[int]:
    """Port of a peer that takes one association at a time, calls everything a duplicate and finds ``on_hold``."""

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if event.identifier.SOPInstanceUID in on_hold:
            yield 0xFF00, event.identifier

    entity = AE("PACS")
    entity.maximum_associations = 1
    entity.add_supported_context(CR, [ExplicitVRLittleEndian])
    if queries:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    handlers = [(evt.EVT_C_STORE, lambda _: 0x0111), (evt.EVT_C_FIND, find)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("on_hold", "queries", "state"),
    [
        ((UID,), True, DeliveryState.SENT),
        ((), True, DeliveryState.PENDING),
        ((UID,), False, DeliveryState.FAILED),
    ],
    ids=["it holds it", "it does not find it", "it cannot be asked"],
)
def test_what_a_peer_calls_a_duplicate_is_sent_where_it_finds_it(
    tmp_path: Path, on_hold: tuple[str, ...], queries: bool, state: DeliveryState
) -> None:
    (tmp_path / "results").mkdir()
    dcmwrite(tmp_path / "results" / "sr.dcm", radiograph(UID), enforce_file_format=True)
    rows = FakeDeliveries(
        delivery(1, "sr", sop_class_uid=CR, sop_instance_uid=UID, series_instance_uid=f"{UID}.2", lost=1)
    )
    with archive(*on_hold, queries=queries) as port:
        peer = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_seconds=5)
        settings = Settings(store=Store(folder=tmp_path), destinations=(peer,))
        deliver(1, DeliveryTools(settings, rows, KINDS, FakeClock(), "w"))
    assert rows.rows[1].state is state
    assert "0x0111" in str(rows.notes) or state is DeliveryState.SENT
