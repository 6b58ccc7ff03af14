"""From what the database knows of a study to its summary: pure functions of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydicom.dataset import Dataset

from db.records import InstanceDetail, InstanceState, JobDetail, JobState, ResultDetail, StudyDetail
from models.contract import Code, ModelUse
from workers.results.contract import Equipment
from workers.results.summary import (
    KIND,
    ImageAccount,
    Reference,
    StudyAccount,
    SummaryFinding,
    encode_summary,
    is_image,
    study_identity,
)


def summarise_study(
    detail: StudyDetail,
    source: Dataset,
    *,
    codes: Mapping[str, Code],
    models: tuple[ModelUse, ...],
    equipment: Equipment,
    uid_root: str,
    pipeline: str,
    series_number_base: int = 9000,
    sr_storage: str = "comprehensive-3d",
) -> Dataset | None:
    """Make the next revision of a study's summary, or None where no image of it was ever to be analysed.

    ``source`` is the header of any image of the study; ``codes`` gives the code of each finding's label. The time is
    that of the last thing that happened to the images, so that the same study gives the same bytes.
    """
    account = account_of(detail, codes)
    if not _was_judged(detail):
        return None
    return encode_summary(
        source,
        account,
        identity=study_identity(uid_root, str(source.StudyInstanceUID), account, pipeline, detail.revision + 1),
        equipment=equipment,
        models=models,
        created_at=detail.last_activity_at,
        series_number_base=series_number_base,
        sr_storage=sr_storage,
        previous=_previous(detail),
    )


def account_of(detail: StudyDetail, codes: Mapping[str, Code]) -> StudyAccount:
    """What became of each image of a study; objects that are no images, and our own, are left out."""
    return StudyAccount(
        priority=detail.row.priority.value,
        reason=detail.triage_reason,
        images=tuple(_image(detail, instance, codes) for instance in _images(detail)),
    )


def _was_judged(detail: StudyDetail) -> bool:
    """A chest radiograph was analysed, or should have been: it has a report, or its job failed."""
    reported = any(result.job_id is not None for result in detail.results)
    return reported or any(job.state is JobState.FAILED for job in detail.jobs)


def _images(detail: StudyDetail) -> Iterator[InstanceDetail]:
    for instance in detail.instances:
        if instance.flag != "own" and is_image(instance.sop_class_uid):
            yield instance


def _image(detail: StudyDetail, instance: InstanceDetail, codes: Mapping[str, Code]) -> ImageAccount:
    reference = Reference(instance.sop_class_uid, instance.sop_instance_uid, instance.series_instance_uid)
    job = _last_job(detail, instance)
    if job is None or instance.state is InstanceState.REFUSED:
        reason = instance.refusal.sentence if instance.refusal is not None else "It was not accepted for analysis."
        return ImageAccount(reference, analysed=False, reason=reason)
    reports = tuple(_as_reference(result) for result in detail.results if _belongs(result, job))
    if job.unfit is not None:
        return ImageAccount(reference, analysed=False, reason=job.unfit.sentence, reports=reports)
    if job.state is not JobState.DONE:
        return ImageAccount(reference, analysed=False, reason=_unfinished(job), failed=True)
    return ImageAccount(reference, analysed=True, findings=tuple(_findings(job, codes)), reports=reports)


def _last_job(detail: StudyDetail, instance: InstanceDetail) -> JobDetail | None:
    jobs = [job for job in detail.jobs if job.instance_id == instance.id]
    return max(jobs, key=lambda job: (job.created_at, job.id)) if jobs else None


def _belongs(result: ResultDetail, job: JobDetail) -> bool:
    return result.job_id == job.id and result.revision == job.revision


def _unfinished(job: JobDetail) -> str:
    return "The analysis failed." if job.state is JobState.FAILED else "The analysis waits for a person."


def _findings(job: JobDetail, codes: Mapping[str, Code]) -> Iterator[SummaryFinding]:
    """Present findings that may leave the node; one without a known code is only in the image's own report."""
    for finding in job.findings:
        if finding.present and not finding.shadow and finding.probability is not None and finding.label in codes:
            yield SummaryFinding(codes[finding.label], finding.probability)


def _as_reference(result: ResultDetail) -> Reference:
    record = result.record
    return Reference(record.sop_class_uid, record.sop_instance_uid, record.series_instance_uid)


def _previous(detail: StudyDetail) -> Reference | None:
    summaries = [result for result in detail.results if result.job_id is None and result.record.kind == KIND]
    return _as_reference(max(summaries, key=lambda result: (result.revision, result.id))) if summaries else None
