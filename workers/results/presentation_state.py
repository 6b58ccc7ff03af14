"""Grayscale Softcopy Presentation State (PS3.3 A.33.1): outline and label drawn by the viewer, off by default.

Some viewers apply the newest presentation state unasked, so it carries over how the source itself wants to be shown:
modality transformation, window, shutter and polarity.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from workers.results.contract import Analysis
from workers.results.header import RESEARCH_USE, copied, finish, is_empty, new_object, reference
from workers.results.outline import Points
from workers.results.secondary_capture import shown_outlines
from workers.results.segmentation import body_part, decimal
from workers.results.statements import Statement, spacing_of, statements

KIND = "gsps"
_LAYER = "PLEURA"
_RESCALE = ("RescaleIntercept", "RescaleSlope", "RescaleType")
_WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
_SHUTTER = (
    "ShutterShape",
    "ShutterLeftVerticalEdge",
    "ShutterRightVerticalEdge",
    "ShutterUpperHorizontalEdge",
    "ShutterLowerHorizontalEdge",
    "CenterOfCircularShutter",
    "RadiusOfCircularShutter",
    "VerticesOfThePolygonalShutter",
    "ShutterPresentationValue",
)


def encode(analysis: Analysis) -> Dataset | None:
    """Make the presentation state, or None where no present finding has a place."""
    drawn = [(item, shown_outlines(item)) for item in statements(analysis)]
    drawn = [(item, points) for item, points in drawn if points]
    if not drawn:
        return None
    made = new_object(analysis, KIND, GrayscaleSoftcopyPresentationStateStorage, "PR")
    made.BodyPartExamined = body_part(analysis.source)
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


def _carry(source: Dataset, made: Dataset, keywords: tuple[str, ...]) -> None:
    for keyword in keywords:
        kept = copied(source, keyword)
        if kept is not None and not is_empty(kept):
            made.add(kept)


def _set_grey(source: Dataset, made: Dataset) -> None:
    """Carry over the grey scale pipeline of the source (PS3.4 N.2).

    MONOCHROME1 is told by an inverse presentation LUT shape: a presentation state overrides the image's own.
    """
    if source.get("ModalityLUTSequence"):
        _carry(source, made, ("ModalityLUTSequence",))
    elif source.get("RescaleSlope") is not None and source.get("RescaleIntercept") is not None:
        _carry(source, made, _RESCALE)
        if "RescaleType" not in made:
            made.RescaleType = "US"
    voi = Dataset()
    if source.get("VOILUTSequence"):
        _carry(source, voi, ("VOILUTSequence",))
    elif source.get("WindowWidth") is not None and source.get("WindowCenter") is not None:
        _carry(source, voi, _WINDOW)
    if len(voi):
        voi.ReferencedImageSequence = Sequence([reference(source)])
        made.SoftcopyVOILUTSequence = Sequence([voi])
    _carry(source, made, _SHUTTER if source.get("ShutterShape") else ())
    if source.get("ShutterShape") and "ShutterPresentationValue" not in made:
        made.ShutterPresentationValue = 0
    inverse = source.get("PhotometricInterpretation") == "MONOCHROME1"
    made.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"


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
    """Outlines and label of one finding, in pixels with edges, not centres (PS3.3 C.10.5.1.2)."""
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
