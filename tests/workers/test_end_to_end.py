"""Real radiographs through the real models, in real worker processes, to a real PACS."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydicom import dcmread

from db.database import Database
from db.engine import connect
from db.model_states import ModelState, latest_switches, set_model_state
from db.queries import study_details
from tests.orthanc import running_orthanc
from tests.rules import NO_RULES
from tests.workers.conftest import Broker
from tests.workers.harness import running_parts
from workers.clock import utc_now
from workers.pipeline_digest import active_pipeline, digest_of
from workers.results.identity import Identity

pytestmark = [pytest.mark.slow, pytest.mark.peer("Orthanc"), pytest.mark.peer("shared-data")]

MODEL = "chest-classifier"
STYLES = ("sc-jpeg", "cr", "dx12", "dx12-mono1")


def test_real_radiographs_come_back_as_seg_and_sr(broker: Broker, tmp_path: Path, shared_data: Path) -> None:
    files = [next(iter(sorted((shared_data / "dicom").glob(f"*.{style}.dcm")))) for style in STYLES]
    with (
        running_orthanc(tmp_path / "pacs", modalities={"pleura": ("PLEURA", 1)}) as pacs,
        running_parts(tmp_path, broker, pacs, real=True) as parts,
    ):
        pipeline = digest_of(active_pipeline(parts.settings), parts.settings)
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
        on_hold = {str(dataset.SOPInstanceUID): dataset for dataset in pacs.datasets()}
        for uid, image in reports.items():
            evidence = on_hold[uid].CurrentRequestedProcedureEvidenceSequence
            referenced = {
                item.ReferencedSOPInstanceUID
                for study in evidence
                for series in study.ReferencedSeriesSequence
                for item in series.ReferencedSOPSequence
            }
            assert image in referenced, "the report refers to its image"
            segments = referenced - {image}
            assert segments <= on_hold.keys(), "and to a SEG that the PACS holds"
        assert {str(dataset.Modality) for dataset in on_hold.values()} <= {"SEG", "SR"}
        assert len(on_hold) == parts.counts()["deliveries.sent"]


def test_a_model_is_switched_while_the_workers_run(broker: Broker, tmp_path: Path, shared_data: Path) -> None:
    off, on, _ = sorted((shared_data / "dicom").glob("*.cr.dcm"))[:3]
    with (
        running_orthanc(tmp_path / "pacs", modalities={"pleura": ("PLEURA", 1)}) as pacs,
        running_parts(tmp_path, broker, pacs, real=True) as parts,
    ):
        pipeline, engine = (
            digest_of(active_pipeline(parts.settings), parts.settings),
            connect(parts.settings.database_url),
        )

        def take_in(path: Path, done: int) -> None:
            parts.take_in_dataset(dcmread(path), hashlib.sha256(path.read_bytes()).hexdigest(), pipeline)
            parts.wait_until(lambda: parts.counts().get("jobs.done") == done, f"job {done} to be done")

        set_model_state(engine, MODEL, ModelState.OFF, actor="ada", reason="test", now=utc_now())
        take_in(off, 1)
        assert parts.counts() == {"jobs.done": 1}, "nothing that it says is delivered"
        assert latest_switches(engine)[MODEL].state is ModelState.OFF
        set_model_state(engine, MODEL, ModelState.ACTIVE, actor="ada", reason="test", now=utc_now())
        take_in(on, 2)
        parts.wait_until(lambda: parts.counts().get("deliveries.sent", 0) > 0, "the next image's results to be sent")
        on_hold = {str(item.StudyInstanceUID) for item in pacs.datasets()}
        assert on_hold == {str(dcmread(on).StudyInstanceUID)}
        jobs = [
            job for study in (1, 2) for job in Database(engine, NO_RULES).read(study_details.study_detail, study).jobs
        ]
        assert [job.modes for job in jobs] == [{MODEL: "off"}, {MODEL: "active"}]
        engine.dispose()
