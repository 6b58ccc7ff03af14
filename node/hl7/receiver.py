"""Processing of one message: parsed, applied in one transaction, and acknowledged after the commit.

As with C-STORE, AA is sent only after the commit. If the database does not answer, the message is answered AR and its
sender sends it again; a repeated message has no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings
from db import orders
from db.database import Database
from db.errors import DatabaseError
from db.orders import MessageResult, OtherPatientError
from db.patients import PlaceholderError
from node.hl7.acknowledgement import MessageProblem, acknowledge, problem_of
from node.hl7.interpretation import interpret
from workers.clock import Clock
from workers.hl7.message import DATA_TYPE, INTERNAL, UNKNOWN_KEY, MessageError, Segment, read_header, read_message
from workers.open_database import triage_study

log = logging.getLogger(__name__)

_RETRY = MessageProblem(INTERNAL, "", "the message could not be stored; send it again", reject=True)
_DEFECT = MessageProblem(INTERNAL, "", "the message could not be processed; see the log of this node", reject=False)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Processes messages. ``new_id`` returns control IDs for acknowledgements, ``count`` counts their codes."""

    settings: Settings
    database: Database
    clock: Clock
    new_id: Callable[[], str]
    count: Callable[[str], None] = lambda _: None

    def answer(self, raw: bytes) -> bytes:
        """Process the message ``raw`` and return its acknowledgement; never raises for any message."""
        now = self.clock()
        header: Segment | None = None
        try:
            header = read_header(raw)
            result, note = self._apply(raw, now)
        except MessageError as error:
            problem = problem_of(error)
        except OtherPatientError as error:
            problem = MessageProblem(UNKNOWN_KEY, "PID^1^3", str(error), reject=False)
        except PlaceholderError as error:
            problem = MessageProblem(DATA_TYPE, "PID^1^3", str(error), reject=False)
        except (SQLAlchemyError, DatabaseError, OSError) as error:
            log.error("a message could not be stored (%s); its sender must send it again", type(error).__name__)
            problem = _RETRY
        except Exception as error:
            # A defect of this node. The error's text may quote the message, so only its type is logged.
            log.error("a message could not be processed (%s)", type(error).__name__)
            problem = _DEFECT
        else:
            self._triage(result, now)
            self.count("AA")
            return acknowledge(header, self.new_id(), now, note="; ".join(filter(None, (_outcome(result), note))))
        self.count("AR" if problem.reject else "AE")
        log.warning("a message was not accepted: %s (%s %s)", problem.text, problem.code, problem.location)
        return acknowledge(header, self.new_id(), now, problem)

    def _apply(self, raw: bytes, now: datetime) -> tuple[MessageResult, str]:
        """Apply a message; returns the result, and a note on fields that could not be decoded."""
        hl7 = self.settings.hl7
        read = read_message(raw, hl7.character_set, hl7.character_sets)
        message = interpret(read, raw, hl7)
        result = self.database.write(orders.receive, message, self.database.rules.patients, now)
        log.info(
            "%s: %s", message.kind, "was received before" if result.repeat else f"studies {list(result.study_ids)}"
        )
        if not read.unreadable:
            return result, ""
        note = f"bytes outside of the character set in {', '.join(dict.fromkeys(read.unreadable))}"
        log.warning("%s: %s", message.kind, note)
        return result, note

    def _triage(self, result: MessageResult, now: datetime) -> None:
        """Repeat the triage of the changed studies. The message is committed, so a failure does not affect it."""
        for study_id in result.study_ids:
            try:
                triage_study(study_id, self.database, self.settings.triage, now)
            except SQLAlchemyError as error:
                log.error("study %d: triage failed (%s); the next change repeats it", study_id, type(error).__name__)


def _outcome(result: MessageResult) -> str:
    if result.repeat:
        return "received before"
    if result.remembered and not result.study_ids:
        return "stored until its study arrives"
    if result.issuer_unknown:
        return "no study changed: site.patient_id_issuers must name the issuer of its patient ID"
    return "" if result.study_ids else "this node has no study of this patient"
