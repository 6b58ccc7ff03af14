"""One page about a study: the images, their findings with figures and evidence, and the limits of the models.

The page is a single HTML file without scripts and external fonts or pictures, so that it can be kept and printed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from models.contract import Finding, Prediction, Spacing
from models.model_spec import Evidence, Mode, ModelSpec
from models.templates import environment
from workers.results.finding_text import area_of, area_remark, area_text, probability_value

_TEMPLATES = environment(Path(__file__).parent / "templates")
_WARNING = "Research use only. Not a medical device. Not for diagnosis, triage or treatment."
_HEAD = ("Finding", "Result", "Probability", "Threshold", "Size", "Evidence")
_LIMITS = (
    "A model analyses one image. It has neither the patient's history nor earlier images nor the clinical question.",
    "Probabilities refer to the evaluation data of the model; another hospital, device or patient group may differ.",
    "An absent finding is not excluded. A pneumothorax can be invisible on a supine or AP radiograph.",
    "The outline shows where the model's activation is strong. It is not a measurement of the finding's extent.",
    "Only the findings listed here were analysed.",
)


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedImage:
    """One image of the study: its picture with the overlay, its prediction and its spacing.

    ``title`` names the image without the patient; ``notes`` list what had to be corrected to read it.
    """

    title: str
    picture: Image.Image | None
    prediction: Prediction
    spacing: Spacing | None = None
    notes: tuple[str, ...] = ()


def explain_html(
    *,
    title: str,
    priority: str,
    reason: str,
    images: Sequence[ExplainedImage],
    models: Sequence[ModelSpec],
    cards: Mapping[str, str],
) -> str:
    """Make the page; ``models`` have analysed the images, ``cards`` are the texts of their model cards by name."""
    return _TEMPLATES.get_template("explanation.html").render(
        title=title,
        warning=_WARNING,
        priority=priority,
        reason=reason,
        images=[(item, _data_url(item.picture), _rows(item, models)) for item in images],
        head=_HEAD,
        models=[(spec, cards.get(spec.name, "")) for spec in models],
        limits=_LIMITS,
    )


def _data_url(picture: Image.Image | None) -> str:
    if picture is None:
        return ""
    buffer = BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _rows(item: ExplainedImage, models: Sequence[ModelSpec]) -> list[tuple[bool, tuple[str, ...]]]:
    """Whether a finding is present, and its cells: delivered findings first, then those that never leave the node."""
    ordered = sorted(item.prediction.findings, key=lambda finding: (finding.mode is Mode.SHADOW, not finding.present))
    return [(finding.present, _cells(finding, item, models)) for finding in ordered]


def _cells(finding: Finding, item: ExplainedImage, models: Sequence[ModelSpec]) -> tuple[str, ...]:
    shadow = " (in shadow: never sent)" if finding.mode is Mode.SHADOW else ""
    return (
        f"{finding.code.meaning}{shadow}",
        _answer(finding),
        "-" if finding.probability is None else f"{probability_value(finding.probability, finding.threshold):g}",
        f"{finding.threshold:g}",
        _size(finding, item.spacing),
        _evidence(_evidence_of(finding, models)),
    )


def _answer(finding: Finding) -> str:
    if finding.probability is None:
        return f"not assessed: {finding.reason}"
    if finding.implied_by:
        return f"present: {finding.reason or finding.implied_by}"
    return "present" if finding.present else "not detected (not excluded)"


def _size(finding: Finding, spacing: Spacing | None) -> str:
    if not finding.present or finding.mask is None or not finding.localised:
        return ""
    area = area_of(finding.mask, spacing)
    size = "" if area.square_millimetres is None else f"{area.square_millimetres / 100:.1f} cm², "
    return f"{size}{area_text(area)} {area_remark(spacing)}"


def _evidence_of(finding: Finding, models: Sequence[ModelSpec]) -> Evidence | None:
    for spec in models:
        for label in spec.labels:
            if spec.name == finding.model and label.name == finding.label:
                return label.evidence
    return None


def _evidence(evidence: Evidence | None) -> str:
    if evidence is None:
        return "none given"
    interval = f"{evidence.auc_low:.2f} to {evidence.auc_high:.2f}"
    return f"AUC {evidence.auc:.2f} (95 % {interval}) on {evidence.positives} positives"
