"""Grayscale Softcopy Presentation State (PS3.3 A.33.1): outlines and labels drawn by the viewer; off by default.

Some viewers apply the newest presentation state automatically, so it contains the presentation of the source itself:
modality transformation, window, shutter and polarity.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from models.radiograph.grayscale import has_plausible_rescale, is_inverted, keeps_its_descriptor, numbers
from workers.results.amend import decimal
from workers.results.encoder import Analysis
from workers.results.finding_text import Statement, spacing_of, statements
from workers.results.header import RESEARCH_USE, copy_together, copy_valid, finish, new_object, reference
from workers.results.outline import Points
from workers.results.secondary_capture import shown_outlines
from workers.results.segmentation import BODY_PART
from workers.results.shutter import shutter_attributes

KIND = "gsps"
_LAYER = "PLEURA"
_RESCALE = ("RescaleIntercept", "RescaleSlope")
_WINDOW = ("WindowCenter", "WindowWidth")
_WINDOW_OPTIONS = ("WindowCenterWidthExplanation", "VOILUTFunction")


def encode(analysis: Analysis) -> Dataset | None:
    """Make the presentation state, or None if no present finding is localised."""
    drawn = [(item, shown_outlines(item)) for item in statements(analysis)]
    drawn = [(item, points) for item, points in drawn if points]
    if not drawn:
        return None
    made = new_object(analysis, KIND, GrayscaleSoftcopyPresentationStateStorage, "PR")
    made.BodyPartExamined = BODY_PART
    made.ContentLabel = "PLEURA_OUTLINES"
    made.ContentDescription = RESEARCH_USE
    made.ContentCreatorName = "Pleura^"
    made.PresentationCreationDate, made.PresentationCreationTime = made.ContentDate, made.ContentTime
    del made.ContentDate, made.ContentTime
    _set_relationship(analysis, made)
    _set_grey(analysis.source, made)
    _set_displayed_area(analysis, made)
    made.GraphicAnnotationSequence = Sequence([_annotation(analysis, item, points) for item, points in drawn])
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder = _LAYER, 1
    layer.GraphicLayerDescription = RESEARCH_USE
    made.GraphicLayerSequence = Sequence([layer])
    return finish(made, analysis.source)


def _set_relationship(analysis: Analysis, made: Dataset) -> None:
    series = Dataset()
    series.SeriesInstanceUID = analysis.source.SeriesInstanceUID
    series.ReferencedImageSequence = Sequence([reference(analysis.source)])
    made.ReferencedSeriesSequence = Sequence([series])


def _set_grey(source: Dataset, made: Dataset) -> None:
    """Copy the grayscale pipeline of the source (PS3.4 N.2).

    MONOCHROME1 becomes an inverse presentation LUT shape, because a presentation state overrides the image's own.
    """
    if source.get("ModalityLUTSequence"):
        copy_valid(source, made, ("ModalityLUTSequence",) if _matches_descriptor(source, "ModalityLUTSequence") else ())
    elif has_plausible_rescale(source) and copy_together(source, made, _RESCALE):
        made.RescaleType = "US"
        copy_valid(source, made, ("RescaleType",))
    voi = _voi(source)
    if len(voi):
        voi.ReferencedImageSequence = Sequence([reference(source)])
        made.SoftcopyVOILUTSequence = Sequence([voi])
    if copy_together(source, made, shutter_attributes(source)):
        made.ShutterPresentationValue = 0
        copy_valid(source, made, ("ShutterPresentationValue",))
    made.PresentationLUTShape = "INVERSE" if is_inverted(source) else "IDENTITY"


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


def _set_displayed_area(analysis: Analysis, made: Dataset) -> None:
    rows, columns = analysis.prediction.shape
    area = Dataset()
    area.ReferencedImageSequence = Sequence([reference(analysis.source)])
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [columns, rows]
    area.PresentationSizeMode = "SCALE TO FIT"
    spacing = spacing_of(analysis)
    aspect = analysis.model_input.pixel_aspect if analysis.model_input is not None else 1.0
    if spacing is not None:
        area.PresentationPixelSpacing = [decimal(spacing.row), decimal(spacing.column)]
    else:
        area.PresentationPixelAspectRatio = [round(1000 * aspect), 1000] if aspect != 1 else [1, 1]
    made.DisplayedAreaSelectionSequence = Sequence([area])


def _annotation(analysis: Analysis, statement: Statement, drawn: list[Points]) -> Dataset:
    """Outlines and label of one finding, in pixel coordinates of edges, not centres (PS3.3 C.10.5.1.2)."""
    item = Dataset()
    item.ReferencedImageSequence = Sequence([reference(analysis.source)])
    item.GraphicLayer = _LAYER
    item.TextObjectSequence = Sequence([_text(statement, drawn[0])])
    item.GraphicObjectSequence = Sequence([_graphic(points) for points in drawn])
    return item


def _graphic(points: Points) -> Dataset:
    item = Dataset()
    item.GraphicAnnotationUnits = "PIXEL"
    item.GraphicDimensions = 2
    item.NumberOfGraphicPoints = len(points)
    item.GraphicData = [float(value) for value in points.ravel()]
    item.GraphicType = "POLYLINE"
    item.GraphicFilled = "N"
    return item


def _text(statement: Statement, points: Points) -> Dataset:
    top = points[points[:, 1].argmin()]
    item = Dataset()
    item.AnchorPointAnnotationUnits = "PIXEL"
    item.UnformattedTextValue = f"{statement.label} {statement.finding.probability:.2f} - research use"
    item.AnchorPoint = [float(top[0]), float(top[1])]
    item.AnchorPointVisibility = "Y"
    return item
