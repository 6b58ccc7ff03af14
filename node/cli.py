"""The command line ``pleura``: one command a capability, each told by its ``--help``.

Commands import what they need when they run, so that ``pleura --help`` is instant and the listener stays small.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from pathlib import Path

import click

from config.settings import SettingsError

NOT_A_MEDICAL_DEVICE = "Research use only. Pleura is not a medical device."

# Command name -> module and attribute, in the order of --help.
COMMANDS = {
    "serve": "node.commands.parts:serve",
    "demo": "node.commands.demo:demo",
    "listen": "node.commands.parts:listen",
    "worker": "node.commands.parts:worker",
    "sweep": "node.commands.parts:sweep",
    "admin": "node.commands.parts:admin",
    "hl7": "node.commands.hl7:hl7",
    "send": "node.commands.peers:send",
    "echo": "node.commands.peers:echo",
    "worklist": "node.commands.worklist:worklist",
    "show": "node.commands.worklist:show",
    "retry": "node.commands.steering:retry",
    "hold": "node.commands.steering:hold",
    "release": "node.commands.steering:release",
    "reported": "node.commands.steering:reported",
    "priority": "node.commands.steering:priority",
    "feedback": "node.commands.steering:feedback",
    "simulate": "node.commands.simulate:simulate",
    "drift": "node.commands.drift:drift",
    "results": "node.commands.results:results",
    "explain": "node.commands.results:explain",
    "notify": "node.commands.notify:notify",
    "doctor": "node.commands.doctor:doctor",
    "config": "node.commands.configuration:config",
    "user": "node.commands.users:user",
    "models": "node.commands.models:models",
    "explore": "node.commands.explore:explore",
    "train": "node.commands.training:train",
    "evaluate": "node.commands.evaluation:evaluate",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of :data:`COMMANDS`."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command ``cmd_name``; None where there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("pleura"), prog_name="pleura", message=f"%(prog)s %(version)s. {NOT_A_MEDICAL_DEVICE}")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="PLEURA_CONFIG",
    help="TOML file with the settings of this node; every key is in docs/configuration.md.",
)
@click.pass_context
def cli(context: click.Context, config_path: Path | None) -> None:
    """Pleura stands between a PACS and its AI: chest radiographs in by C-STORE, SEG and Structured Reports back.

    Research use only: not a medical device.
    """
    context.obj = config_path


def main() -> None:
    """Entry point of ``pleura``: a mistake in the settings is one clear line, not a traceback."""
    try:
        cli()
    except SettingsError as error:
        click.echo(f"pleura: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
