"""Checks of the parts of a node. Each check examines the real part and gives a remedy."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError

from config.settings import Destination, Settings
from db.engine import connect, schema_problem
from db.notifications import Notifications
from models.manifest import ManifestError
from models.model_registry import UnknownModel, read_registry
from node.dicom.instance_store import SET_ASIDE
from node.dicom.storage_scu import Peer, SendError, echo
from node.embedded_broker import BrokerError, answers, server_binary
from node.hl7.listener import tls_context
from workers.destinations.destination_kind import PeerError
from workers.destinations.destination_kinds import KINDS
from workers.notifications.channel import NotSentError
from workers.notifications.channels import CHANNELS, enabled_channels


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check; ``remedy`` is empty if nothing needs to be done."""

    part: str
    ok: bool
    found: str
    remedy: str = ""


def examine(settings: Settings, *, peers: bool = True) -> Iterator[Check]:
    """Check every part in ``settings`` one after the other; with ``peers`` also destinations and channels."""
    yield Check("settings", True, "read and valid")
    yield check_store(settings)
    yield check_database(settings)
    yield check_broker(settings)
    yield check_models(settings)
    yield check_port(settings)
    if not settings.destinations:
        yield Check("destinations", False, "none is configured", "add [[destinations]]: results are not sent")
    for destination in settings.destinations if peers else ():
        yield check_destination(settings, destination)
    if settings.hl7.enabled:
        yield check_hl7(settings)
        yield check_issuers(settings)
    for channel in enabled_channels(settings) if peers else ():
        yield check_channel(settings, channel)


def check_store(settings: Settings) -> Check:
    """The store folder is writable, has more than ``store.minimum_free_bytes`` free, and no file was set aside."""
    folder = settings.store.folder.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        return Check(
            "store", False, f"{existing} cannot be written", "make it writable for this user, or set store.folder"
        )
    free = shutil.disk_usage(existing).free
    if free < settings.store.minimum_free_bytes:
        return Check(
            "store", False, f"{free / 1e9:.1f} GB free in {existing}", "free some space, or lower store.keep_days"
        )
    aside = sum(1 for _ in (folder / SET_ASIDE).glob("*"))
    if aside:
        return Check(
            "store", False, f"{aside} files are set aside", f"send those images again, then empty {folder / SET_ASIDE}"
        )
    return Check("store", True, f"{free / 1e9:.1f} GB free in {folder}")


def check_database(settings: Settings) -> Check:
    """The database answers and its schema is this version's."""
    if settings.database.url is None and not (settings.store.folder / "pleura.sqlite").exists():
        return Check("database", True, "SQLite; created at the first start")
    try:
        problem = schema_problem(connect(settings.database_url))
    except SQLAlchemyError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        return Check("database", False, reason, "is the server running, and is database.url right?")
    if problem:
        return Check("database", False, problem, "start `pleura serve` once: it migrates the schema")
    return Check("database", True, "answers, schema is up to date")


def check_broker(settings: Settings) -> Check:
    """The configured broker answers, or the embedded one can be started."""
    if settings.broker.url is None:
        return _check_embedded_broker(settings)
    address = urlsplit(settings.broker_url)
    try:
        socket.create_connection((address.hostname or "localhost", address.port or 6379), timeout=3).close()
    except OSError as error:
        return Check("broker", False, f"no connection: {error}", "start Redis, or fix broker.url")
    return Check("broker", True, f"{address.hostname}:{address.port or 6379} accepts connections")


def _check_embedded_broker(settings: Settings) -> Check:
    try:
        binary = server_binary(settings.broker.server)
    except BrokerError as error:
        return Check("broker", False, str(error), "set broker.url to a Redis, or broker.server to a redis-server")
    running = settings.broker_socket.exists() and answers(settings.broker_socket)
    return Check("broker", True, f"embedded, {'running' if running else 'starts with pleura serve'} ({binary.name})")


def check_models(settings: Settings) -> Check:
    """Every model in the settings exists and matches its digest."""
    names = [name for name in (settings.models.gate, *settings.models.active, *settings.models.shadow) if name]
    try:
        read_registry(settings.models.folder).active(names)
    except (ManifestError, UnknownModel, OSError) as error:
        return Check("models", False, str(error), "install the package again, or fix models.* and the manifest")
    return Check("models", True, ", ".join(names) or "none: no image is analysed")


def check_port(settings: Settings) -> Check:
    """The listener's port is free, or the listener of this node answers on it."""
    listener = settings.listener
    where = f"{listener.host}:{listener.port}"
    try:
        socket.create_server((listener.host, listener.port)).close()
    except OSError:
        peer = Peer(listener.host, listener.port, listener.ae_title, listener.ae_title, timeout_seconds=3)
        try:
            echo(peer)
        except SendError:
            return Check("listener", False, f"{where} is in use by another program", "set listener.port to a free port")
        return Check("listener", True, f"{listener.ae_title} answers on {where}")
    return Check("listener", True, f"{where} is free; starts with pleura serve")


def check_destination(settings: Settings, destination: Destination) -> Check:
    """The destination answers C-ECHO and supports the configured verification."""
    calling = destination.calling_ae_title or settings.listener.ae_title
    peer = Peer(destination.host, destination.port, destination.ae_title, calling, destination.timeout_seconds)
    name = f"destination {destination.name}"
    try:
        echo(peer)
    except SendError as error:
        return Check(name, False, str(error), f"it must know {calling} as a calling AE title; fix [[destinations]]")
    try:
        KINDS[destination.kind].check_verification(destination, calling)
    except PeerError as error:
        return Check(
            name, False, str(error), "allow it for this node there, or set another destinations[].verification"
        )
    verification = (
        "" if destination.verification == "none" else f", and supports verification by {destination.verification}"
    )
    return Check(
        name, True, f"{destination.ae_title} on {destination.host}:{destination.port} answers C-ECHO{verification}"
    )


def check_issuers(settings: Settings) -> Check:
    """The issuer of patient IDs that come without one: HL7 messages mostly name an issuer, images do not.

    Never a failure: if no message names an issuer, none needs to be configured.
    """
    names = settings.site.patient_id_issuers
    if names:
        return Check("patient IDs", True, f"the default issuer is {names[0]}")
    found = "no default issuer: messages that name an issuer do not match images without one"
    return Check("patient IDs", True, found, "set site.patient_id_issuers if PID-3.4 names this hospital")


def check_hl7(settings: Settings) -> Check:
    """The HL7 listener's certificate can be read, and its port is free or a listener answers on it."""
    rules = settings.hl7
    where = f"{rules.host}:{rules.port}"
    try:
        tls_context(rules)
    except OSError as error:
        return Check("HL7 listener", False, f"its certificate cannot be used: {error}", "fix hl7.tls_certificate")
    try:
        socket.create_server((rules.host, rules.port)).close()
    except OSError:
        try:
            socket.create_connection((rules.host, rules.port), timeout=3).close()
        except OSError as error:
            return Check("HL7 listener", False, f"{where} cannot be bound: {error}", "set hl7.host and hl7.port")
        return Check("HL7 listener", True, f"{where} accepts connections")
    return Check("HL7 listener", True, f"{where} is free; starts with pleura serve")


def check_channel(settings: Settings, name: str) -> Check:
    """The receiver of a notification channel can be reached; nothing is sent to it."""
    part = f"notification by {name}"
    try:
        found = CHANNELS[name].verify(settings)
    except NotSentError as error:
        return Check(part, False, str(error), f"fix [notifications.{name}]; test it with `pleura notify --test {name}`")
    failed = _failed(settings, name)
    if failed:
        return Check(
            part, False, f"{found}; {failed} notifications could not be sent", f"`pleura notify --retry {name}`"
        )
    return Check(part, True, found)


def _failed(settings: Settings, channel: str) -> int:
    """Number of failed notifications; 0 if the database cannot be used, which has its own check."""
    if settings.database.url is None and not (settings.store.folder / "pleura.sqlite").exists():
        return 0
    engine = connect(settings.database_url)
    return 0 if schema_problem(engine) else Notifications(engine).counts(channel).get("failed", 0)
