"""The storage SCP (PS3.4 Annex B, PS3.7 9.1.1): C-ECHO and C-STORE, which is answered 0x0000 only for durable data.

It also receives Storage Commitment reports, if a destination is verified by them.

pynetdicom implements the protocol. This module decides which associations and presentation contexts are accepted, and
passes each C-STORE from :mod:`node.dicom.spool` to :class:`node.dicom.receiving.InstanceReceiver`.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from functools import cached_property
from socketserver import BaseServer
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification
from pynetdicom.transport import AddressInformation, RequestHandler, ThreadedAssociationServer

from config.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from config.listener import Listener
from config.logging import escaped
from config.tls import Tls
from node.dicom.association_policy import AssociationPolicy, Rejection
from node.dicom.connection_limits import Connections
from node.dicom.instance_store import InstanceStore, SpoolFile
from node.dicom.presentation_contexts import contexts_for
from node.dicom.query_retrieve_scp import QueryRetrieve
from node.dicom.receiving import InstanceReceiver
from node.dicom.rejected_associations import RejectedAssociations
from node.dicom.spool import (
    Answer,
    SpooledInstance,
    StoreCommand,
    file_preface,
)
from node.dicom.storage_commitment import CommitmentReports
from node.dicom.tls_handshake import Handshakes
from node.dicom.upper_layer.choice import upper_layer
from node.dicom.upper_layer.connection import CLOSED, Connection, Handlers, Receiving, UpperLayer
from node.listener_metrics import Instruments
from workers.tls import PeerCertificate, TlsProblem, listener_contexts, peer_certificate

_GRACE_SECONDS = 10.0
_MOVE_CONNECT_SECONDS = 10.0

log = logging.getLogger(__name__)


class _RequestHandler(RequestHandler):  # type: ignore[misc]
    """Makes an association of a connection; the listener's own address is not looked up for each."""

    @property
    def local(self) -> AddressInformation:
        """The address that the server listens on."""
        address: AddressInformation = self.server.local
        return address


class _Server(ThreadedAssociationServer):  # type: ignore[misc]
    """A server whose backlog has room for all senders that connect at the same moment."""

    request_queue_size = 128

    connections: Connections
    upper_layer: UpperLayer
    handshakes: Handshakes | None = None

    @cached_property
    def local(self) -> AddressInformation:
        """The address that it listens on."""
        return AddressInformation.from_tuple(self.server_address)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin an association: in a thread of its own after a TLS handshake, for which others do not wait. To make
        the association itself takes less than a thread."""
        if self.handshakes is None:
            self.process_request_thread(request, client_address)
        else:
            super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin an association, over TLS after the handshake."""
        if self.handshakes is not None:
            request = self.handshakes.shake(request, str(client_address[0]))
        if request is not None:
            super().finish_request(request, client_address)

    def service_actions(self) -> None:
        """Close idle connections. pynetdicom's garbage collection here would stop every association for a while."""
        self.connections.expire()
        self.upper_layer.tend()

    def shutdown(self) -> None:
        """Stop listening; associations go on."""
        BaseServer.shutdown(self)
        self.server_close()


class StorageScp:
    """A listener on one port, or on two with one for TLS. ``answered`` is called after each C-STORE response.

    ``tls`` has the files of the port with TLS; ``on_failure`` is called for each C-STORE with a failure status.
    Without ``reports`` Storage Commitment reports are not accepted, without ``query`` no queries; without
    ``rejected`` rejected associations are not counted.
    """

    def __init__(
        self,
        listener: Listener,
        store: InstanceStore,
        receiver: InstanceReceiver,
        association_policy: AssociationPolicy,
        answered: Callable[[], None] = lambda: None,
        reports: CommitmentReports | None = None,
        rejected: RejectedAssociations | None = None,
        instruments: Instruments | None = None,
        tls: Tls | None = None,
        on_failure: Callable[[StoreCommand, int], None] = lambda _command, _status: None,
        query: QueryRetrieve | None = None,
    ) -> None:
        self._listener = listener
        self._tls = tls or Tls()
        self._rejected = rejected
        self._instruments = instruments or Instruments()
        self._store = store
        self._receiver = receiver
        self._association_policy = association_policy
        self._reports = reports
        self._on_failure = on_failure
        self._query = query
        self._connections = Connections(listener)
        self._upper_layer = upper_layer(Receiving(listener, self._begin, self._answer, answered, self._on_end))
        self._servers: dict[str, _Server] = {}
        self._threads: list[threading.Thread] = []
        # pynetdicom would log each PDU and data set: slow, and patient data in the log.
        _config.LOG_HANDLER_LEVEL = "none"
        _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False

    def start(self) -> int:
        """Listen; returns the port, that without TLS where there are two.

        Raises:
            OSError: an address is in use or does not belong to this machine, or a file for TLS cannot be used.
        """
        handshakes = self._handshakes() if self._listener.has_tls else None
        servers: dict[str, _Server] = {}
        try:
            for key, port in self._listener.ports.items():
                servers[key] = self._make_server(port)
                servers[key].handshakes = handshakes if key == "tls_port" else None
        except OSError:
            for server in servers.values():
                server.server_close()
            raise
        self._servers = servers
        for server in servers.values():
            thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="listener", daemon=True)
            thread.start()
            self._threads.append(thread)
        return next(iter(self.ports.values()))

    def _handshakes(self) -> Handshakes:
        seconds = self._listener.request_timeout_seconds
        return Handshakes(listener_contexts(self._tls), self._connections, seconds, self._reject_handshake)

    def _make_server(self, port: int) -> _Server:
        listener = self._listener
        entity = AE(ae_title=listener.ae_title)
        entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = listener.maximum_pdu
        # Connections and associations are counted separately here; pynetdicom has one limit for both.
        entity.maximum_associations = sys.maxsize
        entity.network_timeout = listener.idle_timeout_seconds
        entity.connection_timeout = _MOVE_CONNECT_SECONDS
        entity.acse_timeout = min(30.0, listener.idle_timeout_seconds)
        server: _Server = entity.make_server(
            (listener.host, port),
            contexts=[build_context(Verification)],
            evt_handlers=self._handlers(),
            server_class=_Server,
            request_handler=_RequestHandler,
        )
        server.contexts = []  # pynetdicom would copy them for each association, which gets its own in _on_requested
        server.connections = self._connections
        server.upper_layer = self._upper_layer
        return server

    @property
    def ports(self) -> dict[str, int]:
        """The ports in use, by their keys in the settings."""
        return {key: int(server.socket.getsockname()[1]) for key, server in self._servers.items()}

    def stop(self, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Accept no more associations, wait until arriving messages are answered, and abort what is left."""
        associations = [one for server in self._servers.values() for one in server.active_associations]
        for server in self._servers.values():
            server.shutdown()
        for thread in self._threads:
            thread.join()
        end = time.monotonic() + grace_seconds
        while any(_is_busy(association) for association in associations) and time.monotonic() < end:
            time.sleep(0.02)
        for association in associations:
            if association.is_alive():
                association.abort()
        self._servers, self._threads = {}, []

    @property
    def association_count(self) -> int:
        """How many associations are open."""
        return self._connections.association_count

    def _handlers(self) -> Handlers:
        handlers: Handlers = [
            (evt.EVT_CONN_OPEN, self._on_open),
            (evt.EVT_REQUESTED, self._on_requested),
            *self._upper_layer.handlers(),
        ]
        if self._reports is not None:
            handlers.append((evt.EVT_N_EVENT_REPORT, self._reports.on_report))
        if self._query is not None:
            handlers += self._query.handlers()
        return handlers

    def _on_open(self, event: evt.Event) -> None:
        """Set the limits of a connection before its first byte is read."""
        association, listener = event.assoc, self._listener
        connection = association.dul.socket.socket
        connection.settimeout(listener.idle_timeout_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        association.local_address = connection.getsockname()[0]
        # With the association, not in a table: it may end while its request is handled.
        association.certificate = peer_certificate(connection) if isinstance(connection, ssl.SSLSocket) else None
        opened = association.connection = self._upper_layer.open(association)
        self._connections.opened(association, str(association.requestor.address), opened.close, before=connection)

    def _on_end(self, association: Association) -> None:
        """Remove a connection, and log once why it ended unless it was released."""
        self._connections.ended(association)
        connection = _connection(association)
        why = connection.abnormal_end
        if connection.titles is not None and why:
            log.warning("association %s ended: %s", _parties(association), why)
        elif why:
            level = logging.DEBUG if why == CLOSED else logging.INFO
            log.log(level, "connection from %s ended: %s", association.requestor.address, why)

    def _on_requested(self, event: evt.Event) -> None:
        """Reject an unknown caller; accept a known one with the supported presentation contexts."""
        association = event.assoc
        request = association.requestor.primitive
        policy, address = self._association_policy, str(association.requestor.address)
        parties = (request.calling_ae_title, request.called_ae_title, address)
        rejection = policy.reject(*parties, association.certificate)
        verifies_only = rejection is not None and policy.is_own_check(*parties, association.local_address)
        rejection = (None if verifies_only else rejection) or self._connections.associate(association)
        if rejection is not None:
            self._instruments.count_rejected(rejection.why)
            self._reject(association, rejection)
            return
        self._instruments.count_accepted()
        proposed = request.presentation_context_definition_list
        complete = [context for context in proposed if context.abstract_syntax and context.transfer_syntax]
        if len(complete) < len(proposed):
            # PS3.8 table 9-18: an item names one abstract and at least one transfer syntax. pynetdicom relies on it.
            log.warning("association %s: %d incomplete contexts", _parties(association), len(proposed) - len(complete))
            request.presentation_context_definition_list = complete
        requested = [str(context.abstract_syntax) for context in complete]
        if verifies_only:
            requested = [uid for uid in requested if uid == Verification]
        association.acceptor.supported_contexts = contexts_for(
            requested,
            other_classes=self._listener.accept_other_classes,
            commitment=self._reports is not None,
            queries=self._query is not None and policy.may_query(request.calling_ae_title),
        )

    def _reject(self, association: Association, rejection: Rejection) -> None:
        """Reject an association, and keep for the admin who called."""
        connection = _connection(association)
        calling, called = map(escaped, connection.titles or ("", ""))
        address = str(association.requestor.address)
        if self._rejected is None or self._rejected.add(calling, called, address, rejection.why):
            advice = self._association_policy.advice(calling, called, address, rejection.why)
            remedy = " ".join((advice.sentence, *advice.toml.splitlines()))
            certificate: PeerCertificate | None = association.certificate
            shown = f" Its certificate: {escaped(str(certificate))}." if certificate is not None else ""
            log.warning("association %s rejected: %s. %s%s", _parties(association), rejection.why, remedy, shown)
        connection.suppress_end_message()
        association.acse.send_reject(rejection.result, rejection.source, rejection.reason)
        association.kill()

    def _reject_handshake(self, address: str, problem: TlsProblem, message: str) -> None:
        """Keep for the admin whose TLS handshake failed."""
        self._instruments.count_rejected(problem.why)
        if self._rejected is None or self._rejected.add("", "", address, problem.why):
            log.warning("connection from %s refused: %s (%s). %s", address, problem.why, message, problem.remedy)

    def _answer(self, spooled: SpooledInstance, command: StoreCommand) -> Answer:
        began = time.perf_counter()
        answer = self._receiver.answer(spooled)
        taken = time.perf_counter() - began
        self._instruments.time_cstore(answer.status, taken)
        if answer.status:
            self._on_failure(command, answer.status)
            log.warning(
                "C-STORE of %s answered with 0x%04X: %s", command.calling_ae_title, answer.status, answer.comment
            )
        return answer

    def _begin(self, command: StoreCommand) -> SpoolFile:
        return self._store.temporary(file_preface(command))


def _connection(association: Association) -> Connection:
    connection: Connection = association.connection
    return connection


def _is_busy(association: Association) -> bool:
    return association.is_alive() and _connection(association).busy


def _parties(association: Association) -> str:
    """AE titles and address of an association, for the log; AE titles may be any bytes."""
    calling, called = map(escaped, _connection(association).titles or ("", ""))
    return f"of '{calling}' to '{called}' from {association.requestor.address}"
