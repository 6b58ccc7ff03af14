"""Query/Retrieve SCU (PS3.4 Annex C, study root): what an archive holds (C-FIND), and a request to send it (C-MOVE)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

from pydicom.dataset import Dataset
from pynetdicom import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from config.destinations import Destination
from db.backfill import LONGEST_PULL
from workers.association import next_message_id
from workers.clock import Elapsed
from workers.destinations.destination_kind import PeerError, PeerUnreachableError
from workers.destinations.dimse import TRANSFER_SYNTAXES, Dimse, unexpected_status
from workers.results.header import text_of

_FIND = StudyRootQueryRetrieveInformationModelFind
_MOVE = StudyRootQueryRetrieveInformationModelMove
MOST_MATCHES = 10_000
"""Matches of one query: no day of a hospital and no series of radiographs has more."""

_PENDING = (0xFF00, 0xFF01)
_SUCCESS = 0x0000
_WARNING = 0xB000  # sub-operations complete, one or more failures (PS3.4 C.4.2.1.5)
_MOVE_DESTINATION_UNKNOWN = 0xA801


@dataclass(frozen=True, slots=True)
class ArchiveSeries:
    """A series as the archive lists it. ``images`` is None where the archive does not say how many there are."""

    series_instance_uid: str
    modality: str
    images: int | None


@dataclass(frozen=True, slots=True)
class ArchiveStudy:
    """A study as the archive lists it; empty where it does not say."""

    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    study_instance_uid: str
    study_time: str
    study_description: str
    study_date: str


_STUDY_KEYS = (
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyTime",
    "StudyDescription",
)


class Archive:
    """An open association with an archive, for queries and retrievals."""

    def __init__(self, association: Association, move_to: str, elapsed: Elapsed = time.monotonic) -> None:
        """Ask on ``association``; what is pulled is sent to the AE title ``move_to``."""
        self._association = association
        self._move_to = move_to
        self._elapsed = elapsed

    def study_uids(self, day: date, modality: str) -> list[str]:
        """Study Instance UIDs of the studies of one day that hold ``modality``.

        An archive may ignore Modalities in Study, which is optional (PS3.4 table C.6-5): :meth:`series` decides.
        """
        query = _query("STUDY", StudyDate=f"{day:%Y%m%d}", ModalitiesInStudy=modality, StudyInstanceUID="")
        return list(dict.fromkeys(uid for found in self._find(query) if (uid := text_of(found, "StudyInstanceUID"))))

    def studies_of(self, patient_id: str, first: date, last: date, modality: str) -> list[ArchiveStudy]:
        """The studies of a patient ID from ``first`` to ``last``, with whom the archive says that they are of.

        As for :meth:`study_uids`, an archive may give studies without ``modality``; it may also take a patient ID for a
        pattern, or know it from several issuers: who is meant is for the caller to decide.
        """
        query = _query("STUDY", PatientID=patient_id, StudyDate=f"{first:%Y%m%d}-{last:%Y%m%d}")
        query.ModalitiesInStudy = modality
        for keyword in _STUDY_KEYS:
            setattr(query, keyword, "")
        return [
            ArchiveStudy(*(text_of(found, keyword).strip() for keyword in ("PatientID", *_STUDY_KEYS, "StudyDate")))
            for found in self._find(query)
        ]

    def series(self, study_instance_uid: str) -> list[ArchiveSeries]:
        """The series of a study."""
        query = _query(
            "SERIES",
            StudyInstanceUID=study_instance_uid,
            SeriesInstanceUID="",
            Modality="",
            NumberOfSeriesRelatedInstances=None,
        )
        return [
            ArchiveSeries(uid, text_of(found, "Modality"), _number(found, "NumberOfSeriesRelatedInstances"))
            for found in self._find(query)
            if (uid := text_of(found, "SeriesInstanceUID"))
        ]

    def image_uids(self, study_instance_uid: str, series_instance_uid: str) -> frozenset[str]:
        """SOP Instance UIDs of a series."""
        query = _query(
            "IMAGE", StudyInstanceUID=study_instance_uid, SeriesInstanceUID=series_instance_uid, SOPInstanceUID=""
        )
        return frozenset(uid for found in self._find(query) if (uid := text_of(found, "SOPInstanceUID")))

    def pull(self, study_instance_uid: str, series_instance_uid: str) -> None:
        """Let the archive send a series to us; returns when it has.

        Raises:
            PeerError: the archive refuses, or not everything was sent.
        """
        query = _query("SERIES", StudyInstanceUID=study_instance_uid, SeriesInstanceUID=series_instance_uid)
        self._check_open()
        final, until = Dataset(), self._elapsed() + LONGEST_PULL.total_seconds()
        for status, _ in self._association.send_c_move(query, self._move_to, _MOVE, next_message_id()):
            final = status
            if self._elapsed() > until:
                raise self._given_up(
                    f"it has been sending one series for {LONGEST_PULL.total_seconds() / 60:.0f} minutes"
                )
        code = final.get("Status")
        if code == _MOVE_DESTINATION_UNKNOWN:
            raise PeerError(
                f"it does not know the move destination '{self._move_to}': enter our AE title, address and port there"
            )
        if code == _WARNING:
            failed = _number(final, "NumberOfFailedSuboperations")
            raise PeerError(f"it could not send {'some' if failed is None else failed} of the images")
        if code != _SUCCESS:
            raise unexpected_status("C-MOVE", final)

    def _given_up(self, why: str) -> PeerError:
        """Leave a peer whose responses have no end: each of them comes within the time limit."""
        self._association.abort()
        return PeerError(why)

    def _check_open(self) -> None:
        if not self._association.is_established:
            raise PeerUnreachableError("it has closed the association")

    def _find(self, query: Dataset) -> Iterator[Dataset]:
        self._check_open()
        responses = self._association.send_c_find(query, _FIND, next_message_id())
        for number, (status, identifier) in enumerate(responses):
            if number > MOST_MATCHES:
                raise self._given_up(f"it answers a query with more than {MOST_MATCHES} matches")
            code = status.get("Status")
            if code in _PENDING and identifier is not None:
                yield identifier
            elif code != _SUCCESS:
                raise unexpected_status("C-FIND", status)


@contextmanager
def open_archive(
    peers: Dimse, destination: Destination, calling: str, move_to: str, seconds: float
) -> Iterator[Archive]:
    """Open an association for queries and retrievals; each wait for the archive ends after ``seconds``.

    Raises:
        PeerError: the archive cannot be reached, or lacks C-FIND or C-MOVE.
    """
    contexts = [build_context(uid, TRANSFER_SYNTAXES) for uid in (_FIND, _MOVE)]
    waiting = destination.model_copy(update={"timeout_seconds": seconds})
    with peers.association(waiting, calling, contexts) as association:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        missing = [name for uid, name in ((_FIND, "C-FIND"), (_MOVE, "C-MOVE")) if uid not in accepted]
        if missing:
            raise PeerError(f"it does not support {' and '.join(missing)} (study root)")
        yield Archive(association, move_to)


def _query(level: str, **keys: str | None) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _number(dataset: Dataset, keyword: str) -> int | None:
    """An integer that a peer has sent; None where it is none."""
    try:
        return int(dataset[keyword].value)
    except (KeyError, TypeError, ValueError):
        return None
