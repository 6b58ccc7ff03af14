"""De-identified objects of one study: its radiographs, and our results on those that may leave."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian

from config.deidentification import Deidentification
from config.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from db.patients import PatientIdentifier, PatientRules
from db.shown_records import StudyDetail
from models.radiograph.attributes import sound_attributes
from models.radiograph.decode import UnreadablePixels, read_file
from workers.deidentification.images import RADIOGRAPHS, NotExportable, read_image
from workers.deidentification.profile import Changes, Deidentifier, known_keywords
from workers.deidentification.pseudonyms import Pseudonyms, Subject
from workers.deidentification.vocabulary import forbidden_words

IMAGE = "image"
_RESULTS = frozenset({"seg", "sr", "gsps", "summary", "lungs"})
# Our own objects that came back, the same image again, and what a newer image has replaced.
_NOT_OF_THE_STUDY = frozenset({"own", "repeat", "replaced"})
_NO_FILE = "its file is no more here"
_IN_DOUBT = "its study is on hold, or its patient or UID is in doubt"
_NO_IMAGE = "the image that it is about was not exported"


@dataclass(frozen=True, slots=True)
class Original:
    """An object of a study as this node holds it. ``of``: SOP Instance UIDs of the images that a result is about."""

    kind: str
    sop_instance_uid: str
    path: Path
    of: tuple[str, ...] = ()
    not_exported: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of the export of an object, named by its new UID: a file to write at ``path``, or why there is none.

    ``path`` is relative to the export's folder. No original value is in here.
    """

    kind: str
    sop_instance_uid: str
    path: str = ""
    not_exported: str = ""
    changes: Changes = field(default_factory=Changes)
    content: bytes = field(default=b"", repr=False)


def deidentifier_of(options: Deidentification) -> Deidentifier:
    """The profile as a site has configured it.

    Raises:
        ValueError: there is no key.
    """
    if options.key is None:
        raise ValueError("deidentification.key is not set: `openssl rand -base64 32` makes one")
    return Deidentifier(options, Pseudonyms(options.key.get_secret_value(), options.project))


def originals(detail: StudyDetail, store: Path) -> list[Original]:
    """The objects of a study: images first, then the newest results about them; captures of ours are left out.

    A capture repeats the image with text burned in, so that nothing is lost without it.
    """
    found = []
    for instance in detail.instances:
        if instance.flag in _NOT_OF_THE_STUDY:
            continue
        not_exported = _IN_DOUBT if detail.row.on_hold or instance.flag else ""
        if not not_exported and instance.sop_class_uid not in RADIOGRAPHS:
            not_exported = "neither a radiograph (CR, DX) nor a result of this node"
        found.append(Original(IMAGE, instance.sop_instance_uid, store / instance.path, not_exported=not_exported))
    return found + _results(detail, store)


def _results(detail: StudyDetail, store: Path) -> list[Original]:
    uids = {instance.id: instance.sop_instance_uid for instance in detail.instances}
    images = {job.id: uids[job.instance_id] for job in detail.jobs}
    newest = {(each.job_id, each.record.kind): each for each in sorted(detail.results, key=lambda one: one.revision)}
    return [
        Original(
            each.record.kind,
            each.record.sop_instance_uid,
            store / each.record.path,
            of=tuple(images.values()) if each.job_id is None else (images[each.job_id],),
            not_exported=_IN_DOUBT if detail.row.on_hold else "",
        )
        for each in newest.values()
        if each.record.kind in _RESULTS
    ]


def deidentify_study(
    detail: StudyDetail,
    store: Path,
    deidentifier: Deidentifier,
    rules: PatientRules,
    done: frozenset[str] = frozenset(),
) -> Iterator[Outcome]:
    """What becomes of each object of a study; those whose new UID is in ``done`` are left out.

    The patient is the one that the database knows, so that a study which was corrected or merged stays one patient's.

    Raises:
        OSError: a file cannot be read now.
    """
    objects = originals(detail, store)
    row = detail.row
    patient = PatientIdentifier(row.patient_id, detail.issuer_of_patient_id)
    subject = deidentifier.pseudonyms.subject(patient, row.study_instance_uid, rules)
    forbidden = _forbidden(detail, objects, deidentifier)
    exported: set[str] = set()
    for original in objects:
        uid = deidentifier.pseudonyms.uid(original.sop_instance_uid)
        not_exported = original.not_exported or ("" if not original.of or exported & {*original.of} else _NO_IMAGE)
        if not not_exported and uid in done:
            exported.add(original.sop_instance_uid)
            continue
        try:
            if not_exported:
                raise NotExportable(not_exported)
            outcome = deidentify_object(original, subject, deidentifier, forbidden)
            exported.add(original.sop_instance_uid)
        except NotExportable as reason:
            outcome = Outcome(original.kind, uid, not_exported=str(reason))
        except FileNotFoundError:
            outcome = Outcome(original.kind, uid, not_exported=_NO_FILE)
        if uid not in done:
            yield outcome


def deidentify_object(
    original: Original, subject: Subject, deidentifier: Deidentifier, forbidden: frozenset[str]
) -> Outcome:
    """De-identify one object; ``forbidden`` are the words of its study.

    Raises:
        NotExportable: it must stay here.
        OSError: its file cannot be read now.
    """
    with _quietly():
        if original.kind == IMAGE:
            dataset, left_out = read_image(original.path, deidentifier.options.unknown_burned_in)
        else:
            dataset, left_out = _read_result(original.path), Changes()
        made, changes = deidentifier.deidentify(dataset, subject, forbidden, ours=original.kind != IMAGE)
        content = _encoded(made)
    folder = f"{subject.pseudonym}/{made.StudyInstanceUID}/{made.SeriesInstanceUID}"
    uid = str(made.SOPInstanceUID)
    return Outcome(original.kind, uid, f"{folder}/{uid}.dcm", "", changes + left_out, content)


def words_of(original: Original, deidentifier: Deidentifier) -> frozenset[str]:
    """The words of an object's header that nothing of its study may repeat; none where it cannot be read."""
    try:
        with _quietly():
            return _words(original, deidentifier)
    except (UnreadablePixels, NotExportable, OSError):
        return frozenset()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings of pydicom, which quote values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _words(original: Original, deidentifier: Deidentifier) -> frozenset[str]:
    if original.kind != IMAGE:
        return deidentifier.forbidden(_read_result(original.path), ours=True)
    dataset = read_file(original.path, stop_before_pixels=True)
    return deidentifier.forbidden(sound_attributes(dataset, known_keywords(dataset)), ours=False)


def _forbidden(detail: StudyDetail, objects: list[Original], deidentifier: Deidentifier) -> frozenset[str]:
    row = detail.row
    known = (
        DataElement(0x00100010, "PN", row.patient_name),
        DataElement(0x00100020, "LO", row.patient_id),
        DataElement(0x00080050, "SH", row.accession_number),
        DataElement(0x00081030, "LO", row.study_description),
    )
    return frozenset(forbidden_words(known)).union(*(words_of(original, deidentifier) for original in objects))


def _read_result(path: Path) -> Dataset:
    try:
        return dcmread(path)
    except InvalidDicomError as error:
        raise NotExportable("its file is no DICOM file") from error


def _encoded(made: Dataset) -> bytes:
    """The object as a file.

    Raises:
        NotExportable: a value cannot be written.
    """
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    made.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    file = BytesIO()
    try:
        made.save_as(file, enforce_file_format=True)
    except MemoryError:
        raise
    except Exception as error:
        # A writer that meets odd values fails in every way there is; its words may quote them.
        raise NotExportable(f"it cannot be written as DICOM ({type(error).__name__})") from None
    return file.getvalue()
