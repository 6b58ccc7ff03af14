"""What a worker does with an id: claim the job, let pure functions work, record everything in one transaction.

A process may be killed between any two lines here. What keeps that harmless:

* a job is claimed by one conditional update, so a message that comes twice does nothing the second time;
* result files are written before the row that names them, under a name made of their own bytes;
* UIDs and times of a result are those of the job, so a second run makes the same objects again;
* findings, results and deliveries appear with the job's end in one transaction, or not at all.

What is lost with a process is found by the next child of the worker (claims of its predecessor) or by the scheduler
(claims that have expired, messages that nobody heard).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydicom.dataset import Dataset
from sqlalchemy.exc import InterfaceError, OperationalError

from config.logging import job_in_log
from db import jobs, repeated_instances, studies
from db.database import Step
from db.errors import RecordNotFoundError
from db.leases import LEASE
from db.queries import study_details
from db.records import FindingRecord, Job, Outcome, ResultRecord
from db.shown_records import StudyDetail
from db.states import WAITS_FOR_SERVER
from models.contract import NotAnalysed, Prediction
from models.radiograph.decode import PixelFault, UnreadablePixels, read_file
from models.runtime.executor import ModelUnavailableError
from workers.analysis_queues import queue_of
from workers.analysis_tools import AnalysisTools
from workers.backoff import backoff, growing_wait
from workers.batch import together
from workers.completion import comes_too_late
from workers.errors import RetryableError, where_in_code
from workers.image_measures import measures_of
from workers.job_outcome import (
    EncodedResult,
    as_file,
    encode_results,
    finding_records,
    kinds_by_destination,
    kinds_for,
    kinds_wanted,
    not_eligible_of,
)
from workers.open_database import triage_step
from workers.pipeline_digest import name_of_analysis
from workers.results.encoder import Analysis
from workers.results.header import text_of
from workers.results.identity import Identity
from workers.results.patient import with_patient
from workers.results.result_kinds import LUNGS
from workers.results.source_image import SourceImage
from workers.routing import excluded_by, facts_of, models_that_run, route, routed_destinations
from workers.store_files import demand_store, kept_if_recorded, why_it_waits, write_file

T = TypeVar("T")

log = logging.getLogger(__name__)

_SHARE_OF_TIME = 4
"""A routine image lets others go first in this part of its time limit, which holds for all of it."""
_PATIENCE_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.25


def analyse_job(job_id: int, tools: AnalysisTools, between: Job | None = None) -> None:
    """Run one job to its end: done, to be tried again, or failed; where many wait, some of them with it.

    ``between``: the routine job that waits in this process meanwhile, and whose attempt does not count so long.
    """
    claim = jobs.claim if between is None else partial(jobs.claim_between, routine=between)
    with job_in_log(job_id):
        first = tools.database.write(claim, job_id, tools.worker, tools.clock(), LEASE)
        if first is None:
            log.debug("the job is not to be taken")
            return
        claimed, tools = together(first, tools)
    for job in claimed:
        with job_in_log(job.id), tools.siblings.working(job.stat):
            _run_unless_erased(job, tools)


def _run_unless_erased(job: Job, tools: AnalysisTools) -> None:
    try:
        _run(job, tools)
    except RecordNotFoundError as error:
        # Only where the claim was over: what is under way is waited for.
        log.warning("%s any more: its study was erased meanwhile; its work is dropped", error)


def _run(job: Job, tools: AnalysisTools) -> None:
    if job.attempts > tools.settings.workers.attempts:
        _fail(job, "its process was lost or stopped by the time limit at every attempt", tools)
        return
    if _other_pipeline(job, tools):
        log.info("the job was made for another pipeline than the one that is active now, which analyses it")
    try:
        finish = _compared(job, tools) if job.compare_with is not None else _analysed(job, tools)
    except ModelUnavailableError as error:
        _wait(job, f"{WAITS_FOR_SERVER}{error}", tools)
    except (RetryableError, OSError, MemoryError) as error:
        if why := why_it_waits(tools.settings.store.folder, error):
            _wait(job, why, tools)
            return
        _try_again(job, f"{type(error).__name__}: {error}", tools)
    except Exception as error:
        # A defect of ours or of a model. Its words may quote the data set: the log gets where it was, and not those.
        log.error("attempt %d failed with %s\n%s", job.attempts, type(error).__name__, where_in_code(error))
        _try_again(job, f"{type(error).__name__} in the analysis; the log has the details", tools)
    else:
        _record(job, finish, tools)


def _record(job: Job, record: Callable[[], None], tools: AnalysisTools) -> None:
    """Write down what became of a job, again where that is refused for a moment: a database that is started again
    costs nobody another analysis, and whoever waits for this one no lease. Twice is as good as once.

    Raises:
        OperationalError, InterfaceError: the database is away. The claim is free when its lease is over.
    """
    pause, until = _FIRST_PAUSE_SECONDS, 0.0
    while True:
        try:
            return record()
        except (OperationalError, InterfaceError) as error:
            # From the first refusal on: one that was locked has taken half a minute to say so.
            until = until or tools.elapsed() + _PATIENCE_SECONDS
            if tools.elapsed() + pause > until:
                raise
            log.warning("what was made cannot be recorded (%s); tried again", type(error).__name__)
        except RecordNotFoundError:
            raise
        except Exception as error:
            log.error("attempt %d cannot be recorded: %s\n%s", job.attempts, type(error).__name__, where_in_code(error))
            return _try_again(job, f"{type(error).__name__} when it was recorded; the log has the details", tools)
        time.sleep(pause)
        pause *= 2


def _analysed(job: Job, tools: AnalysisTools) -> Callable[[], None]:
    """Analyse the image; what is given back records it. A job that waits for other workers is left to them."""
    job = _routed_anew(job, tools)
    queue = queue_of(job.route, tools.settings.models)
    if queue != tools.queue:
        return partial(_hand_over, job, queue, tools)
    return partial(_finish, job, _analyse(job, tools), tools)


def _compared(job: Job, tools: AnalysisTools) -> Callable[[], None]:
    """Compare the instance with those that came before it under its UID; what is given back records what it is."""
    store = tools.settings.store.folder
    demand_store(store)  # or what came before would seem to be removed
    differences = [tools.difference(store / before, store / job.instance_path) for before in job.compare_with or ()]
    difference = "" if not all(differences) else next(iter(differences), "nothing is left to compare it with")
    return partial(_end_comparison, job, difference, tools)


def _end_comparison(job: Job, difference: str, tools: AnalysisTools) -> None:
    now = tools.clock()
    compared = repeated_instances.record_comparison, (job.id, tools.worker, difference, now)
    recorded, _ = tools.database.write_all([compared, _triage(job, tools, now)])
    if not recorded:
        log.warning("the job was taken from this worker before its instance was compared")
    elif difference:
        log.warning("the instance has other content than an earlier one of its UID; the study is on hold")
    else:
        log.info("the instance repeats an earlier one")


def _analyse(job: Job, tools: AnalysisTools) -> Outcome:
    timings: dict[str, float] = {}
    started, limit = tools.elapsed(), tools.settings.workers.job_timeout_seconds / _SHARE_OF_TIME

    def timed(stage: str, work: Callable[[], T]) -> T:
        if not job.stat and tools.elapsed() - started < limit:
            tools.let_stat_go_first(job)
            tools.siblings.give_way()
        begun = tools.elapsed()
        done = work()
        timings[stage] = timings.get(stage, 0.0) + tools.elapsed() - begun
        return done

    source = timed("read", lambda: _read(job, tools))
    prediction = timed("predict", lambda: _predict(job, source, tools))
    destinations = routed_destinations(tools.settings.destinations, job.route)
    wanted = kinds_wanted(destinations)
    kinds = kinds_for(prediction, wanted, capture_negatives=tools.settings.results.capture_negatives)
    analysis = _analysis(job, source, prediction, tools)
    made = timed("encode", lambda: encode_results(analysis, tools.encode, kinds))
    results = timed("encode", lambda: [as_file(kind, dataset) for kind, dataset in made.items()])
    if LUNGS in kinds and LUNGS not in made and prediction.not_analysed is None:
        log.info("both lungs were not found: there are no lung fields to send")
    timed("write", lambda: _write(results, tools.settings.store.folder))
    timings |= {f"predict.{stage}": seconds for stage, seconds in prediction.timings.items()}
    return Outcome(
        findings=_findings(source, prediction, analysis.identity),
        results=tuple(result.record for result in results),
        not_analysed=not_eligible_of(prediction),
        timings=timings,
        destinations=kinds_by_destination(destinations),
        recorded=comes_too_late(
            tools.database.read(studies.arrival, job.study_id),
            tools.settings.results,
            tools.clock(),
        ),
        modes={name: tools.modes[name] for name in models_that_run(job.route, tuple(tools.modes))},
        measures=measures_of(source.header, source.model_input),
        ran_on=tools.device,
        route=job.route,
        decided_anew=job.revision > 1,
        patient=job.patient,
    )


def _routed_anew(job: Job, tools: AnalysisTools) -> Job:
    """A job that was finished and runs again because a person asks for it follows today's routing rules."""
    rules = tools.settings.routing
    if job.revision <= 1:
        return job
    if not rules:
        return replace(job, route=None)
    try:
        header = read_file(tools.settings.store.folder / job.instance_path, stop_before_pixels=True)
    except (UnreadablePixels, FileNotFoundError):
        return job  # nothing of it is analysed
    called = text_of(header.file_meta, "ReceivingApplicationEntityTitle")
    return replace(job, route=route(facts_of(header, job.calling_ae_title, called), rules))


def _findings(source: SourceImage, prediction: Prediction, identity: Identity) -> tuple[FindingRecord, ...]:
    image = source.model_input
    if image is None:
        return finding_records(prediction, None, identity)
    return finding_records(prediction, image.spacing, identity, image.patient_orientation)


def _read(job: Job, tools: AnalysisTools) -> SourceImage:
    path = tools.settings.store.folder / job.instance_path
    if not path.is_file():
        raise RetryableError("the received file is not in the store")
    try:
        return tools.read_source(path)
    except MemoryError:
        if job.attempts < tools.settings.workers.attempts:
            raise
        # Its size was within the limit, and it was tried when there was room as well: the image cannot be read here.
        sentence = "Reading the image takes more memory than the worker has."
        return SourceImage(Dataset(), None, NotAnalysed(PixelFault.TOO_LARGE.value, sentence, is_chest=False))


def _predict(job: Job, source: SourceImage, tools: AnalysisTools) -> Prediction:
    if source.model_input is None:
        assert source.not_analysed is not None
        rows, columns = source.header.get("Rows") or 0, source.header.get("Columns") or 0
        return Prediction(shape=(int(rows), int(columns)), not_analysed=source.not_analysed)
    excluded = excluded_by(job.route)
    if excluded is not None:
        return Prediction(source.model_input.shape, not_analysed=NotAnalysed(excluded.code, excluded.sentence))
    # Beside other images networks in turn take less of the cores; the others let a STAT image go first.
    predictor = tools.predictor.side_by_side() if job.stat or tools.siblings.rest else tools.predictor
    if job.route is None or job.route.models is None:
        return predictor.predict(source.model_input)
    names = models_that_run(job.route, tuple(tools.modes))
    if not set(names) <= set(job.route.models):
        log.warning("none of the models that rule %s chose is configured any more: all models run", job.route.rule)
    return predictor.only(names).predict(source.model_input)


def _analysis(job: Job, source: SourceImage, prediction: Prediction, tools: AnalysisTools) -> Analysis:
    settings = tools.settings
    previous = _predecessors(job, tools)
    header = with_patient(source.header, job.patient)
    return Analysis(
        source=header,
        model_input=source.model_input,
        prediction=prediction,
        identity=Identity(
            uid_root=settings.site.uid_root,
            sop_instance_uid=job.sop_instance_uid,
            instance_digest=job.instance_digest,
            pipeline=name_of_analysis(
                job.pipeline,
                (*_other_pipeline(job, tools), *tools.changes, *tools.run_otherwise, *_other_models(job, tools)),
            ),
            revision=job.revision,
        ),
        equipment=replace(
            tools.equipment,
            institution_name=settings.site.name or text_of(source.header, "InstitutionName"),
        ),
        # Where the source names no time zone, its times are those of the hospital's clocks, and so are ours.
        created_at=job.created_at.astimezone(settings.site.zone),
        series_number_base=settings.results.series_number_base,
        sr_storage=settings.results.sr_storage,
        seg_storage=settings.results.seg_storage,
        previous={kind: (record.sop_class_uid, record.sop_instance_uid) for kind, record in previous.items()},
        previous_series={kind: record.series_instance_uid for kind, record in previous.items()},
    )


def _other_pipeline(job: Job, tools: AnalysisTools) -> tuple[str, ...]:
    """The pipeline that is active now, where the job was made for another one: it waited while models were changed.

    What it makes must not have the UIDs of what the other one would have made.
    """
    active = tools.rule_digests.get(job.route.rule if job.route else "", tools.pipeline)
    return () if job.pipeline == active else ("pipeline", active)


def _other_models(job: Job, tools: AnalysisTools) -> tuple[str, ...]:
    """What a new decision of the routing rules changes of the analysis that the job was made for."""
    return () if job.revision <= 1 or job.route is None else ("models", *models_that_run(job.route, tuple(tools.modes)))


def _predecessors(job: Job, tools: AnalysisTools) -> dict[str, ResultRecord]:
    """The objects that this revision replaces, by kind: of the revision before, or of the image before."""
    if job.revision > 1 or job.replaces:
        return replaced_by(job, tools.database.read(study_details.study_detail, job.study_id))
    return {}


def replaced_by(job: Job, study: StudyDetail) -> dict[str, ResultRecord]:
    """The latest objects, by kind, that earlier work has made of the image with the job's SOP Instance UID."""
    same = {one.id for one in study.instances if one.sop_instance_uid == job.sop_instance_uid}
    same_jobs = {one.id for one in study.jobs if one.instance_id in same}
    made = [
        result
        for result in study.results
        if result.job_id in same_jobs and (result.job_id != job.id or result.revision < job.revision)
    ]
    return {result.record.kind: result.record for result in sorted(made, key=lambda each: each.id)}


def _write(results: Sequence[EncodedResult], store: Path) -> None:
    for result in results:
        write_file(store, result.record.path, result.content)


def _finish(job: Job, outcome: Outcome, tools: AnalysisTools) -> None:
    now = tools.clock()
    finish = jobs.finish, (job.id, tools.worker, outcome, now)
    # One transaction: whoever sees that the image is analysed sees what follows for its study.
    with kept_if_recorded(tools.settings.store.folder, (result.path for result in outcome.results)):
        deliveries, _ = tools.database.write_all([finish, _triage(job, tools, now)])
    if deliveries is None:
        log.warning(
            "its work is dropped: the job was taken from this worker, or its patient was corrected, before it was done"
        )
        return
    tools.task_queue.enqueue_deliveries(deliveries)
    log.info(
        "done in %.2f s: %d results for %d destinations",
        sum(outcome.timings.get(stage, 0.0) for stage in ("read", "predict", "encode", "write")),
        len(outcome.results),
        len(deliveries),
    )


def _triage(job: Job, tools: AnalysisTools, now: datetime) -> Step:
    return triage_step(job.study_id, tools.database, tools.settings.triage, now)


def _hand_over(job: Job, queue: str, tools: AnalysisTools) -> None:
    tools.database.write(jobs.hand_over, job.id, tools.worker, queue, tools.clock())
    log.info("the job waits in %s: its models do not run here", queue)


def _try_again(job: Job, error: str, tools: AnalysisTools) -> None:
    if job.attempts >= tools.settings.workers.attempts:
        _fail(job, error, tools)
        return
    after = backoff(job.attempts, tools.settings)
    tools.database.write(jobs.retry, job.id, tools.worker, error, tools.clock(), after)
    log.warning("%s; attempt %d in %.0f s", error, job.attempts + 1, after.total_seconds())


def _wait(job: Job, error: str, tools: AnalysisTools) -> None:
    """Try again until the server of a network, or the store, is back: nothing is wrong with the job, so no attempt
    counts."""
    now = tools.clock()
    after = growing_wait(now - job.created_at, tools.settings)
    tools.database.write(jobs.retry, job.id, tools.worker, error, now, after, counted=False)
    log.warning("%s; tried again in %.0f s", error, after.total_seconds())


def _fail(job: Job, error: str, tools: AnalysisTools) -> None:
    if job.compare_with is not None:
        # What nobody could compare is for a person to look at, like what differs.
        _end_comparison(job, f"they could not be compared: {error}", tools)
        return
    now = tools.clock()
    tools.database.write_all([(jobs.fail, (job.id, tools.worker, error, now)), _triage(job, tools, now)])
    log.error("the job is failed after %d attempts: %s", job.attempts, error)
