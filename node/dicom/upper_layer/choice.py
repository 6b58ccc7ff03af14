"""Which upper layer a listener has: ours, if pynetdicom has all parts that it is built on, or pynetdicom's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket

from node.dicom.upper_layer.connection import Receiving, UpperLayer
from node.dicom.upper_layer.fast import FastUpperLayer
from node.dicom.upper_layer.stock import StockUpperLayer

log = logging.getLogger(__name__)

HOOKS: Mapping[type, tuple[str, ...]] = {
    Association: ("_accepted_cx", "_kill", "_reactor_checkpoint"),
    DULServiceProvider: (
        "_decode_pdu",
        "_idle_timer",
        "_is_transport_event",
        "_kill_thread",
        "_run_loop_delay",
        "event_queue",
        "kill_dul",
        "run_reactor",
        "send_pdu",
        "state_machine",
        "to_provider_queue",
        "to_user_queue",
    ),
    DIMSEServiceProvider: ("maximum_pdu_size", "msg_queue", "receive_primitive"),
    AssociationSocket: ("close", "ready", "recv", "send"),
}
"""Parts of pynetdicom that ``fast.py``, ``buffered_socket.py`` and ``dimse.py`` replace or touch, by class. Those
that begin with an underscore are private, and may go with any version."""


def upper_layer(receiving: Receiving) -> UpperLayer:
    """The upper layer that ``listener.upper_layer`` names; the stock one, with a warning, where ours would not work."""
    if receiving.listener.upper_layer == "stock":
        return StockUpperLayer(receiving)
    missing = missing_hooks()
    if not missing:
        return FastUpperLayer(receiving)
    log.warning(
        "pynetdicom %s lacks %s, on which listener.upper_layer = fast is built; its own upper layer is used, which is "
        "slower",
        version("pynetdicom"),
        ", ".join(missing),
    )
    return StockUpperLayer(receiving)


def missing_hooks(hooks: Mapping[type, tuple[str, ...]] = HOOKS) -> tuple[str, ...]:
    """Parts that the installed pynetdicom does not have, as ``Class.name``."""
    examples: Mapping[type, Any] = _examples()
    return tuple(
        f"{owner.__name__}.{name}"
        for owner, names in hooks.items()
        for name in names
        if not hasattr(examples.get(owner, owner), name)
    )


def _examples() -> Mapping[type, Any]:
    """An association and its parts, whose threads never start: some attributes are made with the object alone."""
    association = Association(AE(), mode="acceptor")
    return {
        Association: association,
        DULServiceProvider: association.dul,
        DIMSEServiceProvider: association.dimse,
    }
