"""What holds for every kind of destination: what is wrong with a peer is a receipt or a PeerError, never a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydicom import dcmwrite

from config.destinations import Destination
from config.settings import Settings, Store
from node.monitoring.health import check_destination
from tests.dripping import dripping
from tests.ports import free_port
from tests.workers.harness import CR, radiograph
from workers.destinations.destination_kind import DAMAGED, DestinationKind, Outgoing, PeerError, Verdict
from workers.destinations.destination_kinds import destination_kinds
from workers.store_files import INSTANCES

SETTINGS = Settings.model_validate({"deidentification": {"key": "k" * 64}, "store": {"folder": "/nowhere/store"}})
KINDS = get_args(Destination.model_fields["kind"].annotation)


@pytest.fixture(params=KINDS)
def down(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    """A destination of each kind that cannot be reached. Whoever adds a kind adds what it needs here."""
    (tmp_path / "file").write_text("in the way of a folder")
    port = free_port()
    needs: dict[str, dict[str, Any]] = {
        "dimse": {"ae_title": "PEER", "host": "127.0.0.1", "port": port},
        "dicomweb": {"url": f"http://127.0.0.1:{port}/dicom-web"},
        "on-request": {},
        "deidentified": {"folder": tmp_path / "file" / "export"},
        "fhir": {"url": f"http://127.0.0.1:{port}/fhir"},
    }
    return Destination.model_validate(
        {"name": "peer", "kind": request.param, "timeout_seconds": 2} | needs[request.param]
    )


@pytest.fixture
def kind(down: Destination) -> DestinationKind:
    return destination_kinds(SETTINGS)[down.kind]


def test_every_kind_that_a_configuration_may_name_is_there() -> None:
    assert set(destination_kinds(SETTINGS)) == set(KINDS)


def test_every_object_gets_a_receipt(down: Destination, kind: DestinationKind, tmp_path: Path) -> None:
    objects = []
    for number in range(2):
        uid = f"1.2.826.0.1.3680043.8.498.{number}"
        dcmwrite(tmp_path / f"{uid}.dcm", radiograph(uid), enforce_file_format=True)
        objects.append(Outgoing(tmp_path / f"{uid}.dcm", CR, uid))
    receipts = list(kind.send(down, "PLEURA", objects))
    assert [receipt.verdict for receipt in receipts] == [Verdict.UNREACHABLE] * 2
    assert all(receipt.note for receipt in receipts)


def test_a_check_says_what_is_wrong_and_what_to_do(down: Destination, kind: DestinationKind) -> None:
    with pytest.raises(PeerError):
        kind.verify(down, "PLEURA")
    check = check_destination(SETTINGS, down)
    assert not check.ok
    assert check.found
    assert check.remedy


@pytest.mark.parametrize("name", [name for name in KINDS if name != "dimse"])
def test_a_damaged_file_is_not_sent(tmp_path: Path, name: str) -> None:
    """That of a DICOM peer is with its associations, in test_dimse."""
    uid = "1.2.826.0.1.3680043.8.498.1"
    dcmwrite(tmp_path / "object.dcm", radiograph(uid), enforce_file_format=True)
    needs = {"url": "http://127.0.0.1:9/"} if name in ("dicomweb", "fhir") else {}
    needs |= {"folder": str(tmp_path / "export")} if name == "deidentified" else {}
    there = Destination.model_validate({"name": "peer", "kind": name} | needs)
    kind = destination_kinds(SETTINGS.model_copy(update={"store": Store(folder=tmp_path)}))[name]
    (tmp_path / INSTANCES).mkdir()
    (receipt,) = kind.send(there, "PLEURA", [Outgoing(tmp_path / "object.dcm", CR, uid, digest="0" * 64)])
    assert (receipt.verdict, receipt.note) == (Verdict.REJECTED, DAMAGED)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "dimse"])
def test_an_object_waits_while_the_store_is_away(tmp_path: Path, name: str) -> None:
    """So does it for a DICOM peer, in test_dimse. One whose file alone is gone is not sent any more."""
    needs = {"url": "http://127.0.0.1:9/"} if name in ("dicomweb", "fhir") else {}
    needs |= {"folder": str(tmp_path / "export")} if name == "deidentified" else {}
    there = Destination.model_validate({"name": "peer", "kind": name} | needs)
    store = tmp_path / "store"
    kind = destination_kinds(SETTINGS.model_copy(update={"store": Store(folder=store)}))[name]
    waits = [Outgoing(store / "results/aa/object.dcm", CR, "1.2.3", digest="0" * 64)]
    (receipt,) = kind.send(there, "PLEURA", waits)
    assert receipt.verdict in (Verdict.LATER, Verdict.UNREACHABLE)
    (store / INSTANCES).mkdir(parents=True)
    (store / "results/aa").mkdir(parents=True)
    (receipt,) = kind.send(there, "PLEURA", waits)
    assert receipt.verdict is Verdict.REJECTED


@pytest.mark.parametrize("ask", ["find_study", "request_commitment", "check_verification"])
def test_what_cannot_be_asked_is_a_peer_error(down: Destination, kind: DestinationKind, ask: str) -> None:
    asked = down.model_copy(update={"verification": "query"})
    arguments = {"find_study": ("1.2.3",), "request_commitment": ("1.2.3", ()), "check_verification": ()}[ask]
    with pytest.raises(PeerError):
        getattr(kind, ask)(asked, "PLEURA", *arguments)


def test_a_server_that_drips_meets_the_time_limit() -> None:
    with dripping() as url:
        there = Destination.model_validate({"name": "peer", "kind": "fhir", "url": url, "timeout_seconds": 0.2})
        with pytest.raises(PeerError, match="TimeoutError"):
            destination_kinds(SETTINGS)["fhir"].verify(there, "PLEURA")
