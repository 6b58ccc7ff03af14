"""The command line ``pleura``: one command for each capability, each documented by its ``--help``.

Commands import their modules when they run, so that ``pleura --help`` is fast and the listener stays small.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

try:
    import models.own_packages  # noqa: F401
except ModuleNotFoundError:  # not even that module is found
    found = getattr(sys.modules.get("models"), "__file__", None)
    sys.exit(f"pleura: {found} is found in the place of Pleura's own package 'models'; rename it")
except ImportError as error:
    sys.exit(f"pleura: {error}")

from config.logging import silence_libraries
from config.notice import NOTICE
from config.private_files import keep_private
from config.settings import SettingsError
from db.errors import DatabaseError
from node.cli.common import SERVICES

# Command name -> module and attribute, in the order of --help.
COMMANDS = {
    "init": "node.cli.init:init",
    "serve": "node.cli.processes:serve",
    "demo": "node.cli.demo:demo",
    "listen": "node.cli.processes:listen",
    "worker": "node.cli.processes:worker",
    "scheduler": "node.cli.processes:scheduler",
    "admin": "node.cli.processes:admin",
    "hl7": "node.cli.hl7:hl7",
    "dicomweb": "node.cli.dicomweb:dicomweb",
    "send": "node.cli.scu:send",
    "backfill": "node.cli.backfill:backfill",
    "echo": "node.cli.scu:echo",
    "route": "node.cli.route:route",
    "worklist": "node.cli.worklist:worklist",
    "show": "node.cli.worklist:show",
    "problems": "node.cli.problems:problems",
    "retry": "node.cli.actions:retry",
    "hold": "node.cli.actions:hold",
    "release": "node.cli.actions:release",
    "reported": "node.cli.actions:reported",
    "priority": "node.cli.actions:priority",
    "feedback": "node.cli.actions:feedback",
    "simulate": "node.cli.simulate:simulate",
    "drift": "node.cli.drift:drift",
    "results": "node.cli.results:results",
    "explain": "node.cli.results:explain",
    "export": "node.cli.export:export",
    "erase": "node.cli.erase:erase",
    "notify": "node.cli.notify:notify",
    "doctor": "node.cli.doctor:doctor",
    "probe": "node.cli.probe:probe",
    "config": "node.cli.config:config",
    "completion": "node.cli.completion:completion",
    "db": "node.cli.database:database",
    "user": "node.cli.user:user",
    "audit": "node.cli.audit:audit",
    "models": "node.cli.models:models",
    "explore": "node.cli.explore:explore",
    "train": "node.cli.train:train",
    "evaluate": "node.cli.evaluate:evaluate",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of :data:`COMMANDS`."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command ``cmd_name``; None if there is no such command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where it answers at once, libraries write nothing beside it."""
        if args[0] not in SERVICES:
            silence_libraries()
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands and options, without importing a command."""
        names = [CompletionItem(name) for name in COMMANDS if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command: what is wrong with settings or database is one line, without a traceback."""
        try:
            return super().invoke(ctx)
        except (SettingsError, DatabaseError) as error:
            click.echo(f"pleura: {error}", err=True)
            ctx.exit(2 if isinstance(error, SettingsError) else 1)
        except Exception as error:
            if not (problem := _database_is_away(error, ctx.obj)):
                raise
            click.echo(f"pleura: {problem}", err=True)
            ctx.exit(1)


def _database_is_away(error: Exception, config: Path | None) -> str:
    """Why the database cannot be used, where that is the error. What it takes is imported by then, or it is another."""
    if "sqlalchemy" not in sys.modules:
        return ""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import OperationalError

    from config.settings import load
    from db.connection_problem import connection_problem

    if not isinstance(error, OperationalError):
        return ""
    return str(connection_problem(error, make_url(load(config).database_url)))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("pleura"), prog_name="pleura", message=f"%(prog)s %(version)s. {NOTICE}")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="PLEURA_CONFIG",
    help="TOML file with the settings of this node; every key is in docs/configuration.md.",
)
@click.pass_context
def cli(context: click.Context, config_path: Path | None) -> None:
    """A DICOM node beside a PACS: analyses chest radiographs received by C-STORE and sends SEG and SR back.

    Research use only: not a medical device.
    """
    context.obj = config_path


def main() -> None:
    """Entry point of ``pleura``."""
    keep_private()
    _open_standard_streams()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow writes to standard error beside any log
    try:
        cli(prog_name="pleura")  # the name of the script, however it was started: completion depends on it
    except OSError:
        if not (why := _output_problem()):
            raise
        click.echo(f"pleura: the output cannot be written: {why}", err=True)
        sys.exit(1)


def _open_standard_streams() -> None:
    """Open the standard streams that are closed: a file of the store must not get the number to which libraries write
    their messages."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def _output_problem() -> str:
    """Why standard output takes nothing, if it does not: its disk is full, mostly."""
    try:
        print(flush=True)
    except OSError as error:
        return str(error.strerror)
    return ""


if __name__ == "__main__":
    main()
