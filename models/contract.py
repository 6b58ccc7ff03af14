"""Input and prediction of a model: the value types that all other rooms share.

Nothing here imports a network library, does I/O or knows where a model came from. What a manifest defines of a model is
in :mod:`models.model_spec`.

Pixel conventions, used everywhere in Pleura:

* an image is ``float32[rows, columns]`` in ``[0, 1]`` in the sense of MONOCHROME2: air is dark, bone is bright;
* a mask is ``bool[rows, columns]`` on the *source* grid, row 0 at the top as the pixels are stored;
* a box is in source pixels, ``x`` to the right and ``y`` down, edges not centres: the whole image is
  ``(0, 0, columns, rows)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from models.model_spec import Code, Mode

if TYPE_CHECKING:
    from models.lung_fields import LungFields

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


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

    These are sides of the *picture*; the patient's follow from Patient Orientation (``workers.laterality``).
    """

    picture_left: LungShare
    picture_right: LungShare

    @property
    def both(self) -> tuple[LungShare, LungShare]:
        """Both lungs, that on the left of the picture first."""
        return self.picture_left, self.picture_right


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


@dataclass(frozen=True, slots=True, eq=False)
class Lesion:
    """One of several places of a finding: its mask in source pixels, what the map says there, where in the lungs."""

    mask: Mask
    probability: float
    lungs: LungInvolvement | None = None


@dataclass(frozen=True, slots=True)
class SimilarCase:
    """A case of a retrieval model's own index that looks alike: how the index calls it, its label, how far it is.

    Never a patient: ``reference`` is the pseudonym of a training image.
    """

    reference: str
    label: str
    distance: float


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What one model says about one label on one image.

    ``probability`` is ``None`` when the model could not tell, and ``reason`` then says why. ``present`` is decided
    once, here, so that triage, SEG, SR and the web page can never disagree. ``implied_by`` is the label of a present
    finding that this one follows from (``models.hierarchy``). ``parent``, ``site`` and ``sensitivity`` are those of
    its ``LabelSpec``. ``lungs`` says where its mask lies in the lungs, where both were found, and
    ``hanging`` which way round the chest looks then, of any finding. ``lesions`` are the regions of the mask where each
    counts for itself, most probable first; ``placed_by`` names the model whose place it is, where it is another one's.
    ``own_probability`` is what the model said before anything that is part of the finding raised it.
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
    hanging: Hanging | None = None
    lesions: tuple[Lesion, ...] = ()
    placed_by: str = ""
    own_probability: float | None = None

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
    that ran has exactly one finding. ``timings`` are seconds per stage. ``lungs_cut`` says that a lung reaches the edge
    of the image, so that part of it may not be shown. ``lung_fields`` are both lungs, where they were looked for and
    found: anatomy, never a finding. ``lungs_by`` names the model that has told them.
    """

    shape: tuple[int, int]
    findings: tuple[Finding, ...] = ()
    not_analysed: NotAnalysed | None = None
    models: tuple[ModelUse, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    lungs_cut: bool = False
    lung_fields: LungFields | None = None
    lungs_by: str = ""

    @property
    def reportable(self) -> tuple[Finding, ...]:
        """Findings that may leave the node: those not in shadow."""
        return tuple(finding for finding in self.findings if finding.mode is Mode.ACTIVE)
