"""Send a test object to a destination: whether its results would arrive, before a patient's do."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import dcmwrite

from config.destinations import Destination
from config.settings import Settings
from workers.destinations.destination_kind import DestinationKind, Outgoing, PeerError, Verdict
from workers.results.encoder import Equipment

_TAKEN = (Verdict.SENT, Verdict.DUPLICATE)


@dataclass(frozen=True, slots=True)
class TrialDelivery:
    """How it went: the destination's answer, and by which UIDs the object can be found there and deleted.

    ``held``: whether it said that it holds the object; None where it was not asked.
    """

    destination: str
    taken: bool
    note: str
    study_instance_uid: str
    sop_instance_uid: str
    held: bool | None = None


@dataclass(frozen=True, slots=True)
class _Sent:
    """See :class:`workers.destinations.destination_kind.StoredObject`."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


def send_trial_object(
    settings: Settings,
    destination: Destination,
    kinds: Mapping[str, DestinationKind],
    equipment: Equipment,
    now: datetime,
) -> TrialDelivery:
    """C-STORE the test object of this day to ``destination``, and ask it by C-FIND where its setting says so.

    Nothing of it is kept here, and no study, delivery or retry comes of it.
    """
    from workers.results.trial_object import trial_object  # highdicom: only who tries a destination needs it

    sender = settings.listener.ae_title
    today = now.astimezone(settings.site.zone)
    made = trial_object(equipment, settings.site.uid_root, sender, destination.name, today)
    uids = (str(made.SOPClassUID), str(made.SOPInstanceUID))
    sent = _Sent(*uids, str(made.SeriesInstanceUID), str(made.StudyInstanceUID))
    kind = kinds[destination.kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test-object.dcm"
        dcmwrite(path, made, enforce_file_format=True)
        (receipt,) = kind.send(destination, sender, [Outgoing(path, *uids)])
    taken, note, held = receipt.verdict in _TAKEN, receipt.note, None
    if taken and destination.verification == "query":
        try:
            (held,) = kind.holds(destination, sender, [sent])
        except PeerError as error:
            note = str(error)
    return TrialDelivery(destination.name, taken, note, sent.study_instance_uid, sent.sop_instance_uid, held)
