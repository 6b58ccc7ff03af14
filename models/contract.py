"""What a model is told and what it answers: the value types that every other room speaks.

Nothing here imports a network library, does I/O or knows where a model came from.

Pixel conventions, used everywhere in Pleura:

* an image is ``float32[rows, columns]`` in ``[0, 1]`` in the sense of MONOCHROME2: air is dark, bone is bright;
* a mask is ``bool[rows, columns]`` on the *source* grid, row 0 at the top as the pixels are stored;
* a box is in source pixels, ``x`` to the right and ``y`` down, edges not centres: the whole image is
  ``(0, 0, columns, rows)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8): value, coding scheme designator and meaning."""

    value: str
    scheme: str
    meaning: str


class ModelKind(StrEnum):
    """What a network answers for one image."""

    GATE = "gate"
    CLASSIFIER = "classifier"
    SEGMENTER = "segmenter"
    DETECTOR = "detector"
    LUNGS = "lungs"


class Activation(StrEnum):
    """Whether a network's scores are probabilities already or logits still."""

    PROBABILITY = "probability"
    LOGIT = "logit"


class Mode(StrEnum):
    """What becomes of a finding: delivered, or stored and compared but never sent."""

    ACTIVE = "active"
    SHADOW = "shadow"


class Zone(StrEnum):
    """A third of a lung's height on a radiograph, from the top."""

    UPPER = "upper"
    MIDDLE = "middle"
    LOWER = "lower"


class Hanging(StrEnum):
    """Which way round a chest looks by its anatomy: the patient's left on the right of the picture is usual."""

    USUAL = "usual"
    MIRRORED = "mirrored"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class LungShare:
    """How much of one lung a finding covers (0 to 1), and in which zones; in none where it is not in this lung."""

    share: float
    zones: tuple[Zone, ...] = ()


@dataclass(frozen=True, slots=True)
class LungInvolvement:
    """Where a finding lies in the lungs: in the one on the left of the picture, and in the one on its right.

    These are sides of the *picture*; the patient's follow from Patient Orientation (:mod:`workers.laterality`), which
    ``hanging`` may contradict.
    """

    picture_left: LungShare
    picture_right: LungShare
    hanging: Hanging


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The tensor a network expects: ``float32[batch, height, width, channels]``.

    A radiograph is letterboxed (aspect ratio kept, centred, padded with ``padding``) to ``height`` x ``width``,
    repeated over ``channels`` and mapped linearly from ``[0, 1]`` to ``value_range``, then ``(v - mean) / std``.
    """

    height: int
    width: int
    channels: Literal[1, 3] = 1
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    padding: float = 0.0
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    equalise: Literal["none", "histogram", "clahe"] = "none"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What stands behind a finding's figures: positives seen in evaluation, and the AUC with its 95 % interval.

    ``sensitivity`` is that at the label's threshold, None where nobody has measured it.
    """

    positives: int
    auc: float
    auc_low: float
    auc_high: float
    sensitivity: float | None = None


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """One finding that a model can report.

    ``threshold`` is the probability from which the finding is reported as present; ``map_threshold`` cuts the
    model's map (values in ``[0, 1]``) into a mask, and so does ``map_relative_threshold``, a share of the map's own
    highest value: the higher of the two counts. ``localised`` says that the model gives a map, mask or box for it.
    ``parent`` names the label of the same model that this one is part of (:mod:`models.hierarchy`), ``site`` the organ
    in which the finding lies wherever it is seen.
    """

    name: str
    code: Code
    threshold: float
    localised: bool = False
    map_threshold: float = 0.5
    mode: Mode = Mode.ACTIVE
    evidence: Evidence | None = None
    parent: str = ""
    site: Code | None = None
    map_relative_threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class GateSpec:
    """When a gate's verdict counts: the least probability that is believed, and how strange an image may be.

    The first label of a gate is the class that is let through. ``distance_threshold`` bounds the network's optional
    ``distance`` output (out-of-distribution score); an image beyond it is unsure, whatever the probabilities say.
    """

    min_probability: float = 0.5
    distance_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class OutputNames:
    """What a network calls its outputs; a foreign file's manifest renames them.

    Shapes: ``probabilities [N, C]``, ``maps [N, h, w, C]`` in the network's own grid, ``distance [N]``; a detector's
    ``boxes [N, D, 4]`` (left, top, right, bottom in network pixels), ``scores [N, D]`` and ``classes [N, D]``, and
    ``maps`` as well if it gives masks, of which counts what lies in its boxes; a retrieval classifier's
    ``neighbours [N, k]`` (rows of its index) and ``neighbour_distances [N, k]``.
    """

    probabilities: str = "probabilities"
    maps: str = "maps"
    distance: str = "distance"
    boxes: str = "boxes"
    scores: str = "scores"
    classes: str = "classes"
    neighbours: str = "neighbours"
    neighbour_distances: str = "neighbour_distances"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model as its manifest defines it; ``digest`` is the SHA-256 of ``file`` in hexadecimal.

    ``device_uid`` identifies this very training (a new UID for each retrained model, PS3.3 C.12.1.5). ``onnx`` is what
    a Keras file was exported to when it was added, for CPUs. ``index`` names the stored cases of a retrieval model.
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
    outputs: OutputNames = OutputNames()
    onnx: Path | None = None
    onnx_digest: str = ""
    index: Path | None = None


@dataclass(frozen=True, slots=True)
class Spacing:
    """Distance between pixel centres in millimetres, and where it holds.

    ``plane`` is ``patient`` for a calibrated PixelSpacing, ``detector`` for ImagerPixelSpacing or a PixelSpacing that
    is not said to be calibrated (PS3.3 10.7.1.1); ``magnification`` is the factor that has been divided out, if any.
    """

    row: float
    column: float
    plane: Literal["patient", "detector"]
    magnification: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One radiograph, ready for any model: pixels as in this module's conventions, and where they came from.

    ``pixel_aspect`` is the height of a pixel divided by its width (PS3.3 C.7.6.3.1.7). ``notes`` say what had to be
    fixed on the way from the stored pixels, in sentences for a person.
    """

    pixels: Pixels
    sop_instance_uid: str
    spacing: Spacing | None = None
    view: str = ""
    patient_orientation: tuple[str, str] | None = None
    pixel_aspect: float = 1.0
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the source grid."""
        rows, columns = self.pixels.shape
        return int(rows), int(columns)


@dataclass(frozen=True, slots=True)
class Box:
    """A detection in source pixels (edges, not centres) with its own probability."""

    x: float
    y: float
    width: float
    height: float
    probability: float


@dataclass(frozen=True, slots=True)
class SimilarCase:
    """A case of a retrieval model's own index that looks alike: how the index calls it, its label, how far it is.

    Never a patient of this site: ``reference`` names a public training image.
    """

    reference: str
    label: str
    distance: float


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What one model says about one label on one image.

    ``probability`` is ``None`` when the model could not tell, and ``reason`` then says why. ``present`` is decided
    once, here, so that triage, SEG, SR and the web page can never disagree. ``implied_by`` is the label of a present
    finding that this one follows from (:mod:`models.hierarchy`). ``parent``, ``site`` and ``sensitivity`` are those of
    its :class:`LabelSpec`. ``lungs`` says where its mask lies in the lungs, where both were found.
    """

    label: str
    code: Code
    model: str
    probability: float | None
    threshold: float
    mode: Mode = Mode.ACTIVE
    reason: str = ""
    mask: Mask | None = None
    boxes: tuple[Box, ...] = ()
    heat_map: Pixels | None = None
    similar: tuple[SimilarCase, ...] = ()
    implied_by: str = ""
    parent: str = ""
    site: Code | None = None
    sensitivity: float | None = None
    lungs: LungInvolvement | None = None

    @property
    def present(self) -> bool:
        """True when the probability reaches the threshold, or something that is part of the finding is present."""
        return self.probability is not None and (self.probability >= self.threshold or bool(self.implied_by))

    @property
    def localised(self) -> bool:
        """True when there is a place to show: a mask with at least one pixel, or a box."""
        return bool(self.boxes) or (self.mask is not None and bool(self.mask.any()))


@dataclass(frozen=True, slots=True)
class NotAnalysed:
    """Why an image is *not analysed*: a code from the pixel gate's closed list and a sentence for a person.

    ``is_chest`` is false when the gate thinks that this is no chest radiograph at all: such an image gets a row in
    the database and no DICOM object.
    """

    code: str
    sentence: str
    is_chest: bool = True


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A model that took part in a prediction, as results and database name it."""

    name: str
    version: str
    title: str
    digest: str
    device_uid: str


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """All that the active pipeline says about one image.

    Either ``not_analysed`` says why the image was not analysed and there are no findings, or every label of every model
    that ran has exactly one finding. ``timings`` are seconds per stage.
    """

    shape: tuple[int, int]
    findings: tuple[Finding, ...] = ()
    not_analysed: NotAnalysed | None = None
    models: tuple[ModelUse, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def reportable(self) -> tuple[Finding, ...]:
        """Findings that may leave the node: those not in shadow."""
        return tuple(finding for finding in self.findings if finding.mode is Mode.ACTIVE)
