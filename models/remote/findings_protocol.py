"""The messages between Pleura and a vendor's program (findings-http, version 1): one radiograph, as JSON.

``docs/findings-protocol.md`` is made from the JSON schema of these models. An unknown key, a value of another type or a
number out of range makes the whole answer an error.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1

Probability = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(min_length=1, max_length=64)]
Point = tuple[float, float]


class _Message(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class FindingCode(_Message):
    """A coded concept, as in DICOM: `{"value": "36118008", "scheme": "SCT"}`."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    """Code Value."""
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    """Coding Scheme Designator."""


class DescribedFinding(_Message):
    """A finding that the program can answer."""

    code: FindingCode
    """Its code."""
    meaning: Word
    """Code Meaning, for people."""


class ModelDescription(_Message):
    """Answer to `GET {url}/model`: what the program is."""

    protocol_version: Literal[1]
    """Version of this protocol."""
    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\s/]+$")]
    """Name of the model; the manifest pins it."""
    version: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s/]+$")]
    """Its version; the manifest pins it."""
    digest: Annotated[str, Field(max_length=128)] = ""
    """SHA-256 of its weights, if the vendor tells it."""
    findings: Annotated[tuple[DescribedFinding, ...], Field(min_length=1, max_length=200)]
    """Every finding that it answers."""
    not_for: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=50)] = ()
    """What it is not intended for, a sentence each: `Not for patients under 18 years.`"""

    def pinned_digest(self) -> str:
        """SHA-256 of all of it; the manifest pins it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class SentImage(_Message):
    """The radiograph, as a person sees it: air dark, bone bright."""

    format: Literal["png16", "dicom"]
    """png16: a grey PNG of 16 bits. dicom: a CR object (Explicit VR Little Endian, MONOCHROME2) of pixels alone."""
    rows: int
    """Its height in pixels."""
    columns: int
    """Its width in pixels."""
    data: str
    """The file in base64."""


class FindingsRequest(_Message):
    """Body of `POST {url}/findings`."""

    protocol_version: Literal[1] = 1
    """Version of this protocol."""
    image: SentImage
    """The radiograph."""
    spacing_mm: tuple[float, float] | None = None
    """Distance of rows and of columns, where the source tells it."""
    view: str = ""
    """PA or AP, where the source tells it."""
    patient_orientation: tuple[str, str] | None = None
    """Where rows and columns run to (Patient Orientation), where the source tells it."""


class FoundBox(_Message):
    """A box in pixels of the image, edges, not centres: the whole image is (0, 0, columns, rows)."""

    x: float
    """Left edge."""
    y: float
    """Upper edge."""
    width: Annotated[float, Field(gt=0)]
    """To the right."""
    height: Annotated[float, Field(gt=0)]
    """Downwards."""
    probability: Probability
    """Of this box."""


class AnsweredFinding(_Message):
    """One finding; any of polygons, mask and boxes say where it is."""

    code: FindingCode
    """Its code."""
    probability: Probability | None
    """From 0 to 1; null where the program could not tell, with a reason."""
    reason: Annotated[str, Field(max_length=200)] = ""
    """Why there is no probability."""
    polygons: Annotated[
        tuple[Annotated[tuple[Point, ...], Field(min_length=3, max_length=10_000)], ...], Field(max_length=200)
    ] = ()
    """Outlines, each a list of [x, y] in pixels of the image, x to the right and y down."""
    mask: str = ""
    """A grey PNG of 8 bits in base64, as large as the image; what is not 0 belongs to the finding."""
    boxes: Annotated[tuple[FoundBox, ...], Field(max_length=200)] = ()
    """Boxes."""


class AnsweringModel(_Message):
    """Who answers; must be what the manifest pins."""

    name: str
    """Name of the model."""
    version: str
    """Its version."""


class FindingsAnswer(_Message):
    """Answer to `POST {url}/findings`: every finding of the manifest once, and no other."""

    protocol_version: Literal[1]
    """Version of this protocol."""
    model: AnsweringModel
    """Who answers."""
    findings: tuple[AnsweredFinding, ...]
    """The findings."""


MESSAGES: tuple[type[BaseModel], ...] = (ModelDescription, FindingsRequest, FindingsAnswer)
"""The three messages of the protocol."""
