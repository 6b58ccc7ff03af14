"""``pleura problems``: what fails, grouped by cause and destination, with what to do about it."""

from __future__ import annotations

import click
from rich.markup import escape
from rich.table import Table

from config.settings import Settings
from db.queries.problems import Problem
from db.queries.problems import problems as all_problems
from node.cli.common import console, json_option, print_json, settings_of
from node.cli.worklist import open_database
from node.monitoring.remedies import remedy
from workers.clock import for_people


@click.command()
@json_option
@click.pass_context
def problems(context: click.Context, as_json: bool) -> None:
    """Print failing jobs and deliveries, grouped by cause and destination. `pleura retry --all` tries them again."""
    settings = settings_of(context)
    found = open_database(settings).read(all_problems)
    if as_json:
        print_json(found)
    elif found:
        console.print(_table(found, settings))
    else:
        console.print("nothing fails")


def _table(found: tuple[Problem, ...], settings: Settings) -> Table:
    table = Table("what", "since", "next attempt", "why", "what to do", box=None, pad_edge=False)
    for one in found:
        table.add_row(
            escape(_what(one, settings)),
            for_people(one.since, settings.site.zone),
            for_people(one.next_at, settings.site.zone) if one.next_at else "none",
            escape(one.error),
            escape(remedy(one.error)),
        )
    return table


def _what(one: Problem, settings: Settings) -> str:
    things = {"job": ("job", "jobs"), "delivery": ("delivery", "deliveries")}[one.entity][one.count != 1]
    destination = settings.destination(one.destination)
    where = f" ({destination.where})" if destination else ""
    to = f" to {one.destination}{where}" if one.destination else ""
    return f"{one.count} {things}{to}, {one.failed} given up"
