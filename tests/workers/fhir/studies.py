"""Studies as files: a summary with the reports of its images, as a delivery gives them to a destination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from db.records import NOTE, StaleObject
from models.contract import NotAnalysed, Prediction
from tests.workers.results.sources import (
    CREATED_AT,
    EQUIPMENT,
    LUNG_OPACITY,
    MODEL,
    PNEUMOTHORAX,
    analysis,
    encode_all,
    identity,
    source,
    two_masks,
    write,
)
from workers.destinations.destination_kind import Outgoing, SourceFile
from workers.results.rejection_note import encode_note
from workers.results.study_account import (
    ImageAccount,
    Reference,
    StudyAccount,
    SummaryFinding,
    reference_to,
    study_identity,
)
from workers.results.summary import encode_summary

FOUND = (SummaryFinding(PNEUMOTHORAX, 0.875, "pneumothorax"), SummaryFinding(LUNG_OPACITY, 0.625, "lung opacity"))


@dataclass(frozen=True)
class Study:
    """Files of a study: its summary, and the reports that this refers to."""

    summary: Dataset
    report: Dataset
    outgoing: Outgoing


def study(folder: Path, revision: int = 1, findings: Sequence[SummaryFinding] = FOUND, **changes: Any) -> Study:
    """A study with an analysed radiograph, and a lateral view that was not analysed.

    ``changes`` are attributes of the images.
    """
    header = source(**changes)
    made = analysis(header, two_masks(), identity=identity(header, revision=revision))
    report = encode_all(made)["sr"]
    image = reference_to(header)
    lateral = Reference(image.sop_class_uid, f"{image.sop_instance_uid}.2", image.series_instance_uid)
    images = (
        ImageAccount(image, True, findings=tuple(findings), reports=(reference_to(report),)),
        ImageAccount(lateral, False, "This is a lateral view.", code="not-frontal", eligible=False),
    )
    account = StudyAccount("critical", "pneumothorax 0.88", images)
    named = study_identity("2.25", str(header.StudyInstanceUID), account, "cd" * 32, revision)
    later = CREATED_AT + timedelta(minutes=revision)
    summary = encode_summary(header, account, identity=named, equipment=EQUIPMENT, models=(MODEL,), created_at=later)
    return Study(summary, report, outgoing(folder, summary, "summary", [report]))


def not_analysed_report(folder: Path) -> Outgoing:
    """The report that stands for the summary of a study of which nothing was analysed."""
    header = source()
    child = Prediction(shape=(4, 4), not_analysed=NotAnalysed("child", "The patient is younger than 18 years."))
    return outgoing(folder, encode_all(analysis(header, prediction=child))["sr"], "sr")


def note(folder: Path, rejected: Dataset) -> Outgoing:
    """A rejection note about one object."""
    uids = (str(rejected.SOPClassUID), str(rejected.SOPInstanceUID), str(rejected.SeriesInstanceUID))
    stale = [StaleObject(1, "his", "summary", *uids, "113001", "The image was rejected.")]
    made = encode_note(source(), stale, equipment=EQUIPMENT, uid_root="2.25", created_at=CREATED_AT)
    return outgoing(folder, made, NOTE)


def outgoing(folder: Path, made: Dataset, kind: str, reports: Sequence[Dataset] = ()) -> Outgoing:
    """An object as a delivery gives it to a destination."""
    files = tuple(
        SourceFile(write(each, folder / f"{each.SOPInstanceUID}.dcm"), str(each.SOPInstanceUID)) for each in reports
    )
    path = write(made, folder / f"{made.SOPInstanceUID}.dcm")
    return Outgoing(path, str(made.SOPClassUID), str(made.SOPInstanceUID), kind, reports=files)
