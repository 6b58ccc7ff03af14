"""A whole node beside a real archive: the last prior is pulled, analysed silently, and compared with in the summary."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.integration.pleura import Pleura, running_pleura
from tests.integration.studies import frontal
from tests.orthanc import Orthanc, running_orthanc, wait_until
from tests.ports import free_port
from tests.viewers.phantoms import as_bytes

pytestmark = [
    pytest.mark.campaign,
    *(pytest.mark.peer(name) for name in ("Orthanc", "dciodvfy", "dsrdump")),
]

PRIORS = '\n[priors]\narchive = "pacs"\nwait_seconds = 90\n'


def film(day: str, **changes: str) -> Dataset:
    """A radiograph of patient P0001 of that day."""
    image = frontal(1)
    image.StudyDate = day
    for keyword, value in changes.items():
        setattr(image, keyword, value)
    return image


def shown(node: Pleura, image: Dataset) -> Any:
    output = subprocess.run(
        [sys.executable, "-m", "node.cli.main", "--config", node.config, "show", image.StudyInstanceUID, "--json"],
        capture_output=True,
        check=True,
    )
    return json.loads(output.stdout)


def summaries(pacs: Orthanc, image: Dataset) -> list[Dataset]:
    found = pacs.datasets(StudyInstanceUID=image.StudyInstanceUID, Modality="SR")
    return [each for each in found if "summary" in str(each.get("SeriesDescription", "")).lower()]


def test_the_summary_compares_with_the_prior_that_is_pulled(folder: Path) -> None:
    port = free_port()
    oldest, prior, new = film("20250101"), film("20260101"), film("20260301")
    namesake = film("20260201", PatientName="Somebody^Else")
    hand = film("20260202", StudyDescription="Hand right", BodyPartExamined="HAND")
    with (
        running_orthanc(folder / "pacs", "PACS", modalities={"pleura": ("PLEURA", port)}) as pacs,
        running_pleura(folder / "node", pacs, port, more=PRIORS) as node,
    ):
        for image in (oldest, prior, namesake, hand):
            pacs.upload(as_bytes(image))
        pacs.store_to("pleura", pacs.upload(as_bytes(new)))
        (summary,) = wait_until(lambda: summaries(pacs, new), "the summary", seconds=90, alive=node.check_alive)
        made = {str(each.StudyInstanceUID) for each in pacs.datasets() if each.Modality in ("SEG", "SR")}
        of_prior = wait_until(
            lambda: (output := shown(node, prior))["row"]["state"] == "complete" and output,
            "the prior's study to be complete",
            seconds=60,
        )
        path = folder / "summary.dcm"
        summary.save_as(path)
        assert made == {new.StudyInstanceUID}, "nothing of a prior is sent"
        worklist = subprocess.run(
            [sys.executable, "-m", "node.cli.main", "--config", node.config, "worklist", "--json"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    output = subprocess.run(["dsrdump", "+Pl", path], capture_output=True, text=True, check=True).stdout
    assert "Compared with 2026-01-01: pneumothorax" in output
    assert '"Description of Change")=(121069,DCM,"Previous Finding")' in output
    assert f'"Study Instance UID")="{prior.StudyInstanceUID}"' in output
    checked = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace")
    assert [line for line in checked.stderr.splitlines() if line.startswith("Error")] == []
    assert {each["state"] for each in of_prior["deliveries"]} == {"recorded"}
    assert of_prior["row"]["reported_by"] == "prior"
    assert new.StudyInstanceUID in worklist
    assert prior.StudyInstanceUID not in worklist
    assert not any(image.StudyInstanceUID in worklist for image in (oldest, namesake, hand))
