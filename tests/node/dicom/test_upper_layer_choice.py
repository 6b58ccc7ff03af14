"""Both upper layers under conversations that no standard knows, and the choice between them."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from random import Random
from typing import Literal

import pytest
from pynetdicom.dul import DULServiceProvider

from config.listener import Listener
from node.dicom.upper_layer.choice import missing_hooks, upper_layer
from node.dicom.upper_layer.connection import Receiving
from node.dicom.upper_layer.fast import FastUpperLayer
from node.dicom.upper_layer.stock import StockUpperLayer
from tests.fuzz.conversations import conversation, hold
from tests.fuzz.peer import CR, EXPLICIT, Peer
from tests.node.dicom.listening import chest, listening
from tests.node.dicom.test_received_header import encoded

CONVERSATIONS = 60


# An error in pynetdicom's state machine ends its thread; the stock path tidies up behind it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("layer", ["fast", "stock"])
def test_strange_conversations_harm_nobody_else(
    tmp_path: Path, layer: Literal["fast", "stock"], caplog: pytest.LogCaptureFixture
) -> None:
    random = Random(11)
    limits = Listener(port=0, upper_layer=layer, idle_timeout_seconds=2, request_timeout_seconds=2)
    with listening(tmp_path, limits) as node:
        for _ in range(CONVERSATIONS):
            hold(node.port, conversation(random), seconds=0.01)
        image = chest()
        with Peer(node.port, [(CR, EXPLICIT)]) as peer:
            assert peer.store(encoded(image), image.SOPInstanceUID).status == 0
        end = time.monotonic() + 60
        while node.scp.association_count and time.monotonic() < end:
            time.sleep(0.05)
        assert node.scp.association_count == 0
        assert node.leftovers() == []
    ours = [record for record in caplog.records if record.name.startswith("node.")]
    assert [record.getMessage() for record in ours if record.levelno >= logging.ERROR] == []


def _receiving(layer: Literal["fast", "stock"]) -> Receiving:
    def never(*_: object) -> None:
        raise AssertionError

    return Receiving(Listener(upper_layer=layer), never, never, never, never)  # type: ignore[arg-type]


def test_the_installed_pynetdicom_has_every_hook(caplog: pytest.LogCaptureFixture) -> None:
    assert missing_hooks() == ()
    assert isinstance(upper_layer(_receiving("fast")), FastUpperLayer)
    assert isinstance(upper_layer(_receiving("stock")), StockUpperLayer)
    assert caplog.records == []


def test_a_hook_that_is_gone_costs_speed_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(DULServiceProvider, "_is_transport_event")
    assert missing_hooks() == ("DULServiceProvider._is_transport_event",)
    assert isinstance(upper_layer(_receiving("fast")), StockUpperLayer)
    assert ["DULServiceProvider._is_transport_event" in record.getMessage() for record in caplog.records] == [True]
