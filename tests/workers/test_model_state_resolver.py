"""A model is switched while the worker runs: the next job obeys, and what it leaves is another analysis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmwrite
from sqlalchemy import Engine

from config.destinations import Destination
from config.settings import Models, Settings, Store, Workers
from db import jobs
from db.database import Database
from db.engine import connect
from db.model_states import ModelState, set_model_state
from db.queries import study_details
from db.queries.statistics import Statistics
from db.records import ReceivedInstance
from db.shown_records import JobDetail, ResultDetail
from models.contract import ModelInput, Spacing
from tests.commands import record_instance
from tests.migrated import migrate
from tests.models.samples import classifier_graph, manifest
from tests.rules import NO_RULES
from tests.workers.builders import NOON
from tests.workers.harness import CR, radiograph
from workers.composition import analysis_handler
from workers.image_measures import measures_of
from workers.pipeline_digest import active_pipeline, digest_of, name_of_analysis
from workers.results.identity import Identity
from workers.store_files import INSTANCES
from workers.worker_id import WorkerId


class Node:
    """A worker on a real database and two tiny models, one of them in shadow."""

    def __init__(self, folder: Path) -> None:
        models = folder / "models"
        models.mkdir()
        for name in ("site-a", "site-b"):
            manifest(classifier_graph(models / f"{name}.onnx", bias=0.2), name)
        self.settings = Settings(
            store=Store(folder=folder / "store"),
            models=Models(folder=models, active=("site-a",), shadow=("site-b",), gate=""),
            workers=Workers(device="cpu", threads=1),
            destinations=(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1, kinds=("seg", "sr")),),
        )
        (self.settings.store.folder / INSTANCES).mkdir(parents=True)
        self.engine: Engine = connect(self.settings.database_url)
        migrate(self.engine)
        self.database = Database(self.engine, NO_RULES)
        self.handle: Callable[[int], None] = analysis_handler(self.settings, WorkerId("here/jobs/0/0#", "1"))

    def receive(self, number: int) -> int:
        uid = f"1.2.3.{number}"
        dcmwrite(self.settings.store.folder / f"{number}.dcm", radiograph(uid, 600, 520), enforce_file_format=True)
        received = ReceivedInstance(uid, CR, "1.2.840.10008.1.2.1", f"{number:064x}", f"{number}.dcm", 1, "1.3", "1.4")
        pipeline = digest_of(active_pipeline(self.settings), self.settings)
        return record_instance(self.database, received, None, pipeline, NOON).job_ids[0]

    def analyse(self, number: int) -> JobDetail:
        job_id = self.receive(number)
        self.handle(job_id)
        return self.job(job_id)

    def again(self, job_id: int) -> JobDetail:
        self.database.write(jobs.requeue, job_id, "ada", "again", NOON)
        self.handle(job_id)
        return self.job(job_id)

    def job(self, job_id: int) -> JobDetail:
        return next(job for job in self.database.read(study_details.study_detail, 1).jobs if job.id == job_id)

    def results(self, job: JobDetail) -> list[ResultDetail]:
        return [one for one in self.database.read(study_details.study_detail, 1).results if one.job_id == job.id]

    def switch(self, name: str, state: ModelState) -> None:
        set_model_state(self.engine, name, state, actor="ada", reason="test", now=NOON)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def delivered(job: JobDetail) -> set[str]:
    """Models of the findings that may leave the node (the second label of each is in shadow by its manifest)."""
    return {finding.model for finding in job.findings if not finding.shadow}


def test_a_switch_counts_for_the_next_job_and_is_written_down_with_it(node: Node) -> None:
    before = node.analyse(1)
    assert (delivered(before), before.modes) == ({"site-a"}, {"site-a": "active", "site-b": "shadow"})
    waiting = node.receive(2)
    node.switch("site-a", ModelState.OFF)
    node.handle(waiting)
    after = node.job(waiting)
    assert (delivered(after), after.modes) == (set(), {"site-a": "off", "site-b": "shadow"})
    assert {finding.model for finding in after.findings} == {"site-a", "site-b"}
    assert node.results(before)
    assert node.results(after) == []
    node.switch("site-b", ModelState.ACTIVE)
    last = node.analyse(3)
    assert (delivered(last), last.modes) == ({"site-b"}, {"site-a": "off", "site-b": "active"})
    assert all(finding.shadow for finding in last.findings if finding.label == "other")


def test_another_mode_is_another_analysis_and_the_same_mode_is_the_same(node: Node) -> None:
    job = node.analyse(1)
    configured = digest_of(active_pipeline(node.settings), node.settings)
    (report,) = (one.record for one in node.results(job) if one.record.kind == "sr")
    plain = Identity("2.25", "1.2.3.1", f"{1:064x}", configured, 1)
    assert report.sop_instance_uid == plain.uid("sr")
    assert job.findings[0].tracking_uid == plain.tracking("site-a", "lung_opacity")
    # Switched to what it is anyway: still the analysis that the configuration names.
    node.switch("site-a", ModelState.ACTIVE)
    same = node.analyse(2)
    assert node.results(same)[-1].record.sop_instance_uid == Identity(
        "2.25", "1.2.3.2", f"{2:064x}", configured, 1
    ).uid(node.results(same)[-1].record.kind)
    node.switch("site-b", ModelState.ACTIVE)
    other = node.analyse(3)
    named = name_of_analysis(configured, ["site-b=active"])
    assert named != configured
    assert node.results(other)[-1].record.sop_instance_uid == Identity("2.25", "1.2.3.3", f"{3:064x}", named, 1).uid(
        node.results(other)[-1].record.kind
    )


def test_a_revision_under_another_mode_still_names_its_predecessor(node: Node) -> None:
    from pydicom import dcmread

    first = node.analyse(1)
    (before,) = (one.record for one in node.results(first) if one.record.kind == "sr")
    node.switch("site-b", ModelState.ACTIVE)
    second = node.again(first.id)
    after = max((one for one in node.results(second) if one.record.kind == "sr"), key=lambda one: one.revision)
    document = dcmread(node.settings.store.folder / after.record.path)
    (series,) = document.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.SeriesInstanceUID == before.series_instance_uid
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before.sop_instance_uid


def test_a_model_that_is_not_configured_changes_nothing(node: Node) -> None:
    node.switch("elsewhere", ModelState.OFF)
    job = node.analyse(1)
    assert job.modes == {"site-a": "active", "site-b": "shadow"}
    assert node.results(job)[0].record.sop_instance_uid


def test_what_an_image_measures_is_kept_with_its_job(node: Node) -> None:
    from sqlalchemy import select

    from db.tables import Job

    node.analyse(1)
    with node.engine.connect() as connection:
        kept = connection.execute(select(Job.measures)).scalar_one()
    assert (kept["rows"], kept["columns"], kept["view"], kept["spacing"]) == (600, 520, "PA", 0.2)
    assert 0 < kept["contrast"] < 0.5 < kept["bright"] <= 1


def test_measures_on_a_coarse_grid_are_those_of_the_image() -> None:
    pixels = np.random.default_rng(1).random((2011, 1703)).astype(np.float32)
    measured = measures_of(radiograph("1.2"), ModelInput(pixels, "1.2", Spacing(0.14, 0.14, "detector")))
    assert measured["brightness"] == pytest.approx(pixels.mean(), abs=0.01)
    assert measured["contrast"] == pytest.approx(pixels.std(), abs=0.01)
    assert measures_of(radiograph("1.2"), None).keys() == {"view", "photometric"}


def test_the_configuration_stays_the_frame(node: Node) -> None:
    from models.model_spec import Mode

    modes = {spec.name: spec.mode for spec in active_pipeline(node.settings, switches={"site-a": Mode.SHADOW})}
    assert modes == {"site-a": Mode.SHADOW, "site-b": Mode.SHADOW, "chest-lungs": Mode.ACTIVE}


def test_the_system_page_learns_the_device_from_a_finished_job(node: Node) -> None:
    node.analyse(1)
    (worker,) = Statistics(node.engine).workers(NOON)
    assert (worker.name, worker.device, worker.finished) == ("here/jobs/0/0#1", "cpu", 1)
