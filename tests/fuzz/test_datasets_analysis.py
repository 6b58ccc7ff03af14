"""Mutated data sets on the worker's way from stored bytes to results: none may end as *failed*.

*Failed* is for our own faults. Each becomes an analysis or *not analysed* with a reason, what reaches a network lies
between 0 and 1, and what we make of it is sound whatever it was made of. The networks are left out but for the
preparation of their input.

The short form runs with all tests. ``PLEURA_FUZZ_COUNT=20000`` runs so many, ``PLEURA_FUZZ_SEED=7`` others (a number
that is added to a data set's own; a failure names the sum, and ``tests.fuzz.mutations.data_set`` makes it again).
"""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from config.settings import Destination, Settings, Store, Workers
from db.records import JobState, Outcome
from models.contract import Finding, InputSpec, ModelInput, Prediction
from models.radiograph.attributes import is_as_promised
from models.radiograph.contrast import letterbox_for, prepare
from models.radiograph.decode import UnreadablePixels
from node.dicom.spool import StoreCommand, file_preface
from tests.fuzz.mutations import data_set
from tests.workers.builders import FakeClock, job
from tests.workers.results.sources import MODEL, PNEUMOTHORAX, study_summary
from tests.workers.test_analysis import EQUIPMENT, FakeJobs, FakeTaskQueue
from workers.analysis import AnalysisTools, analyse_job
from workers.composition import source_reader
from workers.results.encoders import ENCODERS, encode_in_order
from workers.results.source_image import IDENTITY, read_header

COUNT = int(os.environ.get("PLEURA_FUZZ_COUNT", "200"))
SEED = int(os.environ.get("PLEURA_FUZZ_SEED", "0"))
CHUNK = 100
LONGEST_SECONDS = 10.0
SPEC = InputSpec(32, 32)


class Preparing:
    """Stands for the networks: looks at their input, and finds something at the same place of any image."""

    def predict(self, model_input: ModelInput) -> Prediction:
        assert np.isfinite(model_input.pixels).all()
        assert 0 <= model_input.pixels.min() <= model_input.pixels.max() <= 1
        network = prepare(model_input, letterbox_for(model_input, SPEC), SPEC)
        assert np.isfinite(network).all()
        mask = np.zeros(model_input.shape, dtype=np.bool_)
        mask[: max(1, mask.shape[0] // 3), : max(1, mask.shape[1] // 3)] = True
        found = Finding("pneumothorax", PNEUMOTHORAX, MODEL.name, 0.9, 0.5, mask=mask)
        absent = replace(found, label="lung_opacity", probability=0.1, mask=None)
        return Prediction(model_input.shape, (found, absent), models=(MODEL,))


class Bench:
    """A worker with a store of its own, without database and networks."""

    def __init__(self, folder: Path) -> None:
        kinds = ("seg", "sr", "sc", "gsps")
        self.settings = Settings(
            store=Store(folder=folder),
            workers=Workers(attempts=1),
            destinations=(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, kinds=kinds),),
        )
        self.job = job()
        self.path = folder / self.job.instance_path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.read = source_reader(self.settings)

    def analyse(self, content: bytes) -> FakeJobs:
        self.path.write_bytes(content)
        jobs = FakeJobs(self.job)
        tools = AnalysisTools(
            settings=self.settings,
            database=jobs,
            read_source=self.read,
            difference=lambda before, after: "",
            predictor=Preparing(),
            encode=partial(encode_in_order, ENCODERS),
            equipment=EQUIPMENT,
            pipeline=self.job.pipeline,
            task_queue=FakeTaskQueue(),
            clock=FakeClock(),
            elapsed=time.monotonic,
            worker="host/jobs/0/0#1",
        )
        analyse_job(self.job.id, tools)
        return jobs

    def objects(self, outcome: Outcome) -> Iterator[Dataset]:
        """What was made, as it would be sent, and a summary of it."""
        for result in outcome.results:
            yield dcmread(self.settings.store.folder / result.path)
        try:
            header = read_header(self.path)
        except UnreadablePixels:
            return
        buffer = BytesIO()
        study_summary(header).save_as(buffer, enforce_file_format=True)
        yield dcmread(BytesIO(buffer.getvalue()))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("store"))


def stored(seed: int) -> bytes:
    """A data set as the listener stores it."""
    syntax, body = data_set(seed)
    command = StoreCommand("1.2.840.10008.5.1.4.1.1.1", "1.2.3", "1.2.840.10008.5.1.4.1.1.1", syntax, "A", "B")
    return file_preface(command) + body


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(SEED, SEED + COUNT, CHUNK))
def test_no_data_set_ends_as_failed(first: int, bench: Bench) -> None:
    ends: Counter[str] = Counter()
    for seed in range(first, min(first + CHUNK, SEED + COUNT)):
        started = time.thread_time()
        jobs = bench.analyse(stored(seed))
        seconds = time.thread_time() - started
        assert jobs.job.state is JobState.DONE, f"data set {seed}: {jobs.events}"
        assert jobs.outcome is not None
        assert seconds < LONGEST_SECONDS, f"data set {seed} took {seconds:.0f} s"
        not_analysed = jobs.outcome.not_analysed
        ends[not_analysed.code if not_analysed is not None else "analysed"] += 1
        if not_analysed is not None:
            assert not_analysed.sentence.endswith("."), f"data set {seed}: {not_analysed}"
        if seed % 10 == 0:
            assert not_analysed is None, f"data set {seed} is as it should be: {not_analysed}"
        for made in bench.objects(jobs.outcome):
            _check(made, seed)
    assert ends["analysed"] > 0
    assert len(ends) > 3


def _check(made: Dataset, seed: int) -> None:
    """Everything but what identifies patient and study is what the standard promises, whatever the source was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for element in made:
            promised = element.keyword in IDENTITY or is_as_promised(element)
            assert promised, f"data set {seed}: {element.keyword} as {element.VR}, {element.VM} values"
