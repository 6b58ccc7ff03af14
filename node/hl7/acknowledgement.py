"""Acknowledgements in original mode (HL7 v2 2.9.2): AA accepted, AE an error in the content, AR refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from workers.hl7.encoding import Delimiters
from workers.hl7.message import MessageError, Segment, composed, write_message

_ERR_SINCE = "2.5"
"""From this version on ERR has its code in ERR-3 and its words in ERR-8; before, all was one field."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a message was not accepted: code of table 0357, place as in ERR-2, and words without patient data."""

    code: str
    place: str
    words: str
    reject: bool


def complaint_of(error: MessageError) -> Complaint:
    """The complaint that an error makes."""
    return Complaint(error.code, error.place, str(error), error.reject)


def acknowledge(
    header: Segment | None, control_id: str, now: datetime, complaint: Complaint | None = None, words: str = ""
) -> bytes:
    """Answer the message with this MSH (None: it had none); accepted where there is no complaint.

    ``control_id`` is that of the answer. It is written in the delimiters and the version of the message, in ASCII.
    """
    delimiters = header.delimiters if header else Delimiters()
    version = _value(header, 12) or _ERR_SINCE

    def field(*components: str) -> str:
        return composed(*components, delimiters=delimiters)

    code = "AA" if complaint is None else "AR" if complaint.reject else "AE"
    event = _value(header, 9, 2)
    kind = field("ACK", event, "ACK") if version >= _ERR_SINCE and event else field("ACK", event)
    msh = (
        "MSH",
        *(field(_value(header, number)) for number in (5, 6, 3, 4)),
        now.strftime("%Y%m%d%H%M%S+0000"),
        "",
        kind,
        field(control_id),
        field(_value(header, 11) or "P"),
        field(version),
    )
    text = complaint.words if complaint else words
    segments = [msh, ("MSA", code, field(_value(header, 10)), field(text[:80]))]
    if complaint is not None:
        segments.append(_err(complaint, version, delimiters))
    return write_message(segments, delimiters).encode("ascii", "replace")


def _value(header: Segment | None, number: int, component: int = 1) -> str:
    return header.text(number, component) if header else ""


def _err(complaint: Complaint, version: str, delimiters: Delimiters) -> tuple[str, ...]:
    place = complaint.place.split("^") if complaint.place else []
    if version >= _ERR_SINCE:
        code = composed(complaint.code, complaint.words, "HL70357", delimiters=delimiters)
        where = composed(*place, delimiters=delimiters)
        return ("ERR", "", where, code, "E", "", "", "", composed(complaint.words, delimiters=delimiters))
    # ERR-1 of 2.3 and 2.4: segment, sequence, field, and the code with its words as subcomponents.
    padded = [*place, "", "", ""][:3]
    code = delimiters.subcomponent.join(
        composed(part, delimiters=delimiters) for part in (complaint.code, complaint.words, "HL70357")
    )
    return ("ERR", delimiters.component.join([*padded, code]))
