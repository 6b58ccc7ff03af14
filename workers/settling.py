"""When a study has come to rest, and what its summary says: pure decisions about values of the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from config.settings import Results
from db.records import (
    InstanceDetail,
    JobDetail,
    JobState,
    Refusal,
    ResultDetail,
    StudyDetail,
    StudyFacts,
    TriageDecision,
)
from models.contract import Code
from workers.results.summary import ImageAccount, Reference, StudyAccount, SummaryFinding
from workers.side import LEFT, RIGHT

OWN = "own"
NO_MODEL = "Every model is switched off or in shadow."


def may_settle(facts: StudyFacts) -> bool:
    """True when nothing of the study is still to be analysed."""
    return facts.jobs_waiting == 0


def comes_too_late(facts: StudyFacts, rules: Results, now: datetime) -> bool:
    """True when results for this study are to be recorded and not sent: it is old, or reported already."""
    if facts.reported and rules.after_report == "record":
        return True
    return rules.late_after_hours > 0 and now - facts.first_received_at > timedelta(hours=rules.late_after_hours)


def needs_summary(study: StudyDetail) -> bool:
    """True when an image of the study was tried: a study of other body parts gets no object from us."""
    return any(job.unfit is None or _results(study, job) for job in study.jobs)


def account_of(
    study: StudyDetail,
    decision: TriageDecision,
    codes: Mapping[str, Code],
    parents: Mapping[str, str] = MappingProxyType({}),
) -> StudyAccount:
    """What a summary of ``study`` tells; ``codes`` are those of the labels that may leave the node, ``parents`` what
    each label is part of."""
    return StudyAccount(
        priority=decision.priority.value,
        reason=decision.reason,
        images=tuple(_image(study, each, codes, parents) for each in study.instances if each.flag != OWN),
    )


def latest_summary(study: StudyDetail) -> Reference | None:
    """The summary that the next one replaces."""
    written = [result for result in study.results if result.job_id is None]
    return _reference(max(written, key=lambda result: result.revision)) if written else None


def analysed_instance(study: StudyDetail) -> InstanceDetail | None:
    """An image whose header stands for the study: one that was tried, the earliest."""
    tried = {job.instance_id for job in study.jobs}
    return min((each for each in study.instances if each.id in tried), key=lambda each: each.id, default=None)


def _image(
    study: StudyDetail, instance: InstanceDetail, codes: Mapping[str, Code], parents: Mapping[str, str]
) -> ImageAccount:
    image = Reference(instance.sop_class_uid, instance.sop_instance_uid, instance.series_instance_uid)
    jobs = [job for job in study.jobs if job.instance_id == instance.id]
    if not jobs:
        refusal = instance.refusal or Refusal("", "")
        return ImageAccount(image, analysed=False, reason=refusal.sentence, code=refusal.code)
    job = max(jobs, key=lambda each: (each.state is JobState.DONE, each.created_at, each.id))
    reports = tuple(_reference(result) for result in _results(study, job))
    if job.state is not JobState.DONE:
        return ImageAccount(image, analysed=False, reason="The analysis failed.", failed=True, reports=reports)
    if job.unfit is not None:
        return ImageAccount(image, analysed=False, reason=job.unfit.sentence, reports=reports, code=job.unfit.code)
    if job.findings and all(finding.shadow for finding in job.findings):
        # Nobody may read "analysed" and no finding where every model was switched off or on trial.
        return ImageAccount(image, analysed=False, reason=NO_MODEL, reports=reports)
    return ImageAccount(image, analysed=True, findings=_findings(job, codes, parents), reports=reports)


def _findings(job: JobDetail, codes: Mapping[str, Code], parents: Mapping[str, str]) -> tuple[SummaryFinding, ...]:
    present = [each for each in job.findings if each.present and not each.shadow and each.label in codes]
    wholes = {(each.model, parents.get(each.label, "")) for each in present}
    return tuple(
        SummaryFinding(
            code=codes[each.label],
            probability=each.probability,
            words=each.label.replace("_", " "),
            side=each.side if each.side in (LEFT, RIGHT) else "",
            implied=(each.model, each.label) in wholes,
        )
        for each in present
        if each.probability is not None
    )


def _results(study: StudyDetail, job: JobDetail) -> list[ResultDetail]:
    return [result for result in study.results if (result.job_id, result.revision) == (job.id, job.revision)]


def _reference(result: ResultDetail) -> Reference:
    record = result.record
    return Reference(record.sop_class_uid, record.sop_instance_uid, record.series_instance_uid)
