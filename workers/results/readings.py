"""Values that the readers of result objects return, without DICOM."""

from __future__ import annotations

from dataclasses import dataclass


class NotAResult(ValueError):  # noqa: N818 - says what the file is
    """The data set is not a result of Pleura."""


class BrokenResult(NotAResult):
    """The SOP class is one of a result, and the content is broken."""


@dataclass(frozen=True, slots=True)
class ReadReference:
    """An instance that an object references; a reference to a frame has the tracking UID of its group."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None
    tracking_uid: str = ""


@dataclass(frozen=True, slots=True)
class ReadStatement:
    """One segment, measurement group or annotation, as text and numbers. ``area`` has its unit, or is empty."""

    label: str
    tracking_uid: str = ""
    answers: tuple[tuple[str, str], ...] = ()
    probability: float | None = None
    area: str = ""
    side: str = ""
    status: str = ""
    algorithm: str = ""
    points: int = 0
    comment: str = ""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The content of an object."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    patient_id: str
    series: str
    status: str
    made_by: tuple[str, ...]
    statements: tuple[ReadStatement, ...]
    references: tuple[ReadReference, ...]
    replaces: tuple[str, ...] = ()
