"""``pleura simulate``: turnaround times of studies under this site's triage settings and under other policies."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import join

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from config.settings import Settings
from node.cli.common import console, fail, json_option, need, settings_of
from workers.simulation.experiment import compare
from workers.simulation.scenario import DEFAULT, Scenario, ScenarioError, read_scenario
from workers.simulation.simulation_report import SIMULATED, interval_text, metrics_json, summary_text
from workers.simulation.turnaround_figures import Comparison


@click.command()
@click.option(
    "--scenario",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT,
    help="TOML file with arrivals, readers, reading times and findings. Default: values from the literature.",
)
@click.option(
    "--observed",
    is_flag=True,
    help="Use arrivals, findings, readers and reading times of this node's database, the rest from the scenario.",
)
@click.option("--days", type=click.IntRange(1, 366), help="Days in each replication, instead of the scenario's.")
@click.option(
    "--observed-days",
    default=90,
    show_default=True,
    type=click.IntRange(7, 3660),
    help="Number of days that --observed looks back.",
)
@click.option("--replications", default=20, show_default=True, type=click.IntRange(1, 10000), help="Replications.")
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0), help="The same seed gives the same result."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for report.html and metrics.json; without it only the table is printed.",
)
@json_option
@click.pass_context
def simulate(
    context: click.Context,
    path: Path,
    observed: bool,
    days: int | None,
    observed_days: int,
    replications: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Simulate a reading room: first come first served, by priority, and by the due times of this node's [triage].

    Nothing is changed. Use it to try other settings before they go into the configuration:

    PLEURA_TRIAGE__ROUTINE_MINUTES=240 pleura simulate
    """
    if out is not None:
        need("matplotlib", "reports", "a report with plots")
    settings = settings_of(context)
    try:
        scenario = read_scenario(path)
        if observed:
            scenario = _observed(settings, scenario, timedelta(days=observed_days))
        scenario = scenario.model_copy(update={"days": days or scenario.days})
        comparison = _compare(scenario, settings, seed, replications)
    except ScenarioError as error:
        fail(str(error))
    if as_json:
        click.echo(metrics_json(comparison, scenario, settings.triage), nl=False)
    else:
        console.print(figures_table(comparison, scenario))
        console.print(summary_text(comparison))
        console.print(SIMULATED)
    if out is not None:
        _write(out, comparison, scenario, settings)


def _compare(scenario: Scenario, settings: Settings, seed: int, replications: int) -> Comparison:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("reading", total=None)

        def _update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return compare(scenario, settings.triage, seed=seed, replications=replications, progress=_update)


def _observed(settings: Settings, base: Scenario, back: timedelta) -> Scenario:
    from db.queries.turnaround import observe
    from node.cli.worklist import open_engine
    from workers.simulation.observed import scenario_from

    now = datetime.now(UTC)
    return scenario_from(observe(open_engine(settings), now - back, now), base, settings.site.zone)


def figures_table(comparison: Comparison, scenario: Scenario) -> Table:
    """Mean, 95th percentile and longest turnaround of each group under each policy."""
    title = (
        f"{scenario.title}\nMinutes to the report, {comparison.replications} replications of {scenario.days} days, "
        f"seed {comparison.seed}"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("studies", "policy"):
        table.add_column(name)
    for name in ("mean (95 % interval)", "95th percentile", "longest", "longest of all"):
        table.add_column(name, justify="right")
    for group in comparison.groups:
        for place, (policy, found) in enumerate(comparison.figures.items()):
            one = found[group]
            name = f"{group} ({comparison.studies[group]:,})" if place == 0 else ""
            last = place == len(comparison.figures) - 1
            table.add_row(
                name,
                policy,
                interval_text(one.mean),
                interval_text(one.p95),
                interval_text(one.longest),
                f"{one.extreme:.0f}",
                end_section=last,
            )
    return table


def _write(out: Path, comparison: Comparison, scenario: Scenario, settings: Settings) -> None:
    from workers.simulation.simulation_page import html_report

    command = join(["pleura", *sys.argv[1:]])
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.json").write_text(metrics_json(comparison, scenario, settings.triage), encoding="utf-8")
        report = html_report(comparison, scenario, settings.triage, command)
        (out / "report.html").write_text(report, encoding="utf-8")
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}")
    console.print(f"report: {out / 'report.html'}, numbers: {out / 'metrics.json'}")
