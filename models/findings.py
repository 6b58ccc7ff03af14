"""From a network's answer for one image to findings: probabilities, thresholds, places. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.calibration import calibrated
from models.contract import Finding, Pixels
from models.hierarchy import Consistent, consistent
from models.localise import LocalisedRegions, MapCut, mask_from_map, paste_boxes, paste_masks
from models.lung_fields import LUNG, LungFields
from models.model_spec import LabelSpec, Mode, ModelKind, ModelSpec
from models.pooling import pooled
from models.radiograph.geometry import Letterbox
from models.remote.findings_server import Reply
from models.similar import StoredCase, similar_cases

Answers = Mapping[str, Pixels]
"""What a network answers for one image, by the names of its outputs."""


def findings_of(spec: ModelSpec, answer: Answers, letterbox: Letterbox, minimum_fraction: float) -> tuple[Finding, ...]:
    """One finding for each label of a model, from its answer for one image."""
    raw = [
        calibrated(_probability(spec, number, answer, letterbox), label.calibration)
        for number, label in enumerate(spec.labels)
    ]
    probabilities = consistent(spec.labels, raw)
    return tuple(
        _placed(_finding(spec, label, each, own), number, label, answer, letterbox, minimum_fraction)
        for number, (label, each, own) in enumerate(zip(spec.labels, probabilities, raw, strict=True))
    )


def findings_answered(spec: ModelSpec, replies: Sequence[Reply]) -> tuple[Finding, ...]:
    """One finding for each label of a vendor's program, from its answer for one image."""
    # A label without an answer raises no parent.
    made = consistent(spec.labels, [reply.probability or 0.0 for reply in replies])
    findings = []
    for label, reply, each in zip(spec.labels, replies, made, strict=True):
        finding = _finding(spec, label, each, reply.probability)
        if reply.probability is None and not finding.present:
            finding = replace(finding, probability=None, reason=reply.reason)
        elif label.localised and finding.present:
            reason = "" if reply.mask is not None or reply.boxes else "present, and the program shows no place"
            reason = finding.reason or reason
            finding = replace(finding, mask=reply.mask, boxes=reply.boxes, reason=reason)
        findings.append(finding)
    return tuple(findings)


def lies_in_lungs(finding: Finding) -> bool:
    """Whether a finding has a mask, and lies in a lung by its very name."""
    return finding.mask is not None and finding.site is not None and finding.site.value == LUNG.value


def in_lungs(finding: Finding, fields: LungFields, minimum_fraction: float) -> Finding:
    """A finding whose mask is clipped to the lungs, with where it lies in them; any finding with how the chest hangs.

    What lies in no lung at all keeps its probability and loses its place: the finding is still reported.
    """
    finding = replace(finding, hanging=fields.hanging)
    if finding.mask is None or not lies_in_lungs(finding):
        return finding
    mask = MapCut(0.5, minimum_fraction=minimum_fraction).without_specks(fields.clipped(finding.mask))
    if not mask.any():
        return replace(finding, mask=None, reason=finding.reason or "present, but no region lies in a lung")
    return replace(finding, mask=mask, lungs=fields.involvement(mask))


def with_similar(
    findings: tuple[Finding, ...], spec: ModelSpec, answer: Answers, index: Sequence[StoredCase]
) -> tuple[Finding, ...]:
    """The findings of a classifier by retrieval, each with the stored cases that look alike; of others, as they are."""
    if not index:
        return findings
    pairs = zip(findings, spec.labels, strict=True)
    return tuple(replace(finding, similar=similar_cases(answer, index, label)) for finding, label in pairs)


def without_answer(spec: ModelSpec, reason: str) -> tuple[Finding, ...]:
    """The findings of a model in shadow that could not answer."""
    return tuple(
        Finding(label.name, label.code, spec.name, None, label.threshold, Mode.SHADOW, reason) for label in spec.labels
    )


def _finding(spec: ModelSpec, label: LabelSpec, found: Consistent, own: float | None) -> Finding:
    """The finding without its place; ``own`` is what the model itself says."""
    return Finding(
        label=label.name,
        code=label.code,
        model=spec.name,
        probability=found.probability,
        threshold=label.threshold,
        mode=Mode.SHADOW if Mode.SHADOW in (spec.mode, label.mode) else Mode.ACTIVE,
        reason=f"follows from {found.implied_by.replace('_', ' ')}" if found.implied_by else "",
        implied_by=found.implied_by,
        parent=label.parent,
        site=label.site,
        sensitivity=label.evidence.sensitivity if label.evidence is not None else None,
        own_probability=own,
    )


def _placed(
    finding: Finding, number: int, label: LabelSpec, answer: Answers, letterbox: Letterbox, minimum_fraction: float
) -> Finding:
    """The finding with its place, where it is present and the model shows one."""
    if not (label.localised and finding.present):
        return finding
    place = _place(number, label, answer, letterbox, minimum_fraction)
    if place.mask is None and not place.boxes:
        missing = f"present, but no region reaches the map threshold {label.map_threshold:g}"
        return replace(finding, reason=finding.reason or missing, heat_map=place.heat_map)
    return replace(finding, mask=place.mask, boxes=place.boxes, heat_map=place.heat_map)


def _probability(spec: ModelSpec, number: int, answer: Answers, letterbox: Letterbox) -> float:
    """A classifier says it; a segmenter's follows from its map, a detector's is that of its best box."""
    if "probabilities" in answer:
        return float(answer["probabilities"][number])
    if spec.kind is ModelKind.SEGMENTER:
        return pooled(answer["maps"][..., number], letterbox, spec.pooling)
    return float(answer["scores"][_of_class(number, answer)].max(initial=0))


def _place(
    number: int, label: LabelSpec, answer: Answers, letterbox: Letterbox, minimum_fraction: float
) -> LocalisedRegions:
    cut = MapCut(label.map_threshold, label.map_relative_threshold, minimum_fraction)
    if "boxes" in answer:
        own = _of_class(number, answer)
        boxes = paste_boxes(answer["boxes"][own], answer["scores"][own], letterbox, label.threshold)
        if "maps" not in answer:
            return LocalisedRegions(boxes=boxes)
        return paste_masks(answer["maps"][..., number], boxes, letterbox, cut)
    if "maps" in answer:
        return mask_from_map(answer["maps"][..., number], letterbox, cut)
    return LocalisedRegions()


def _of_class(number: int, answer: Answers) -> NDArray[np.bool_]:
    """Which of a detector's boxes belong to a label; all of them where it does not say, for it then has one label."""
    scores = answer["scores"]
    if "classes" in answer:
        return np.equal(np.rint(answer["classes"]), number)
    return np.full(scores.shape, number == 0)
