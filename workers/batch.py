"""Several waiting jobs in one pass through a GPU, when the queue is long.

Each keeps its own claim, its own attempts and its own result; only the pixels go through the networks together. Then
every job runs as if it were alone, and finds its prediction made. So whatever goes wrong with one image happens in the
job of that image: a batch that fails is forgotten, and every job predicts for itself. A job that was tried before is
never taken into a batch: the image that has killed its process, or used up its time, meets it alone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from db import jobs
from db.leases import LEASE
from db.records import Job
from models.contract import ModelInput, Prediction
from workers.analysis_tools import AnalysisTools, Predictor
from workers.errors import where_in_code
from workers.results.source_image import SourceImage

log = logging.getLogger(__name__)

LONG = 2
"""A queue is long where so many batches wait: other workers find something to do, too."""
_SHARE_OF_TIME = 4
"""Reading stops at this part of a job's time limit, which holds for all jobs of a batch together."""


def together(first: Job, tools: AnalysisTools) -> tuple[tuple[Job, ...], AnalysisTools]:
    """Claim further jobs beside ``first``, if many wait, and predict all of them at once.

    Gives the claimed jobs, ``first`` among them, and the tools with which each is to be run.
    """
    if tools.batch < 2 or not _can_share(first):
        return (first,), tools
    if not tools.database.read(jobs.as_many_wait, LONG * tools.batch, tools.queue):
        return (first,), tools
    claimed, sources = _claimed(first, tools)
    return claimed, replace(
        tools,
        read_source=lambda path: sources.pop(path, None) or tools.read_source(path),
        predictor=_predicted([source.model_input for source in sources.values()], tools.predictor),
    )


def _claimed(first: Job, tools: AnalysisTools) -> tuple[tuple[Job, ...], dict[Path, SourceImage]]:
    """Claim one job after the other and read its image, while there is room in batch, memory and time."""
    begun, pixels = tools.elapsed(), 0
    claimed, sources = [first], dict[Path, SourceImage]()
    waiting = iter(tools.database.read(jobs.never_tried, tools.batch - 1, tools.queue))
    job: Job | None = first
    while True:
        if job is not None and _can_share(job):
            pixels += _read_into(sources, tools.settings.store.folder / job.instance_path, tools)
        late = tools.elapsed() - begun > tools.settings.workers.job_timeout_seconds / _SHARE_OF_TIME
        following = None if late or pixels >= tools.settings.workers.maximum_pixels else next(waiting, None)
        if following is None:
            return tuple(claimed), sources
        job = tools.database.write(jobs.claim, following, tools.worker, tools.clock(), LEASE)
        claimed += [job] if job is not None else []


def _read_into(sources: dict[Path, SourceImage], path: Path, tools: AnalysisTools) -> int:
    """Read an image; how many pixels it has. One that cannot be read is read again by its own job, which says why."""
    try:
        source = tools.read_source(path)
    except Exception as error:
        log.debug("an image of a batch could not be read (%s)", type(error).__name__)
        return 0
    sources[path] = source
    return source.model_input.pixels.size if source.model_input is not None else 0


def _can_share(job: Job) -> bool:
    """Whether all models analyse the image of a job, for the first time, and nobody waits for it above all others."""
    as_usual = job.route is None or (job.route.models is None and not job.route.excluded)
    return job.attempts == 1 and job.revision <= 1 and job.compare_with is None and not job.stat and as_usual


def _predicted(images: Sequence[ModelInput | None], predictor: Predictor) -> Predictor:
    """A predictor that has seen these images already; the same one where the batch fails."""
    given = [image for image in images if image is not None]
    try:
        return _Predicted(predictor, tuple(zip(given, predictor.predict_all(given), strict=True)))
    except Exception as error:
        log.warning(
            "a batch of %d images failed with %s; each is predicted alone\n%s",
            len(given),
            type(error).__name__,
            where_in_code(error),
        )
        return predictor


@dataclass(frozen=True, slots=True)
class _Predicted:
    """Answers for the images of a batch from memory; for every other by the networks."""

    networks: Predictor
    made: tuple[tuple[ModelInput, Prediction], ...]

    def predict(self, model_input: ModelInput) -> Prediction:
        for image, prediction in self.made:
            if image is model_input:
                return prediction
        return self.networks.predict(model_input)

    def predict_all(self, images: Sequence[ModelInput]) -> tuple[Prediction, ...]:
        return tuple(self.predict(image) for image in images)

    def only(self, names: Collection[str]) -> Predictor:
        return self.networks.only(names)

    def side_by_side(self) -> Predictor:
        return self
