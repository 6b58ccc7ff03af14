"""Real radiographs through the real models, in real worker processes, to a real PACS."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import dcmread

from db.model_states import ModelState, latest_switches, set_model_state
from db.queries import study_details
from tests.orthanc import Orthanc, running_orthanc
from tests.workers.conftest import Broker
from tests.workers.harness import Parts, running_parts
from workers.clock import utc_now
from workers.pipeline_digest import active_pipeline, digest_of
from workers.results.identity import Identity

pytestmark = [pytest.mark.slow, pytest.mark.peer("Orthanc"), pytest.mark.peer("shared-data")]

MODELS = ("chest-classifier", "chest-opacity")
STYLES = ("sc-jpeg", "cr", "dx12", "dx12-mono1")


def test_real_radiographs_come_back_as_seg_and_sr_and_models_are_switched(
    broker: Broker, tmp_path: Path, shared_data: Path
) -> None:
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

        _switch_models(parts, pacs, sorted((shared_data / "dicom").glob("*.cr.dcm"))[1:3], pipeline)


def _switch_models(parts: Parts, pacs: Orthanc, images: Sequence[Path], pipeline: str) -> None:
    """While workers run: what they find in the first image is not delivered, what they find in the second one is."""
    before, switches = parts.counts(), (ModelState.OFF, ModelState.ACTIVE)
    engine = parts.database.engine
    studies = [str(dcmread(path).StudyInstanceUID) for path in images]
    for number, (path, state) in enumerate(zip(images, switches, strict=True), start=1):
        for model in MODELS:
            set_model_state(engine, model, state, actor="ada", reason="test", now=utc_now())
        parts.take_in_dataset(dcmread(path), hashlib.sha256(path.read_bytes()).hexdigest(), pipeline)
        done = before["jobs.done"] + number
        parts.wait_until(lambda done=done: parts.counts().get("jobs.done") == done, f"job {done} to be done")
        if state is ModelState.OFF:
            assert parts.counts() == {**before, "jobs.done": done}, "nothing that they say is delivered"
            assert {latest_switches(engine)[model].state for model in MODELS} == {ModelState.OFF}
    parts.wait_until(lambda: parts.counts()["deliveries.sent"] > before["deliveries.sent"], "its results to be sent")
    assert {str(item.StudyInstanceUID) for item in pacs.datasets()} & set(studies) == {studies[1]}
    details = [parts.database.read(study_details.study_detail, _row(parts, study)) for study in studies]
    assert [job.modes for detail in details for job in detail.jobs] == [
        dict.fromkeys(MODELS, "off"),
        dict.fromkeys(MODELS, "active"),
    ]


def _row(parts: Parts, study_instance_uid: str) -> int:
    found = parts.database.read(study_details.find_study, study_instance_uid)
    assert found is not None
    return found
