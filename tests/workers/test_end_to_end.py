"""Real radiographs through the real models, in real worker processes, to a real PACS."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.orthanc import running_orthanc
from tests.workers.conftest import Broker
from tests.workers.harness import running_parts
from workers.pipeline import active_pipeline_digest
from workers.results.identity import Identity

pytestmark = [pytest.mark.slow, pytest.mark.peer("Orthanc"), pytest.mark.peer("shared-data")]

STYLES = ("sc-jpeg", "cr", "dx12", "dx12-mono1")


def test_real_radiographs_come_back_as_seg_and_sr(broker: Broker, tmp_path: Path, shared_data: Path) -> None:
    files = [next(iter(sorted((shared_data / "dicom").glob(f"*.{style}.dcm")))) for style in STYLES]
    with (
        running_orthanc(tmp_path / "pacs", modalities={"pleura": ("PLEURA", 1)}) as pacs,
        running_parts(tmp_path, broker, pacs, real=True) as parts,
    ):
        pipeline = active_pipeline_digest(parts.settings)
        reports = {}
        for path in files:
            source = dcmread(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            parts.take_in_dataset(source, digest, pipeline)
            identity = Identity("2.25", str(source.SOPInstanceUID), digest, pipeline, 1)
            reports[identity.uid("sr")] = str(source.SOPInstanceUID)
        parts.wait_until(
            lambda: (
                parts.counts().get("jobs.done") == len(files)
                and not {"deliveries.pending", "deliveries.sending"} & parts.counts().keys()
            ),
            "every image to be analysed and delivered",
        )
        assert set(parts.counts()) == {"jobs.done", "deliveries.sent"}
        held = {str(dataset.SOPInstanceUID): dataset for dataset in pacs.datasets()}
        for uid, image in reports.items():
            evidence = held[uid].CurrentRequestedProcedureEvidenceSequence
            referenced = {
                item.ReferencedSOPInstanceUID
                for study in evidence
                for series in study.ReferencedSeriesSequence
                for item in series.ReferencedSOPSequence
            }
            assert image in referenced, "the report refers to its image"
            segments = referenced - {image}
            assert segments <= held.keys(), "and to a SEG that the PACS holds"
        assert {str(dataset.Modality) for dataset in held.values()} <= {"SEG", "SR"}
        assert len(held) == parts.counts()["deliveries.sent"]
