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

from config.destinations import Destination
from config.settings import Settings, Store
from db.states import DeliveryState
from tests.workers.builders import FakeClock, delivery
from tests.workers.harness import CR, radiograph
from tests.workers.test_delivery import FakeDeliveries
from workers.delivery import DeliveryTools, deliver
from workers.destinations.destination_kinds import destination_kinds

UID = "1.2.3.1"
_PDUS = {0x01: "A-ASSOCIATE-RQ", 0x05: "A-RELEASE-RQ"}


@contextmanager
def archive(*held: str, queries: bool = True) -> Iterator[tuple[int, list[str]]]:
    """A peer that calls everything a duplicate and finds ``held``: its port, and the PDUs that begin and end an
    association, in the order in which they came."""
    pdus: list[str] = []

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if event.identifier.SOPInstanceUID in held:
            yield 0xFF00, event.identifier

    entity = AE("PACS")
    entity.add_supported_context(CR, [ExplicitVRLittleEndian])
    if queries:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)

    def note(event: evt.Event) -> None:
        if event.pdu.pdu_type in _PDUS:
            pdus.append(_PDUS[event.pdu.pdu_type])

    handlers = [(evt.EVT_C_STORE, lambda _: 0x0111), (evt.EVT_C_FIND, find), (evt.EVT_PDU_RECV, note)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1], pdus
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("held", "queries", "state"),
    [
        ((UID,), True, DeliveryState.SENT),
        ((), True, DeliveryState.PENDING),
        ((UID,), False, DeliveryState.FAILED),
    ],
    ids=["it holds it", "it does not find it", "it cannot be asked"],
)
def test_what_a_peer_calls_a_duplicate_is_sent_where_it_finds_it(
    tmp_path: Path, held: tuple[str, ...], queries: bool, state: DeliveryState
) -> None:
    (tmp_path / "results").mkdir()
    dcmwrite(tmp_path / "results" / "sr.dcm", radiograph(UID), enforce_file_format=True)
    rows = FakeDeliveries(
        delivery(1, "sr", sop_class_uid=CR, sop_instance_uid=UID, series_instance_uid=f"{UID}.2", lost=1)
    )
    with archive(*held, queries=queries) as (port, pdus):
        peer = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_seconds=5)
        settings = Settings(store=Store(folder=tmp_path), destinations=(peer,))
        deliver(1, DeliveryTools(settings, rows, destination_kinds(settings), FakeClock(), "w"))
    assert rows.rows[1].state is state
    # A peer may take one association at a time: the one that sent is released before the one that asks begins.
    assert pdus[:3] == ["A-ASSOCIATE-RQ", "A-RELEASE-RQ", "A-ASSOCIATE-RQ"]
    assert "0x0111" in str(rows.notes) or state is DeliveryState.SENT
