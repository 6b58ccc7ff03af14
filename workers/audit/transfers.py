"""The audit trail's entries of what this node sends to a destination, and asks one."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from config.destinations import Destination
from db.audit import AuditEntry, write_entry
from db.audit_events import BEGIN_SENDING, QUERIED, SENT
from db.database import Database
from db.records import Delivery
from workers.clock import Clock
from workers.destinations.destination_kind import PeerError, Receipt, StoredObject, Verdict

_MOST_UIDS = 50
_HELD = (Verdict.SENT, Verdict.DUPLICATE)


@dataclass(slots=True)
class Sending:
    """Objects of one study that are sent to a destination, and the outcome of each so far."""

    group: Sequence[Delivery]
    destination: Destination
    calling: str
    taken: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    why: str = ""

    def noting(self, receipts: Iterator[Receipt]) -> Iterator[Receipt]:
        """The same receipts, each noted; closing this generator closes the association."""
        try:
            for delivery, receipt in zip(self.group, receipts, strict=False):
                if receipt.verdict in _HELD:
                    self.taken[delivery.sop_class_uid] += 1
                else:
                    self.refused[delivery.sop_class_uid] += 1
                    self.why = receipt.note
                yield receipt
        finally:
            getattr(receipts, "close", lambda: None)()

    def entry(self, action: str, at: datetime, instances: Counter[str], why: str = "") -> AuditEntry:
        """An entry on ``instances`` by SOP class."""
        first, number = self.group[0], instances.total()
        return AuditEntry(
            at,
            self.destination.calling_ae_title or self.calling,
            action,
            f"to {self.destination.name}",
            first.study_id,
            self.destination.address,
            f"{number} object{'' if number == 1 else 's'}{f' not taken: {why}' if why else ''}",
            bool(why),
            first.study_instance_uid,
            first.patient_id,
            {"peer": self.destination.ae_title or self.destination.name, "instances": dict(instances)},
        )

    def beginning(self, at: datetime) -> AuditEntry:
        """The entry that these objects are about to be sent; where it cannot be written, nothing must be sent."""
        return self.entry(BEGIN_SENDING, at, Counter(delivery.sop_class_uid for delivery in self.group))

    def outcome(self, at: datetime) -> Iterator[AuditEntry]:
        """One entry on what was taken and one on what was not (PS3.15 table A.5.2-1: no mixed outcomes)."""
        if self.taken:
            yield self.entry(SENT, at, self.taken)
        if self.refused:
            yield self.entry(SENT, at, self.refused, self.why or "no reason given")


@contextmanager
def querying(
    destination: Destination, calling: str, objects: Sequence[StoredObject | Delivery], database: Database, clock: Clock
) -> Iterator[None]:
    """Tell of a C-FIND on ``objects`` and whether the destination has answered it."""
    why = ""
    try:
        yield
    except PeerError as error:
        why = str(error)
        raise
    finally:
        title = destination.calling_ae_title or calling
        query = {"sop_class": str(StudyRootQueryRetrieveInformationModelFind), "query": _query(objects)}
        entry = AuditEntry(
            clock(),
            title,
            QUERIED,
            f"to {destination.name}",
            address=destination.address,
            detail=why or f"about {len(objects)} object{'' if len(objects) == 1 else 's'}",
            failed=bool(why),
            data={"peer": destination.ae_title or destination.name, **query},
        )
        database.write(write_entry, entry)


def _query(objects: Sequence[StoredObject | Delivery]) -> str:
    """The query in Implicit VR Little Endian, as base64 (PS3.15 A.5.3.10); of many objects some."""
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    asked.StudyInstanceUID = list(dict.fromkeys(one.study_instance_uid for one in objects))[:_MOST_UIDS]
    written = DicomBytesIO()
    written.is_implicit_VR, written.is_little_endian = True, True
    write_dataset(written, asked)
    return base64.b64encode(written.getvalue()).decode("ascii")
