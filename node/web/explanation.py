"""Make the page of :mod:`node.web.explanation_page` from a study in the database and the store.

The page shows the results as they were delivered: findings come from the database and masks from the SEG that was sent,
so a later change of a model does not change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread

from db.records import FindingRecord
from db.shown_records import InstanceDetail, JobDetail, StudyDetail
from db.states import JobState
from models.contract import Finding, Mask, NotAnalysed, Prediction
from models.model_registry import Registry
from models.model_spec import Code, ModelSpec
from models.radiograph.decode import UnreadablePixels
from models.radiograph.reading import read_model_input
from node.web.explanation_page import ExplainedImage, explain_html
from workers.completion import NO_MODEL
from workers.results.overlay import draw_masks
from workers.results.result_reader import tracked_masks

_NOT_DONE = {JobState.FAILED: "The analysis failed.", JobState.ON_HOLD: "The analysis waits for a person."}


def explain_study(detail: StudyDetail, store: Path, registry: Registry) -> str:
    """The page about a study as HTML; ``store`` is the store folder, ``registry`` has the codes and model cards."""
    findings = [item for job in detail.jobs for item in job.findings]
    models = [spec for spec in registry if spec.name in {item.model for item in findings}]
    used = models_used(models, findings)
    instances = {item.id: item for item in detail.instances}
    jobs = [job for job in detail.jobs if job.state is not JobState.WITHDRAWN]
    images = [_image(job, instances[job.instance_id], detail, store, models) for job in jobs]
    not_eligible = [item for item in detail.instances if item.not_eligible is not None]
    reason = (f"{detail.row.reason.rstrip('.')}." if detail.row.reason else "") + "".join(
        f" Image {item.id} is not eligible: {item.not_eligible.sentence}"
        for item in not_eligible
        if item.not_eligible is not None
    )
    return explain_html(
        title=f"Study {detail.row.study_id}: {detail.row.study_description or 'no description'}",
        priority=detail.row.priority,
        reason=reason,
        images=images,
        models=used,
        cards={spec.name: spec.card.read_text(encoding="utf-8") for spec in used if spec.card is not None},
    )


def models_used(models: Sequence[ModelSpec], findings: Sequence[FindingRecord]) -> list[ModelSpec]:
    """The models that have made these findings, in their version: another one's figures and card do not stand behind
    them."""
    made = {(item.model, item.model_version) for item in findings}
    return [spec for spec in models if (spec.name, spec.version) in made]


def _image(
    job: JobDetail, instance: InstanceDetail, detail: StudyDetail, store: Path, models: Sequence[ModelSpec]
) -> ExplainedImage:
    masks = _masks(job, detail, store)
    title = f"Image {instance.id} ({' '.join(filter(None, (instance.modality, instance.view)))})"
    try:
        image = read_model_input(store / instance.path)
    except (UnreadablePixels, OSError) as error:
        prediction = _prediction(job, (0, 0), masks, models)
        return ExplainedImage(title, None, prediction, notes=(f"The image cannot be read now: {error}",))
    prediction = _prediction(job, image.shape, masks, models)
    drawn = [(item.code.meaning, item.mask) for item in prediction.findings if item.mask is not None]
    picture = draw_masks(image, title, drawn)
    return ExplainedImage(title, picture, prediction, image.spacing, image.notes)


def _masks(job: JobDetail, detail: StudyDetail, store: Path) -> dict[str, Mask]:
    """Masks of the job's SEG by tracking UID."""
    for result in detail.results:
        if result.job_id == job.id and result.revision == job.revision and result.record.kind == "seg":
            path = store / result.record.path
            return tracked_masks(dcmread(path)) if path.is_file() else {}
    return {}


def _prediction(
    job: JobDetail, shape: tuple[int, int], masks: Mapping[str, Mask], models: Sequence[ModelSpec]
) -> Prediction:
    """The prediction of a job; a finding (or each of its lesions) and its segment have the same tracking UID."""
    # Findings of models in shadow are stored only for comparison and not shown here.
    findings = tuple(finding_of(item, _mask_of(item, masks), models) for item in job.findings if not item.shadow)
    return Prediction(shape=shape, findings=findings, not_analysed=not_analysed_of(job), timings=job.timings)


def not_analysed_of(job: JobDetail) -> NotAnalysed | None:
    """Why a job has nothing to show that could be read as a negative; None where it has."""
    if job.not_analysed is not None:
        return NotAnalysed(job.not_analysed.code, job.not_analysed.sentence)
    if any(not finding.shadow for finding in job.findings):
        return None
    done = job.state is JobState.DONE or job.findings
    return NotAnalysed("", NO_MODEL if done else _NOT_DONE.get(job.state, "It waits for its analysis."))


def _mask_of(record: FindingRecord, masks: Mapping[str, Mask]) -> Mask | None:
    own = [masks[uid] for uid in record.tracking_uids if uid in masks]
    return np.logical_or.reduce(own) if own else None


def finding_of(record: FindingRecord, mask: Mask | None, models: Sequence[ModelSpec]) -> Finding:
    """A stored finding as it was told, with the mask ``bool[rows, columns]`` of its segment."""
    labels = {(spec.name, label.name): label for spec in models for label in spec.labels}
    label = labels.get((record.model, record.label))
    # Present below its threshold: something that is part of it is, and the stored reason names that.
    is_implied = record.present and (record.probability or 0.0) < record.threshold
    return Finding(
        label=record.label,
        code=label.code if label is not None else Code(record.label, "99PLEURA", record.label.replace("_", " ")),
        model=record.model,
        probability=record.probability,
        threshold=record.threshold,
        reason=record.reason,
        mask=mask,
        implied_by=(record.reason or "a part of it") if is_implied else "",
    )
