"""Checks of the parts of a node. Each check examines the real part and gives a remedy."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta, tzinfo
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from config.audit import AuditRepository
from config.destinations import Destination
from config.settings import Settings
from config.tls import Tls
from db import audit, audit_chain, audit_feed, notifications, rejected_associations
from db.audit_feed import FeedState
from db.connection_problem import connection_problem
from db.engine import BEFORE_RELEASE_REMEDY, connect, look_at_schema, made_before_release, schema_problem
from db.errors import DatabaseURLError
from db.holds import with_deliveries_on_hold
from db.instances import is_any_known
from db.jobs import as_many_wait
from db.queries.metrics import waiting
from db.queries.problems import Problem, problems
from db.queries.routing import images_by_rule
from db.queries.statistics import Statistics
from db.queries.system import growth
from db.server_clock import ahead_of_server, difference_in_words
from db.users import Accounts
from models.manifest import ManifestError
from models.model_registry import UnknownModel, read_registry
from models.remote.describing import check_server
from models.runtime.executor import ModelLoadError, ModelOutputError, ModelUnavailableError
from models.same_finding import sent_twice
from node.dicom.association_policy import AssociationPolicy
from node.dicom.storage_scu import Peer, SendError, echo
from node.monitoring.broker_health import check_broker, embedded_broker_runs
from node.monitoring.certificates import check_certificates, check_tls
from node.monitoring.check import Check, with_effect
from node.monitoring.disk import check_room
from node.monitoring.erasing_health import check_erasures
from node.monitoring.extras import missing_extras
from node.monitoring.parts import check_device, check_parts
from node.monitoring.permissions import check_permissions
from node.monitoring.port_health import check_admin, check_dicomweb, check_hl7, check_listener
from node.monitoring.queue_health import check_queues, unserved_here
from node.monitoring.remedies import remedy
from node.monitoring.routing_health import check_comparisons, check_decisions, check_rules
from node.monitoring.sign_on_health import check_openid
from node.monitoring.time_zone import check_time_zone
from workers.analysis_queues import analysis_queues
from workers.audit import syslog
from workers.clock import for_people, utc_now
from workers.destinations.destination_kind import PeerError
from workers.destinations.destination_kinds import destination_kinds
from workers.notifications.channel import NotSentError
from workers.notifications.channels import CHANNELS, enabled_channels
from workers.pipeline_digest import active_pipeline
from workers.store_files import AWAY, INSTANCES, SET_ASIDE, is_away
from workers.tls import TLS_PROBLEM

_LATELY = timedelta(hours=24)
_CALLERS = 3
_PEER_SECONDS = 5.0
_AT_ONCE = 8
_MOST_STUDIES = 5
_LATEST_ENTRIES = 1000
_LATE_ENTRIES = timedelta(minutes=10)


def examine(settings: Settings, *, peers: bool = True) -> Iterator[Check]:
    """Check every part in ``settings`` one after the other; with ``peers`` also what others run."""
    return map(with_effect, _checks(settings, peers))


def _checks(settings: Settings, peers: bool) -> Iterator[Check]:
    yield Check("settings", True, "read and valid")
    yield check_store(settings)
    yield check_permissions(settings)
    yield from check_tls(settings)
    yield from check_certificates(settings)
    database = check_database(settings)
    yield database
    if database.ok:
        yield from check_store_is_there(settings)
    yield check_broker(settings)
    yield check_models(settings)
    yield from check_time_zone(settings)
    yield from check_same_findings(settings)
    yield from check_rules(settings)
    yield from check_comparisons(settings)
    if peers:
        yield from check_model_servers(settings)
    running = embedded_broker_runs(settings)
    yield from check_parts(settings)
    yield check_listener(settings, running)
    yield check_admin(settings, running)
    if settings.hl7.enabled:
        yield check_hl7(settings, running)
        yield check_issuers(settings)
    if settings.dicomweb.enabled:
        yield check_dicomweb(settings, running)
    missing = list(missing_extras(settings))
    yield from missing
    if peers and not missing and settings.admin.enabled and settings.admin.openid.enabled:
        yield check_openid(settings)
    if peers and settings.traces.enabled:
        yield check_collector(settings)
    if database.ok:
        yield from check_clock(settings)
        yield from check_work(settings)
        yield from check_audit(settings, peers=peers)
    if not settings.destinations:
        yield Check("destinations", False, "none is configured", "add [[destinations]]: results are not sent")
    if peers and settings.destinations:
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # several that hang cost no more time than one
            yield from pool.map(partial(_check_soon, settings), settings.destinations)
    for channel in enabled_channels(settings) if peers else ():
        yield check_channel(settings, channel)


def _check_soon(settings: Settings, destination: Destination) -> Check:
    """The check of a destination, which has no longer than a person at a terminal wants to wait."""
    seconds = min(destination.timeout_seconds, _PEER_SECONDS)
    return check_destination(settings, destination.model_copy(update={"timeout_seconds": seconds}))


def check_store(settings: Settings) -> Check:
    """The store folder is writable, has more than ``store.minimum_free_bytes`` free, and no file was set aside."""
    folder = settings.store.folder.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir():
        return Check("store", False, f"{existing} is no folder", "set store.folder to a folder")
    if not os.access(existing, os.W_OK):
        return _unwritable(existing)
    free = shutil.disk_usage(existing).free
    if free < settings.store.minimum_free_bytes:
        least = settings.store.minimum_free_bytes
        found = (
            f"{free / 1e9:.1f} GB free in {existing}, less than store.minimum_free_bytes ({least / 1e9:.1f} GB):"
            " images are refused with 0xA700, and their senders try again"
        )
        return Check("store", False, found, "free some space, or lower store.keep_days")
    aside = sum(1 for _ in (folder / SET_ASIDE).glob("*"))
    if aside:
        return Check(
            "store", False, f"{aside} files are set aside", f"send those images again, then empty {folder / SET_ASIDE}"
        )
    return Check("store", True, f"{free / 1e9:.1f} GB free in {folder}")


def check_store_is_there(settings: Settings) -> Iterator[Check]:
    """What the database knows was received into this folder, and not into one that is not mounted."""
    folder = settings.store.folder.absolute()
    if not is_away(folder):
        return
    with _usable_database(settings) as engine:
        if engine is None:
            return
        with engine.connect() as connection:
            known = is_any_known(connection)
    if known:
        found = f"{folder} has no folder {INSTANCES}: {AWAY}"
        yield Check("store", False, found, "mount it, or correct store.folder")


def _unwritable(folder: Path) -> Check:
    """Why the store cannot be written: the file system takes nothing more, or the user may not."""
    found, remedy = f"{folder} cannot be written", "make it writable for this user, or set store.folder"
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        found = f"{folder} is on a file system that is read-only"
        remedy = "see the system's log (`dmesg`) for errors of the disk, then mount it writable again"
    return Check("store", False, f"{found}: images are refused with 0xA700, and their senders try again", remedy)


def check_database(settings: Settings) -> Check:
    """The database answers and its schema is this version's, or `pleura serve` will make it so."""
    if _is_not_made(settings):
        return Check("database", True, "SQLite; created at the first start")
    try:
        engine = connect(settings.database_url)
    except DatabaseURLError as error:
        return Check("database", False, str(error), "correct database.url")
    try:
        problem = look_at_schema(engine)
        lacks = "" if problem else made_before_release(engine)
    except SQLAlchemyError as error:
        found = connection_problem(error, engine.url)
        return Check("database", False, found.sentence, found.remedy)
    finally:
        engine.dispose()
    if problem is not None:
        remedy = "" if problem.migrates else "or restore the backup that was made before the upgrade"
        return Check("database", problem.migrates, problem.sentence, remedy)
    if lacks:
        return Check("database", False, lacks, BEFORE_RELEASE_REMEDY)
    return Check("database", True, "answers, schema is up to date")


def _is_not_made(settings: Settings) -> bool:
    return settings.database.url is None and not (settings.store.folder / "pleura.sqlite").exists()


@contextmanager
def _usable_database(settings: Settings) -> Iterator[Engine | None]:
    """The database; None where it cannot be used, which has a check of its own."""
    if _is_not_made(settings):
        yield None
        return
    engine = connect(settings.database_url)
    try:
        yield engine if schema_problem(engine) is None else None
    finally:
        engine.dispose()


def check_clock(settings: Settings) -> Iterator[Check]:
    """This machine's clock agrees with that of the database server, where that is another machine's."""
    with _usable_database(settings) as engine:
        ahead = ahead_of_server(engine, utc_now) if engine is not None else None
    if ahead is None:
        return
    if problem := difference_in_words(ahead):
        found = f"{problem}: workers of other hosts may take what is still worked at here"
        yield Check(
            "clock", False, found, "let both machines follow one NTP server (`timedatectl`, `chronyc tracking`)"
        )
    else:
        yield Check("clock", True, f"within {max(abs(ahead).total_seconds(), 0.1):.1f} s of the database server's")


def check_work(settings: Settings) -> Iterator[Check]:
    """Jobs are taken by a worker; hints where no user can log in, and where callers were rejected lately."""
    with _usable_database(settings) as engine:
        if engine is None:
            return
        with engine.connect() as connection:
            queues = waiting(connection)
        unserved = unserved_here(settings, queues, utc_now())
        yield from check_queues(unserved)
        oldest = Statistics(engine).oldest_queued(utc_now())
        if not unserved and oldest > settings.workers.late_job_after_seconds:
            count = sum(queues[name].count for name in analysis_queues(settings.models) if name in queues)
            found = f"a job has waited for {oldest / 60:.0f} min ({count} waiting)"
            remedy = "see the log of the workers; if jobs end there, the machine is too slow: start more workers"
            yield Check("workers", False, found, remedy, "New images wait about as long until they are analysed.")
        yield from check_device(settings.workers.device, Statistics(engine).workers(utc_now() - _LATELY))
        if settings.admin.enabled and not Accounts(engine).users():
            hint = "pleura user add NAME --role admin"
            yield Check("users", True, "nobody can log in to the admin page yet", hint)
        yield from _check_limits(engine, settings)
        yield from check_erasures(engine, settings)
        yield from _on_hold(engine)
        policy = AssociationPolicy(settings.listener)
        with engine.connect() as connection:
            yield from (_failure(one, settings) for one in problems(connection))
            callers = rejected_associations.latest(connection, utc_now() - _LATELY)
            yield from check_decisions(settings, images_by_rule(connection, utc_now() - _LATELY))
        for one in callers[:_CALLERS]:
            who = (one.calling_ae_title, one.called_ae_title, one.address)
            titles = "a caller" if one.reason.startswith(TLS_PROBLEM) else f"{who[0]} to {who[1]}"
            found = f"rejected {one.count} times: {titles} from {who[2]}: {one.reason}"
            advice = policy.advice(*who, one.reason)
            yield Check("callers", True, found, " ".join((advice.sentence, *advice.toml.splitlines())))


def _check_limits(engine: Engine, settings: Settings) -> Iterator[Check]:
    """What is answered with 0xA700: images now, because too many wait, and soon, because the disk will be full."""
    most, store = settings.listener.maximum_waiting_jobs, settings.store
    with engine.connect() as connection:
        if most and as_many_wait(connection, most):
            found = (
                f"{most} images wait for analysis: further ones are refused with 0xA700, and their senders try again"
            )
            yield Check("queue", False, found, "start more workers, or raise listener.maximum_waiting_jobs")
        fills = growth(connection, utc_now())
    if store.folder.is_dir() and (room := check_room(shutil.disk_usage(store.folder).free, fills, store)):
        yield room


def _failure(problem: Problem, settings: Settings) -> Check:
    """What fails for one cause: given up, or tried again by itself, which is a hint until it is late."""
    part = "jobs" if problem.entity == "job" else f"deliveries to {problem.destination}"
    zone = settings.site.zone
    since = for_people(problem.since, zone)
    if problem.failed:
        found = f"{problem.failed} given up since {since}: {problem.error}"
        return Check(part, False, found, f"{remedy(problem.error)} Then `pleura retry --all`")
    found = f"{problem.retrying} cannot be done since {since}: {problem.error}"
    when = f", next at {for_people(problem.next_at, zone)}" if problem.next_at else ""
    late = utc_now() - problem.since > timedelta(seconds=settings.workers.late_job_after_seconds)
    return Check(
        part, not late, found, remedy(problem.error), f"Their studies wait; it is tried again by itself{when}."
    )


def _on_hold(engine: Engine) -> Iterator[Check]:
    """A hint at what waits for a person."""
    counts = Statistics(engine).queue_counts()
    held = [f"{number} {kind}" for kind in ("jobs", "deliveries") if (number := counts.get(f"{kind}.on_hold", 0))]
    if held:
        with engine.connect() as connection:
            numbers = [f"#{each}" for each in with_deliveries_on_hold(connection, _MOST_STUDIES)]
        # The worklist lists studies that are on hold, and not those that have a delivery on hold.
        where = f" (of {', '.join(numbers)}{' …' if len(numbers) == _MOST_STUDIES else ''})" if numbers else ""
        look = "`pleura show STUDY` says why" if numbers else "`pleura worklist --show on-hold`"
        found = f"{' and '.join(held)} wait for a person{where}: nothing of them is analysed or sent"
        yield Check("on hold", True, found, f"{look}, then `pleura release STUDY`")


def check_audit(settings: Settings, *, peers: bool = True) -> Iterator[Check]:
    """The latest entries of the audit trail hold together, and each repository gets them."""
    with _usable_database(settings) as engine:
        if engine is None:
            return
        with engine.connect() as connection:
            found = audit_chain.verify(connection, latest=_LATEST_ENTRIES)
            broken = audit.last_verification(connection)
            feeds = audit_feed.states(connection, [one.name for one in settings.audit.repositories])
    if found.problem or (broken is not None and broken.failed):
        problem = found.problem or str(broken and broken.detail)
        yield Check("audit trail", False, problem, "`pleura audit verify` says where; ask who could write the database")
    else:
        yield Check("audit trail", True, f"its last {found.entries} entries hold, up to {found.head.position}")
    for repository, state in zip(settings.audit.repositories, feeds, strict=True):
        yield _check_repository(repository, state, settings.tls if peers else None, settings.site.zone)


def _check_repository(repository: AuditRepository, state: FeedState, tls: Tls | None, zone: tzinfo) -> Check:
    part = f"audit repository {repository.name}"
    remedy = f"correct audit.repositories, or start {repository.host} again: nothing is lost meanwhile"
    waits = f"{state.waiting} entries wait, since {for_people(state.oldest_at, zone)}" if state.oldest_at else ""
    late = state.oldest_at is not None and utc_now() - state.oldest_at > _LATE_ENTRIES
    if state.error or late:
        return Check(part, False, "; ".join(filter(None, (state.error, waits))), remedy)
    try:
        if tls is not None:
            syslog.verify(repository, tls)
    except syslog.NotSentError as error:
        return Check(part, False, "; ".join(filter(None, (str(error), waits))), remedy)
    return Check(part, True, waits or "has every entry")


def check_model_servers(settings: Settings) -> Iterator[Check]:
    """Each server on which a configured model runs answers, and runs what the manifest pins."""
    try:
        specs = read_registry(settings.models.folder, verify=False).active(settings.models.names)
    except (UnknownModel, ManifestError, OSError):
        return  # check_models has told it
    for spec in specs:
        if spec.endpoint is None:
            continue
        part = f"model server of {spec.name}"
        try:
            check_server(spec)
        except (ModelUnavailableError, ModelLoadError, ModelOutputError) as error:
            yield Check(part, False, str(error), remedy(str(error)))
        else:
            version = f" {spec.endpoint.version}" if spec.endpoint.version else ""
            yield Check(part, True, f"{spec.endpoint.url} runs {spec.endpoint.model}{version}, as pinned")


def check_models(settings: Settings) -> Check:
    """Every model in the settings exists, matches its digest, and they go together."""
    names = settings.models.names
    try:
        active_pipeline(settings, verify=True)
    except UnknownModel as error:
        return Check("models", False, str(error), "correct models.gate, models.lungs, models.active or models.shadow")
    except (ManifestError, OSError) as error:
        return Check(
            "models",
            False,
            f"{error}; without it no worker can start, and images wait",
            "put the file back (a backup, `pleura models add`, or the package again), or correct models.folder",
        )
    return Check("models", True, ", ".join(names))


def check_same_findings(settings: Settings) -> Iterator[Check]:
    """No two models send the same finding, with answers that may contradict each other."""
    try:
        models = active_pipeline(settings).models
    except (UnknownModel, ManifestError, OSError):
        return  # check_models has told it
    for label, names in sent_twice(models).items():
        yield Check(
            f"finding {label}",
            False,
            f"{' and '.join(names)} both send it, and their answers may contradict each other",
            "say replaces or place_of in the manifest of one of them (docs/models.md), or put one into models.shadow",
        )


def check_destination(settings: Settings, destination: Destination) -> Check:
    """The destination answers, or its folder can be written, and it supports the configured verification."""
    if destination.kind != "dimse":
        return _check_other_kind(settings, destination)
    calling = destination.calling_ae_title or settings.listener.ae_title
    peer = Peer(
        destination.host,
        destination.port,
        destination.ae_title,
        calling,
        destination.timeout_seconds,
        settings.tls if destination.tls else None,
        destination.certificates,
    )
    name, kind = f"destination {destination.name}", destination_kinds(settings)[destination.kind]
    try:
        echo(peer)
    except SendError as error:
        return Check(name, False, f"{error} (we call as {calling})", remedy(str(error)))
    try:
        kind.check_verification(destination, calling)
    except PeerError as error:
        return Check(
            name, False, str(error), "allow it for this node there, or set another destinations[].verification"
        )
    verification = (
        "" if destination.verification == "none" else f", and supports verification by {destination.verification}"
    )
    return Check(
        name, True, f"{destination.ae_title} on {destination.host}:{destination.port} {kind.answer}{verification}"
    )


def _check_other_kind(settings: Settings, destination: Destination) -> Check:
    """A destination that is no DICOM AE."""
    name, kind = f"destination {destination.name}", destination_kinds(settings)[destination.kind]
    try:
        kind.verify(destination, "")
    except PeerError as error:
        folder = "let the node's user write it, or set another destinations[].folder"
        return Check(name, False, str(error), folder if destination.folder else remedy(str(error)))
    return Check(name, True, f"{destination.where} {kind.answer}")


def check_collector(settings: Settings) -> Check:
    """The collector of traces accepts connections; nothing is sent to it."""
    url = urlsplit(settings.traces.endpoint)
    where = (url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
    try:
        socket.create_connection(where, settings.traces.timeout_seconds).close()
    except OSError as error:
        remedy = "correct traces.endpoint, or see the collector; the node works without it"
        return Check("traces", False, f"no connection to {where[0]}:{where[1]}: {error}", remedy)
    return Check("traces", True, f"{where[0]}:{where[1]} accepts connections")


def check_issuers(settings: Settings) -> Check:
    """The issuer of patient IDs that come without one: HL7 messages mostly name an issuer, images do not.

    Never a failure: if no message names an issuer, none needs to be configured.
    """
    names = settings.site.patient_id_issuers
    if names:
        return Check("patient IDs", True, f"the default issuer is {names[0]}")
    found = "no default issuer: messages that name an issuer do not match images without one"
    return Check("patient IDs", True, found, "set site.patient_id_issuers if PID-3.4 names this hospital")


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
    """Number of failed notifications; 0 if the database cannot be used."""
    with _usable_database(settings) as engine:
        if engine is None:
            return 0
        with engine.connect() as connection:
            return notifications.counts(connection, channel).get("failed", 0)
