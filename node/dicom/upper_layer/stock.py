"""pynetdicom's own upper layer and DIMSE, by public events alone: the fallback for a pynetdicom that :mod:`fast` does
not know.

It is several times slower. It holds each data set in memory, it believes the length that a PDU claims, and it knows no
minimum rate (``listener.minimum_bytes_per_second``); an association that is idle is aborted.
"""

from __future__ import annotations

import socket

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class

from node.dicom.spool import Answer, SpooledInstance, StoreCommand, plain
from node.dicom.upper_layer.connection import CLOSED, Handlers, Receiving
from workers.tls import shut_down

_HIGH = 0x0001  # PS3.7 9.3.1.1, Priority
_C_STORE_RSP = 0x8001
_LONGEST_COMMENT = 64
_MOST_CLASSES = 1000


class StockConnection:
    """One connection of a peer; see :class:`node.dicom.upper_layer.connection.Connection`."""

    def __init__(self, association: Association) -> None:
        self.association = association
        self.busy = False
        self._why = ""
        self._expected = False

    @property
    def titles(self) -> tuple[str, str] | None:
        """Calling and called AE title; None until an association is requested."""
        request = self.association.requestor.primitive
        return None if request is None else (str(request.calling_ae_title), str(request.called_ae_title))

    @property
    def abnormal_end(self) -> str:
        """Why the association did not end by a release, for the log; empty if it did, or was never requested."""
        if self._expected or self.association.is_released:
            return ""
        return self._why or ("it was aborted" if self.association.is_aborted else CLOSED)

    @property
    def ended(self) -> bool:
        """Whether the thread that reads has run and has ended."""
        return self.association.dul.ident is not None and not self.association.dul.is_alive()

    def close(self, why: str) -> None:
        """Close the connection at once for this reason. Any thread may call it."""
        self._why = self._why or why
        connection = self._socket()
        if connection is not None:
            shut_down(connection)

    def suppress_end_message(self) -> None:
        """Do not log why the association ends: the caller has logged it."""
        self._expected = True

    def release_socket(self) -> None:
        """Close what the thread has left open: an error in pynetdicom's state machine ends the thread alone."""
        connection = self._socket()
        if connection is not None:
            connection.close()

    def _socket(self) -> socket.socket | None:
        wrapped = self.association.dul.socket
        plain_socket: socket.socket | None = None if wrapped is None else wrapped.socket
        return plain_socket


class StockUpperLayer:
    """The upper layer of a listener; see :class:`node.dicom.upper_layer.connection.UpperLayer`."""

    def __init__(self, receiving: Receiving) -> None:
        self._receiving = receiving
        self._open: dict[Association, StockConnection] = {}
        self._registered: set[str] = set()

    def handlers(self) -> Handlers:
        """An association that was accepted, a C-STORE, and a response that was sent."""
        return [
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_DIMSE_SENT, self._on_sent),
        ]

    def open(self, association: Association) -> StockConnection:
        """Take a connection whose association's threads have not started."""
        connection = self._open[association] = StockConnection(association)
        return connection

    def tend(self) -> None:
        """Forget the connections that have ended, and say so."""
        for association, connection in list(self._open.items()):
            if connection.ended:
                del self._open[association]
                connection.release_socket()
                self._receiving.ended(association)

    def _on_accepted(self, event: evt.Event) -> None:
        """Tell pynetdicom that the classes that it does not know, retired and private ones, are stored.

        It would end the association at the first C-STORE of one. It never forgets a class, so there is a limit.
        """
        for context in event.assoc.accepted_contexts:
            name = str(context.abstract_syntax)
            if uid_to_service_class(name) is ServiceClass and len(self._registered) < _MOST_CLASSES:
                self._registered.add(name)
                register_uid(name, f"Stored_{name.replace('.', '_')}", StorageServiceClass)

    def _on_store(self, event: evt.Event) -> Dataset:
        connection = self._open.get(event.assoc)
        if connection is not None:
            connection.busy = True
        command = _command(event)
        spooled = SpooledInstance(
            self._receiving.begin, command, self._receiving.listener.maximum_instance_bytes, rejection=None
        )
        if event.request.DataSet is not None:
            spooled.write(event.request.DataSet.getvalue())
        return _status(self._receiving.answering(spooled, command))

    def _on_sent(self, event: evt.Event) -> None:
        if event.message.command_set.CommandField != _C_STORE_RSP:
            return
        connection = self._open.get(event.assoc)
        if connection is not None:
            connection.busy = False
        self._receiving.answered()


def _command(event: evt.Event) -> StoreCommand:
    request, opening = event.request, event.assoc.requestor.primitive
    return StoreCommand(
        sop_class_uid=plain(request.AffectedSOPClassUID),
        sop_instance_uid=plain(request.AffectedSOPInstanceUID),
        abstract_syntax=plain(event.context.abstract_syntax),
        transfer_syntax_uid=plain(event.context.transfer_syntax),
        calling_ae_title=plain(opening.calling_ae_title),
        called_ae_title=plain(opening.called_ae_title),
        high_priority=request.Priority == _HIGH,
        address=str(event.assoc.requestor.address),
    )


def _status(answer: Answer) -> Dataset:
    status = Dataset()
    status.Status = answer.status
    if answer.comment:
        status.ErrorComment = answer.comment[:_LONGEST_COMMENT].encode("ascii", "replace").decode("ascii")
    return status
