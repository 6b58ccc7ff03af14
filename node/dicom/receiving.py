"""What happens to a received data set before 0x0000 is sent: read header, check eligibility, store, record, enqueue.

The order is fixed: bytes durable, row committed, response. A crash at any point loses nothing that was acknowledged.
What a crash leaves unfinished is completed by :meth:`InstanceReceiver.recover` or by the sender's next attempt.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from sqlalchemy.exc import SQLAlchemyError

from config.routing import RoutingRule
from config.settings import Eligibility, Models
from config.triage import Triage
from db import assessments, instances, jobs, rejection_notes, study_status
from db.database import Database
from db.records import Ingest, NotEligible, ReceivedInstance, RejectionNote, Route
from node.dicom.association_policy import AssociationPolicy
from node.dicom.document_content import DocumentContent, read_document_content
from node.dicom.eligibility import check_eligibility
from node.dicom.instance_store import InstanceStore, SpoolFile, StoreError
from node.dicom.received_header import UnreadableDataSetError, describe, is_stat, read_header, text
from node.dicom.spool import Answer, SpooledInstance, StoreCommand
from workers.analysis_queues import queue_of
from workers.clock import Clock
from workers.open_database import triage_study
from workers.routing import excluded_by, facts_of, route
from workers.store_files import SET_ASIDE

# PS3.4 table B.2-1, and PS3.7 annex C for the last.
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110

_CHUNK = 1024 * 1024
_PREFIX_LENGTH = 128 + 4
_GROUP_LENGTH_LENGTH = 12

log = logging.getLogger(__name__)


Enqueue = Callable[[Sequence[tuple[int, bool]], str], None]
"""Enqueues jobs, pairs of id and whether STAT, in a queue; returns at once and never fails."""


Stored = Callable[[ReceivedInstance, StoreCommand, int], None]
"""Is told of an instance, of the command it came by, and of its row."""


def _not_told(received: ReceivedInstance, command: StoreCommand, instance_id: int) -> None:
    """Nobody is told."""
    del received, command, instance_id


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings for receiving.

    ``pipeline`` is the digest of the active pipeline, ``rule_digests`` has those of routing rules that choose models;
    ``models`` say in which queue a job waits.
    """

    eligibility: Eligibility
    association_policy: AssociationPolicy
    stat_descriptions: tuple[str, ...]
    uid_root: str
    pipeline: str
    triage: Triage = field(default_factory=Triage)
    maximum_waiting_jobs: int = 0
    routing: tuple[RoutingRule, ...] = ()
    rule_digests: Mapping[str, str] = field(default_factory=dict)
    models: Models = field(default_factory=Models)

    def pipeline_of(self, decision: Route | None) -> str:
        """The digest of the pipeline that analyses an image, by what the routing rules decided."""
        return self.pipeline if decision is None else self.rule_digests.get(decision.rule, self.pipeline)


class InstanceReceiver:
    """Handles received data sets. Safe to share between the threads of several associations.

    ``stored`` is told of each instance that is stored and recorded, and returns at once.
    """

    def __init__(
        self,
        store: InstanceStore,
        database: Database,
        enqueue: Enqueue,
        policy: Policy,
        clock: Clock,
        stored: Stored = _not_told,
    ) -> None:
        self._store = store
        self._database = database
        self._enqueue = enqueue
        self._policy = policy
        self._clock = clock
        self._stored = stored

    def answer(self, spooled: SpooledInstance) -> Answer:
        """Answer a request to store whose data set has arrived, whatever became of it. Never raises."""
        if spooled.rejection is not None:
            return spooled.rejection
        if spooled.failure is not None:
            return Answer(OUT_OF_RESOURCES, spooled.failure.strerror or str(spooled.failure))
        if spooled.spool is None:
            return Answer(CANNOT_UNDERSTAND, "there is no data set")
        try:
            return self.accept(spooled.spool, spooled.command)
        except Exception:
            # Neither the sender's fault nor a lack of resources: PS3.7 annex C, 0110H. The association goes on.
            log.exception("receiving an instance failed")
            spooled.discard()
            return Answer(PROCESSING_FAILURE, "the listener failed")

    def accept(self, spool: SpoolFile, command: StoreCommand) -> Answer:
        """Handle a complete data set and return the C-STORE response. The spool file is removed in every case."""
        try:
            header = read_header(spool.name, command.transfer_syntax_uid, spool.preface_length, spool.beginning)
            answer = _mismatch(header, command)
            if answer is None:
                return self._keep(spool, command, header)
        except UnreadableDataSetError as error:
            answer = Answer(CANNOT_UNDERSTAND, str(error))
        except StoreError as error:
            answer = Answer(OUT_OF_RESOURCES, error.strerror or "the store failed")
        except SQLAlchemyError as error:
            log.error("an instance could not be recorded in the database: %s", type(error).__name__)
            answer = Answer(OUT_OF_RESOURCES, "the database cannot be written")
        spool.discard()
        return answer

    def recover(self) -> int:
        """Record the data sets that were complete when the listener crashed; returns how many there were.

        A file that cannot be recorded, or during whose recording the listener ended at two starts, is set aside: it was
        never acknowledged, and the listener must start.

        Raises:
            SQLAlchemyError: the database cannot be written.
            OSError: the store cannot be written.
        """
        self._remove_failed()
        count = 0
        for path in self._store.unfinished():
            counted = self._store.begin_attempt(path)
            if counted is None:
                log.critical(
                    "%s: the listener ended twice while recording it; the file is set aside in %s", path.name, SET_ASIDE
                )
                continue
            count += self._try_to_recover(counted, path)
        if count:
            log.warning("recorded %d instances that were complete when the listener ended", count)
        return count

    def _try_to_recover(self, path: Path, name_before: Path) -> bool:
        try:
            recovered = self._recover(path)
        except SQLAlchemyError:
            path.rename(name_before)  # the file is not the cause, so the attempt does not count
            raise
        except Exception as error:  # no fault of one file may prevent the listener's start
            why = str(error) if isinstance(error, UnreadableDataSetError) else type(error).__name__
            self._store.set_aside(path)
            log.critical("%s cannot be recorded and is set aside in %s: %s", path.name, SET_ASIDE, why)
            return False
        path.unlink(missing_ok=True)
        return recovered

    def _remove_failed(self) -> None:
        """Remove data sets that were answered with a failure and not recorded. Runs before anything is received."""
        for note, kept in self._store.failed_files().items():
            self._store.remove_failed(note, partial(self._is_recorded, kept))

    def _is_recorded(self, kept: str) -> bool:
        return kept in self._database.read(instances.recorded_files, [kept])

    def _keep(self, spool: SpoolFile, command: StoreCommand, header: Dataset) -> Answer:
        not_eligible, decision = self._decide(header, command)
        if not_eligible is None and self._queue_is_full(header, command):
            spool.discard()
            return Answer(OUT_OF_RESOURCES, "too many images wait for analysis")
        path = self._store.keep(spool)
        received = self._describe(header, command, spool.digest, path, spool.byte_count, decision)
        content = self._read_content(received, not_eligible)
        try:
            instance_id = self._record(received, not_eligible, content)
        except Exception as error:
            # After a lost connection it is unknown whether the row was committed, so the bytes must stay for now.
            self._store.mark_failed(spool)
            if not isinstance(error, SQLAlchemyError):
                raise
            log.error("an instance could not be recorded in the database: %s", type(error).__name__)
            return Answer(OUT_OF_RESOURCES, "the database cannot be written")
        self._store.complete(spool)
        self._stored(received, command, instance_id)
        return Answer(SUCCESS)

    def _decide(self, header: Dataset, command: StoreCommand) -> tuple[NotEligible | None, Route | None]:
        """Why an image is not analysed, and what the routing rules say of one that is eligible."""
        not_eligible = self._eligibility_of(header)
        if not_eligible is not None or not self._policy.routing:
            return not_eligible, None
        facts = facts_of(header, command.calling_ae_title, command.called_ae_title)
        decision = route(facts, self._policy.routing)
        return excluded_by(decision), decision

    def _eligibility_of(self, header: Dataset) -> NotEligible | None:
        sop_instance_uid = text(header, "SOPInstanceUID")
        may_be_own = sop_instance_uid.startswith(f"{self._policy.uid_root}.")
        own = may_be_own and self._database.read(instances.is_own_result, sop_instance_uid)
        return check_eligibility(header, self._policy.eligibility, own=own)

    def _queue_is_full(self, header: Dataset, command: StoreCommand) -> bool:
        most = self._policy.maximum_waiting_jobs
        return bool(most) and not self._is_stat(header, command) and self._database.read(jobs.as_many_wait, most)

    def _is_stat(self, header: Dataset, command: StoreCommand) -> bool:
        return is_stat(
            text(header, "StudyDescription"),
            self._policy.stat_descriptions,
            from_stat_peer=self._policy.association_policy.is_stat(command.calling_ae_title),
            high_priority=command.high_priority,
        )

    def _describe(
        self,
        header: Dataset,
        command: StoreCommand,
        digest: str,
        path: str,
        byte_count: int,
        decision: Route | None,
    ) -> ReceivedInstance:
        return describe(
            header,
            transfer_syntax=command.transfer_syntax_uid,
            digest=digest,
            path=path,
            byte_count=byte_count,
            calling_ae_title=command.calling_ae_title,
            stat=self._is_stat(header, command),
            route=decision,
            queue=queue_of(decision, self._policy.models),
        )

    def _read_content(self, received: ReceivedInstance, not_eligible: NotEligible | None) -> DocumentContent:
        path = f"{self._store.folder}/{received.path}"
        return read_document_content(path, received, not_eligible, self._policy.triage)

    def _record(self, received: ReceivedInstance, not_eligible: NotEligible | None, content: DocumentContent) -> int:
        ingest = self._database.write(
            instances.record_instance,
            received,
            not_eligible,
            self._policy.pipeline_of(received.route),
            self._database.rules.patients,
            self._clock(),
        )
        log.info(
            "instance %d: %s",
            ingest.instance_id,
            _outcome(ingest, not_eligible) + (f", routing rule {received.route.rule or '-'}" if received.route else ""),
        )
        self._apply_content(content, ingest.instance_id, received.calling_ae_title)
        if ingest.returned is not None:
            self._triage_again(ingest.returned, self._clock())
        # The message of a repeat was sent before, or was lost with a process; the scheduler finds out.
        if ingest.job_ids and not ingest.repeat:
            jobs_to_enqueue = [(job_id, received.stat or ingest.pressing) for job_id in ingest.job_ids]
            self._enqueue(jobs_to_enqueue, received.queue)
        return ingest.instance_id

    def _apply_content(self, content: DocumentContent, instance_id: int, sender: str) -> None:
        """Apply the content of a document. Also for a repeat: the node may have died between recording and this."""
        now = self._clock()
        if content.unreadable:
            log.error("instance %d is a document that is stored but not read: %s", instance_id, content.unreadable)
        if content.rejection is not None:
            self._apply_rejection(content.rejection, instance_id, now)
        if content.assessment is not None:
            unmatched = self._database.write(assessments.record, content.assessment, instance_id, now)
            count = len(content.assessment.statements)
            log.info("instance %d is an assessment: %d statements, %d unmatched", instance_id, count, unmatched)
        if content.reported and self._database.write(study_status.report_by_object, instance_id, sender, now):
            log.info("instance %d is a report; its study leaves the worklist", instance_id)

    def _apply_rejection(self, note: RejectionNote, instance_id: int, now: datetime) -> None:
        studies = self._database.write(rejection_notes.reject, note, now)
        for study_id in studies:
            self._triage_again(study_id, now)
        log.warning(
            "instance %d rejects %d images of %d studies", instance_id, len(note.sop_instance_uids), len(studies)
        )

    def _triage_again(self, study_id: int, now: datetime) -> None:
        triage_study(study_id, self._database, self._policy.triage, now)

    def _recover(self, path: Path) -> bool:
        command, offset = _read_preface(path)
        digest = _digest(path, offset)
        kept = InstanceStore.path_of(digest)
        if not (self._store.folder / kept).is_file():
            # It has two names, but none in the store: the file was not received here, so it was not acknowledged.
            return False
        header = read_header(path, command.transfer_syntax_uid, offset)
        not_eligible, decision = self._decide(header, command)
        received = self._describe(header, command, digest, kept, path.stat().st_size - offset, decision)
        instance_id = self._record(received, not_eligible, self._read_content(received, not_eligible))
        self._stored(received, command, instance_id)
        return True


def _outcome(ingest: Ingest, not_eligible: NotEligible | None) -> str:
    """Outcome of recording an instance, for the log."""
    if ingest.repeat or ingest.comparing:
        return "repeat" if ingest.repeat else "the SOP Instance UID exists already; the images will be compared"
    return not_eligible.code if not_eligible else "conflict" if ingest.conflict else "eligible"


def _mismatch(header: Dataset, command: StoreCommand) -> Answer | None:
    """Compare command and data set (PS3.4 B.2.3: status A9xx)."""
    if text(header, "SOPClassUID") != command.sop_class_uid or command.sop_class_uid != command.abstract_syntax:
        return Answer(MISMATCH, "SOP Class UID differs between command and data set")
    if text(header, "SOPInstanceUID") != command.sop_instance_uid:
        return Answer(MISMATCH, "SOP Instance UID differs between command and data set")
    if command.study_instance_uid not in ("", text(header, "StudyInstanceUID")):
        return Answer(MISMATCH, "Study Instance UID differs between request and data set")
    return None


def _read_preface(path: Path) -> tuple[StoreCommand, int]:
    """Read what :func:`node.dicom.spool.file_preface` wrote; returns the command and the length of the preface."""
    meta = read_file_meta_info(path)
    sop_class = text(meta, "MediaStorageSOPClassUID")
    command = StoreCommand(
        sop_class_uid=sop_class,
        sop_instance_uid=text(meta, "MediaStorageSOPInstanceUID"),
        abstract_syntax=sop_class,
        transfer_syntax_uid=text(meta, "TransferSyntaxUID"),
        calling_ae_title=text(meta, "SendingApplicationEntityTitle"),
        called_ae_title=text(meta, "ReceivingApplicationEntityTitle"),
    )
    return command, _PREFIX_LENGTH + _GROUP_LENGTH_LENGTH + int(meta.FileMetaInformationGroupLength)


def _digest(path: Path, offset: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
