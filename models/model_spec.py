"""What a manifest defines of a model: kind, input, labels with their thresholds, and outputs.

The values are checked (pydantic) wherever they are built. Nothing here imports a network library or does I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass as checked

from config.section import TABLE
from models.endpoint import EndpointSpec

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be lower case letters, digits, '.', '_' and '-', 64 at most")
    return value


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, AfterValidator(_text)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8). What a manifest says is checked; what a foreign object says is taken as it is."""

    __pydantic_config__ = TABLE

    value: Annotated[str, Field(max_length=16), AfterValidator(_text)]
    """Code Value."""
    scheme: Annotated[str, Field(max_length=16), AfterValidator(_text)]
    """Coding Scheme Designator, such as SCT, DCM or 99PLEURA."""
    meaning: Annotated[str, Field(max_length=64), AfterValidator(_text)]
    """Code Meaning, as people read it."""


class ModelKind(StrEnum):
    """What a network answers for one image."""

    GATE = "gate"
    CLASSIFIER = "classifier"
    SEGMENTER = "segmenter"
    DETECTOR = "detector"
    LUNGS = "lungs"
    FINDINGS = "findings"


class Activation(StrEnum):
    """What must be done to make probabilities of a network's scores: nothing, or the function of its head."""

    PROBABILITY = "probability"
    LOGIT = "logit"
    SOFTMAX = "softmax"


class Fit(StrEnum):
    """How a radiograph is laid into a network's input."""

    LETTERBOX = "letterbox"
    STRETCH = "stretch"
    CROP = "crop"


class Pooling(StrEnum):
    """How a segmenter's map becomes the probability of an image."""

    MAXIMUM = "maximum"
    TOP = "top"
    AREA = "area"


class Mode(StrEnum):
    """What becomes of a finding: delivered, or stored and compared but never sent."""

    ACTIVE = "active"
    SHADOW = "shadow"


@checked(frozen=True, slots=True, config=TABLE)
class InputSpec:
    """The tensor a network expects: ``float32[batch, height, width, channels]``.

    A radiograph, in ``[0, 1]`` with bright bone, is laid into ``height`` x ``width`` (``fit``), equalised, repeated
    over ``channels``, mapped linearly to ``value_range``, and becomes ``(v - mean) / std``.
    """

    height: Annotated[int, Field(ge=16, le=4096)]
    """Rows of the input."""
    width: Annotated[int, Field(ge=16, le=4096)]
    """Columns of the input."""
    channels: Literal[1, 3] = 1
    """1, or 3 times the same."""
    value_range: tuple[float, float] = (0.0, 1.0)
    """What black and white become, before mean and std: [-1, 1], [0, 255] …"""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted; one number, or one a channel."""
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    """Divided by, after mean; one number, or one a channel."""
    padding: Share = 0.0
    """What fills the rest of a letterbox, from 0 (black) to 1 (white)."""
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    """Order of the axes: channels last (TensorFlow) or first (PyTorch)."""
    equalise: Literal["none", "histogram", "clahe"] = "none"
    """Equalisation of the histogram: none, of the whole, or of tiles with limited contrast."""
    fit: Fit = Fit.LETTERBOX
    """letterbox: the whole image in its true shape, centred, the rest padded. stretch: the whole image, whatever its
    shape. crop: the largest centred part with the shape of the input; nothing is found outside of it."""

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if self.value_range[0] >= self.value_range[1]:
            raise ValueError("value_range must be two rising numbers")
        for key in ("mean", "std"):
            if len(getattr(self, key)) not in (1, self.channels):
                raise ValueError(f"{key} must be a list of one number, or of one for each of the channels")
        return self


@checked(frozen=True, slots=True, config=TABLE)
class Evidence:
    """What stands behind a finding's figures in its evaluation."""

    positives: Annotated[int, Field(ge=0)]
    """Positives seen."""
    auc: Share
    """Area under the ROC curve."""
    auc_low: Share
    """Lower end of its 95 % interval."""
    auc_high: Share
    """Upper end of its 95 % interval."""
    sensitivity: Share | None = None
    """Sensitivity at the label's threshold; reports repeat it."""

    @model_validator(mode="after")
    def _rising(self) -> Evidence:
        if not self.auc_low <= self.auc <= self.auc_high:
            raise ValueError("auc_low, auc and auc_high must rise")
        return self


@checked(frozen=True, slots=True, config=TABLE)
class CalibrationSpec:
    """Platt scaling: `sigmoid(slope * logit(p) + offset)` of what a network says (p)."""

    slope: Annotated[float, Field(gt=0)] = 1.0
    """Factor of its logit."""
    offset: float = 0.0
    """Added to it."""


@checked(frozen=True, slots=True, config=TABLE)
class LabelSpec:
    """One finding that a model can report."""

    name: Name
    """Its name in settings, worklist and database."""
    code: Code
    """What results say. The classes of a gate need none."""
    threshold: Fraction
    """Probability from which the finding is reported as present (a gate's classes: 0.5)."""
    localised: bool = False
    """The model shows a place for it: a map, mask or box. True by default for segmenters and detectors."""
    map_threshold: Fraction = 0.5
    """Where the map is cut into a mask."""
    mode: Mode = Mode.ACTIVE
    """active: sent. shadow: stored and compared, never sent."""
    evidence: Evidence | None = None
    """The figures behind it."""
    parent: str = ""
    """Another label of this model that this one is part of; it is present wherever this one is."""
    site: Code | None = None
    """The organ in which the finding lies wherever it is seen."""
    map_relative_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A share of the map's own highest value that cuts it, too: the higher of the two cuts counts."""
    lesions: bool = False
    """Each connected region of its mask is a lesion of its own, with a segment, a tracking UID and a probability."""
    place_of: str = ""
    """Only of a segmenter: another model, whose finding of the same name gets this place. That model then says
    whether, this one where: one finding is sent, and this label's own is only stored."""
    replaces: str = ""
    """Another model, whose finding of the same name is only stored while this one is sent. Where this model is in
    shadow or does not run, the other one's is sent as ever."""
    calibration: CalibrationSpec | None = None
    """Of a classifier or segmenter: how its probability is scaled before the threshold; a lesion's likewise."""


@checked(frozen=True, slots=True, config=TABLE)
class GateSpec:
    """When a gate's verdict counts. The first label of a gate is the class that is let through."""

    min_probability: Fraction = 0.5
    """The least probability that is believed."""
    distance_threshold: float | None = None
    """Bounds the network's output `distance` (how strange an image is); beyond it an image is unsure."""


@checked(frozen=True, slots=True, config=TABLE)
class PoolingSpec:
    """How the values of a segmenter's map inside the image become the image's probability."""

    method: Pooling = Pooling.MAXIMUM
    """maximum: the highest value. top: the mean of the highest ones, a `share` of the image. area: the value that a
    `share` of the image reaches, so that a finding is present where so large a region reaches its threshold."""
    share: Fraction = 0.001
    """Part of the image that `top` and `area` look at."""


@checked(frozen=True, slots=True, config=TABLE)
class OutputNames:
    """What a network calls its outputs; C is the number of its classes. A network's only output needs no name."""

    probabilities: Text = "probabilities"
    """`[N, C]`, of a classifier or gate."""
    maps: Text = "maps"
    """`[N, h, w, C]` in the network's own grid, of a segmenter; a detector's count inside its boxes."""
    distance: Text = "distance"
    """`[N]`, of a gate."""
    boxes: Text = "boxes"
    """`[N, D, 4]`, of a detector: left, top, right, bottom in pixels of the input."""
    scores: Text = "scores"
    """`[N, D]`, of a detector."""
    classes: Text = "classes"
    """`[N, D]`, of a detector: which class each box is, from 0."""
    neighbours: Text = "neighbours"
    """`[N, k]`, of a classifier by retrieval: rows of its index."""
    neighbour_distances: Text = "neighbour_distances"
    """`[N, k]`, of a classifier by retrieval."""
    columns: tuple[Name, ...] = ()
    """The network's classes in their order, where some are no findings (normal, background) or the labels stand in
    another order; those that are no label are left out. Empty: the labels are the classes."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model as its manifest (``models.manifest``) defines it; ``digest`` is the SHA-256 of ``file``.

    ``device_uid`` identifies this very training (a new UID for each retrained model, PS3.3 C.12.1.5). ``onnx`` is what
    a Keras file was exported to when it was added, for CPUs; ``keras`` the graph (:mod:`models.runtime.keras_graph`) of
    an ONNX ``file``, for GPUs with TensorFlow. ``index`` names the stored cases of a retrieval model.
    A network with an ``endpoint`` runs on another machine: ``file`` is its manifest then, and ``digest`` that of what
    the server says of it.
    """

    name: str
    version: str
    title: str
    kind: ModelKind
    file: Path
    digest: str
    device_uid: str
    input: InputSpec
    activation: Activation
    labels: tuple[LabelSpec, ...]
    card: Path | None = None
    mode: Mode = Mode.ACTIVE
    gate: GateSpec | None = None
    outputs: OutputNames = field(default_factory=OutputNames)
    pooling: PoolingSpec = field(default_factory=PoolingSpec)
    onnx: Path | None = None
    onnx_digest: str = ""
    keras: Path | None = None
    keras_digest: str = ""
    index: Path | None = None
    endpoint: EndpointSpec | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The classes of the network's outputs in their order: the labels, and what is no finding."""
        return self.outputs.columns or tuple(label.name for label in self.labels)
