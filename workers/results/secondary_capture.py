"""Secondary Capture (PS3.3 A.8.1): the overlay burned into a copy of the image, for viewers without SEG, SR or GSPS.

The copy is not for measuring: it is 8 bit RGB, scaled to screen size with square pixels and without pixel spacing. A
band above the image lists the findings and states that this is research.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import highdicom as hd
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes as known

from models.contract import ModelInput
from workers.results.amend import amend, header_of
from workers.results.encoder import Analysis
from workers.results.finding_text import Statement, statements
from workers.results.header import copy_valid, orientation_values, set_lossy
from workers.results.headline import NOT_NEGATIVE, sentence_of
from workers.results.outline import Points, box_outline, outlines
from workers.results.segmentation import BODY_PART, nominal_spacing
from workers.results.shutter import shutter_grey, shuttered

KIND = "sc"
LONGEST_SIDE, SHORTEST_LONG_SIDE = 1536, 768
_BANNER = "Pleura AI - research use, not for diagnosis"
_LINE_COLOURS = ((255, 96, 64), (255, 208, 0), (64, 224, 128), (96, 160, 255), (240, 112, 255))
# highdicom demands one that is complete; that of the source, which may be unknown, replaces it.
_ANY_ORIENTATION = ("L", "F")
_BAND, _TEXT, _WARNING = (24, 24, 24), (235, 235, 235), (255, 208, 0)


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
    built.DerivationDescription = _BANNER
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


def text_sheet(paragraphs: Sequence[str]) -> Image.Image:
    """A dark square with the banner and ``paragraphs`` as text (RGB)."""
    size = SHORTEST_LONG_SIDE // 32
    sheet = Image.new("RGB", (SHORTEST_LONG_SIDE, SHORTEST_LONG_SIDE), _BAND)
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(size), 2 * size
    for text, colour in [(_BANNER, _WARNING), *((paragraph, _TEXT) for paragraph in paragraphs)]:
        for line in wrap(text, 2 * SHORTEST_LONG_SIDE // size - 8):
            pen.text((2 * size, top), line, font=font, fill=colour)
            top += 3 * size // 2
        top += size
    return sheet


def draw(analysis: Analysis, model_input: ModelInput, all_statements: tuple[Statement, ...]) -> Image.Image:
    """The image with the outlines of present findings, and the band with the statements above it (RGB)."""
    picture, scale = _screen(analysis, model_input)
    pen = ImageDraw.Draw(picture)
    width = max(2, max(picture.size) // 400)
    for index, statement in enumerate(all_statements):
        for points in shown_outlines(statement):
            colour = _LINE_COLOURS[index % len(_LINE_COLOURS)]
            pen.line([(float(x), float(y)) for x, y in points * scale], fill=colour, width=width, joint="curve")
    return _with_band(picture, all_statements)


def shown_outlines(statement: Statement) -> list[Points]:
    """Outlines of a present finding in source pixels: those of its mask, else of its boxes."""
    if not statement.finding.present:
        return []
    if statement.mask is not None:
        return [outline.points for outline in outlines(statement.mask)[0]]
    return [box_outline(box).points for box in statement.finding.boxes]


def _screen(analysis: Analysis, model_input: ModelInput) -> tuple[Image.Image, Points]:
    """The image at screen size with square pixels, and the scale factors of source coordinates (x, y)."""
    rows, columns = model_input.shape
    row, column = nominal_spacing(analysis)
    width, height = columns * column, rows * row
    factor = min(LONGEST_SIDE, max(SHORTEST_LONG_SIDE, rows, columns)) / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    grey = np.round(np.clip(model_input.pixels, 0, 1) * 255).astype(np.uint8)
    covered = shuttered(analysis.source, model_input.shape, row / column)
    if covered is not None:
        grey[covered] = shutter_grey(analysis.source)
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BOX).convert("RGB")
    return picture, np.asarray([size[0] / columns, size[1] / rows])


def _with_band(picture: Image.Image, all_statements: tuple[Statement, ...]) -> Image.Image:
    lines = [(_BANNER, _WARNING)] + [(_line(item), _colour(index, item)) for index, item in enumerate(all_statements)]
    # The width of a letter is a little over half of its height: the longest line must fit between the margins.
    size = max(10, min(picture.width // 40, int(picture.width / (0.6 * max(len(line) for line, _ in lines) + 2))))
    font = ImageFont.load_default(size)
    band = (len(lines) * 3 * size) // 2 + size
    sheet = Image.new("RGB", (picture.width, picture.height + band), _BAND)
    sheet.paste(picture, (0, band))
    pen = ImageDraw.Draw(sheet)
    for index, (line, colour) in enumerate(lines):
        pen.text((size, size // 2 + index * 3 * size // 2), line, font=font, fill=colour)
    return sheet


def _line(statement: Statement) -> str:
    probability = statement.finding.probability
    figure = "" if probability is None else f" (probability {probability:.2f})"
    return f"{statement.label}{figure}"


def _colour(index: int, statement: Statement) -> tuple[int, int, int]:
    return _LINE_COLOURS[index % len(_LINE_COLOURS)] if statement.finding.present else _TEXT
