"""A folder that takes results and their images, de-identified: for research that goes on (docs/deidentified-export.md).

Files are those of ``pleura export``, in the same places and with the same journal, so that both may fill one folder. An
object that is there already is not written again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from config.deidentification import Deidentification
from config.destinations import Destination
from db.patients import PatientIdentifier, PatientRules
from workers.deidentification.folder import ExportError, ExportFolder, open_export
from workers.deidentification.images import NotExportable
from workers.deidentification.profile import Deidentifier
from workers.deidentification.pseudonyms import Subject
from workers.deidentification.report import options_of
from workers.deidentification.study import IMAGE, Original, deidentifier_of, deidentify_object, words_of
from workers.destinations.destination_kind import (
    DAMAGED,
    DestinationKind,
    Outgoing,
    PeerError,
    Receipt,
    StoredObject,
    Verdict,
    unreadable,
)
from workers.results.header import text_of


@dataclass(frozen=True, slots=True)
class Deidentified(DestinationKind):
    """The kind, with a site's options of the profile and its rules of patients."""

    options: Deidentification
    rules: PatientRules
    takes_images = True
    transfers = False
    answer = "takes de-identified results and images"

    def send(self, destination: Destination, calling: str, objects: Sequence[Outgoing]) -> Iterator[Receipt]:
        """Write the images of ``objects``, then these; one whose image may not leave is rejected."""
        del calling
        try:
            deidentifier, export = self._open(destination)
        except (ExportError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            for _ in objects:
                yield Receipt(Verdict.UNREACHABLE, f"the folder cannot be used: {reason}")
            return
        for outgoing in objects:
            yield self._write(outgoing, deidentifier, export)

    def _open(self, destination: Destination) -> tuple[Deidentifier, ExportFolder]:
        assert destination.folder is not None
        deidentifier = deidentifier_of(self.options)
        return deidentifier, open_export(destination.folder, options_of(deidentifier), resume=None)

    def _write(self, outgoing: Outgoing, deidentifier: Deidentifier, export: ExportFolder) -> Receipt:
        result = Original(outgoing.kind, outgoing.sop_instance_uid, outgoing.path)
        images = [Original(IMAGE, image.sop_instance_uid, image.path) for image in outgoing.images]
        try:
            if outgoing.is_damaged:
                return Receipt(Verdict.REJECTED, DAMAGED)
            subject = self._subject(outgoing.path, deidentifier)
            forbidden = words_of(result, deidentifier).union(*(words_of(each, deidentifier) for each in images))
            for original in (*images, result):
                uid = deidentifier.pseudonyms.uid(original.sop_instance_uid)
                if next((export.folder / subject.pseudonym).glob(f"*/*/{uid}.dcm"), None) is None:
                    export.record(deidentify_object(original, subject, deidentifier, forbidden))
        except NotExportable as reason:
            return Receipt(Verdict.REJECTED, f"it stays here: {reason}")
        except FileNotFoundError as error:
            if not outgoing.path.parent.is_dir():
                return unreadable(outgoing, error)
            return Receipt(Verdict.REJECTED, "it stays here: its file, or that of its image, is no more here")
        except OSError as error:
            return Receipt(Verdict.LATER, f"the folder cannot be written: {error.strerror}")
        return Receipt(Verdict.SENT)

    def _subject(self, path: Path, deidentifier: Deidentifier) -> Subject:
        """The patient as the result names them: corrected, where the hospital has corrected them."""
        try:
            header = dcmread(path, stop_before_pixels=True)
        except InvalidDicomError as error:
            raise NotExportable("its file is no DICOM file") from error
        patient = PatientIdentifier(text_of(header, "PatientID", "\\"), text_of(header, "IssuerOfPatientID", "\\"))
        return deidentifier.pseudonyms.subject(patient, str(header.StudyInstanceUID), self.rules)

    def verify(self, destination: Destination, calling: str) -> None:
        """Return if the folder can be written, and an export with these settings may go on in it."""
        del calling
        try:
            _, export = self._open(destination)
        except ExportError as error:
            raise PeerError(str(error)) from error
        except OSError as error:
            raise PeerError(f"{destination.folder}: {error.strerror}") from error
        if not os.access(export.folder, os.W_OK | os.X_OK):
            raise PeerError(f"{export.folder} cannot be written")

    def holds(self, destination: Destination, calling: str, objects: Sequence[StoredObject]) -> Iterator[bool]:
        """Look for the files of ``objects``."""
        del calling
        deidentifier, export = self._open(destination)
        uid = deidentifier.pseudonyms.uid
        for each in objects:
            path = f"{uid(each.study_instance_uid)}/{uid(each.series_instance_uid)}/{uid(each.sop_instance_uid)}.dcm"
            yield next(export.folder.glob(f"*/{path}"), None) is not None
