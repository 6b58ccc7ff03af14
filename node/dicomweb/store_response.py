"""The answer to STOW-RS: status (PS3.18 table 10.5.3-1) and Store Instances Response (annex I). Pure functions.

There are no warnings: what is stored is stored as it came, without coercion.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from node.dicom.receiving import OUT_OF_RESOURCES
from node.dicomweb.stow import Outcome

_RETRIEVE_URL, _REFERENCED, _FAILED, _OTHER_FAILURES = "00081190", "00081199", "00081198", "0008119A"
_CLASS, _INSTANCE, _REASON = "00081150", "00081155", "00081197"
_COMMENT, _LONGEST_COMMENT = "00000902", 64


def status_of(outcomes: Sequence[Outcome]) -> HTTPStatus:
    """The status of a request whose whole body was read. 503: only room is missing, so it may be sent again later."""
    stored = [outcome for outcome in outcomes if outcome.answer.status == 0]
    if not outcomes:
        return HTTPStatus.BAD_REQUEST
    if stored:
        return HTTPStatus.OK if len(stored) == len(outcomes) else HTTPStatus.ACCEPTED
    if all(outcome.too_long for outcome in outcomes):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if all(outcome.answer.status == OUT_OF_RESOURCES and not outcome.too_long for outcome in outcomes):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.CONFLICT


def store_response(outcomes: Sequence[Outcome], why: str = "") -> dict[str, Any]:
    """The response module in the DICOM JSON model (PS3.18 F.2); ``why`` the request was not read to its end.

    Retrieve URL is empty: the server gives no images back. What has no UIDs is in Other Failures Sequence. A reason in
    words is in Error Comment (0000,0902), as of a C-STORE: the module has a number for it, and dcm4chee answers so.
    """
    stored, failed, other = [], [], []
    for outcome in outcomes:
        if outcome.answer.status == 0:
            stored.append({**_reference(outcome), _RETRIEVE_URL: {"vr": "UR"}})
        elif outcome.sop_instance_uid:
            failed.append({**_reference(outcome), **_reason(outcome)})
        else:
            other.append(_reason(outcome))
    sequences = ((_REFERENCED, stored), (_FAILED, failed), (_OTHER_FAILURES, other))
    found = {tag: {"vr": "SQ", "Value": items} for tag, items in sequences if items}
    return {**_in_words(why), _RETRIEVE_URL: {"vr": "UR"}, **found}


def _reference(outcome: Outcome) -> dict[str, Any]:
    return {
        _CLASS: {"vr": "UI", "Value": [outcome.sop_class_uid]},
        _INSTANCE: {"vr": "UI", "Value": [outcome.sop_instance_uid]},
    }


def _reason(outcome: Outcome) -> dict[str, Any]:
    return {**_in_words(outcome.answer.comment), _REASON: {"vr": "US", "Value": [outcome.answer.status]}}


def _in_words(why: str) -> dict[str, Any]:
    return {_COMMENT: {"vr": "LO", "Value": [why[:_LONGEST_COMMENT]]}} if why else {}
