"""Completion of a study and content of its summary: pure decisions about values of the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from config.settings import Results
from db.instance_flags import CONFLICT, NOT_COUNTED
from db.instances import REJECTED
from db.patients import CORRECTION
from db.records import IS_PRIOR, IS_REPORTED, NotEligible, PatientIdentity, StudyFacts, TriageDecision
from db.shown_records import InstanceDetail, JobDetail, ResultDetail, StudyDetail
from db.states import JobState
from models.gate import NotAnalysedCode
from models.model_spec import Code
from workers.laterality import place_text
from workers.results.result_kinds import LUNGS
from workers.results.study_account import KIND, ImageAccount, Reference, StudyAccount, SummaryFinding, is_image

# A study of which nothing was analysed has a report instead of a summary (workers.not_analysed).
_STUDY_REPORTS = (KIND, "sr")
# What was tried and is no chest radiograph, or no DICOM file at all: nobody expects an analysis of it.
NO_CHEST = frozenset({"not_dicom", *(code.value for code in NotAnalysedCode if not code.is_chest)})
NO_MODEL = "Every model is switched off or in shadow."


def may_complete(facts: StudyFacts) -> bool:
    """True when nothing of the study is still to be analysed."""
    return facts.jobs_waiting == 0


class Arrived(Protocol):
    """What :func:`comes_too_late` must know of a study."""

    @property
    def first_received_at(self) -> datetime:
        """When its first image came."""
        ...

    @property
    def reported(self) -> bool:
        """Whether it is reported."""
        ...

    @property
    def only_prior(self) -> bool:
        """Whether it was pulled only to compare a newer study with it."""
        ...


def comes_too_late(facts: Arrived, results: Results, now: datetime) -> str:
    """Why results for this study are to be recorded and not sent: it is old, a prior, or reported. Empty: send them."""
    late = timedelta(hours=results.late_after_hours)
    if late and now - facts.first_received_at > late:
        return f"the study came more than {results.late_after_hours:g} hours before"
    if facts.only_prior:
        return IS_PRIOR if results.priors == "record" else ""
    return IS_REPORTED if facts.reported and results.after_report == "record" else ""


def needs_summary(study: StudyDetail) -> bool:
    """True when an image was analysed, or should have been; :mod:`workers.not_analysed` tells of other studies."""
    return any(job.not_analysed is None for each in images_of(study) for job in jobs_of(study, each))


def account_of(
    study: StudyDetail,
    decision: TriageDecision,
    codes: Mapping[str, Code],
    parents: Mapping[str, str] = MappingProxyType({}),
) -> StudyAccount:
    """What a summary of ``study`` tells; ``codes`` are those of the labels of today's models, ``parents`` what each
    label is part of. A finding of a model that does not run any more is told, too."""
    return StudyAccount(
        priority=decision.priority.value,
        reason=decision.reason,
        images=tuple(_image(study, each, codes, parents) for each in images_of(study)),
    )


def latest_summary(study: StudyDetail) -> Reference | None:
    """The summary, or the report that stands for one, that the next one replaces."""
    written = [result for result in study.results if result.job_id is None and result.record.kind in _STUDY_REPORTS]
    return _reference(max(written, key=lambda result: result.revision)) if written else None


def analysed_instance(study: StudyDetail) -> InstanceDetail | None:
    """An image whose header stands for the study: the newest one that was tried, for it knows the patient best."""
    tried = [each for each in images_of(study) if jobs_of(study, each)]
    standing = [each for each in tried if not is_taken_back(each)]
    return max(standing or tried, key=lambda each: each.id, default=None)


def patient_of(study: StudyDetail, instance: InstanceDetail) -> PatientIdentity | None:
    """What the hospital has said of the patient since ``instance`` was made; None where its header holds."""
    corrected = any((event.entity, event.to_state) == CORRECTION for event in study.events)
    if not corrected or instance.flag == CONFLICT:
        return None
    row = study.row
    return PatientIdentity(
        row.patient_id, study.issuer_of_patient_id, row.patient_name, row.patient_birth_date, row.patient_sex
    )


def images_of(study: StudyDetail) -> list[InstanceDetail]:
    """The newest of each SOP Instance UID, in the order in which the images first came.

    Presentation states, reports and rejection notes are no images; our own results are none of the hospital's.
    """
    newest: dict[str, InstanceDetail | None] = {}
    for each in sorted(study.instances, key=lambda one: one.id):
        counts = each.flag not in NOT_COUNTED and is_image(each.sop_class_uid)
        newest[each.sop_instance_uid] = each if counts else newest.get(each.sop_instance_uid)
    return [each for each in newest.values() if each is not None]


def is_taken_back(instance: InstanceDetail) -> bool:
    """Whether a rejection note has taken the image back."""
    return instance.not_eligible is not None and instance.not_eligible.code == REJECTED


def jobs_of(study: StudyDetail, instance: InstanceDetail) -> list[JobDetail]:
    """The jobs of an image that were not withdrawn."""
    jobs = [job for job in study.jobs if job.instance_id == instance.id]
    return [job for job in jobs if job.state is not JobState.WITHDRAWN]


def _image(
    study: StudyDetail, instance: InstanceDetail, codes: Mapping[str, Code], parents: Mapping[str, str]
) -> ImageAccount:
    image = Reference(instance.sop_class_uid, instance.sop_instance_uid, instance.series_instance_uid)
    jobs = jobs_of(study, instance)
    if not jobs or is_taken_back(instance):
        not_eligible = instance.not_eligible or NotEligible("", "")
        return ImageAccount(image, analysed=False, reason=not_eligible.sentence, code=not_eligible.code, eligible=False)
    job = max(jobs, key=lambda each: (each.state is JobState.DONE, each.created_at, each.id))
    reports = tuple(_reference(result) for result in _results(study, job))
    if job.state is not JobState.DONE:
        waits = job.state is JobState.ON_HOLD
        reason = "The analysis waits for a person." if waits else "The analysis failed."
        return ImageAccount(image, analysed=False, reason=reason, failed=not waits, reports=reports)
    if job.not_analysed is not None:
        not_analysed, eligible = job.not_analysed, job.not_analysed.code not in NO_CHEST
        return ImageAccount(
            image, False, not_analysed.sentence, reports=reports, code=not_analysed.code, eligible=eligible
        )
    if job.findings and all(finding.shadow for finding in job.findings):
        # Nobody may read "analysed" and no finding where every model was switched off or on trial.
        return ImageAccount(image, analysed=False, reason=NO_MODEL, reports=reports)
    if job.findings and not any(finding.answered for finding in job.findings):
        reason = next(each.reason for each in job.findings if not each.shadow)
        return ImageAccount(
            image, analysed=False, reason=reason or "No model could tell.", failed=True, reports=reports
        )
    return ImageAccount(image, analysed=True, findings=_findings(job, codes, parents), reports=reports)


def _findings(job: JobDetail, codes: Mapping[str, Code], parents: Mapping[str, str]) -> tuple[SummaryFinding, ...]:
    present = [each for each in job.findings if each.present and not each.shadow]
    wholes = {parents.get(each.label, "") for each in present}
    return tuple(
        SummaryFinding(
            code=codes.get(each.label) or uncoded(each.label),
            probability=each.probability,
            words=each.label.replace("_", " "),
            place=place_text(each.side, filter(None, each.zones.split(","))),
            implied=each.label in wholes,
        )
        for each in present
        if each.probability is not None
    )


def uncoded(label: str) -> Code:
    """What stands for the code of a label that no model of today has: it was sent, and must not look like a negative.

    A Code Value has 16 characters (PS3.3 8.8).
    """
    words = label.replace("_", " ")
    return Code(label.replace("_", "").upper()[:16], "99PLEURA", words[:1].upper() + words[1:])


def _results(study: StudyDetail, job: JobDetail) -> list[ResultDetail]:
    """What a job has made about findings; its lung fields are anatomy, of which no report speaks."""
    made = [result for result in study.results if (result.job_id, result.revision) == (job.id, job.revision)]
    return [result for result in made if result.record.kind != LUNGS]


def _reference(result: ResultDetail) -> Reference:
    record = result.record
    return Reference(record.sop_class_uid, record.sop_instance_uid, record.series_instance_uid)
