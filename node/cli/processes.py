"""``pleura serve`` and its parts, each a command of its own for a distributed set-up."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from config.settings import Settings, load
from node.cli.common import config_of, console, database_opens, fail, settings_of, stop_on_signals

if TYPE_CHECKING:
    from node.supervisor import Node


@click.command()
@click.pass_context
def serve(context: click.Context) -> None:
    """Run the whole node: listener, workers, scheduler, admin page and, without broker.url, a broker of its own.

    Stop it with Ctrl-C or SIGTERM. Everything that it has accepted is in its store folder and is continued at the next
    start.
    """
    from node.embedded_broker import BrokerError
    from node.opening import ServeError
    from node.supervisor import Node

    settings = settings_of(context)
    with stop_on_signals() as stop:
        try:
            node = Node(settings, config_of(context))
        except (BrokerError, OSError) as error:
            fail(str(error), os.EX_CONFIG)
        announcing = threading.Thread(target=_announce, args=(node, settings, stop), daemon=True)
        try:
            if node.start(stop, show=console.print):
                announcing.start()
                node.supervise(stop)
        except (ServeError, BrokerError) as error:
            fail(str(error), error.exit_code)
        finally:
            stop.set()
            node.stop()


_TLS = {"tls_port": " (TLS)"}


def _announce(node: Node, settings: Settings, stop: threading.Event) -> None:
    """Say that the node is ready, once every part has answered."""
    from node.monitoring.page_port import scheme_of

    if node.wait_until_ready(stop, show=console.print):
        listener = node.settings.listener
        where = " and ".join(f"{listener.host}:{port}{_TLS.get(key, '')}" for key, port in listener.ports.items())
        console.print(f"Ready: [bold]{listener.ae_title}[/] on {where}")
        if settings.admin.enabled:
            console.print(f"Admin page: {scheme_of(settings.admin)}://{settings.admin.host}:{node.admin_port}/")
        if settings.hl7.enabled:
            console.print(f"HL7 by MLLP: {settings.hl7.host}:{node.hl7_port}")
        if settings.dicomweb.enabled:
            dicomweb = node.settings.dicomweb
            scheme = "http" if dicomweb.tls_certificate is None else "https"
            console.print(f"DICOMweb: {scheme}://{dicomweb.host}:{dicomweb.port}/dicom-web")


@click.command()
@click.pass_context
def listen(context: click.Context) -> None:
    """Run the storage SCP alone: accept objects by C-STORE, store them, check their eligibility and enqueue jobs."""
    from models.manifest import ManifestError
    from models.model_registry import UnknownModel
    from node.dicom.listener import run_listener
    from node.opening import ServeError
    from workers.audit.activity import application_activity

    settings = settings_of(context)

    def _ready(ports: Mapping[str, int]) -> None:
        for key, port in ports.items():
            listener = settings.listener
            click.echo(f"{listener.ae_title} listens on {listener.host}:{port}{_TLS.get(key, '')}", err=True)

    with stop_on_signals() as stop:
        try:
            if database_opens(settings, stop):
                with application_activity(settings, "listener"):
                    run_listener(settings, _ready, stop)
        except (ManifestError, UnknownModel) as error:
            fail(str(error), os.EX_CONFIG)
        except ServeError as error:
            fail(str(error), error.exit_code)
        except OSError as error:
            fail(str(error))


@click.command()
@click.option(
    "--queue",
    type=click.Choice(["jobs", "jobs.cpu", "jobs.gpu", "deliveries"]),
    required=True,
    help="jobs: networks and encoders; with models.gpu jobs.cpu or jobs.gpu, on that device. deliveries: results to"
    " their destinations.",
)
@click.pass_context
def worker(context: click.Context, queue: str) -> None:
    """Run one Celery worker. In a distributed set-up every machine needs the same database.url and broker.url."""
    from workers.celery import WorkerError, run_worker

    # Celery warns about pickle; Pleura's messages are JSON with one number.
    warnings.filterwarnings("ignore", message="(?s).*superuser privileges")
    settings = settings_of(context)
    with stop_on_signals() as stop:
        if not database_opens(settings, stop):
            return
    try:
        run_worker(settings, queue)
    except WorkerError as error:
        fail(str(error), error.code)


def _demand_extras(settings: Settings) -> None:
    """End with one sentence where the settings ask for libraries that are not installed."""
    from node.monitoring.extras import missing_extras

    for missing in missing_extras(settings):
        fail(f"{missing.part}: {missing.found}; {missing.remedy}", os.EX_CONFIG)


@click.command()
@click.pass_context
def scheduler(context: click.Context) -> None:
    """Run the scheduler: enqueue lost work again, complete stable studies, clean up the store. One per database."""
    from models.manifest import ManifestError
    from models.model_registry import UnknownModel
    from workers.audit.activity import application_activity
    from workers.composition import run_scheduler

    settings = settings_of(context)
    _demand_extras(settings)
    with stop_on_signals() as stop:
        try:
            if database_opens(settings, stop):
                with application_activity(settings, "scheduler"):
                    run_scheduler(settings, stop)
        except (ManifestError, UnknownModel) as error:
            fail(str(error), os.EX_CONFIG)


@click.command()
@click.pass_context
def admin(context: click.Context) -> None:
    """Run the admin page alone."""
    from node.monitoring.page_port import scheme_of
    from node.web.app import run_admin
    from workers.audit.activity import application_activity

    settings = settings_of(context)
    _demand_extras(settings)

    def _ready(port: int) -> None:
        click.echo(f"admin page on {scheme_of(settings.admin)}://{settings.admin.host}:{port}/", err=True)

    with stop_on_signals() as stop:
        try:
            if database_opens(settings, stop):
                with application_activity(settings, "admin"):
                    run_admin(settings, _ready, stop, lambda: load(config_of(context)))
        except OSError as error:
            fail(str(error))
