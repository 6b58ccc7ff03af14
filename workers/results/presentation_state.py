"""Grayscale Softcopy Presentation State (PS3.3 A.33.1): outlines and labels drawn by the viewer; off by default.

Some viewers apply the newest presentation state automatically, so it contains the presentation of the source itself:
modality transformation, window, shutter and polarity.
"""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from models.radiograph.grayscale import has_plausible_rescale, is_inverted, keeps_its_descriptor, numbers
from workers.results.amend import amend, decimal, header_of
from workers.results.encoder import Analysis
from workers.results.finding_text import Statement, spacing_of, statements
from workers.results.header import RESEARCH_USE, copy_together, copy_valid
from workers.results.outline import Points
from workers.results.secondary_capture import shown_outlines
from workers.results.segmentation import BODY_PART
from workers.results.shutter import shutter_attributes

KIND = "gsps"
_RESCALE = ("RescaleIntercept", "RescaleSlope")
_WINDOW = ("WindowCenter", "WindowWidth")
_WINDOW_OPTIONS = ("WindowCenterWidthExplanation", "VOILUTFunction")


def encode(analysis: Analysis) -> Dataset | None:
    """Make the presentation state, or None if no present finding is localised."""
    drawn = [(item, shown_outlines(item)) for item in statements(analysis)]
    drawn = [(item, points) for item, points in drawn if points]
    if not drawn:
        return None
    header = header_of(analysis, KIND)
    image = header.image(analysis.prediction.shape)
    layer = hd.pr.GraphicLayer("PLEURA", order=1, description=RESEARCH_USE)
    built = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[image],
        content_label="PLEURA_OUTLINES",
        content_description=RESEARCH_USE,
        content_creator_name="Pleura^",
        graphic_annotations=[_annotation(item, points, image, layer) for item, points in drawn],
        graphic_layers=[layer],
        **header.arguments(),
    )
    built.BodyPartExamined = BODY_PART
    _set_grey(analysis.source, built)
    _set_pixel_shape(analysis, built.DisplayedAreaSelectionSequence[0])
    return amend(built, header)


def _set_grey(source: Dataset, built: Dataset) -> None:
    """Copy the grayscale pipeline of the source (PS3.4 N.2).

    By hand: highdicom has no shutter, refuses tables of 10 to 14 bits and with a negative first value, and makes of one
    window explanation a list of its letters.

    MONOCHROME1 becomes an inverse presentation LUT shape, because a presentation state overrides the image's own.
    """
    if source.get("ModalityLUTSequence"):
        copy_valid(
            source, built, ("ModalityLUTSequence",) if _matches_descriptor(source, "ModalityLUTSequence") else ()
        )
    elif has_plausible_rescale(source) and copy_together(source, built, _RESCALE):
        built.RescaleType = "US"
        copy_valid(source, built, ("RescaleType",))
    voi = _voi(source)
    if len(voi):
        built.SoftcopyVOILUTSequence = Sequence([voi])
    if copy_together(source, built, shutter_attributes(source)):
        built.ShutterPresentationValue = 0
        copy_valid(source, built, ("ShutterPresentationValue",))
    built.PresentationLUTShape = "INVERSE" if is_inverted(source) else "IDENTITY"


def _voi(source: Dataset) -> Dataset:
    """The VOI LUT of the source, or its windows; empty if neither is valid (PS3.3 C.11.2)."""
    voi = Dataset()
    if source.get("VOILUTSequence") and _matches_descriptor(source, "VOILUTSequence"):
        copy_valid(source, voi, ("VOILUTSequence",))
    elif len(numbers(source, "WindowWidth")) == len(numbers(source, "WindowCenter")) > 0:
        function = str(source.get("VOILUTFunction") or "LINEAR")
        least = min(numbers(source, "WindowWidth"))
        if least >= 1 or (least > 0 and function != "LINEAR"):
            copy_together(source, voi, _WINDOW)
            copy_valid(source, voi, _WINDOW_OPTIONS if len(voi) else ())
    return voi


def _matches_descriptor(source: Dataset, keyword: str) -> bool:
    """False for a table that contradicts its descriptor: viewers would show it in different ways."""
    return all(keeps_its_descriptor(item, source) for item in source[keyword].value)


def _set_pixel_shape(analysis: Analysis, area: Dataset) -> None:
    """The size of a pixel, or its shape if the spacing is unknown (PS3.3 C.10.4).

    highdicom takes pixels as square, and names the origin of a tiled matrix, which a radiograph has not.
    """
    del area.PixelOriginInterpretation
    spacing = spacing_of(analysis)
    if spacing is not None:
        del area.PresentationPixelAspectRatio
        area.PresentationPixelSpacing = [decimal(spacing.row), decimal(spacing.column)]
    elif analysis.model_input is not None and analysis.model_input.pixel_aspect != 1:
        area.PresentationPixelAspectRatio = [round(1000 * analysis.model_input.pixel_aspect), 1000]


def _annotation(
    statement: Statement, drawn: list[Points], image: Dataset, layer: hd.pr.GraphicLayer
) -> hd.pr.GraphicAnnotation:
    """Outlines and label of one finding, in pixel coordinates of edges, not centres (PS3.3 C.10.5.1.2)."""
    # A detector may place a box partly outside of the image.
    inside = [np.clip(points, 0, [image.Columns, image.Rows]) for points in drawn]
    top = inside[0][inside[0][:, 1].argmin()]
    label = hd.pr.TextObject(
        f"{statement.label} {statement.finding.probability:.2f} - research use",
        units="PIXEL",
        anchor_point=(float(top[0]), float(top[1])),
    )
    return hd.pr.GraphicAnnotation(
        [image],
        layer,
        graphic_objects=[hd.pr.GraphicObject("POLYLINE", points, units="PIXEL") for points in inside],
        text_objects=[label],
    )
