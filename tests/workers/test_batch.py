"""Several waiting jobs in one pass through the networks: each keeps its own claim, attempts and result."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from config.settings import Settings, Store, Workers
from db import jobs
from db.database import Database
from db.engine import connect
from db.records import Route
from db.states import JobState
from db.tables import Event, Job
from models.contract import ModelInput, Prediction
from models.manifest import read_manifest
from models.model_spec import ModelSpec
from models.pipeline import Pipeline
from models.predictor import load_predictor
from models.runtime.executor import ModelUnavailableError
from tests.db.examples import MINUTE, NOW, PIPELINE, record
from tests.migrated import migrate
from tests.models.samples import chestlike, classifier_graph, manifest
from tests.rules import NO_RULES
from tests.workers.builders import FakeClock
from workers.analysis import analyse_job
from workers.analysis_tools import AnalysisTools, Predictor
from workers.batch import together
from workers.results.encoder import Equipment
from workers.results.source_image import SourceImage

SHAPE = (4, 5)


@dataclass
class Networks:
    """Predicts by the grey value of an image; remembers in which company each was predicted."""

    passes: list[list[int]] = field(default_factory=list)
    bad: int = -1
    away: bool = False

    def predict(self, model_input: ModelInput) -> Prediction:
        return self.predict_all([model_input])[0]

    def predict_all(self, images: Sequence[ModelInput]) -> tuple[Prediction, ...]:
        numbers = [int(image.pixels[0, 0]) for image in images]
        self.passes.append(numbers)
        if self.away:
            raise ModelUnavailableError("the model server cannot be used")
        if self.bad in numbers:
            raise ValueError("an image that breaks the network")
        return tuple(Prediction(SHAPE, timings={"infer": float(number)}) for number in numbers)

    def only(self, names: Collection[str]) -> Predictor:
        return self

    def side_by_side(self) -> Predictor:
        return self


@dataclass
class Bench:
    database: Database
    networks: Networks
    tools: AnalysisTools
    read: list[int]

    def states(self) -> list[str]:
        return [state.value for state in self.values(Job.state)]

    def values(self, column: Any) -> list[Any]:
        with self.database.engine.connect() as connection:
            return list(connection.scalars(select(column).order_by(Job.id)))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    engine = connect(f"sqlite:///{tmp_path / 'pleura.sqlite'}")
    migrate(engine)
    database, read = Database(engine, NO_RULES), list[int]()
    settings = Settings(store=Store(folder=tmp_path), workers=Workers(attempts=2, backoff_seconds=10))

    def read_source(path: Path) -> SourceImage:
        number = int(path.stem)
        read.append(number)
        if number == 66:
            raise OSError("a file that cannot be read now")
        return SourceImage(Dataset(), ModelInput(np.full(SHAPE, number, np.float32), path.stem))

    networks = Networks()
    tools = AnalysisTools(
        settings=settings,
        database=database,
        read_source=read_source,
        difference=lambda _before, _after: "",
        predictor=networks,
        encode=lambda _analysis, _kinds: {},
        equipment=Equipment("Pleura", "Pleura", ("0",), "PLEURA", "1"),
        pipeline=PIPELINE,
        task_queue=NoQueue(),  # type: ignore[arg-type]
        clock=FakeClock(NOW),
        elapsed=lambda: 0.0,
        worker="w1",
        batch=4,
    )
    return Bench(database, networks, tools, read)


class NoQueue:
    def enqueue_deliveries(self, delivery_ids: Sequence[int]) -> bool:
        return not delivery_ids


def waiting(bench: Bench, *numbers: int, **changes: Any) -> list[int]:
    for number in numbers:
        path = bench.tools.settings.store.folder / f"instances/{number:02x}/{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [record(bench.database, number, number, **changes) for number in numbers]


def test_a_long_queue_goes_through_the_networks_in_batches(bench: Bench) -> None:
    ids = waiting(bench, *range(1, 11))
    for job_id in ids:
        analyse_job(job_id, bench.tools)
    assert bench.networks.passes == [[1, 2, 3, 4], *([number] for number in range(5, 11))], "8 wait, then 6"
    assert bench.states() == [JobState.DONE.value] * 10
    assert bench.values(Job.attempts) == [1] * 10
    assert bench.read == list(range(1, 11)), "no image is read twice"
    assert [each["predict.infer"] for each in bench.values(Job.timings)] == list(range(1, 11)), "each its own"
    with bench.database.engine.connect() as connection:
        ends = select(Event.entity_id).where(Event.entity == "job", Event.to_state == JobState.DONE.value)
        assert sorted(connection.scalars(ends)) == ids, "exactly one end each"


def test_a_bad_image_costs_the_others_nothing(bench: Bench) -> None:
    ids = waiting(bench, *range(1, 11))
    bench.networks.bad = 3
    analyse_job(ids[0], bench.tools)
    assert bench.networks.passes == [[1, 2, 3, 4], [1], [2], [3], [4]]
    assert bench.states()[:5] == ["done", "done", "retrying", "done", "queued"]
    bench.tools.clock.pass_by(minutes=1)  # type: ignore[attr-defined]
    analyse_job(ids[2], bench.tools)
    assert bench.networks.passes[-1] == [3], "what failed is never in a batch again"
    assert bench.states()[:5] == ["done", "done", "failed", "done", "queued"]


def test_an_image_that_cannot_be_read_costs_the_others_nothing(bench: Bench) -> None:
    ids = waiting(bench, 1, 66, *range(3, 11))
    analyse_job(ids[0], bench.tools)
    assert bench.networks.passes == [[1, 3, 4]]
    assert bench.states()[:4] == ["done", "retrying", "done", "done"]


def test_a_process_that_dies_leaves_claims_that_are_given_back_and_then_go_alone(bench: Bench) -> None:
    ids = waiting(bench, *range(1, 11))
    with pytest.raises(KeyboardInterrupt):
        analyse_job(ids[0], replace(bench.tools, predictor=Killed()))
    assert bench.states()[:5] == ["running"] * 4 + ["queued"]
    bench.database.write(jobs.release, "w1", NOW + MINUTE)
    for job_id in ids[:4]:
        analyse_job(job_id, bench.tools)
    assert bench.networks.passes == [[1], [2], [3], [4]]
    assert bench.values(Job.attempts)[:5] == [2, 2, 2, 2, 0]


class Killed(Networks):
    def predict_all(self, images: Sequence[ModelInput]) -> tuple[Prediction, ...]:
        raise KeyboardInterrupt


def test_jobs_wait_together_for_a_model_server(bench: Bench) -> None:
    ids = waiting(bench, *range(1, 11))
    bench.networks.away = True
    analyse_job(ids[0], bench.tools)
    assert bench.states()[:5] == ["retrying"] * 4 + ["queued"]
    assert bench.values(Job.attempts) == [0] * 10


def test_who_goes_alone(bench: Bench) -> None:
    ids = waiting(bench, *range(1, 11))
    first = bench.database.write(jobs.claim, ids[0], "w1", NOW, MINUTE)
    assert first is not None
    for alone in (
        replace(first, attempts=2),
        replace(first, stat=True),
        replace(first, revision=2),
        replace(first, compare_with=()),
        replace(first, route=Route("children", "by age", models=("other",))),
        replace(first, route=Route("feet", "by body part", excluded="no chest")),
    ):
        assert together(alone, bench.tools)[0] == (alone,)
    assert together(first, replace(bench.tools, batch=1)) == ((first,), replace(bench.tools, batch=1))
    claimed, _ = together(replace(first, route=Route("ward", "by AE", destinations=("pacs",))), bench.tools)
    assert [job.id for job in claimed] == ids[:4]


def test_a_batch_is_bounded_by_memory_and_time(bench: Bench) -> None:
    ids = waiting(bench, *range(1, 13))
    first = bench.database.write(jobs.claim, ids[0], "w1", NOW, MINUTE)
    assert first is not None
    ticks = iter([0.0, 1.0, 40.0, 80.0])
    claimed, _ = together(first, replace(bench.tools, elapsed=lambda: next(ticks)))
    assert [job.id for job in claimed] == ids[:2]
    small = bench.tools.settings.model_copy(
        update={"workers": bench.tools.settings.workers.model_copy(update={"maximum_pixels": 35})}
    )
    first = bench.database.write(jobs.claim, ids[2], "w1", NOW, MINUTE)
    assert first is not None
    claimed, _ = together(first, replace(bench.tools, settings=small))
    assert [job.id for job in claimed] == ids[2:4], "20 pixels each"


def test_a_batch_answers_what_each_image_gets_alone(tmp_path: Path) -> None:
    spec: ModelSpec = read_manifest(manifest(classifier_graph(tmp_path / "tiny.onnx"), "tiny"))
    predictor = load_predictor(Pipeline(None, (spec,)), threads=1)
    images = [ModelInput(chestlike(300 + 10 * number, 260), str(number)) for number in range(5)]
    together_, alone = predictor.predict_all(images), [predictor.predict(image) for image in images]
    for one, other in zip(together_, alone, strict=True):
        assert [f.probability for f in one.findings] == [f.probability for f in other.findings]
