"""A worker's way from stored bytes to results, in this process and without database and networks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from config.destinations import Destination
from config.settings import Settings, Store, Workers
from db.records import Outcome
from models.contract import Finding, ModelInput, Prediction
from models.model_spec import InputSpec
from models.radiograph.contrast import letterbox_for, prepare
from models.radiograph.decode import UnreadablePixels
from node.dicom.spool import StoreCommand, file_preface
from tests.fakes import OneByOne, RecordingTaskQueue
from tests.workers.builders import FakeClock, job
from tests.workers.results.sources import MODEL, PNEUMOTHORAX, study_summary
from tests.workers.test_analysis import EQUIPMENT, FakeJobs
from workers.analysis import analyse_job
from workers.analysis_tools import AnalysisTools
from workers.composition import source_reader
from workers.results.encoders import ENCODERS, encode_in_order
from workers.results.source_image import read_header

SPEC = InputSpec(32, 32)


def stored_as(syntax: str, body: bytes) -> bytes:
    """A data set as the listener stores it."""
    command = StoreCommand("1.2.840.10008.5.1.4.1.1.1", "1.2.3", "1.2.840.10008.5.1.4.1.1.1", syntax, "A", "B")
    return file_preface(command) + body


class Preparing(OneByOne):
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
            task_queue=RecordingTaskQueue(),
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
