"""What becomes of one message: read, applied in one transaction, and only then acknowledged.

Like a C-STORE: AA is a promise, so it is written after the commit. What could not be kept (the database does not
answer) is answered AR, and its sender keeps it and sends it again; the same message again does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings
from db.errors import DatabaseError
from db.orders import MessageResult, OtherPatientError
from db.patients import PlaceholderError
from db.worklist import Worklist
from node.hl7.acknowledgement import Complaint, acknowledge, complaint_of
from node.hl7.interpretation import understand
from workers.clock import Clock
from workers.hl7.message import DATA_TYPE, INTERNAL, UNKNOWN_KEY, MessageError, Segment, read_header, read_message
from workers.open_worklist import triage_study

log = logging.getLogger(__name__)

_AGAIN = Complaint(INTERNAL, "", "the message could not be kept; send it again", reject=True)
_DEFECT = Complaint(INTERNAL, "", "the message could not be worked on; this node's log says more", reject=False)


@dataclass(frozen=True, slots=True)
class Receiver:
    """All that answering needs. ``new_id`` gives control IDs for our answers."""

    settings: Settings
    worklist: Worklist
    clock: Clock
    new_id: Callable[[], str]

    def answer(self, raw: bytes) -> bytes:
        """Work on the message ``raw`` and give its acknowledgement; never raises for what a message is."""
        now = self.clock()
        header: Segment | None = None
        try:
            header = read_header(raw)
            result, note = self._apply(raw, now)
        except MessageError as error:
            complaint = complaint_of(error)
        except OtherPatientError as error:
            complaint = Complaint(UNKNOWN_KEY, "PID^1^3", str(error), reject=False)
        except PlaceholderError as error:
            complaint = Complaint(DATA_TYPE, "PID^1^3", str(error), reject=False)
        except (SQLAlchemyError, DatabaseError, OSError) as error:
            log.error("a message could not be kept (%s); its sender must send it again", type(error).__name__)
            complaint = _AGAIN
        except Exception as error:
            # A defect of ours. Its words may quote the message, so the log gets its kind alone.
            log.error("a message could not be worked on (%s)", type(error).__name__)
            complaint = _DEFECT
        else:
            self._triage(result, now)
            return acknowledge(header, self.new_id(), now, words="; ".join(filter(None, (_words(result), note))))
        log.warning("a message was not accepted: %s (%s %s)", complaint.words, complaint.code, complaint.place)
        return acknowledge(header, self.new_id(), now, complaint)

    def _apply(self, raw: bytes, now: datetime) -> tuple[MessageResult, str]:
        """Apply a message; what it did, and a note on what could not be read of it."""
        rules = self.settings.hl7
        read = read_message(raw, rules.character_set, rules.character_sets)
        message = understand(read, raw, rules)
        result = self.worklist.receive_message(message, now)
        log.info(
            "%s: %s", message.kind, "was received before" if result.repeat else f"studies {list(result.study_ids)}"
        )
        if not read.unreadable:
            return result, ""
        note = f"not of the character set: {', '.join(dict.fromkeys(read.unreadable))}"
        log.warning("%s: %s", message.kind, note)
        return result, note

    def _triage(self, result: MessageResult, now: datetime) -> None:
        """Let triage look at the studies again. What was said is kept by now, so a failure here is none of theirs."""
        for study_id in result.study_ids:
            try:
                triage_study(study_id, self.worklist, self.settings.triage, now)
            except SQLAlchemyError as error:
                log.error("study %d: no new triage (%s); the next change makes one", study_id, type(error).__name__)


def _words(result: MessageResult) -> str:
    if result.repeat:
        return "received before"
    if result.remembered and not result.study_ids:
        return "kept until its study arrives"
    if result.issuer_unknown:
        return "no study changed: site.patient_id_issuers must say who gave its patient ID"
    return "" if result.study_ids else "no study of this patient is here"
