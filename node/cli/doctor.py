"""``pleura doctor``: checks of this node, with a remedy for each problem."""

from __future__ import annotations

import sys

import click
from rich.markup import escape
from rich.table import Table

from node.cli.common import console, json_option, print_json, settings_of
from node.monitoring.check import Check
from node.monitoring.health import examine

_MARKS = {True: "[green]ok[/]", False: "[red]not ok[/]"}


@click.command()
@click.option(
    "--no-peers", is_flag=True, help="Ask no other machine: no destination, notification channel or OpenID provider."
)
@json_option
@click.pass_context
def doctor(context: click.Context, no_peers: bool, as_json: bool) -> None:
    """Check each part of the node, and print what a problem does to studies and how to fix it.

    Exit status 1 if anything is not ok.
    """
    checks = list(examine(settings_of(context), peers=not no_peers))
    if as_json:
        print_json(checks)
    else:
        console.print(_table(checks))
    if not all(check.ok for check in checks):
        sys.exit(1)


def _table(checks: list[Check]) -> Table:
    table = Table("part", "", "found", "remedy", box=None, pad_edge=False)
    for check in checks:
        found = f"{check.found}. {check.effect}" if check.effect else check.found
        table.add_row(escape(check.part), _MARKS[check.ok], escape(found), escape(check.remedy))
    return table
