"""One page about a study: the images, their findings with figures and evidence, and the limits of the models.

The page is a single HTML file without scripts and external fonts or pictures, so that it can be kept and printed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

from PIL import Image

from models.contract import Evidence, Finding, Mode, ModelSpec, Prediction, Spacing
from workers.results.finding_text import area_of, area_remark, area_text

_WARNING = "Research use only. Not a medical device. Not for diagnosis, triage or treatment."
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 0 auto; padding: 1rem; }
.warning { border: 2px solid #b45309; border-radius: .4rem; padding: .6rem 1rem; font-weight: 600; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; vertical-align: top; }
tr { border-bottom: 1px solid #8886; }
.present { font-weight: 700; } .card { white-space: pre-wrap; font-size: .85rem; }
@media print { .card { font-size: .7rem; } figure { break-inside: avoid; } }
"""
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
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="warning">{_WARNING}</p>',
        f"<p>Triage priority: <strong>{escape(priority)}</strong>. {escape(reason)}</p>",
        *(_image(item, models) for item in images),
        "<h2>Models</h2>",
        *(_model(spec, cards.get(spec.name, "")) for spec in models),
        "<h2>Limits</h2>",
        "<ul>" + "".join(f"<li>{escape(limit)}</li>" for limit in _LIMITS) + "</ul>",
        f'<p class="warning">{_WARNING}</p>',
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def _image(item: ExplainedImage, models: Sequence[ModelSpec]) -> str:
    parts = [f"<h2>{escape(item.title)}</h2>"]
    if item.picture is not None:
        alternative = escape(f"{item.title} with the outlines of the findings")
        parts.append(f'<figure><img alt="{alternative}" src="{_data_url(item.picture)}"></figure>')
    if item.prediction.not_analysed is not None:
        sentence = escape(item.prediction.not_analysed.sentence)
        parts.append(f"<p><strong>Not analysed.</strong> {sentence} This is not a negative result.</p>")
    else:
        parts.append(_findings(item, models))
    parts += [f"<p>{escape(note)}</p>" for note in item.notes]
    return "<section>" + "".join(parts) + "</section>"


def _data_url(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _findings(item: ExplainedImage, models: Sequence[ModelSpec]) -> str:
    """Delivered findings first, then those in shadow, which never leave the node."""
    rows = sorted(item.prediction.findings, key=lambda finding: (finding.mode is Mode.SHADOW, not finding.present))
    names = ("Finding", "Result", "Probability", "Threshold", "Size", "Evidence")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(_row(finding, item, models) for finding in rows)}</table>"


def _row(finding: Finding, item: ExplainedImage, models: Sequence[ModelSpec]) -> str:
    shadow = " (in shadow: never sent)" if finding.mode is Mode.SHADOW else ""
    probability = "-" if finding.probability is None else f"{finding.probability:.3f}"
    cells = (
        f"{finding.code.meaning}{shadow}",
        _answer(finding),
        probability,
        f"{finding.threshold:g}",
        _size(finding, item.spacing),
        _evidence(_evidence_of(finding, models)),
    )
    kind = ' class="present"' if finding.present else ""
    return f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _answer(finding: Finding) -> str:
    if finding.probability is None:
        return f"not assessed: {finding.reason}"
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


def _model(spec: ModelSpec, card: str) -> str:
    text = f'<details><summary>Model card</summary><p class="card">{escape(card)}</p></details>' if card else ""
    return (
        f"<h3>{escape(spec.title)} {escape(spec.version)}</h3><p>SHA-256 <code>{escape(spec.digest)}</code></p>{text}"
    )
