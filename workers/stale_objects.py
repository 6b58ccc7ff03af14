"""Stale results: the scheduler's step that makes rejection notes, and the list of what a person must remove.

An object is stale where its image was rejected or replaced, or a newer revision stands for it
(:mod:`db.stale_objects`). A destination with ``rejection_notes`` gets a note of our own; from the others a person must
remove the object.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from pydicom.dataset import Dataset

from config.destinations import Destination
from config.settings import Settings
from db import stale_objects
from db.database import Database
from db.queries import study_details
from db.records import NOTE, StaleObject
from db.shown_records import DeliveryDetail, InstanceDetail, StudyDetail
from models.radiograph.decode import UnreadablePixels
from workers.completion import analysed_instance, patient_of
from workers.job_outcome import as_file
from workers.results.encoder import Equipment
from workers.results.patient import with_patient
from workers.results.source_image import read_header
from workers.store_files import kept_if_recorded, why_it_waits, write_file

log = logging.getLogger(__name__)


Enqueue = Callable[[Iterable[int]], bool]
"""Enqueues deliveries."""


@dataclass(slots=True)
class RejectionNotes:
    """Makes the notes that are due; ``failed`` remembers the studies of which none can be made in this process."""

    settings: Settings
    database: Database
    equipment: Equipment
    enqueue: Enqueue
    failed: set[int] = field(default_factory=set)

    def step(self, now: datetime) -> None:
        """Make the notes of the next few studies. One that cannot be made keeps no other from being made."""
        names = [each.name for each in self.settings.destinations if each.rejection_notes]
        for study_id in self.database.read(stale_objects.studies_with_stale, names, now):
            if study_id not in self.failed:
                self._take_back(study_id, names, now)

    def _take_back(self, study_id: int, names: Sequence[str], now: datetime) -> None:
        try:
            detail = self.database.read(study_details.study_detail, study_id)
            source = self._source(detail)
            for group in notes_of(self.database.read(stale_objects.stale_objects, study_id, names, now)):
                self._send(detail, source, group, now)
        except (OSError, UnreadablePixels, ValueError) as error:
            if why := why_it_waits(self.settings.store.folder, error):
                log.error("study %d: no rejection note can be made now: %s", study_id, why)
                return
            self.failed.add(study_id)
            log.error("study %d: no rejection note can be made (%s)", study_id, type(error).__name__)

    def _source(self, detail: StudyDetail) -> Dataset:
        instance = analysed_instance(detail)
        if instance is None:
            raise ValueError("no image of the study is left")
        try:
            header = read_header(self.settings.store.folder / instance.path)
        except FileNotFoundError:  # it was kept long enough
            return recorded_header(detail, instance)
        return with_patient(header, patient_of(detail, instance))

    def _send(self, detail: StudyDetail, source: Dataset, group: Sequence[StaleObject], now: datetime) -> None:
        # Pages and terminal read of this module what a person has to remove: they are spared highdicom.
        from workers.results.rejection_note import encode_note

        made = encode_note(
            source,
            group,
            equipment=self.equipment,
            uid_root=self.settings.site.uid_root,
            created_at=detail.last_activity_at.astimezone(self.settings.site.zone),
            series_number_base=self.settings.results.series_number_base,
        )
        result = as_file(NOTE, made)
        write_file(self.settings.store.folder, result.record.path, result.content)
        with kept_if_recorded(self.settings.store.folder, (result.record.path,)):
            sending = self.database.write(stale_objects.record_note, detail.row.study_id, result.record, group, now)
        self.enqueue(sending)
        log.info("study %d: a note takes %d objects back at %s", detail.row.study_id, len(group), group[0].destination)


def recorded_header(detail: StudyDetail, instance: InstanceDetail) -> Dataset:
    """What the database has of the header of an image whose file is no longer here."""
    row, made = detail.row, Dataset()
    made.SOPClassUID, made.SOPInstanceUID = instance.sop_class_uid, instance.sop_instance_uid
    made.SpecificCharacterSet = "ISO_IR 192"
    made.StudyInstanceUID, made.StudyDate, made.StudyTime = row.study_instance_uid, row.study_date, detail.study_time
    made.AccessionNumber, made.StudyDescription = row.accession_number, row.study_description
    made.PatientID, made.IssuerOfPatientID = row.patient_id, detail.issuer_of_patient_id
    made.PatientName, made.PatientBirthDate, made.PatientSex = row.patient_name, row.patient_birth_date, row.patient_sex
    made.ReferringPhysicianName, made.StudyID = "", ""
    return made


def notes_of(stale: Iterable[StaleObject]) -> list[tuple[StaleObject, ...]]:
    """One group for each note: of one destination, with one title."""

    def key(one: StaleObject) -> tuple[str, str]:
        return one.destination, one.code

    return [tuple(group) for _, group in groupby(sorted(stale, key=key), key=key)]


@dataclass(frozen=True, slots=True)
class ToRemove:
    """An object that a person must remove at a destination, and why."""

    delivery: DeliveryDetail
    sop_instance_uid: str


def by_hand(detail: StudyDetail, destinations: Iterable[Destination]) -> tuple[ToRemove, ...]:
    """What no note takes back: stale objects at destinations that take none, or for which none could be made yet."""
    noting = {each.name for each in destinations if each.rejection_notes}
    uids = {result.id: result.record.sop_instance_uid for result in detail.results}
    return tuple(
        ToRemove(each, uids[each.result_id])
        for each in detail.deliveries
        if each.stale_code and each.note_id is None and each.destination not in noting
    )
