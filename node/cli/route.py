"""``pleura route``: which routing rule decides about a file, and what follows from it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from config.settings import Settings
from db.states import JOBS
from node.cli.common import console, json_option, print_json, settings_of

if TYPE_CHECKING:
    from workers.services.expected_route import ImageHeader, Plan


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--calling-aet", default="", metavar="AET", help="AE title of the sender [that in the file, if any].")
@click.option("--called-aet", default="", metavar="AET", help="AE title that it calls [listener.ae_title].")
@click.option("--explain", is_flag=True, help="Say of each rule that was looked at why it matches, or does not.")
@json_option
@click.pass_context
def route(
    context: click.Context, files: tuple[Path, ...], calling_aet: str, called_aet: str, explain: bool, as_json: bool
) -> None:
    """Say what would become of DICOM FILES if a peer sent them: eligibility, routing rule, models, destinations.

    Nothing is stored or sent, and no network is loaded. Exit status 1 if a file would be refused.
    """
    settings = settings_of(context)
    planned = [(path, *_plan(path, calling_aet, called_aet, settings)) for path in files]
    if as_json:
        print_json([_as_json(path, header, plan) for path, header, plan in planned])
    else:
        console.print(_table(planned))
        for path, _, plan in planned if explain else ():
            console.print(_explanation(path, plan))
    if any(header.refused for _, header, _ in planned):
        sys.exit(1)


def _plan(path: Path, calling_aet: str, called_aet: str, settings: Settings) -> tuple[ImageHeader, Plan]:
    from node.web.header_preview import header_of, preview
    from workers.services.expected_route import plan_of

    read = preview(path.read_bytes(), settings.eligibility.model_dump(mode="json"))
    header = header_of(read, stat=False)
    routing = replace(
        header.routing,
        calling_ae_title=calling_aet or header.routing.calling_ae_title,
        called_ae_title=called_aet or header.routing.called_ae_title,
    )
    header = replace(header, routing=routing)
    return header, plan_of(header, settings)


def _table(planned: Sequence[tuple[Path, ImageHeader, Plan]]) -> Table:
    """A row a file; with the queue of its job where there are several."""
    several = any(plan.queue not in ("", JOBS) for _, _, plan in planned)
    columns = ("file", "rule", "why", "models", *(["queue"] if several else []), "results for")
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for path, header, plan in planned:
        rule = "-" if plan.route is None else plan.route.rule or "(no rule)"
        queue = [plan.queue or "-"] if several else []
        cells = (path.name, rule, _why(header, plan), ", ".join(plan.models) or "none", *queue, _results(plan))
        table.add_row(*map(escape, cells))
    return table


def _why(header: ImageHeader, plan: Plan) -> str:
    if header.refused:
        return f"refused by C-STORE (0xC000): {header.refused}"
    if header.not_eligible is not None:
        return f"not eligible: {header.not_eligible.sentence}"
    if plan.route is None:
        return "there are no rules"
    return plan.route.why if plan.not_eligible is None else f"{plan.route.why}; {plan.not_eligible.sentence}"


def _results(plan: Plan) -> str:
    if not plan.models:
        return "none"
    return "; ".join(f"{each.name}: {', '.join(each.kinds) or 'none'}" for each in plan.destinations) or "none"


def _explanation(path: Path, plan: Plan) -> Table:
    table = Table(title=escape(path.name), title_justify="left", box=None, pad_edge=False, header_style="dim")
    for name in ("rule", "", "why"):
        table.add_column(name)
    for check in plan.checks:
        table.add_row(escape(check.rule), "matches" if check.matches else "does not", escape(check.why))
    if not plan.checks:
        table.add_row("-", "", "no rule was asked")
    return table


def _as_json(path: Path, header: ImageHeader, plan: Plan) -> dict[str, Any]:
    return {
        "file": path,
        "refused": header.refused,
        "not_eligible": plan.not_eligible,
        "route": plan.route,
        "models": plan.models,
        "queue": plan.queue,
        "destinations": {each.name: each.kinds for each in plan.destinations},
        "checks": [asdict(each) for each in plan.checks],
    }
