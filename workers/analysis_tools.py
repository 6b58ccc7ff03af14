"""Dependencies of the analysis of a job, made once a process by a composition root."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from config.settings import Settings
from db.database import Database
from db.records import Job
from db.states import JOBS
from models.contract import ModelInput, Prediction
from workers.clock import Clock, Elapsed
from workers.enqueue import TaskQueue
from workers.job_outcome import Encode
from workers.results.encoder import Equipment
from workers.results.source_image import SourceImage
from workers.siblings import Siblings


class Predictor(Protocol):
    """The active models, loaded and warm."""

    def predict(self, model_input: ModelInput) -> Prediction:
        """Predict one image."""
        ...

    def predict_all(self, images: Sequence[ModelInput]) -> tuple[Prediction, ...]:
        """Predict several images; each gets the prediction that it would get alone."""
        ...

    def only(self, names: Collection[str]) -> Predictor:
        """The same with those of its models."""
        ...

    def side_by_side(self) -> Predictor:
        """The same, whose models answer a single image at the same time: sooner, where cores are idle."""
        ...


@dataclass(frozen=True, slots=True)
class AnalysisTools:
    """All that :func:`workers.analysis.analyse_job` works with; a composition root makes it once a process.

    ``read_source`` raises ``OSError`` where the file cannot be read now. ``difference`` says in what two received files
    under one SOP Instance UID differ (see :mod:`workers.repeated_instances`). ``pipeline`` is the digest of what
    ``predictor`` and ``encode`` do; UIDs are made with the job's own, so that no two jobs ever make the same one;
    ``rule_digests`` has those of routing rules that choose models, by rule. ``modes`` are the states of the models for
    this job, and ``changes`` how they differ from the configuration (see
    :class:`workers.model_state_resolver.ResolvedModels`); ``run_otherwise`` how this
    worker runs the pipeline otherwise than its digest says (:func:`workers.pipeline_digest.run_otherwise`); ``device``
    is where the networks run. Up to ``batch`` jobs
    share a pass through the networks where many wait (:mod:`workers.batch`). ``queue`` is where the jobs wait that this
    process takes (:mod:`workers.analysis_queues`), ``siblings`` the other processes of this worker;
    ``let_stat_go_first`` analyses a STAT image, if one waits, between two stages of a routine one.
    """

    settings: Settings
    database: Database
    read_source: Callable[[Path], SourceImage]
    difference: Callable[[Path, Path], str]
    predictor: Predictor
    encode: Encode
    equipment: Equipment
    pipeline: str
    task_queue: TaskQueue
    clock: Clock
    elapsed: Elapsed
    worker: str
    rule_digests: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    run_otherwise: tuple[str, ...] = ()
    device: str = ""
    batch: int = 1
    queue: str = JOBS
    siblings: Siblings = field(default_factory=Siblings)
    let_stat_go_first: Callable[[Job], None] = lambda _: None
