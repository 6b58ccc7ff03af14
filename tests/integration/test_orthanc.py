"""A real PACS routes whole studies to a real node, gets its results back, and neither ever goes round in circles.

What the PACS holds is counted through Orthanc's REST interface; our database is asked only what it takes for verified.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.integration.pleura import Pleura, running_pleura
from tests.integration.studies import frontal, whole_study
from tests.orthanc import Orthanc, running_orthanc, wait_until
from tests.ports import free_port
from tests.viewers.phantoms import as_bytes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.peer("Orthanc")]

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"

# Sends a study as soon as it has been quiet for Orthanc's StableAge, and again whenever it has grown since.
ROUTE_EVERYTHING = """
function OnStableStudy(study, tags, metadata)
  RestApiPost('/modalities/pleura/store', DumpJson({ Resources = { study }, Synchronous = false }))
end
"""


def _transfers_done(pacs: Orthanc) -> list[dict[str, Any]] | None:
    """Orthanc's transfers, once none of them waits or runs."""
    transfers = pacs.transfers()
    return None if any(job["State"] in ("Pending", "Running", "Retry") for job in transfers) else transfers


def _by_class(pacs: Orthanc, sop_class: str) -> list[Dataset]:
    return [dataset for dataset in pacs.datasets() if dataset.SOPClassUID == sop_class]


def _uids_in(dataset: Dataset) -> set[str]:
    """Every SOP Instance UID that the object refers to, at any depth."""
    found = set()
    for element in dataset.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            found.add(str(element.value))
    return found


def _still(pacs: Orthanc, seconds: float) -> int:
    """Number of instances once it has not changed for ``seconds``."""
    count, since = pacs.count(), time.monotonic()
    end = since + 120
    while time.monotonic() - since < seconds:
        assert time.monotonic() < end, "the number of instances never comes to rest: something loops"
        time.sleep(0.5)
        if pacs.count() != count:
            count, since = pacs.count(), time.monotonic()
    return count


def test_a_whole_study_goes_in_and_its_results_come_back_once(tmp_path: Path) -> None:
    port = free_port()
    study = whole_study()
    with (
        running_orthanc(tmp_path / "pacs", lua=ROUTE_EVERYTHING, modalities={"pleura": ("PLEURA", port)}) as pacs,
        running_pleura(tmp_path / "pleura", pacs, port) as node,
    ):
        for one in study.values():
            pacs.upload(as_bytes(one))
        wait_until(
            lambda: len(_by_class(pacs, SEG)) and len(_by_class(pacs, COMPREHENSIVE_3D_SR)) >= 2,
            "a SEG, a report and a summary in the PACS",
            seconds=120,
            alive=node.check_alive,
        )
        on_hold = _still(pacs, 10)

        # The originals, one SEG, one report of the image and one summary of the study: nothing twice, nothing lost.
        assert on_hold == len(study) + 3
        _check_results(pacs, study)

        # Whatever Orthanc routed, it was told success for all of it: the whole study, then the study with our results.
        transfers = wait_until(lambda: _transfers_done(pacs), "the end of Orthanc's transfers")
        assert [job["State"] for job in transfers] == ["Success"] * len(transfers), transfers
        assert sum(job["Content"].get("FailedInstancesCount", 0) for job in transfers) == 0
        assert max(job["Content"]["InstancesCount"] for job in transfers) == on_hold, "our results were not routed back"

        # Once more by hand, everything, ours included: accepted, and nothing new comes of it.
        (parent,) = pacs.get("/studies")
        again = pacs.store_to("pleura", parent)
        assert (again["InstancesCount"], again["FailedInstancesCount"]) == (on_hold, 0)
        assert _still(pacs, 10) == on_hold


def _check_results(pacs: Orthanc, study: dict[str, Dataset]) -> None:
    source = study["pa"]
    (segmentation,) = _by_class(pacs, SEG)
    reports = _by_class(pacs, COMPREHENSIVE_3D_SR)
    assert _uids_in(segmentation) == {source.SOPInstanceUID}
    # The report is about the frontal image alone; the summary also says what was not analysed.
    (report,) = [one for one in reports if study["lateral"].SOPInstanceUID not in _uids_in(one)]
    (summary,) = [one for one in reports if one is not report]
    assert _uids_in(report) == {source.SOPInstanceUID, segmentation.SOPInstanceUID}
    assert {source.SOPInstanceUID, study["lateral"].SOPInstanceUID} <= _uids_in(summary)
    for one in (segmentation, *reports):
        assert one.StudyInstanceUID == source.StudyInstanceUID
        assert (one.PatientID, str(one.PatientName)) == (source.PatientID, str(source.PatientName))
        assert one.AccessionNumber == source.AccessionNumber
        # What is referred to is in the PACS, under that very UID.
        on_hold = {entry["MainDicomTags"]["SOPInstanceUID"] for entry in pacs.instances()}
        assert _uids_in(one) <= on_hold


def _on_hold(node: Pleura) -> dict[str, str]:
    """State of each delivery in the node's own database, by the SOP Instance UID of what is delivered."""
    with closing(sqlite3.connect(node.folder / "store" / "pleura.sqlite")) as database:
        query = "select r.sop_instance_uid, d.state from deliveries d join results r on r.id = d.result_id"
        return dict(database.execute(query).fetchall())


@pytest.mark.parametrize("verification", ["query", "commitment"])
def test_a_pacs_verifies_what_it_holds_gets_again_what_it_lost_and_not_what_was_deleted(
    tmp_path: Path, verification: str
) -> None:
    """Orthanc reports commitments on an association of its own, to the AE title and port that it knows us by."""
    port = free_port()
    with (
        running_orthanc(tmp_path / "pacs", modalities={"pleura": ("PLEURA", port)}) as pacs,
        running_pleura(tmp_path / "pleura", pacs, port, verification=verification, attempts=2) as node,
    ):
        _show(pacs, whole_study()["pa"])
        _wait_for_verification(pacs, node, 3)

        # A second image, whose SEG the PACS loses as soon as it has it, before it is asked.
        second = frontal()
        _show(pacs, second)
        lost = wait_until(lambda: _seg_of(pacs, second), "the SEG of the second image", pause=0.02)
        pacs.request("DELETE", f"/instances/{lost}")
        wait_until(lambda: _seg_of(pacs, second), "the SEG once more", seconds=90, alive=node.check_alive)
        _wait_for_verification(pacs, node, 6)

        # A third one; the node dies between sending and asking.
        third = frontal()
        _show(pacs, third)
        wait_until(lambda: _seg_of(pacs, third), "the SEG of the third image", pause=0.02)
        node.kill_everything()
        node.start()
        _wait_for_verification(pacs, node, 9)

        _delete_a_study(pacs, node)


def _delete_a_study(pacs: Orthanc, node: Pleura) -> None:
    """Our objects go with it, and nobody has asked us to send them again: it must not come back."""
    there, earlier = pacs.count(), set(_on_hold(node))
    image = frontal()
    _show(pacs, image)
    # The summary is the last to come; it cannot have been verified yet.
    wait_until(lambda: pacs.count() == there + 4, "the image, SEG, report and summary", pause=0.02)
    (study,) = pacs.post("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": image.StudyInstanceUID}})
    pacs.request("DELETE", f"/studies/{study}")
    wait_until(lambda: "on_hold" in _on_hold(node).values(), "what is missing to be held", 90, alive=node.check_alive)
    assert _still(pacs, 5) == there
    assert {state for uid, state in _on_hold(node).items() if uid not in earlier} <= {"on_hold", "verified"}


def _show(pacs: Orthanc, image: Dataset) -> None:
    assert pacs.store_to("pleura", pacs.upload(as_bytes(image)))["FailedInstancesCount"] == 0


def _wait_for_verification(pacs: Orthanc, node: Pleura, count: int) -> None:
    """Wait until SEG, report and summary of every image are verified, and check that the PACS has them."""

    def all_verified() -> dict[str, str] | None:
        states = _on_hold(node)
        return states if len(states) == count and set(states.values()) == {"verified"} else None

    verified = wait_until(all_verified, f"verification of {count} objects", seconds=90, alive=node.check_alive)
    assert set(verified) <= {entry["MainDicomTags"]["SOPInstanceUID"] for entry in pacs.instances()}


def _seg_of(pacs: Orthanc, image: Dataset) -> str | None:
    found = pacs.instances(StudyInstanceUID=image.StudyInstanceUID, Modality="SEG")
    return str(found[0]["ID"]) if found else None
