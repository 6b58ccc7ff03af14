"""Whether the ports of a node are what they should be: answered by its own parts, or free while it is stopped."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address

from config.dicomweb import DicomWebServer
from config.hl7 import HL7
from config.settings import Admin, Settings
from config.tls import Tls
from node.dicom.storage_scu import FailedTlsError, Peer, RejectedError, SendError, echo
from node.hl7.listener import tls_front
from node.monitoring.check import Check
from node.monitoring.page_port import page_answers, reached, scheme_of
from workers.tls import fingerprint_of, listener_contexts, page_contexts, tls_remedy

_SECONDS = 3.0


def check_listener(settings: Settings, running: bool) -> Check:
    """The listener answers C-ECHO, or its port is free while the node is stopped.

    ``running``: `pleura serve` runs on this machine, so its listener must answer.
    """
    listener = settings.listener
    key, port = next(iter(listener.ports.items()))
    problem = _problem_of_binding(f"listener.{key}", listener.host, port)
    where = " and ".join(f"{listener.host}:{each}" for each in listener.ports.values())
    if isinstance(problem, Check):
        return problem
    if not problem:
        return _free("listener", where, running) or _reachable(settings) or _starts("listener", where)
    try:
        echo(own_listener(settings, _SECONDS))
    except RejectedError as error:
        found = f"another AE answers on {where}: {str(error).rpartition(': ')[2]}"
        return Check(
            "listener", False, found, f"set listener.{key} to a free port; or restart this node, if it is older"
        )
    except FailedTlsError as error:
        found = f"{where} answers, but not to this node's own call: {str(error).partition(': ')[2]}"
        return Check("listener", False, found, tls_remedy(str(error)) or "see the log of the listener")
    except (SendError, OSError):
        return Check("listener", False, f"{where} is in use by another program", f"set listener.{key} to a free port")
    return _reachable(settings) or Check("listener", True, f"{listener.ae_title} answers on {where}")


def own_listener(settings: Settings, timeout_seconds: float) -> Peer:
    """The listener of this node, as this node calls it: by TLS only where there is no other way.

    Raises:
        OSError: ``tls.certificate`` cannot be read.
    """
    listener, files = settings.listener, settings.tls
    [port, *_] = listener.ports.values()
    peer = Peer(reached(listener.host), port, listener.ae_title, listener.ae_title, timeout_seconds)
    if listener.transport != "tls" or files.certificate is None:
        return peer
    # Its CA need not be one of those that peers have theirs from.
    own = Tls(certificate=files.certificate, key=files.key, ca=files.certificate)
    return replace(peer, tls=own, certificates=(fingerprint_of(files.certificate),))


def check_admin(settings: Settings, running: bool) -> Check:
    """The admin page answers, or its port is free while the node is stopped."""
    admin = settings.admin
    where = f"{admin.host}:{admin.port}"
    if not admin.enabled:
        return Check("admin page", True, "off")
    if (unusable := _unusable("admin page", "admin.tls_certificate", lambda: _load_page(admin))) is not None:
        return unusable
    problem = _problem_of_binding("admin.port", admin.host, admin.port)
    if isinstance(problem, Check):
        return problem
    if not problem:
        return _free("admin", where, running) or _starts("admin page", where)
    if not page_answers(admin):
        return Check("admin page", False, f"{where} is in use by another program", "set admin.port to a free port")
    return Check("admin page", True, f"answers on {scheme_of(admin)}://{where}/")


def check_hl7(settings: Settings, running: bool) -> Check:
    """The HL7 listener's certificate can be read, and its port is free or a listener answers on it."""
    return _check_server("hl7", settings.hl7, lambda: tls_front(settings.hl7), running)


def check_dicomweb(settings: Settings, running: bool) -> Check:
    """The same of the DICOMweb server."""
    return _check_server("dicomweb", settings.dicomweb, lambda: _load_dicomweb(settings.dicomweb), running)


def _check_server(key: str, server: HL7 | DicomWebServer, load: Callable[[], object], running: bool) -> Check:
    part, where = _NAMES[key], f"{server.host}:{server.port}"
    if (unusable := _unusable(part, f"{key}.tls_certificate", load)) is not None:
        return unusable
    problem = _problem_of_binding(f"{key}.port", server.host, server.port)
    if isinstance(problem, Check):
        return problem
    if not problem:
        return _free(key, where, running) or _starts(part, where)
    try:
        socket.create_connection((reached(server.host), server.port), timeout=_SECONDS).close()
    except OSError as error:
        return Check(part, False, f"{where} does not answer: {error}", f"set {key}.port to a free port")
    return Check(part, True, f"{where} accepts connections")


def unusable_certificates(settings: Settings) -> Iterator[Check]:
    """Each part that cannot start, for a file that it needs for TLS."""
    listener, admin, hl7, web = settings.listener, settings.admin, settings.hl7, settings.dicomweb
    loaded = {
        "listener": ("tls.certificate, tls.key and tls.ca", listener.has_tls, lambda: listener_contexts(settings.tls)),
        "admin page": ("admin.tls_certificate", admin.enabled, lambda: _load_page(admin)),
        "HL7 listener": ("hl7.tls_certificate", hl7.enabled, lambda: tls_front(hl7)),
        "DICOMweb server": ("dicomweb.tls_certificate", web.enabled, lambda: _load_dicomweb(web)),
    }
    for part, (keys, used, load) in loaded.items():
        if used and (unusable := _unusable(part, keys, load)) is not None:
            yield unusable


def _load_page(admin: Admin) -> None:
    if admin.tls_certificate is not None:
        page_contexts(admin.tls_certificate, admin.tls_key)


def _load_dicomweb(server: DicomWebServer) -> None:
    if server.tls_certificate is not None:
        page_contexts(server.tls_certificate, server.tls_key, server.tls_client_ca)


def _unusable(part: str, keys: str, load: Callable[[], object]) -> Check | None:
    """Why the files for TLS of a part cannot be used, if they cannot."""
    try:
        load()
    except OSError as error:
        return Check(part, False, f"its certificate cannot be used: {error}", f"fix {keys}")
    return None


def ports_that_cannot_be_bound(settings: Settings) -> Iterator[tuple[Check, bool]]:
    """Each part whose address cannot be bound while the node is stopped, and whether that may pass: others have the
    port, or the address is not of this machine yet. What this user may not do lasts."""
    listener = settings.listener
    servers = (("admin", settings.admin), ("hl7", settings.hl7), ("dicomweb", settings.dicomweb))
    wanted = [(f"listener.{key}", listener.host, port) for key, port in listener.ports.items()]
    wanted += [(f"{key}.port", server.host, server.port) for key, server in servers if server.enabled]
    for key, host, port in wanted:
        problem = _problem_of_binding(key, host, port)
        if isinstance(problem, Check):
            yield problem, _binding_error(host, port) not in _NOT_ALLOWED
        elif problem:
            remedy = f"stop it, or set {key} to a free port"
            yield Check(_name(key), False, f"{host}:{port} is in use by another program", remedy), True


_NAMES = {"listener": "listener", "admin": "admin page", "hl7": "HL7 listener", "dicomweb": "DICOMweb server"}


def _name(key: str) -> str:
    return _NAMES[key.partition(".")[0]]


_NOT_ALLOWED = (errno.EACCES, errno.EPERM)


def _binding_error(host: str, port: int) -> int | None:
    """Why nothing could listen there now (errno(3)); 0 where it could, None where it is a name without an address."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except socket.gaierror:
        return None
    except OSError as error:
        return error.errno
    return 0


def _problem_of_binding(key: str, host: str, port: int) -> Check | bool:
    """Whether the port is in use; a Check where no part could listen there."""
    error = _binding_error(host, port)
    if error in _NOT_ALLOWED:
        remedy = f"set {key} to 1024 or more, or allow it (CAP_NET_BIND_SERVICE)"
        return Check(_name(key), False, f"this user may not listen on port {port}", remedy)
    if error in (0, errno.EADDRINUSE):
        return error == errno.EADDRINUSE
    part = key.partition(".")[0]
    remedy = f"set {part}.host to an address of this machine, or to 0.0.0.0 for all of them"
    return Check(_name(key), False, f"{host} is no address of this machine", remedy)


def _free(key: str, where: str, running: bool) -> Check | None:
    if not running or where.endswith(":0"):
        return None
    remedy = "see the log of `pleura serve`, which starts this part again and again"
    return Check(_NAMES[key], False, f"the node runs, but nothing listens on {where}", remedy)


def _starts(part: str, where: str) -> Check:
    found = "takes a free port" if where.endswith(":0") else f"{where} is free; starts with pleura serve"
    return Check(part, True, found)


def _reachable(settings: Settings) -> Check | None:
    """The problem of a listener that other machines can reach and whose peers are all on this machine."""
    listener = settings.listener
    if listener.peers or _is_loopback(listener.host):
        return None
    [port, *_] = listener.ports.values()
    found = f"{listener.host}:{port} can be reached from other machines, but no peer is configured: all are rejected"
    return Check("listener", False, found, "add [[listener.peers]] with ae_title and addresses of each sender")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
