"""A DICOMweb server (PS3.18): STOW-RS for results, QIDO-RS for what it holds.

The files are sent as they are, one request an object, so that each has an answer of its own. `dicomweb-client` is not
used: it writes data sets anew, takes an answer whose media type has a parameter for an empty one, and logs the headers,
which hold the credentials. The tests compare with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from pydicom.dataset import Dataset

from config.destinations import Destination
from config.tls import Tls
from workers.association import is_stored, stored_with
from workers.destinations.destination_kind import (
    DAMAGED,
    DestinationKind,
    NoAnswerError,
    Outgoing,
    PeerError,
    PeerStudy,
    PeerUnreachableError,
    Receipt,
    StoredObject,
    Verdict,
    unreadable,
)
from workers.destinations.dimse import classify_status
from workers.destinations.web_server import Answer, WebServer, credentials, web_server

_JSON = "application/dicom+json"
_SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _PATIENT_ID = "00080018", "0020000D", "00100020"


@dataclass(frozen=True, slots=True)
class DicomWeb(DestinationKind):
    """The kind; ``tls`` are the files of destinations that are called with them."""

    tls: Tls
    answer = "answers a search (QIDO-RS)"

    def send(self, destination: Destination, calling: str, objects: Sequence[Outgoing]) -> Iterator[Receipt]:
        """STOW-RS (PS3.18 10.5), one object a request."""
        del calling
        try:
            with self._server(destination) as server:
                for outgoing in objects:
                    yield server.store(outgoing)
        except PeerError as error:
            # A file of [tls] cannot be used, so nothing was sent yet.
            for _ in objects:
                yield Receipt(Verdict.UNREACHABLE, str(error))

    def verify(self, destination: Destination, calling: str) -> None:
        """Search for one study: the server answers, and takes our credentials."""
        del calling
        with self._server(destination) as server:
            server.search("studies", limit="1")

    def find_study(self, destination: Destination, calling: str, study_instance_uid: str) -> PeerStudy | None:
        """QIDO-RS for a study (PS3.18 10.6)."""
        del calling
        with self._server(destination) as server:
            found = server.search("studies", StudyInstanceUID=study_instance_uid, includefield=_PATIENT_ID)
        matches = [each for each in found if _value(each, _STUDY_INSTANCE_UID) == study_instance_uid]
        return PeerStudy(_value(matches[-1], _PATIENT_ID)) if matches else None

    def holds(self, destination: Destination, calling: str, objects: Sequence[StoredObject]) -> Iterator[bool]:
        """QIDO-RS for instances, one request an object."""
        del calling
        with self._server(destination) as server:
            for each in objects:
                path = f"studies/{each.study_instance_uid}/series/{each.series_instance_uid}/instances"
                found = server.search(path, SOPInstanceUID=each.sop_instance_uid)
                yield any(_value(one, _SOP_INSTANCE_UID) == each.sop_instance_uid for one in found)

    @contextmanager
    def _server(self, destination: Destination) -> Iterator[_Server]:
        headers = {"Accept": _JSON, **credentials(destination)}
        with web_server(destination.url, destination, self.tls, **headers) as server:
            yield _Server(server)


class _Server:
    """STOW-RS and QIDO-RS on one connection."""

    def __init__(self, server: WebServer) -> None:
        self._server = server

    def store(self, outgoing: Outgoing) -> Receipt:
        """Store one file."""
        try:
            content = outgoing.path.read_bytes()
            if outgoing.is_damaged:
                return Receipt(Verdict.REJECTED, DAMAGED)
        except OSError as error:
            return unreadable(outgoing, error)
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
        body = head + content + f"\r\n--{boundary}--\r\n".encode("ascii")
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        try:
            answer = self._server.request("POST", "/studies", body, Content_Type=kind)
        except PeerError as error:
            return Receipt(Verdict.UNREACHABLE, str(error), isinstance(error, NoAnswerError))
        return _receipt(answer, outgoing.sop_instance_uid)

    def search(self, path: str, **query: str) -> list[Any]:
        """Search by QIDO-RS; the matches in the DICOM JSON model.

        Raises:
            PeerError: no connection, or no success.
        """
        answer = self._server.request("GET", f"/{path}?{urlencode(query, quote_via=quote)}")
        if answer.status == 204:
            return []
        if answer.status != 200:
            # 404: there is nothing of that study, some servers say.
            away = answer.verdict in (Verdict.UNREACHABLE, Verdict.LATER) and answer.status != 404
            raise (PeerUnreachableError if away else PeerError)(answer.problem)
        found = answer.json
        if not isinstance(found, list):
            # Something in front of it answers, as long as it is away or wants a log-in.
            raise PeerUnreachableError(f"the server answers a search with something else than {_JSON}")
        return found


def _receipt(answer: Answer, sop_instance_uid: str) -> Receipt:
    """The receipt of one object in an answer (PS3.18 10.5.3 and table I.2-1)."""
    if answer.verdict is not None:
        # A proxy may say it in the place of a server that has stored the object.
        return Receipt(answer.verdict, answer.problem, may_have_arrived=answer.status >= 500)
    if answer.status not in (200, 202, 409):
        return Receipt(Verdict.REJECTED, answer.problem)
    response = answer.json
    response = response[0] if isinstance(response, list) and response else response
    stored = _item(response, "00081199", sop_instance_uid)  # Referenced SOP Sequence
    failed = _item(response, "00081198", sop_instance_uid)  # Failed SOP Sequence
    if stored is not None and failed is None:
        warning = _number(stored, "00081196")  # Warning Reason
        return Receipt(Verdict.SENT, stored_with(warning) if warning is not None else "")
    if failed is not None and stored is None:
        return classify_status(_failure(_number(failed, "00081197")))  # Failure Reason
    # A 200 counts for nothing by itself: the log-in page of a proxy has it, too.
    note = f"the server does not say what became of the object (status {answer.status})"
    return Receipt(Verdict.RETRY if answer.status == 409 else Verdict.UNCLEAR, note, may_have_arrived=True)


def _failure(reason: int | None) -> Dataset:
    """A failure with this reason, the general one (0x0110) where it is none."""
    status = Dataset()
    status.Status = 0x0110 if reason is None or is_stored(reason) else reason
    return status


def _item(response: Any, sequence: str, sop_instance_uid: str) -> Any:
    """The item of a sequence about one instance."""
    try:
        items = list(response[sequence]["Value"])
    except (KeyError, TypeError, IndexError):
        items = []
    return next((each for each in items if _value(each, "00081155") == sop_instance_uid), None)


def _value(found: Any, tag: str) -> str:
    """The first value of an attribute in the DICOM JSON model (PS3.18 F.2) as text; empty if there is none."""
    try:
        return str(found[tag]["Value"][0])
    except (KeyError, IndexError, TypeError):
        return ""


def _number(found: Any, tag: str) -> int | None:
    """As :func:`_value`, as a number of 16 bits; None where it is none."""
    text = _value(found, tag)
    number = int(text) if text.isdecimal() and len(text) < 6 else -1
    return number if 0 <= number <= 0xFFFF else None
