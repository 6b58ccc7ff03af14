"""Secondary Capture (PS3.3 A.8.1): the overlay burned into a copy of the image, for viewers without SEG, SR or GSPS.

The copy is not for measuring: it is 8 bit RGB, scaled to screen size with square pixels and without pixel spacing. A
band above the image lists the findings and states that this is research.
"""

from __future__ import annotations

import highdicom as hd
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes as known

from models.contract import ModelInput
from workers.results.amend import amend, header_of
from workers.results.encoder import Analysis
from workers.results.finding_text import Statement, statements
from workers.results.header import copy_valid, orientation_values, set_lossy
from workers.results.headline import NOT_NEGATIVE, sentence_of
from workers.results.outline import Points, box_outline
from workers.results.overlay import BANNER, TEXT, Mark, colour_of, draw_overlay, grey_of, mask_outlines, text_sheet
from workers.results.segmentation import BODY_PART, nominal_spacing
from workers.results.shutter import shutter_grey, shuttered

KIND = "sc"
# highdicom demands one that is complete; that of the source, which may be unknown, replaces it.
_ANY_ORIENTATION = ("L", "F")


def encode(analysis: Analysis) -> Dataset | None:
    """Make the capture of an image, also of a negative one; None if there is no content.

    For an image that was not analysed it is a sheet with the reason, without the pixels: they may be invalid.
    """
    picture = _picture(analysis)
    if picture is None:
        return None
    header = header_of(analysis, KIND)
    built = hd.sc.SCImage(
        pixel_array=np.asarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=_ANY_ORIENTATION,
        study_instance_uid=analysis.source.StudyInstanceUID,
        **header.arguments(),
    )
    built.ConversionType = "WSD"
    built.ImageType = ["DERIVED", "SECONDARY"]
    built.BodyPartExamined = BODY_PART
    # The band does not name the patient; whether the image does is known only from the source.
    copy_valid(analysis.source, built, ("BurnedInAnnotation",))
    built.PatientOrientation = orientation_values(analysis.source)
    built.DerivationDescription = BANNER
    set_lossy(analysis.source, built)
    source = Dataset()
    source.ReferencedSOPClassUID = analysis.source.SOPClassUID
    source.ReferencedSOPInstanceUID = analysis.source.SOPInstanceUID
    source.PurposeOfReferenceCodeSequence = [hd.sr.CodedConcept(*known.DCM.SourceImageForImageProcessingOperation)]
    source.SpatialLocationsPreserved = "NO"
    built.SourceImageSequence = Items([source])
    return amend(built, header)


def _picture(analysis: Analysis) -> Image.Image | None:
    not_analysed, all_statements = analysis.prediction.not_analysed, statements(analysis)
    if not_analysed is not None:
        reason = (sentence_of(analysis, ()), not_analysed.sentence, NOT_NEGATIVE)
        return text_sheet(reason) if not_analysed.is_chest else None
    if analysis.model_input is None or not all_statements:
        return None
    return draw(analysis, analysis.model_input, all_statements)


def draw(analysis: Analysis, model_input: ModelInput, all_statements: tuple[Statement, ...]) -> Image.Image:
    """The image with the outlines of present findings, and the band with the statements above it (RGB)."""
    spacing, grey = nominal_spacing(analysis), grey_of(model_input)
    covered = shuttered(analysis.source, model_input.shape, spacing[0] / spacing[1])
    if covered is not None:
        grey[covered] = shutter_grey(analysis.source)
    return draw_overlay(grey, spacing, [_mark(index, one) for index, one in enumerate(all_statements)])


def _mark(index: int, statement: Statement) -> Mark:
    probability = statement.finding.probability
    figure = "" if probability is None else f" (probability {probability:.2f})"
    colour = colour_of(index) if statement.finding.present else TEXT
    return Mark(f"{statement.label}{figure}", colour, shown_outlines(statement))


def shown_outlines(statement: Statement) -> list[Points]:
    """Outlines of a present finding in source pixels: those of its mask, else of its boxes."""
    if not statement.finding.present:
        return []
    if statement.mask is not None:
        return mask_outlines(statement.mask)
    return [box_outline(box).points for box in statement.finding.boxes]
