"""Storage Commitment as an SCU (PS3.4 Annex J): the SCP's report, which arrives on an association of its own.

:mod:`workers.verification` sends the request. An archive reports when it has decided, perhaps hours later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom import evt

from models.radiograph.data_set import Reader
from node.dicom.received_documents import LIMITS

_SUCCESS = 0x0000
_PROCESSING_FAILURE = 0x0110
_INVALID_ARGUMENT = 0x0115

_REASONS = {
    # Failure Reason (0008,1197), PS3.3 C.14.1.1.
    0x0110: "processing failure",
    0x0112: "no such object",
    0x0119: "another SOP class",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}

log = logging.getLogger(__name__)

TakeReport = Callable[[str, list[str], dict[str, str]], tuple[int, int]]
"""Records a report (transaction UID, committed SOP Instance UIDs, failure reasons by UID); returns how many deliveries
are verified and how many are missing."""


class CommitmentReports:
    """Answers N-EVENT-REPORT-RQ (PS3.7 10.1.1)."""

    def __init__(self, take: TakeReport) -> None:
        self._take = take

    def on_report(self, event: evt.Event) -> tuple[int, None]:
        """Record the report. The status is 0x0000 only after the commit; otherwise the peer reports again."""
        try:
            transaction_uid, committed, failed = read_report(_information(event))
        except ValueError as error:
            log.warning("a Storage Commitment report cannot be read: %s", error)
            return _INVALID_ARGUMENT, None
        except Exception as error:  # pydicom may raise anything on a malformed value
            log.warning("a Storage Commitment report cannot be read: %s", type(error).__name__)
            return _INVALID_ARGUMENT, None
        try:
            verified, missing = self._take(transaction_uid, committed, failed)
        except Exception:
            log.exception("a Storage Commitment report could not be recorded")
            return _PROCESSING_FAILURE, None
        log.info("Storage Commitment report: %d objects verified, %d missing", verified, missing)
        return _SUCCESS, None


def _information(event: evt.Event) -> Dataset:
    """Event Information (PS3.7 10.1.1.1.8), read under the limits of a document.

    Raises:
        InvalidDataSetError: it cannot be read.
    """
    encoded, syntax = event.request.EventInformation, event.context.transfer_syntax
    return Reader(BytesIO(encoded.getvalue()), str(syntax), LIMITS).read().data_set()


def read_report(report: Dataset) -> tuple[str, list[str], dict[str, str]]:
    """Transaction UID, committed SOP Instance UIDs, and the failure reasons of the others (PS3.4 table J.3-2).

    Raises:
        ValueError: there is no transaction UID, or an item has no SOP Instance UID.
    """
    transaction_uid = str(report.get("TransactionUID") or "")
    if not transaction_uid:
        raise ValueError("it has no Transaction UID")
    committed = [_uid(item) for item in report.get("ReferencedSOPSequence") or ()]
    failed = {_uid(item): _reason(item) for item in report.get("FailedSOPSequence") or ()}
    return transaction_uid, committed, failed


def _uid(item: Dataset) -> str:
    uid = str(item.get("ReferencedSOPInstanceUID") or "")
    if not uid:
        raise ValueError("an item has no Referenced SOP Instance UID")
    return uid


def _reason(item: Dataset) -> str:
    code = item.get("FailureReason")
    if not isinstance(code, int):
        return "no reason given"
    return _REASONS.get(code, f"failure reason 0x{code:04X}")
