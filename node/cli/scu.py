"""``pleura send`` and ``pleura echo``: this machine as an SCU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from config.settings import Settings
from node.cli.common import console, fail, settings_of
from node.dicom.storage_scu import Peer, SendError, Sent, find_files, send_files
from node.dicom.storage_scu import echo as verify
from node.monitoring.port_health import own_listener
from node.monitoring.remedies import remedy

_SCU = "PLEURASCU"


def _peer(settings: Settings, to: str | None, called: str | None, calling: str, timeout: float, tls: bool) -> Peer:
    """The peer that the options name; without ``to``, the listener of this node."""
    called = called or settings.listener.ae_title
    if to is None:
        try:
            return replace(own_listener(settings, timeout), called_ae_title=called, calling_ae_title=calling)
        except OSError as error:
            fail(f"tls.certificate cannot be read: {error}")
    host, _, port = to.rpartition(":")
    if not host or not port.isdigit():
        raise click.BadParameter("must be HOST:PORT, such as 127.0.0.1:11112", param_hint="--to")
    if tls and settings.tls.ca is None:
        raise click.BadParameter("needs tls.ca, and mostly tls.certificate, in the configuration", param_hint="--tls")
    return Peer(host, int(port), called, calling, timeout, settings.tls if tls else None)


_to = click.option("--to", metavar="HOST:PORT", help="Address of the peer; without it, the listener of this node.")
_called = click.option("--called", metavar="AE", help="AE title of the peer; without it, the listener's.")
_calling = click.option("--calling", metavar="AE", help="Calling AE title [default: PLEURASCU].")
_tls = click.option(
    "--tls", is_flag=True, help="Call by TLS, with the files of [tls]; the peer's certificate must be for that HOST."
)
_timeout = click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait for each response.")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@_to
@_called
@_calling
@_tls
@_timeout
@click.option("--urgent", is_flag=True, help="Request DIMSE priority HIGH: the study is treated as STAT.")
@click.pass_context
def send(
    context: click.Context,
    paths: tuple[Path, ...],
    to: str | None,
    called: str | None,
    calling: str | None,
    tls: bool,
    timeout: float,
    urgent: bool,
) -> None:
    """Send DICOM files by C-STORE, unchanged; folders are searched. Exit status 1 if any file was not accepted."""
    peer = _peer(settings_of(context), to, called, calling or _SCU, timeout, tls)
    files, unreadable = find_files(paths)
    if not files and not unreadable:
        fail(f"no DICOM file in {', '.join(map(str, paths))}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    answers: list[Sent] = []
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(f"to {peer.called_ae_title}", total=len(files))
            for sent in send_files(files, peer, urgent=urgent):
                progress.advance(task)
                answers.append(sent)
    except SendError as error:
        fail(str(error))
    failed = [*unreadable, *(sent for sent in answers if not sent.accepted)]
    for sent in failed:
        status = "not sent" if sent.status is None else f"0x{sent.status:04X}"
        console.print(f"[red]not accepted[/] {sent.path}: {status} {sent.reason}")
    console.print(f"{sum(sent.accepted for sent in answers)} of {len(files) + len(unreadable)} accepted")
    if failed:
        fail(f"{len(failed)} not accepted")


@click.command()
@_to
@_called
@_calling
@_tls
@_timeout
@click.pass_context
def echo(
    context: click.Context, to: str | None, called: str | None, calling: str | None, tls: bool, timeout: float
) -> None:
    """Verify a peer by C-ECHO; without --to, the listener of this node.

    The listener answers its own AE title on its own machine, whatever peers are configured; that title is the default
    without --to.
    """
    settings = settings_of(context)
    peer = _peer(settings, to, called, calling or (_SCU if to else settings.listener.ae_title), timeout, tls)
    try:
        verify(peer)
    except SendError as error:
        fail(f"{error}. {remedy(str(error))}")
    console.print(f"{peer.called_ae_title} on {peer.host}:{peer.port} answers")
