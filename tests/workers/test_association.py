"""How an SCU opens its associations: no response of the peer is lost between pynetdicom's threads."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from pynetdicom import AE, Association, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification
from pynetdicom.transport import AssociationSocket, ThreadedAssociationServer

from workers.association import open_association


class LateReactor(threading.Event):
    """Lets pynetdicom's reactor pass its checkpoint and rest there, as a thread that loses the processor does."""

    def wait(self, timeout: float | None = None) -> bool:
        passed = super().wait(timeout)
        time.sleep(0.03)
        return passed


def slow_to_listen(association: Association) -> None:
    """Let the thread that sends lose the processor before it waits for the response."""
    send = association.dimse.send_msg

    def send_and_rest(*arguments: object) -> None:
        send(*arguments)
        time.sleep(0.06)

    association.dimse.send_msg = send_and_rest


def requested(server: ThreadedAssociationServer, called: str, seconds: float) -> Association:
    return open_association(
        server.server_address[:2],
        called=called,
        calling="US",
        contexts=[build_context(Verification)],
        seconds=seconds,
        connect_seconds=20,
    )


def test_a_response_is_never_taken_by_the_reactor() -> None:
    entity = AE()
    entity.supported_contexts = [build_context(Verification)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda event: 0x0000)])
    try:
        association = requested(server, "PEER", seconds=20)
        checkpoint = LateReactor()
        checkpoint.set()
        association._reactor_checkpoint = checkpoint
        slow_to_listen(association)
        answers = [association.send_c_echo().get("Status") for _ in range(5)]
        association.release()
    finally:
        server.shutdown()
    assert answers == [0x0000] * 5


class LateLook(threading.Event):
    """Lets pynetdicom look at its connection only when the peer has answered and closed it."""

    def __init__(self, connection: AssociationSocket) -> None:
        super().__init__()
        self._connection = connection

    def wait(self, timeout: float | None = None) -> bool:
        passed = super().wait(timeout)
        end = time.monotonic() + 20
        while self._connection._is_connected and time.monotonic() < end:
            time.sleep(0.005)
        return passed


def test_a_rejection_that_was_fast_is_a_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = AssociationSocket.__init__

    def begin_and_look_late(self: AssociationSocket, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        if options.get("client_socket") is None:
            self._ready = LateLook(self)

    entity = AE("PEER")
    entity.require_called_aet = True
    entity.supported_contexts = [build_context(Verification)]
    server = entity.start_server(("127.0.0.1", 0), block=False)
    monkeypatch.setattr(AssociationSocket, "__init__", begin_and_look_late)
    try:
        association = requested(server, "ANOTHER", seconds=20)
    finally:
        server.shutdown()
    assert association.is_rejected
    assert not association.is_aborted
    assert association.acceptor.primitive.diagnostic == 7
