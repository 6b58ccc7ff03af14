"""A site with and without GPUs: each job waits in the queue of the device that its models need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.routing import RoutingRule
from config.settings import Models, Settings, Workers
from db import jobs
from db.queries import study_details
from db.records import Route
from db.shown_records import JobDetail
from db.states import JOBS, JOBS_CPU, JOBS_GPU, JobState
from models.runtime.executor import ModelLoadError
from tests.models.samples import classifier_graph, manifest
from tests.workers.conftest import Broker
from tests.workers.harness import Parts
from workers.analysis_queues import (
    WrongQueueError,
    analysis_queues,
    queue_of,
    queue_of_worker,
    queues_here,
    settings_of_worker,
)
from workers.composition import load_active
from workers.pipeline_digest import active_pipeline, digest_of, rule_digests

MIXED = Models(gate="", lungs="", active=("small", "large"), gpu=("large",))
SMALL = Route("rest", "no condition", models=("small",))
LARGE = Route("icu", "station name ICU", models=("small", "large"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models, small and large."""
    made = tmp_path / "models"
    made.mkdir()
    for name in ("small", "large"):
        manifest(classifier_graph(made / f"{name}.onnx"), name)
    return made


@pytest.mark.parametrize(
    ("route", "queue"),
    [
        (None, JOBS_GPU),
        (SMALL, JOBS_CPU),
        (LARGE, JOBS_GPU),
        (Route("gone", "its models are gone", models=("removed",)), JOBS_GPU),
        (Route("ward", "calling AE title KIDS", excluded="no AI on this ward"), JOBS_CPU),
    ],
)
def test_the_models_that_run_on_an_image_decide(route: Route | None, queue: str) -> None:
    assert queue_of(route, MIXED) == queue
    assert queue_of(route, Models()) == JOBS, "without models.gpu there is one queue"


def test_a_worker_runs_on_the_device_of_its_queue() -> None:
    settings = Settings(models=MIXED)
    assert analysis_queues(MIXED) == (JOBS_CPU, JOBS_GPU)
    for queue, device in ((JOBS_CPU, "cpu"), (JOBS_GPU, "gpu")):
        its = settings_of_worker(settings, queue)
        assert (its.workers.device, queue_of_worker(its)) == (device, queue)
    with pytest.raises(WrongQueueError, match=r"no job waits in jobs: .* take jobs.cpu or jobs.gpu"):
        settings_of_worker(settings, JOBS)
    with pytest.raises(WrongQueueError, match=r"models.gpu names no model, so analysis workers take jobs$"):
        settings_of_worker(Settings(), JOBS_GPU)
    plain = Settings(workers=Workers(device="gpu"))
    assert (settings_of_worker(plain, JOBS), queue_of_worker(plain)) == (plain, JOBS)


def test_only_a_machine_with_a_gpu_takes_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, queues in ((False, (JOBS_CPU,)), (True, (JOBS_CPU, JOBS_GPU))):
        monkeypatch.setattr("workers.analysis_queues.has_gpu", lambda there=there: there)
        assert queues_here(MIXED) == queues
        assert queues_here(Models()) == (JOBS,)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"models": {"gpu": ["no-such-model"]}}, "'no-such-model' is neither in models.active nor in models.shadow"),
        ({"models": {"gpu": ["chest-classifier"]}, "workers": {"device": "cpu"}}, "workers.device cannot be cpu"),
    ],
)
def test_settings_that_contradict_the_queues_are_refused(sections: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate(sections)


def test_a_worker_without_a_gpu_loads_no_model_that_needs_one_and_none_starts_for_those(folder: Path) -> None:
    settings = Settings(models=MIXED.model_copy(update={"folder": folder}))
    resolver, _ = load_active(settings_of_worker(settings, JOBS_CPU))
    assert list(resolver.resolve({}).modes) == ["small"]
    assert resolver.runs_on == "cpu"
    with pytest.raises(ModelLoadError, match="GPU"):
        load_active(settings_of_worker(settings, JOBS_GPU))


def test_what_runs_on_a_gpu_on_purpose_is_another_analysis(folder: Path) -> None:
    rules = (
        RoutingRule(name="icu", station_names=("ICU",), models=("small", "large")),
        RoutingRule(name="rest", models=("small",)),
    )
    one = Settings(models=MIXED.model_copy(update={"folder": folder, "gpu": ()}), routing=rules)
    two = one.model_copy(update={"models": MIXED.model_copy(update={"folder": folder})})
    pipeline = active_pipeline(one)
    before, after = rule_digests(one, pipeline), rule_digests(two, pipeline)
    assert before["rest"] == after["rest"], "the same work on the same device"
    assert before["icu"] != after["icu"]
    assert digest_of(pipeline, one) != digest_of(pipeline, two)
    assert digest_of(pipeline, two) == digest_of(pipeline, settings_of_worker(two, JOBS_GPU)), (
        "listener and worker agree"
    )


@pytest.mark.campaign
def test_two_queues_of_a_real_broker_are_taken_each_by_its_worker(
    broker: Broker, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs a GPU waits for its worker, whatever message the other one hears; STAT goes first."""
    for key, value in MIXED.model_dump(mode="json", include={"gate", "lungs", "active", "gpu"}).items():
        monkeypatch.setenv(f"PLEURA_MODELS__{key.upper()}", value if isinstance(value, str) else json.dumps(value))
    monkeypatch.setenv("PLEURA_MODELS__FOLDER", str(folder))
    parts = Parts(tmp_path, broker, None, unreachable_attempts=1, processes=1)

    def job(number: int) -> JobDetail:
        study = parts.database.read(study_details.find_study, f"1.2.3.{number}")
        assert study is not None
        return parts.database.read(study_details.study_detail, study).jobs[0]

    for number in range(100, 104):
        parts.take_in(f"1.2.3.{number}", route=LARGE, stat=number == 103)
    parts.take_in("1.2.3.104", route=SMALL)
    parts.take_in("1.2.3.105", route=SMALL)
    parts.database.write(jobs.put_into_queue, [6], JOBS)  # it came before the configuration had two queues
    parts.start(JOBS_CPU)
    try:
        parts.wait_until(lambda: parts.counts().get("jobs.done") == 2, "the worker without a GPU")
        assert {job(number).worker.split("/")[1] for number in (104, 105)} == {JOBS_CPU}
        assert parts.task_queue.waiting_jobs(JOBS_GPU) == frozenset({1, 2, 3, 4})
        parts.task_queue.enqueue_jobs([(1, False)], JOBS_CPU)
        parts.wait_until(lambda: "the job waits in jobs.gpu" in parts.log(), "the worker to leave the job alone")
        assert (job(100).state, job(100).attempts, job(100).queue) == (JobState.QUEUED, 0, JOBS_GPU)
        parts.start_worker(JOBS_GPU)
        parts.wait_until(lambda: parts.counts().get("jobs.done") == 6, "the worker with one")
        mine = [job(number) for number in range(100, 104)]
        assert {each.worker.split("/")[1] for each in mine} == {JOBS_GPU}
        assert min(mine, key=lambda each: str(each.started_at)).stat, "STAT first"
    finally:
        parts.stop()
