"""The process ``pleura listen``: puts the storage SCP and what it answers from together, and runs it."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

from config.garbage_collection import keep_what_is_loaded
from config.settings import Settings
from db.database import Database
from node.dicom.own_results import OwnResults
from node.dicom.query_retrieve_scp import QueryRetrieve
from node.dicom.receiver_tools import open_receiver_tools, quieten
from node.dicom.rejected_associations import RejectedAssociations
from node.dicom.rejection_alerts import write_rejected
from node.dicom.storage_commitment import CommitmentReports
from node.dicom.storage_scp import StorageScp
from node.listener_metrics import open_instruments
from workers.audit.alerts import AlertLimit
from workers.clock import utc_now
from workers.verification import take_report, verification_tools
from workers.worker_id import at_place

_M_ARENA_MAX = -8  # malloc.h

log = logging.getLogger(__name__)


def run_listener(settings: Settings, ready: Callable[[Mapping[str, int]], None], stop: threading.Event) -> None:
    """Receive until ``stop`` is set. ``ready`` is called with the ports by their keys once connections are accepted.

    Raises:
        OSError: the store cannot be written, a port is in use, or a file for TLS cannot be used.
    """
    quieten()
    _share_memory_arenas()
    with open_receiver_tools(settings) as tools:
        rejected = RejectedAssociations(partial(write_rejected, tools.database, AlertLimit()), utc_now)
        try:
            with at_place(settings.store.folder, "listener") as place:
                scp = StorageScp(
                    settings.listener,
                    tools.store,
                    tools.receiver,
                    tools.association_policy,
                    tools.dispatcher.dispatch,
                    reports_of(settings, tools.database),
                    rejected,
                    open_instruments(settings.store.folder, place),
                    settings.tls,
                    tools.transfers.failed,
                    query_of(settings, tools.database),
                )
                keep_what_is_loaded()
                scp.start()
                ready(scp.ports)
                stop.wait()
                scp.stop()
        finally:
            rejected.close()


def query_of(settings: Settings, database: Database) -> QueryRetrieve | None:
    """The Query/Retrieve SCP; None where there is nothing to ask for, or no peer may ask."""
    results = OwnResults(settings, database)
    if not results.destinations or not any(peer.query for peer in settings.listener.peers):
        return None
    return QueryRetrieve(settings, database, results, utc_now)


def reports_of(settings: Settings, database: Database) -> CommitmentReports | None:
    """The handler of Storage Commitment reports; None if no destination is verified by them."""
    if all(destination.verification != "commitment" for destination in settings.destinations):
        return None
    tools = verification_tools(settings, database)
    return CommitmentReports(lambda uid, committed, failed: take_report(uid, committed, failed, tools))


def _share_memory_arenas() -> None:
    """Limit the memory of the process: glibc gives each of many threads an arena and does not return its memory."""
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    except (AttributeError, OSError):
        log.debug("this C library has no mallopt")
