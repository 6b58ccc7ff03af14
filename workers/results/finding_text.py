"""Statements about a prediction: the texts and codes that all kinds of results share.

SEG, SR, Secondary Capture and GSPS are made from the same statements, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from models.contract import Finding, Mask, ModelUse, Spacing, Zone
from models.model_spec import Code
from models.radiograph.orientation import patient_orientation
from models.radiograph.views import View, frontal_view
from models.radiograph.words import one_of, plain_words
from workers.laterality import LEFT, RIGHT, covered_lungs, side_of
from workers.results import codes
from workers.results.encoder import Analysis

_RECUMBENT = one_of("SUPIN* RECUMBENT BEDSIDE PORTABLE MOBILE LYING LIEGEN* COUCHE ACOSTADO SDRAIATO DEITADO DECUBIT*")

# Reasons from models.radiograph.decode.PixelFault: the analysis was started and failed on the pixels.
FAILED_REASONS = frozenset(
    {
        "not_dicom",
        "no_pixels",
        "transfer_syntax",
        "pixel_header",
        "multi_frame",
        "too_large",
        "wrong_length",
        "corrupt",
        "size_mismatch",
        "colour",
    }
)
LUNGS_CUT = "a lung reaches the edge of the image"
NOT_EXCLUDED = "not excluded: on a supine or AP radiograph a pneumothorax can be invisible"

_SQUARE_CENTIMETRE = 100.0
SIDES = {LEFT: codes.LEFT, RIGHT: codes.RIGHT}


@dataclass(frozen=True, slots=True)
class Area:
    """Size of a mask: set pixels, their share of the image, and square millimetres if the spacing is known."""

    pixels: int
    fraction: float
    square_millimetres: float | None
    plane: str


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One segment of the SEG: its number, the finding with the mask, probability and place in the lungs of this segment
    alone, the model that drew it, and what it is called."""

    number: int
    finding: Finding
    model: ModelUse | None
    label: str
    tracking_uid: str

    @property
    def mask(self) -> Mask:
        """What it shows."""
        assert self.finding.mask is not None
        return self.finding.mask


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One reportable finding with its answer (present, not detected, undetermined), label, remark and tracking UID.

    ``segments`` are those of the finding in the SEG: one, or one a lesion where lesions are told apart; none if there
    is no mask to show.
    """

    finding: Finding
    model: ModelUse | None
    answer: Code
    label: str
    remark: str
    tracking_uid: str
    segments: tuple[Segment, ...] = ()

    @property
    def mask(self) -> Mask | None:
        """The mask to show, only for a present finding."""
        return self.finding.mask if self.segments else None


def statements(analysis: Analysis) -> tuple[Statement, ...]:
    """Statements about all reportable findings: present ones first, otherwise in the models' order.

    Findings in shadow are left out.
    """
    findings = sorted(analysis.prediction.reportable, key=lambda finding: not finding.present)
    made: list[Statement] = []
    for finding in findings:
        answer, remark = _answer(analysis, finding)
        statement = Statement(
            finding=finding,
            model=model_named(analysis, finding.model),
            answer=answer,
            label=_label(finding, answer),
            remark=remark,
            tracking_uid=analysis.identity.tracking(finding.model, finding.label),
        )
        before = sum(len(one.segments) for one in made)
        made.append(replace(statement, segments=tuple(_segments(analysis, statement, before))))
    return tuple(made)


def _segments(analysis: Analysis, statement: Statement, before: int) -> Iterator[Segment]:
    """The segments of a present finding, counted on from those ``before`` it."""
    finding = statement.finding
    if not finding.present or finding.mask is None or not finding.mask.any():
        return
    drawn_by = model_named(analysis, finding.placed_by or finding.model)
    if not finding.lesions:
        yield Segment(before + 1, finding, drawn_by, statement.label, statement.tracking_uid)
    for number, lesion in enumerate(finding.lesions, start=1):
        own = replace(finding, mask=lesion.mask, probability=lesion.probability, lungs=lesion.lungs)
        label = (
            f"{statement.label} ({number} of {len(finding.lesions)})" if len(finding.lesions) > 1 else statement.label
        )
        uid = analysis.identity.tracking(finding.model, finding.label, number)
        yield Segment(before + number, own, drawn_by, label, uid)


def model_named(analysis: Analysis, name: str) -> ModelUse | None:
    """The model of that name that took part in the analysis."""
    return next((model for model in analysis.prediction.models if model.name == name), None)


def _answer(analysis: Analysis, finding: Finding) -> tuple[Code, str]:
    if finding.probability is None:
        return codes.UNDETERMINED, finding.reason or "the model could not tell"
    if finding.present:
        return codes.PRESENT, finding.reason
    negative = sensitivity_text(finding)
    if analysis.prediction.lungs_cut:
        negative = f"{negative}; {LUNGS_CUT}, and what lies beyond it was not seen"
    if is_pneumothorax(finding.code) and not _is_upright_pa(analysis):
        return codes.UNDETERMINED, f"{NOT_EXCLUDED}. {negative}"
    return codes.NOT_DETECTED, negative


def _label(finding: Finding, answer: Code) -> str:
    """Tracking Identifier: viewers show it beside the outline, so a negative must not look like a finding."""
    name = finding.code.meaning
    if answer == codes.PRESENT:
        return f"AI: {name}"
    if answer == codes.NOT_DETECTED:
        return f"AI: not detected - {name}"
    return f"AI: {'not assessed' if finding.probability is None else 'not excluded'} - {name}"


def sensitivity_text(finding: Finding) -> str:
    """Text on the sensitivity at the threshold, from the model card, for a negative result."""
    if finding.sensitivity is None:
        return "not detected; the model card gives no sensitivity"
    return f"not detected; sensitivity at this threshold {100 * finding.sensitivity:.0f} % by the model card"


def is_pneumothorax(code: Code) -> bool:
    """Whether a code is that of pneumothorax."""
    return (code.value, code.scheme) == (codes.PNEUMOTHORAX.value, codes.PNEUMOTHORAX.scheme)


def _is_upright_pa(analysis: Analysis) -> bool:
    """Whether the image is an upright PA; False if the view is unknown."""
    view = analysis.model_input.view if analysis.model_input is not None else ""
    view = view or str(analysis.source.get("ViewPosition") or "")
    described = " ".join(str(analysis.source.get(name) or "") for name in ("SeriesDescription", "StudyDescription"))
    return frontal_view(view) is View.PA and not _RECUMBENT.search(plain_words(f"{view} {described}"))


def spacing_of(analysis: Analysis) -> Spacing | None:
    """Pixel spacing of the source, or None if it is unknown (0.000 counts as unknown)."""
    spacing = analysis.model_input.spacing if analysis.model_input is not None else None
    return spacing if spacing is not None and spacing.row > 0 and spacing.column > 0 else None


def area_of(mask: Mask, spacing: Spacing | None) -> Area:
    """Measure a mask; square millimetres only with a spacing."""
    pixels = int(np.count_nonzero(mask))
    return Area(
        pixels=pixels,
        fraction=pixels / mask.size,
        square_millimetres=None if spacing is None else pixels * spacing.row * spacing.column,
        plane="" if spacing is None else spacing.plane,
    )


def area_value(area: Area) -> tuple[float, Code]:
    """A size for readers, as :func:`square_value` tells it; in pixels if the spacing is unknown."""
    return (area.pixels, codes.PIXELS) if area.square_millimetres is None else square_value(area.square_millimetres)


def square_value(square_millimetres: float) -> tuple[float, Code]:
    """An area in mm² or, from 1 cm² on, in cm² with two decimals."""
    if square_millimetres < _SQUARE_CENTIMETRE:
        return round(square_millimetres, 2), codes.SQUARE_MILLIMETRE
    return round(square_millimetres / _SQUARE_CENTIMETRE, 2), codes.SQUARE_CENTIMETRE


def probability_value(probability: float, threshold: float = 0.0) -> float:
    """A probability rounded to three digits, or to so many that rounding does not cross ``threshold``."""
    rounded = (float(f"{probability:.{digits}g}") for digits in range(3, 13))
    return next((value for value in rounded if (value >= threshold) == (probability >= threshold)), probability)


def area_text(area: Area) -> str:
    """Size in pixels and as a share of the image, which need no calibration."""
    return f"{area.pixels} pixels, {100 * area.fraction:.2f} % of the image."


def share_text(analysis: Analysis, finding: Finding) -> str:
    """How much of each lung a finding covers: ``32 % of the right lung.``; empty where the lungs were not found."""
    lungs = covered_lungs(finding, patient_orientation(analysis.source))
    parts = [
        f"{100 * lung.share:.0f} % of {f'the {side}' if side in (LEFT, RIGHT) else 'one'} lung" for side, lung in lungs
    ]
    return f"{' and '.join(parts)}." if parts else ""


def area_remark(spacing: Spacing | None) -> str:
    """Text on the plane of a measured size (PS3.3 10.7.1.1)."""
    if spacing is None:
        return "Uncalibrated: the image gives no pixel spacing, so sizes are in pixels."
    if spacing.magnification:
        return f"Sizes are corrected for the stated radiographic magnification of {spacing.magnification:g}."
    if spacing.plane == "patient":
        return "Sizes are at the calibrated plane in the patient, projected."
    return "Sizes are at the detector plane, not corrected for magnification."


@dataclass(frozen=True, slots=True)
class Site:
    """Where a finding lies: an anatomical structure, and the side of the patient if it is known."""

    code: Code
    side: Code | None


def side_text(analysis: Analysis, finding: Finding) -> str:
    """The patient's side on which a finding lies, by :mod:`workers.laterality`."""
    return side_of(finding, analysis.prediction.shape, patient_orientation(analysis.source))


def side_code(analysis: Analysis, finding: Finding) -> Code | None:
    """Code of the patient's side on which a finding lies, or None if it is unknown or on both sides."""
    return SIDES.get(side_text(analysis, finding))


def sites_of(analysis: Analysis, finding: Finding) -> tuple[Site, ...]:
    """Where a finding lies, as exactly as is known: a zone of a lung, several, a whole lung, or the chest.

    A lung that is involved in all its zones is named as a whole.
    """
    if finding.lungs is None:
        return (Site(finding.site or codes.CHEST, side_code(analysis, finding)),)
    sites: dict[Site, None] = {}
    for side, lung in covered_lungs(finding, patient_orientation(analysis.source)):
        whole = len(lung.zones) == len(Zone)
        for code in [finding.site or codes.LUNG] if whole else [codes.ZONES[zone] for zone in lung.zones]:
            sites[Site(code, SIDES.get(side))] = None
    return tuple(sites) or (Site(finding.site or codes.LUNG, None),)


def site_of(analysis: Analysis, finding: Finding) -> Site:
    """The one structure and side that hold the whole finding: a zone where it lies in one, else the lung or chest."""
    sites = sites_of(analysis, finding)
    return sites[0] if len(sites) == 1 else Site(finding.site or codes.CHEST, side_code(analysis, finding))


def analysis_status(analysis: Analysis) -> Code:
    """CID 6042: whether the analysis of this image succeeded, failed on its pixels, or was not attempted."""
    not_analysed = analysis.prediction.not_analysed
    if not_analysed is None:
        return codes.SUCCEEDED
    return codes.FAILED if not_analysed.code in FAILED_REASONS else codes.NOT_ATTEMPTED


def algorithm_parameters(finding: Finding) -> str:
    """Label and threshold, in one line; the threshold is that of the model whose answer it is."""
    whose = f" by {finding.model}, whose finding this is the place of" if finding.placed_by else ""
    return f"{finding.label}: reported as present from a probability of {finding.threshold:g}{whose}"
