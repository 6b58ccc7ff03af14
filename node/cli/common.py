"""Functions shared by the commands: settings and log, the console, failing, and signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from rich.console import Console

from config import logging
from config.notice import NOTICE
from config.private_files import share_with_group
from config.settings import Settings, load
from db.ending import OF_THIS_PROCESS

# For a file or a pipe rich assumes 80 columns, which is too narrow. Where standard output is closed there is none.
console = Console(highlight=False, width=None if sys.stdout and sys.stdout.isatty() else 140)


SERVICES = frozenset({"serve", "listen", "worker", "scheduler", "admin", "hl7", "dicomweb"})
"""Commands that run until they are stopped: their log is read by others, with the lines of libraries."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def settings_of(context: click.Context) -> Settings:
    """Load the settings of this call and configure the log."""
    settings = load(context.obj)
    share_with_group(settings.store.folder)
    logging.configure(settings.logs)
    if context.find_root().invoked_subcommand not in SERVICES and settings.logs.level != "DEBUG":
        logging.silence_libraries()
    return settings


def program() -> str:
    """What a person types for this command: ``pleura``, or its path where the shell does not find it."""
    called = Path(sys.argv[0])
    return "pleura" if called.name != "pleura" or shutil.which("pleura") else str(called)


def config_of(context: click.Context) -> Path | None:
    """Path given by ``--config``."""
    path: Path | None = context.obj
    return path


def print_json(value: Any, *, notice: bool = True) -> None:
    """Print records as JSON: times as ISO 8601 with their offset, paths and words as text.

    Each record has one key more, ``notice``: it stays with what a program keeps of a list, and of a list nothing else
    changes.
    """
    click.echo(json.dumps(_with_notice(value) if notice else value, default=_plain, indent=2))


def _with_notice(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_with_notice(each) for each in value]
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return {**plain, "notice": NOTICE} if isinstance(plain, Mapping) else plain


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, date) else str(value)


def print_notice() -> None:
    """Say below findings what they are not for."""
    console.print(f"[dim]{NOTICE}[/]")


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command with ``message`` on standard error."""
    click.echo(f"pleura: {message}", err=True)
    sys.exit(code)


def need(module: str, extra: str, what: str) -> None:
    """End the command unless the packages of an extra are there; ``module`` is one of them."""
    try:
        import_module(module)
    except ImportError:
        fail(f"{what} needs pip install 'pleura[{extra}]'")


def import_keras() -> None:
    """Import Keras, if it is there, without what TensorFlow writes past every log while it starts."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with suppress(ImportError):  # whoever needs it says so
            import_module("keras")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def database_opens(settings: Settings, stop: threading.Event) -> bool:
    """Wait for the database, and create or migrate its tables: in a distributed set-up any part may start first.

    False where ``stop`` was set before; a database that can never be used ends the command.
    """
    from node.opening import ServeError, open_database

    try:
        return open_database(settings, stop, lambda sentence: click.echo(f"pleura: {sentence}", err=True))
    except ServeError as error:
        fail(str(error), error.exit_code)


@contextmanager
def stop_on_signals(*, waits_for: str = "") -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set.

    SIGHUP sets it where a terminal is closed. Without one, it is an administrator or a log rotation who wants a changed
    file to be read, for which systemd would not start the node again: it says that this needs a restart, and goes on.

    ``waits_for`` (for a command that a person has started): what is ended before it stops, which they are told. A
    second SIGINT raises KeyboardInterrupt then.
    """
    stop = threading.Event()
    in_terminal = os.isatty(0)  # one that is closed is none any more

    def _set(signum: int, frame: FrameType | None) -> None:
        del frame
        if signum == signal.SIGHUP and not in_terminal:
            with suppress(OSError):
                os.write(2, b"pleura: SIGHUP changes nothing; restart the node to use a changed configuration\n")
            return
        if waits_for and signum == signal.SIGINT:
            if stop.is_set():
                raise KeyboardInterrupt
            # Not by Python's stream, which the signal may have met in the midst of a line.
            os.write(2, f"pleura: stops after {waits_for}; Ctrl-C again ends at once\n".encode())
        if not waits_for:
            OF_THIS_PROCESS.begin()
        stop.set()

    previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {
        number: signal.signal(number, _set)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN  # nohup
    }
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
