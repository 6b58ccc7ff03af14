"""A DICOM peer reached by DIMSE, as an SCU: C-STORE (PS3.4 Annex B), C-ECHO (A), C-FIND (C), Storage Commitment (J)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import Association, _config
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from config.destinations import Destination
from config.tls import Tls
from workers.association import busy, is_stored, next_message_id, open_association, status_text, stored_with
from workers.destinations.destination_kind import (
    DAMAGED,
    DestinationKind,
    NotSupportedError,
    Outgoing,
    PeerError,
    PeerStudy,
    PeerUnreachableError,
    Receipt,
    StoredObject,
    Verdict,
    unreadable,
)
from workers.results.header import text_of
from workers.tls import TlsError, destination_context

# Results are written in Explicit VR Little Endian; a peer that accepts only the default transfer syntax (PS3.5 10.1)
# gets them in that one.
TRANSFER_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_LONGEST_CONNECT_SECONDS = 10.0
_QUERY = StudyRootQueryRetrieveInformationModelFind
_QUERIES = "queries (C-FIND)"
_COMMITMENTS = "Storage Commitment"
_DUPLICATE = 0x0111  # duplicate SOP instance, PS3.7 C.5.7
_RESOURCE_LIMITATION = 0x0213  # PS3.7 C.5.20
_PROCESSING_FAILURE, _DUPLICATE_INVOCATION = 0x0110, 0x0210  # PS3.7 C.5
_REQUEST_COMMITMENT = 1  # Action Type ID, PS3.4 table J.3-1

_REJECTIONS = {
    # Source and diagnostic of an A-ASSOCIATE-RJ, PS3.8 table 9-21.
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (3, 1): "it is congested",
    (3, 2): "it has reached its limit of associations",
}


class Dimse(DestinationKind):
    """C-STORE to a peer: one association for a group of objects, in the order given. ``tls`` is for those with TLS.

    With ``keep`` the association stays open for the next group, until :meth:`hang_up` or until something else is asked
    of a peer: it may take one association at a time. Not to be shared by threads then.
    """

    answer = "answers C-ECHO"

    def __init__(self, tls: Tls | None = None, *, keep: bool = False) -> None:
        self._tls = tls or Tls()
        self._keep = keep
        self._kept: _Kept | None = None
        # pynetdicom would decode a file and encode it again.
        _config.STORE_SEND_CHUNKED_DATASET = True

    def send(self, destination: Destination, calling: str, objects: Sequence[Outgoing]) -> Iterator[Receipt]:
        """Send ``objects`` on one association; see :class:`~workers.destinations.destination_kind.DestinationKind`."""
        classes = frozenset(outgoing.sop_class_uid for outgoing in objects)
        try:
            with self._storing(destination, calling, classes) as association:
                usable = True
                for outgoing in objects:
                    receipt, usable = _store(association, outgoing, destination.timeout_seconds) if usable else _LOST
                    if not usable:
                        self.hang_up()
                    yield receipt
        except PeerError as error:
            # The association could not be opened, so no object has a receipt yet.
            for _ in objects:
                yield Receipt(Verdict.UNREACHABLE, str(error))

    def hang_up(self) -> None:
        """Release the association that is kept, if one is."""
        kept, self._kept = self._kept, None
        if kept is not None and kept.association.is_established:
            kept.association.release()

    @contextmanager
    def _storing(self, destination: Destination, calling: str, classes: frozenset[str]) -> Iterator[Association]:
        """An association for C-STORE of these SOP classes; see :meth:`association`."""
        if not self._keep:
            with self.association(destination, calling, _storage_contexts(classes)) as association:
                yield association
            return
        kept = self._kept
        if kept is None or not kept.serves(destination, calling, classes):
            # What this peer was sent before, it will be sent again: a summary follows the results of an image.
            known = kept.classes if kept is not None and kept.destination == destination else frozenset()
            self.hang_up()
            classes |= known
            opened = self._open(destination, calling, _storage_contexts(classes))
            kept = self._kept = _Kept(destination, calling, classes, opened)
        yield kept.association

    def verify(self, destination: Destination, calling: str) -> None:
        """C-ECHO; see :class:`~workers.destinations.destination_kind.DestinationKind`."""
        with self.association(destination, calling, [build_context(Verification)]) as association:
            if not association.accepted_contexts:
                raise PeerError("it does not support verification (C-ECHO)")
            status = association.send_c_echo()
            if status.get("Status") != 0x0000:
                raise unexpected_status("C-ECHO", status)

    def find_study(self, destination: Destination, calling: str, study_instance_uid: str) -> PeerStudy | None:
        """C-FIND at study level; see :class:`~workers.destinations.destination_kind.DestinationKind`."""
        query = Dataset()
        query.QueryRetrieveLevel = "STUDY"
        query.StudyInstanceUID = study_instance_uid
        query.PatientID = ""
        with self.association(destination, calling, [_context(_QUERY)]) as association:
            _require(association, _QUERIES)
            found = _match(association, query, "StudyInstanceUID")
        return None if found is None else PeerStudy(patient_id=text_of(found, "PatientID", "\\"))

    def holds(self, destination: Destination, calling: str, objects: Sequence[StoredObject]) -> Iterator[bool]:
        """C-FIND at image level; see :class:`~workers.destinations.destination_kind.DestinationKind`."""
        with self.association(destination, calling, [_context(_QUERY)]) as association:
            _require(association, _QUERIES)
            for stored in objects:
                query = Dataset()
                query.QueryRetrieveLevel = "IMAGE"
                query.StudyInstanceUID = stored.study_instance_uid
                query.SeriesInstanceUID = stored.series_instance_uid
                query.SOPInstanceUID = stored.sop_instance_uid
                yield _match(association, query, "SOPInstanceUID") is not None

    def request_commitment(
        self, destination: Destination, calling: str, transaction_uid: str, objects: Sequence[StoredObject]
    ) -> None:
        """N-ACTION (PS3.4 J.3.2); see :class:`~workers.destinations.destination_kind.DestinationKind`."""
        request = Dataset()
        request.TransactionUID = transaction_uid
        request.ReferencedSOPSequence = [_reference(stored) for stored in objects]
        with self.association(destination, calling, [_context(StorageCommitmentPushModel)]) as association:
            _require(association, _COMMITMENTS)
            status, _ = association.send_n_action(
                request, _REQUEST_COMMITMENT, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            if status.get("Status") != 0x0000:
                raise unexpected_status("N-ACTION", status)

    def check_verification(self, destination: Destination, calling: str) -> None:
        """Negotiate an association only; see :class:`~workers.destinations.destination_kind.DestinationKind`."""
        needs = {"query": (_QUERY, _QUERIES), "commitment": (StorageCommitmentPushModel, _COMMITMENTS)}
        if destination.verification in needs:
            abstract_syntax, name = needs[destination.verification]
            with self.association(destination, calling, [_context(abstract_syntax)]) as association:
                _require(association, name)

    @contextmanager
    def association(
        self, destination: Destination, calling: str, contexts: list[PresentationContext]
    ) -> Iterator[Association]:
        """Open an association, and release it at the end.

        It is also returned if the peer accepted the association but none of its ``contexts``; the caller checks that.

        Raises:
            PeerUnreachableError: no connection, or the association was rejected or aborted.
        """
        self.hang_up()
        association = self._open(destination, calling, contexts)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def _open(self, destination: Destination, calling: str, contexts: list[PresentationContext]) -> Association:
        try:
            association = open_association(
                (destination.host, destination.port),
                called=destination.ae_title,
                calling=destination.calling_ae_title or calling,
                contexts=contexts,
                seconds=destination.timeout_seconds,
                connect_seconds=min(destination.timeout_seconds, _LONGEST_CONNECT_SECONDS),
                tls=destination_context(self._tls, destination),
            )
        except OSError as error:
            raise PeerUnreachableError(f"the host name cannot be resolved ({error})") from error
        except TlsError as error:
            raise PeerUnreachableError(str(error)) from error
        none_accepted = bool(association.rejected_contexts) and not association.accepted_contexts
        if not association.is_established and not none_accepted:
            raise PeerUnreachableError(_why(association))
        return association


@dataclass(frozen=True, slots=True)
class _Kept:
    """An association that stays open, whose it is, and the SOP classes that were proposed."""

    destination: Destination
    calling: str
    classes: frozenset[str]
    association: Association

    def serves(self, destination: Destination, calling: str, classes: frozenset[str]) -> bool:
        same = (self.destination, self.calling) == (destination, calling)
        return same and classes <= self.classes and bool(self.association.is_established)


def _storage_contexts(classes: Iterable[str]) -> list[PresentationContext]:
    """A context for each class and transfer syntax.

    Of two in one context many peers take the default one, and each object would have to be decoded and encoded again.
    """
    return [build_context(uid, syntax) for uid in sorted(classes) for syntax in TRANSFER_SYNTAXES]


def _context(abstract_syntax: str) -> PresentationContext:
    return build_context(abstract_syntax, TRANSFER_SYNTAXES)


def _require(association: Association, service: str) -> None:
    if not association.accepted_contexts:
        raise NotSupportedError(f"it does not support {service}")


def _reference(stored: StoredObject) -> Dataset:
    """An item of Referenced SOP Sequence (PS3.3 table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID = stored.sop_class_uid
    item.ReferencedSOPInstanceUID = stored.sop_instance_uid
    return item


def _match(association: Association, query: Dataset, key: str) -> Dataset | None:
    """The last match whose ``key`` equals that of the query.

    A peer may ignore a key that it does not support (PS3.4 C.2.2.1.2), so other matches are skipped.
    """
    found: Dataset | None = None
    for status, identifier in association.send_c_find(query, _QUERY, next_message_id()):
        code = status.get("Status")
        if code in (0xFF00, 0xFF01) and identifier is not None:
            if identifier.get(key) == query.get(key):
                found = identifier
        elif code != 0x0000:
            raise unexpected_status("C-FIND", status)
    return found


_LOST = Receipt(Verdict.RETRY, "the association was lost before the object was sent"), False


def _store(association: Association, outgoing: Outgoing, timeout_seconds: float) -> tuple[Receipt, bool]:
    """Send one object: its receipt, and whether the association can take another one.

    An association without a response is lost, but pynetdicom may learn of it only later: another C-STORE on it would
    wait in vain.
    """
    accepted = [each for each in association.accepted_contexts if each.abstract_syntax == outgoing.sop_class_uid]
    if not accepted:
        return Receipt(Verdict.REJECTED, "the peer does not accept this SOP class"), True
    try:
        syntax = read_file_meta_info(outgoing.path).TransferSyntaxUID
        as_it_is = any(syntax in context.transfer_syntax for context in accepted)
        given = outgoing.path if as_it_is else dcmread(outgoing.path)
        if outgoing.is_damaged:
            return Receipt(Verdict.REJECTED, DAMAGED), True
    except OSError as error:
        return unreadable(outgoing, error), True
    except (InvalidDicomError, AttributeError) as error:
        note = f"the result file cannot be read ({type(error).__name__}); analyse it again"
        return Receipt(Verdict.REJECTED, note), True
    started = time.monotonic()
    try:
        with busy(association):
            status = association.send_c_store(given, next_message_id())
    except RuntimeError:
        return _LOST
    except (ValueError, AttributeError) as error:
        return Receipt(Verdict.REJECTED, f"the object cannot be encoded for the peer ({type(error).__name__})"), True
    if "Status" not in status and time.monotonic() - started >= timeout_seconds:
        note = f"the peer did not respond to the C-STORE within {timeout_seconds:g} s"
        return Receipt(Verdict.UNREACHABLE, note, may_have_arrived=True), False
    return classify_status(status), "Status" in status


def classify_status(status: Dataset) -> Receipt:
    """Classify a C-STORE response (PS3.4 B.2.3, PS3.7 C); an empty ``status`` means that there was no response."""
    code = status.get("Status")
    if code is None:
        return Receipt(Verdict.RETRY, "the association was aborted before a response", may_have_arrived=True)
    if code == 0x0000:
        return Receipt(Verdict.SENT)
    # The peer's Error Comment is not kept: it may quote patient data.
    if is_stored(code):
        return Receipt(Verdict.SENT, stored_with(code))
    if code == _DUPLICATE:
        note = f"the peer reports a duplicate object: {status_text(code)}"
        return Receipt(Verdict.DUPLICATE, note, may_have_arrived=True)
    if 0xA700 <= code <= 0xA7FF or code == _RESOURCE_LIMITATION:
        return Receipt(Verdict.LATER, f"the peer is out of resources: status {status_text(code)}")
    if code == _PROCESSING_FAILURE:  # an archive whose database is away has nothing better to say
        return Receipt(Verdict.LATER, f"the peer cannot store it now: status {status_text(code)}")
    if code == _DUPLICATE_INVOCATION:
        return Receipt(Verdict.RETRY, f"the peer cannot store it now: status {status_text(code)}")
    return Receipt(Verdict.REJECTED, f"the peer rejects it: status {status_text(code)}")


def unexpected_status(service: str, status: Dataset) -> PeerError:
    """The error for a ``status`` that is not success; an empty one means no response in time, or an abort."""
    kind = PeerError if "Status" in status else PeerUnreachableError
    return kind(f"it answered {service} with {status_text(status.get('Status'))}")


def _why(association: Association) -> str:
    if association.is_rejected:
        answer = association.acceptor.primitive
        reason = _REJECTIONS.get((answer.result_source, answer.diagnostic), "no reason given")
        return f"the peer rejected the association: {reason}"
    return "the peer cannot be reached, or aborted the association"
