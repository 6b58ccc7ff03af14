"""Store, database, policy and queue of a process that receives: the same for the listener and the DICOMweb server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pydicom.config

from config.logging import quieten_libraries
from config.settings import Settings
from db.database import Database
from db.engine import connect, migrate
from db.group_commit import GroupCommit
from node.dicom.association_policy import AssociationPolicy
from node.dicom.instance_store import SPOOL, InstanceStore
from node.dicom.job_dispatcher import JobDispatcher
from node.dicom.received_transfers import ReceivedTransfers, record_missing, write_transfers
from node.dicom.receiving import InstanceReceiver, Policy
from node.opening import demand_own_store
from workers.clock import utc_now
from workers.durable_files import make_folder
from workers.enqueue import TaskQueue
from workers.open_database import database_of
from workers.pipeline_digest import active_pipeline, digest_of, rule_digests


@dataclass(frozen=True, slots=True)
class ReceiverTools:
    """What one process receives with, whichever protocol it speaks."""

    store: InstanceStore
    database: Database
    receiver: InstanceReceiver
    association_policy: AssociationPolicy
    dispatcher: JobDispatcher
    transfers: ReceivedTransfers


@contextmanager
def open_receiver_tools(settings: Settings, spool: str = SPOOL) -> Iterator[ReceiverTools]:
    """Open store and database for a process that receives into ``spool``, a folder of its own in the store.

    What was complete when its predecessor ended is recorded first.

    Raises:
        OSError: the store cannot be written.
        ServeError: what the database knows lies in another store, which is not mounted.
    """
    started_at, ending = utc_now(), threading.Event()
    store = InstanceStore(settings.store.folder, settings.store.minimum_free_bytes, spool)
    engine = connect(settings.database_url)
    task_queue = TaskQueue(settings.broker_url)
    dispatcher = JobDispatcher(task_queue)
    database = database_of(settings, engine, GroupCommit if engine.dialect.name == "sqlite" else Database)
    transfers = ReceivedTransfers(lambda entries: database.write(write_transfers, entries), utc_now)
    try:
        make_folder(settings.store.folder)
        migrate(engine)
        demand_own_store(settings.store.folder, engine)
        store.prepare()
        association_policy = AssociationPolicy(settings.listener)
        pipeline = active_pipeline(settings)
        policy = Policy(
            settings.eligibility,
            association_policy,
            settings.triage.stat_descriptions,
            settings.site.uid_root,
            digest_of(pipeline, settings),
            settings.triage,
            settings.listener.maximum_waiting_jobs,
            settings.routing,
            rule_digests(settings, pipeline),
            settings.models,
        )
        receiver = InstanceReceiver(store, database, dispatcher.enqueue, policy, utc_now, transfers.stored)
        receiver.recover()
        dispatcher.dispatch()
        missing = (database, started_at, ending)
        threading.Thread(target=record_missing, args=missing, name="missing transfers", daemon=True).start()
        yield ReceiverTools(store, database, receiver, association_policy, dispatcher, transfers)
    finally:
        ending.set()
        transfers.close()
        dispatcher.close()
        task_queue.close()
        engine.dispose()
        store.close()


def quieten() -> None:
    """Keep values of headers, which may name patients, out of warnings and logs."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    quieten_libraries()
    # An invalid PDU or message is logged in one line at the end of the association.
    for name in ("dimse", "dul", "fsm", "utils", "service_class"):
        logging.getLogger(f"pynetdicom.{name}").setLevel(logging.CRITICAL)
