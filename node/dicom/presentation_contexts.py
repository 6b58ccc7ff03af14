"""Presentation contexts that the listener accepts: SOP classes and transfer syntaxes (PS3.4 B.5, PS3.5 8, annex A)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache

from pydicom import uid
from pydicom._uid_dict import UID_dictionary
from pynetdicom import AllStoragePresentationContexts, sop_class
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from node.dicom.eligibility import RADIOGRAPH_CLASSES

UNCOMPRESSED = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)

# In order of preference. A peer that offers several in one context may have to convert to the accepted one, so
# lossless ones come first, and a lossy one is accepted only if nothing else is offered.
DECODABLE: tuple[uid.UID, ...] = (
    *UNCOMPRESSED,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
)

# Objects of other classes are stored and never decoded, so any encoding of their pixels is accepted.
_UNDECODED: tuple[uid.UID, ...] = tuple(
    uid.UID(value)
    for value in (
        "1.2.840.10008.1.2.4.92",
        "1.2.840.10008.1.2.4.93",
        "1.2.840.10008.1.2.4.100",
        "1.2.840.10008.1.2.4.100.1",
        "1.2.840.10008.1.2.4.101",
        "1.2.840.10008.1.2.4.101.1",
        "1.2.840.10008.1.2.4.102",
        "1.2.840.10008.1.2.4.102.1",
        "1.2.840.10008.1.2.4.103",
        "1.2.840.10008.1.2.4.103.1",
        "1.2.840.10008.1.2.4.104",
        "1.2.840.10008.1.2.4.104.1",
        "1.2.840.10008.1.2.4.105",
        "1.2.840.10008.1.2.4.105.1",
        "1.2.840.10008.1.2.4.106",
        "1.2.840.10008.1.2.4.106.1",
        "1.2.840.10008.1.2.4.107",
        "1.2.840.10008.1.2.4.108",
        "1.2.840.10008.1.2.4.110",
        "1.2.840.10008.1.2.4.111",
        "1.2.840.10008.1.2.4.112",
    )
)

OTHER_CLASSES: frozenset[str] = (
    frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts) - RADIOGRAPH_CLASSES
)

QUERY_CLASSES: frozenset[str] = frozenset(
    str(each)
    for each in (
        sop_class.PatientRootQueryRetrieveInformationModelFind,
        sop_class.PatientRootQueryRetrieveInformationModelMove,
        sop_class.PatientRootQueryRetrieveInformationModelGet,
        sop_class.StudyRootQueryRetrieveInformationModelFind,
        sop_class.StudyRootQueryRetrieveInformationModelMove,
        sop_class.StudyRootQueryRetrieveInformationModelGet,
    )
)

RESULT_CLASSES: frozenset[str] = frozenset(
    str(each)
    for each in (
        uid.SegmentationStorage,
        uid.Comprehensive3DSRStorage,
        uid.ComprehensiveSRStorage,
        uid.SecondaryCaptureImageStorage,
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.KeyObjectSelectionDocumentStorage,
    )
)
"""Classes of our own results."""

_STANDARD = "1.2.840.10008."
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Size of the cache: a peer may propose any number of private classes.
_REMEMBERED = 1024


def is_storage_class(abstract_syntax: str) -> bool:
    """Whether objects of this class may be sent by C-STORE: a standard class, also a retired one, or a private one.

    A private class may be anything; only C-STORE and C-ECHO are answered on its context.
    """
    if not abstract_syntax.startswith(_STANDARD):
        return uid.UID(abstract_syntax).is_valid
    return abstract_syntax in OTHER_CLASSES or abstract_syntax in _retired()


@cache
def _retired() -> frozenset[str]:
    """Retired storage classes of PS3.4, from pydicom's dictionary."""
    return frozenset(
        value
        for value, (name, kind, _, retired, _) in UID_dictionary.items()
        if kind == "SOP Class" and retired and value.startswith(_STORAGE) and "FIND" not in name and "MOVE" not in name
    )


def contexts_for(
    requested: Iterable[str], *, other_classes: bool, commitment: bool = False, queries: bool = False
) -> list[PresentationContext]:
    """Presentation contexts to accept: the supported ones of the requestor's abstract syntaxes.

    With ``queries`` a requestor may query and retrieve, and be the SCP of what it gets by C-GET (PS3.4 C.5.3).

    With ``commitment`` a requestor may have the SCP role of Storage Commitment, to send its reports (PS3.4 J.3.3).

    A requestor may propose 128 presentation contexts (PS3.8 9.3.2.2) and more classes are supported than that, so the
    list is made for each association.
    """
    wanted = sorted(set(requested))
    answers = [
        _query_context(each) if queries and each in QUERY_CLASSES | RESULT_CLASSES else _context(each, other_classes)
        for each in wanted
    ]
    if commitment and StorageCommitmentPushModel in wanted:
        answers.append(_reports())
    return [context for context in answers if context is not None]


@cache
def _query_context(abstract_syntax: str) -> PresentationContext:
    """Never deflated: what a peer sends is bounded, what it would become is not."""
    context = build_context(abstract_syntax, [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
    if abstract_syntax in RESULT_CLASSES:
        context.transfer_syntax = list(transfer_syntaxes_for(abstract_syntax, other_classes=True))
        context.scu_role = context.scp_role = True
    return context


@cache
def _reports() -> PresentationContext:
    context = build_context(StorageCommitmentPushModel, list(UNCOMPRESSED))
    context.scu_role = context.scp_role = True
    return context


@lru_cache(_REMEMBERED)
def _context(abstract_syntax: str, other_classes: bool) -> PresentationContext | None:
    transfer_syntaxes = transfer_syntaxes_for(abstract_syntax, other_classes=other_classes)
    if not transfer_syntaxes:
        return None
    context = PresentationContext()
    context.abstract_syntax = uid.UID(abstract_syntax)
    context.transfer_syntax = list(transfer_syntaxes)
    return context


def transfer_syntaxes_for(abstract_syntax: str, *, other_classes: bool) -> tuple[uid.UID, ...]:
    """Transfer syntaxes in which objects of a class are taken; none where the class is not."""
    if abstract_syntax == Verification:
        return UNCOMPRESSED
    if abstract_syntax in RADIOGRAPH_CLASSES:
        return DECODABLE
    if other_classes and is_storage_class(abstract_syntax):
        return DECODABLE + _UNDECODED
    return ()
