"""Acknowledgements in original mode (HL7 v2 2.9.2): AA accepted, AE error in the content, AR rejected."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from workers.hl7.encoding import Delimiters
from workers.hl7.message import MessageError, Segment, composed, write_message

_ERR_SINCE = "2.5"
"""From this version on ERR has its code in ERR-3 and its text in ERR-8; before, both were in one field."""


@dataclass(frozen=True, slots=True)
class MessageProblem:
    """Why a message was not accepted: code of table 0357, location as in ERR-2, and a text without patient data."""

    code: str
    location: str
    text: str
    reject: bool


def problem_of(error: MessageError) -> MessageProblem:
    """Make a problem from an error."""
    return MessageProblem(error.code, error.location, str(error), error.reject)


def acknowledge(
    header: Segment | None, control_id: str, now: datetime, problem: MessageProblem | None = None, note: str = ""
) -> bytes:
    """Acknowledge the message with this MSH (None: it had none); it is accepted if there is no problem.

    ``control_id`` is that of the acknowledgement, which has the delimiters and the version of the message, in ASCII.
    """
    delimiters = header.delimiters if header else Delimiters()
    version = _value(header, 12) or _ERR_SINCE

    def field(*components: str) -> str:
        return composed(*components, delimiters=delimiters)

    code = "AA" if problem is None else "AR" if problem.reject else "AE"
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
    text = problem.text if problem else note
    segments = [msh, ("MSA", code, field(_value(header, 10)), field(text[:80]))]
    if problem is not None:
        segments.append(_err(problem, version, delimiters))
    return write_message(segments, delimiters).encode("ascii", "replace")


def _value(header: Segment | None, number: int, component: int = 1) -> str:
    return header.text(number, component) if header else ""


def _err(problem: MessageProblem, version: str, delimiters: Delimiters) -> tuple[str, ...]:
    location = problem.location.split("^") if problem.location else []
    if version >= _ERR_SINCE:
        code = composed(problem.code, problem.text, "HL70357", delimiters=delimiters)
        where = composed(*location, delimiters=delimiters)
        return ("ERR", "", where, code, "E", "", "", "", composed(problem.text, delimiters=delimiters))
    # ERR-1 of 2.3 and 2.4: segment, sequence, field, and the code with its text as subcomponents.
    padded = [*location, "", "", ""][:3]
    code = delimiters.subcomponent.join(
        composed(part, delimiters=delimiters) for part in (problem.code, problem.text, "HL70357")
    )
    return ("ERR", delimiters.component.join([*padded, code]))
