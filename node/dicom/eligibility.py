"""Which received images are eligible for analysis: pure rules on the header. Each reason has a code and a sentence.

A header may be empty or wrong, so a rule excludes an image only for an explicit value. The settings decide about
missing values, and the worker's input quality check examines the pixels later. The rules run in order (kind of object,
content, patient) and the first reason is stored.

The rules read attributes of PS3.3 C.7.3.1 (series), C.7.6.1 and C.7.6.3 (image), C.8.1.1 (CR), C.8.6.1 (Secondary
Capture) and C.8.11 (DX). A missing, empty or unreadable attribute counts as missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset

from config.settings import Eligibility
from db.not_eligible_codes import NotEligibleCode
from db.records import NotEligible
from models.radiograph.age import age_at_study
from models.radiograph.body_parts import body_part_in, speaks_of_chest
from models.radiograph.tolerant_header import TolerantHeader
from models.radiograph.views import FRONTAL_VIEWS, SPECIAL_VIEWS, View, not_frontal, views_in
from models.radiograph.words import plain_words

# Manufacturer of our own objects, as workers.results writes it. A PACS may have changed their UIDs.
OWN_MANUFACTURER = "Pleura"

RADIOGRAPH_CLASSES = frozenset(
    {
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    }
)

# Conversion Type (0008,0064), PS3.3 C.8.6.1: paper, drawings and synthetic images; not digitized film or workstation.
_NOT_ACQUIRED = {"SD": "a scanned document", "SI": "a scanned image", "DRW": "a drawing", "SYN": "a synthetic image"}

# PS3.16 CID 4010 in SNOMED CT and in the retired SNOMED-RT identifiers: postero-anterior, antero-posterior, frontal.
_FRONTAL_CODES = frozenset({"272479007", "399348003", "399033003", "R-10214", "R-10206", "R-10202"})
# PS3.16 CID 4009 and 4031: chest, thorax, lung, thoracic cavity, pleura.
_CHEST_CODES = frozenset(
    {"51185008", "43799004", "39607008", "3120008", "T-D3000", "T-D3050", "T-28000", "T-29000", "816094009"}
)
_SNOMED = frozenset({"SCT", "SRT", "SNM3", "99SDM"})


def check_eligibility(header: Dataset, rules: Eligibility, *, own: bool = False) -> NotEligible | None:
    """Return why this image is not eligible, or None if it is eligible.

    ``own``: the SOP Instance UID is that of a result of this node.
    """
    image = _Image(header, rules, own)
    for rule in _RULES:
        not_eligible = rule(image)
        if not_eligible is not None:
            return not_eligible
    return None


class _Image(TolerantHeader):
    """Input of a rule: the header and the settings."""

    def __init__(self, dataset: Dataset, rules: Eligibility, own: bool) -> None:
        super().__init__(dataset)
        self.rules = rules
        self.own = own


_Rule = Callable[[_Image], NotEligible | None]


def _reason(code: NotEligibleCode, sentence: str) -> NotEligible:
    return NotEligible(code.value, sentence)


def _shown(value: str) -> str:
    """Shorten a header's value to one line, for a message."""
    return " ".join(value.split())[:40] or "(empty)"


def _own_result(image: _Image) -> NotEligible | None:
    if image.own:
        return _reason(NotEligibleCode.OWN_RESULT, "This object is a result of this node and is never analysed again.")
    if image.text("Manufacturer").casefold() == OWN_MANUFACTURER.casefold():
        return _reason(NotEligibleCode.OWN_RESULT, "This object was made by Pleura and is never analysed again.")
    return None


def _not_an_image(image: _Image) -> NotEligible | None:
    if image.text("SOPClassUID") in RADIOGRAPH_CLASSES:
        return None
    sop_class = uid.UID(image.text("SOPClassUID"))
    if image.number("Rows") is None:
        return _reason(
            NotEligibleCode.NOT_AN_IMAGE, f"{_shown(sop_class.name)} is not an image; it is stored and not analysed."
        )
    return _reason(NotEligibleCode.OTHER_CLASS, f"{_shown(sop_class.name)} is not a radiograph that Pleura analyses.")


def _modality(image: _Image) -> NotEligible | None:
    modality = image.text("Modality").upper()
    if modality in {allowed.upper() for allowed in image.rules.modalities}:
        return None
    allowed = ", ".join(image.rules.modalities)
    return _reason(NotEligibleCode.OTHER_MODALITY, f"Modality is {_shown(modality)}; analysed are {allowed}.")


def _for_processing(image: _Image) -> NotEligible | None:
    raw_class = image.text("SOPClassUID") == uid.DigitalXRayImageStorageForProcessing
    if raw_class or image.text("PresentationIntentType").upper() == "FOR PROCESSING":
        return _reason(NotEligibleCode.FOR_PROCESSING, "The image is For Processing, not For Presentation.")
    return None


def _scanned(image: _Image) -> NotEligible | None:
    what = _NOT_ACQUIRED.get(image.text("ConversionType").upper())
    if what:
        return _reason(NotEligibleCode.SCANNED_DOCUMENT, f"Conversion Type says that this is {what}, not a radiograph.")
    return None


def _derived(image: _Image) -> NotEligible | None:
    # DERIVED\PRIMARY is an original that was only compressed or processed for display (PS3.3 C.7.6.1.1.2).
    values = [value.upper() for value in image.texts("ImageType")[:2]]
    if values == ["DERIVED", "SECONDARY"]:
        return _reason(NotEligibleCode.DERIVED, "Image Type says that this image was derived from another one.")
    return None


def _quality_control(image: _Image) -> NotEligible | None:
    if image.text("QualityControlImage").upper() == "YES":
        return _reason(NotEligibleCode.QUALITY_CONTROL, "Quality Control Image is YES: a phantom or test image.")
    return None


def _colour(image: _Image) -> NotEligible | None:
    samples = image.number("SamplesPerPixel")
    photometric = image.text("PhotometricInterpretation").upper()
    if (samples is not None and samples != 1) or (photometric and not photometric.startswith("MONOCHROME")):
        return _reason(NotEligibleCode.COLOUR, f"The image is not grayscale ({_shown(photometric)}).")
    return None


def _multi_frame(image: _Image) -> NotEligible | None:
    frames = image.number("NumberOfFrames")
    if frames is not None and frames > 1:
        return _reason(NotEligibleCode.MULTI_FRAME, f"The image has {frames} frames; only single frames are analysed.")
    return None


def _too_small(image: _Image) -> NotEligible | None:
    rows, columns = image.number("Rows"), image.number("Columns")
    if rows is None or columns is None:
        return _reason(NotEligibleCode.NOT_AN_IMAGE, "The image has no Rows or no Columns.")
    if min(rows, columns) < image.rules.minimum_pixels:
        return _reason(
            NotEligibleCode.TOO_SMALL,
            f"The image has {columns} x {rows} pixels; the minimum is {image.rules.minimum_pixels} in each direction.",
        )
    return None


_DESCRIPTIONS = (
    "SeriesDescription",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
    "StudyDescription",
)


def _body_part(image: _Image) -> NotEligible | None:
    stated = _stated_body_part(image)
    if stated is None and image.rules.unknown_body_part == "refuse":
        return _reason(
            NotEligibleCode.BODY_PART_UNKNOWN, "Neither Body Part Examined nor a description names the body part."
        )
    return stated.not_eligible if stated is not None else None


@dataclass(frozen=True, slots=True)
class _BodyPart:
    """A body part that the header states. ``not_eligible`` is the reason if it is not a chest."""

    not_eligible: NotEligible | None = None


def _stated_body_part(image: _Image) -> _BodyPart | None:
    """Look at Body Part Examined, then the coded region, then the descriptions; None if none names a body part."""
    body_part = image.text("BodyPartExamined")
    if body_part:
        if _is_chest(body_part, image.rules) is True:
            return _BodyPart()
        return _BodyPart(
            _reason(NotEligibleCode.NOT_A_CHEST, f"Body Part Examined is {_shown(body_part)}, not a chest.")
        )
    for value, scheme, meaning in image.codes("AnatomicRegionSequence"):
        if value in _CHEST_CODES or _is_chest(meaning, image.rules) is True:
            return _BodyPart()
        if scheme in _SNOMED:
            return _BodyPart(
                _reason(NotEligibleCode.NOT_A_CHEST, f"The coded region is {_shown(meaning)}, not a chest.")
            )
    return _described_body_part(image)


def _described_body_part(image: _Image) -> _BodyPart | None:
    """The first description that names a body part decides. Image descriptions come before study descriptions."""
    texts = [image.text(keyword) for keyword in _DESCRIPTIONS]
    texts += [meaning for _, _, meaning in image.codes("ProcedureCodeSequence")]
    for text in texts:
        chest = _is_chest(text, image.rules)
        if chest:
            return _BodyPart()
        if chest is False:
            part = _shown(body_part_in(text).other)
            return _BodyPart(_reason(NotEligibleCode.NOT_A_CHEST, f"The description names {part}, not a chest."))
    return None


def _is_chest(text: str, rules: Eligibility) -> bool | None:
    return speaks_of_chest(text, rules.body_parts, rules.descriptions)


def _view(image: _Image) -> NotEligible | None:
    """Exclude a view that is stated not to be frontal: by View Position, by a code, then by the descriptions."""
    position = image.text("ViewPosition")
    view_is_stated = bool(position)
    if position and (not_eligible := _position(position, image.rules)) is not None:
        return not_eligible
    for value, scheme, meaning in image.codes("ViewCodeSequence"):
        frontal = value in _FRONTAL_CODES if scheme in _SNOMED else not_frontal(views_in(meaning)) is None
        if not frontal:
            return _reason(NotEligibleCode.NOT_FRONTAL, f"The coded view is {_shown(meaning)}, not a frontal view.")
        view_is_stated = True
    return _special_view(image) or (None if view_is_stated else _view_described(image))


def _position(position: str, rules: Eligibility) -> NotEligible | None:
    allowed = {view.upper() for view in rules.views}
    views = views_in(position)
    if not_frontal(views) is not None:
        return _reason(NotEligibleCode.NOT_FRONTAL, f"View Position is {_shown(position)}, not a frontal view.")
    if View.FRONTAL in views and allowed >= {View.PA, View.AP}:
        return None
    if allowed & views or allowed & set(plain_words(position).split()):
        return None
    return _reason(
        NotEligibleCode.NOT_FRONTAL, f"View Position is {_shown(position)}, not a frontal view that is analysed."
    )


def _own_texts(image: _Image) -> list[str]:
    # The study's description often names all its views ("PA and lateral"), so it does not describe one image.
    return [image.text(keyword) for keyword in ("BodyPartExamined", "SeriesDescription", "ProtocolName")]


def _special_view(image: _Image) -> NotEligible | None:
    """Look for decubitus and lordotic views: they are AP or PA too, so View Position does not exclude them."""
    texts = [*_own_texts(image), *(meaning for _, _, meaning in image.view_modifiers())]
    special = not_frontal(frozenset().union(*map(views_in, texts)) & SPECIAL_VIEWS)
    return None if special is None else _reason(NotEligibleCode.NOT_FRONTAL, f"The description names a {special} view.")


def _view_described(image: _Image) -> NotEligible | None:
    views = frozenset[View]().union(*map(views_in, _own_texts(image)))
    other = not_frontal(views)
    if other is not None and not views & FRONTAL_VIEWS:
        return _reason(NotEligibleCode.NOT_FRONTAL, f"The description names a {other} view.")
    # Patient Orientation (0020,0020): rows of a frontal image run to the patient's left or right, never front or back.
    rows_run = image.text("PatientOrientation").upper()[:1]
    if rows_run in {"A", "P"}:
        return _reason(NotEligibleCode.NOT_FRONTAL, "Patient Orientation is that of a lateral view.")
    return None


def _age(image: _Image) -> NotEligible | None:
    if image.rules.minimum_age_years <= 0:
        return None
    years = age_at_study(image)
    if years is None:
        if image.rules.unknown_age == "refuse":
            return _reason(
                NotEligibleCode.AGE_UNKNOWN, "Neither Patient's Age nor Patient's Birth Date gives a plausible age."
            )
        return None
    if years < image.rules.minimum_age_years:
        return _reason(
            NotEligibleCode.TOO_YOUNG, f"The patient is younger than {image.rules.minimum_age_years:g} years."
        )
    return None


_RULES: tuple[_Rule, ...] = (
    _own_result,
    _not_an_image,
    _modality,
    _scanned,
    _derived,
    _quality_control,
    _body_part,
    _for_processing,
    _colour,
    _multi_frame,
    _too_small,
    _view,
    _age,
)
