"""Query/Retrieve SCP (PS3.4 Annex C, patient and study root) for this node's own results: C-FIND, C-MOVE, C-GET.

Only peers with ``listener.peers[].query`` get these services. C-MOVE sends to the AE titles of destinations of the kind
``dimse`` and never to this node itself. pynetdicom does the sub-operations; what is sent are the files as they are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.presentation import build_context
from sqlalchemy.exc import SQLAlchemyError

from config.destinations import Destination
from config.settings import Settings
from db.audit import AuditEntry, write_entry
from db.audit_events import ASKED, SENT
from db.database import Database
from db.queries.own_results import Level, OwnResult, ResultKeys
from models.radiograph.bounded_source import InvalidDataSetError, Limits
from models.radiograph.data_set import Reader
from node.dicom.own_results import MOST_MATCHES, InvalidKeyError, OwnResults, keys_of
from workers.association import prepare
from workers.clock import Clock
from workers.tls import destination_context

MOST_OBJECTS = 500
"""Objects that one C-MOVE or C-GET may ask for."""

_PENDING, _CANCELLED = 0xFF00, 0xFE00
_OUT_OF_RESOURCES, _MISMATCH = 0xA700, 0xA900
_LIMITS = Limits(inflated_bytes=0, elements=5000, depth=8, value_bytes=64 * 1024, seconds=2.0)
_UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_OF_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")

log = logging.getLogger(__name__)

Answers = Iterator[tuple[Any, Dataset | None]]


class InvalidIdentifierError(ValueError):
    """The identifier of a request cannot be understood; the message holds no value of it."""


@dataclass(frozen=True)
class QueryRetrieve:
    """The SCP; ``results`` are what may be asked for."""

    settings: Settings
    database: Database
    results: OwnResults
    clock: Clock

    def handlers(self) -> list[tuple[Any, Any]]:
        """pynetdicom's events."""
        return [(evt.EVT_C_FIND, self.on_find), (evt.EVT_C_MOVE, self.on_move), (evt.EVT_C_GET, self.on_get)]

    def on_find(self, event: evt.Event) -> Answers:
        """Answer a query; a peer may cancel it."""
        try:
            query, level = _read(event)
            found = self._find(level, keys_of(query))
        except (InvalidIdentifierError, InvalidKeyError) as error:
            yield _status(_MISMATCH, str(error)), None
            return
        except SQLAlchemyError as error:
            log.error("a query cannot be answered: %s", type(error).__name__)
            yield _status(_OUT_OF_RESOURCES, "the database cannot be read"), None
            return
        self._audit(event, ASKED, "C-FIND", {"sop_class": str(event.request.AffectedSOPClassUID)}, len(found))
        if len(found) > MOST_MATCHES:
            yield _status(_OUT_OF_RESOURCES, f"more than {MOST_MATCHES} matches"), None
            return
        for group in found:
            if event.is_cancelled:
                yield _CANCELLED, None
                return
            yield _PENDING, self._match(query, level, group)

    def _find(self, level: str, keys: ResultKeys) -> Sequence[Sequence[OwnResult]]:
        if level != "PATIENT":
            return self.results.find(Level(level), keys, MOST_MATCHES + 1)
        studies = self.results.find(Level.STUDY, keys, MOST_MATCHES + 1)
        by_patient = {(group[0].patient_id, group[0].issuer_of_patient_id): group for group in studies}
        return list(by_patient.values())

    def _match(self, query: Dataset, level: str, group: Sequence[OwnResult]) -> Dataset:
        """What was asked for and is known; the rest of what was asked for is empty."""
        wanted = [element.tag for element in query if element.tag.element]
        own = self.results.describe(Level.STUDY if level == "PATIENT" else Level(level), group, wanted)
        if level == "PATIENT":
            own = Dataset({element.tag: element for element in own if element.keyword in _OF_PATIENT})
        match = Dataset()
        match.SpecificCharacterSet = "ISO_IR 192"
        match.QueryRetrieveLevel = level
        match.RetrieveAETitle = self.settings.listener.ae_title
        for element in query:
            if element.tag in match or not element.tag.element:
                continue
            if element.tag in own:
                match.add(own[element.tag])
            else:
                match.add_new(element.tag, _vr(element), None)
        setattr(match, _UNIQUE[level], getattr(own, _UNIQUE[level]))
        return match

    def on_move(self, event: evt.Event) -> Iterator[Any]:
        """Send results to a configured destination.

        Raises:
            InvalidIdentifierError: before anything is sent, which pynetdicom answers with 0xCxxx.
        """
        destination = self._destination(str(event.move_destination or "").strip())
        if destination is None:
            log.warning("C-MOVE of %s refused: its destination is not configured", _calling(event))
            yield None, None
            return
        found = self._objects(event)
        tls = destination_context(self.settings.tls, destination)
        contexts = [_stored(uid) for uid in dict.fromkeys(one.sop_class_uid for one in found)]
        options = {
            "ae_title": destination.ae_title,
            "contexts": contexts,
            "evt_handlers": [(evt.EVT_CONN_OPEN, prepare, [destination.timeout_seconds])],
            "tls_args": None if tls is None else (tls, destination.host),
        }
        yield destination.host, destination.port, options
        yield len(found)
        yield from self._send(event, found, "C-MOVE", destination.ae_title, destination.host)

    def on_get(self, event: evt.Event) -> Iterator[Any]:
        """Send results on the association of the request; see :meth:`on_move`."""
        found = self._objects(event)
        yield len(found)
        address = str(event.assoc.requestor.address)
        yield from self._send(event, found, "C-GET", _calling(event), address)

    def _destination(self, title: str) -> Destination | None:
        """The destination with this AE title; this node itself is none, so nothing comes back for ever."""
        own = self.settings.listener
        for each in self.settings.destinations:
            ours = each.ae_title == own.ae_title or (each.port in own.ports.values() and each.host == own.host)
            if each.kind == "dimse" and each.ae_title == title and not ours:
                return each
        return None

    def _objects(self, event: evt.Event) -> tuple[OwnResult, ...]:
        """What a retrieval asks for: it must name the patient, study, series or instances of its level."""
        query, level = _read(event)
        keys = keys_of(query)
        patient_id = keys.texts.get("patient_id", "")
        given = {
            "PATIENT": (patient_id,) if not set("*?") & set(patient_id) else (),
            "STUDY": keys.study_uids,
            "SERIES": keys.series_uids,
            "IMAGE": keys.sop_uids,
        }[level]
        if not any(given):
            raise InvalidIdentifierError(f"a retrieval at level {level} needs {_UNIQUE[level]}")
        found = self.results.objects(keys, MOST_OBJECTS + 1)
        if len(found) > MOST_OBJECTS:
            raise InvalidIdentifierError(f"more than {MOST_OBJECTS} objects")
        rules, asked = self.database.rules.patients, keys.texts.get("issuer_of_patient_id", "")
        issuers = {rules.issuer(one.issuer_of_patient_id) for one in found}
        known = (issuers | ({rules.issuer(asked)} if asked else set())) - {""}
        if level == "PATIENT" and (len(issuers) > 1 or len(known) > 1):
            raise InvalidIdentifierError("the patient ID is of several issuers, and perhaps of several patients")
        return found

    def _send(
        self, event: evt.Event, found: Sequence[OwnResult], service: str, peer: str, address: str
    ) -> Iterator[tuple[int, Dataset | None]]:
        given: list[OwnResult] = []
        try:
            for one in found:
                if event.is_cancelled:
                    yield _CANCELLED, None
                    return
                given.append(one)
                yield _PENDING, self._read_file(one)
        finally:
            if given:
                classes = dict(Counter(one.sop_class_uid for one in given))
                data = {"peer": peer, "instances": classes}
                self._audit(event, SENT, f"{service} of {_calling(event)}", data, len(given), address, given[0])

    def _read_file(self, one: OwnResult) -> Dataset:
        try:
            return dcmread(self.results.path(one))
        except OSError as error:
            log.error("the file of result %d cannot be read: %s", one.id, error.strerror)
            missing = Dataset()  # it cannot be sent, so it is in the Failed SOP Instance UID List
            missing.SOPInstanceUID = one.sop_instance_uid
            return missing

    def _audit(
        self,
        event: evt.Event,
        action: str,
        what: str,
        data: dict[str, Any],
        number: int,
        address: str = "",
        first: OwnResult | None = None,
    ) -> None:
        now: datetime = self.clock()
        entry = AuditEntry(
            now,
            _calling(event),
            action,
            "of own results",
            first.study_id if first else None,
            address or str(event.assoc.requestor.address),
            f"{what}: {number}",
            study_instance_uid=first.study_instance_uid if first else "",
            patient_id=first.patient_id if first else "",
            data=data,
        )
        self.database.write(write_entry, entry)


def _read(event: evt.Event) -> tuple[Dataset, str]:
    """The identifier of a request and its level.

    Raises:
        InvalidIdentifierError: it is no data set, or has no level.
    """
    given: BytesIO | None = event.request.Identifier
    if given is None:
        raise InvalidIdentifierError("there is no identifier")
    try:
        reader = Reader(BytesIO(given.getvalue()), str(event.context.transfer_syntax), _LIMITS)
        query = reader.read().data_set()
        level = str(query.get("QueryRetrieveLevel") or "").strip()
    except (InvalidDataSetError, ValueError, TypeError) as error:
        raise InvalidIdentifierError("the identifier is no data set") from error
    if level not in _UNIQUE:
        raise InvalidIdentifierError("Query/Retrieve Level is none of PATIENT, STUDY, SERIES and IMAGE")
    return query, level


def _calling(event: evt.Event) -> str:
    return str(event.assoc.requestor.primitive.calling_ae_title).strip()


def _stored(sop_class_uid: str) -> Any:
    return build_context(sop_class_uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def _vr(element: Any) -> str:
    try:
        return dictionary_VR(element.tag)
    except KeyError:
        return str(element.VR)


def _status(status: int, comment: str) -> Dataset:
    made = Dataset()
    made.Status = status
    made.ErrorComment = comment[:64]
    return made
