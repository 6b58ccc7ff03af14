"""``pleura drift``: weekly figures on models, images and readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click
from rich.markup import escape
from rich.table import Table

from node.cli.common import console, print_json, print_notice, settings_of
from node.cli.worklist import open_database
from node.monitoring.drift import Comparison, Counts, DriftReport, ImageWeek, ScoreWeek, VerdictWeek, drift_report

_STYLES = {"drifted": "bold red", "moving": "yellow", "stable": "green"}


@click.command()
@click.option(
    "--weeks",
    default=8,
    show_default=True,
    type=click.IntRange(1, 104),
    help="Number of weeks, including the current one.",
)
@click.option("--model", default="", help="Limit the report to this model and the images.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the pairs of scores behind each comparison.")
@click.pass_context
def drift(context: click.Context, weeks: int, model: str, as_json: bool) -> None:
    """Print the drift of scores and images and the agreement of readers, for each model and ISO week.

    PSI is the population stability index against the first 28 days of a model version at this node: below 0.1 stable,
    from 0.25 on drifted, unless a sample of that size reaches it by chance. Intervals are 95 % intervals.
    """
    from db.queries.monitoring import ModelMonitoring

    settings = settings_of(context)
    engine = open_database(settings).engine
    with console.status("counting"):
        counts = Counts(ModelMonitoring(engine))
        report = drift_report(counts, datetime.now(UTC), weeks=weeks, model=model)
    if as_json:
        print_json(report)
        return
    for table in tables_of(report):
        console.print(table)
        console.print()
    if not report.images:
        console.print(f"No image was analysed in the last {weeks} weeks.")
    print_notice()


def tables_of(report: DriftReport) -> list[Table]:
    """The report as tables; empty ones are left out."""
    made = [
        _scores(report.scores),
        _images(report.images),
        _verdicts(report.verdicts),
        _comparisons(report.comparisons),
    ]
    found = [
        (str(one.study_id), one.kind, one.label, one.model, escape(one.actor), escape(one.comment))
        for one in report.discrepancies
    ]
    made.append(_table("Discrepancies", ("study", "discrepancy", "finding", "model", "by", "comment"), found))
    return [table for table in made if table.row_count]


def _scores(weeks: Sequence[ScoreWeek]) -> Table:
    return _table(
        "Scores",
        ("week", "model", "finding", "images", "present", "95 %", "median", "90 %", "PSI", "", "not assessed"),
        (
            (
                one.week,
                f"{one.model} {one.version}",
                one.label,
                str(one.analysed),
                f"{one.share:.1%}",
                f"{one.share_low:.1%} to {one.share_high:.1%}",
                _number(one.median),
                _number(one.p90),
                _number(one.psi),
                _styled(one.status),
                str(one.not_assessed or ""),
            )
            for one in weeks
        ),
    )


def _images(weeks: Sequence[ImageWeek]) -> Table:
    def moved(week: ImageWeek) -> str:
        found = [f"{one.name} {_styled(one.status)}" for one in week.measures if one.status in ("moving", "drifted")]
        return ", ".join(found) or "-"

    return _table(
        "Images",
        ("week", "jobs", "not analysed", "95 %", "why", "failed", "brightness", "contrast", "drift"),
        (
            (
                week.week,
                str(week.jobs),
                f"{week.not_analysed_share:.1%}",
                f"{week.not_analysed_low:.1%} to {week.not_analysed_high:.1%}",
                ", ".join(f"{code} {count}" for code, count in list(week.reasons.items())[:3]) or "-",
                str(week.failed or ""),
                _median(week, "brightness"),
                _median(week, "contrast"),
                moved(week),
            )
            for week in weeks
        ),
    )


def _median(week: ImageWeek, name: str) -> str:
    return next((_number(one.median) for one in week.measures if one.name == name), "-")


def _verdicts(weeks: Sequence[VerdictWeek]) -> Table:
    return _table(
        "Readers",
        ("week", "model", "finding", "accepted", "modified", "rejected", "share accepted", "95 %"),
        (
            (
                one.week,
                f"{one.model} {one.version}",
                one.label,
                str(one.accepted),
                str(one.modified),
                str(one.rejected),
                f"{one.agreed:.0%}",
                f"{one.low:.0%} to {one.high:.0%}",
            )
            for one in weeks
        ),
    )


def _comparisons(found: Sequence[Comparison]) -> Table:
    return _table(
        "In shadow, on the same images",
        ("active", "shadow", "finding", "both", "only active", "only shadow", "neither", "kappa", "95 %", "rank corr."),
        (
            (
                one.active,
                one.shadow,
                one.label,
                str(one.both),
                str(one.only_active),
                str(one.only_shadow),
                str(one.neither),
                _number(one.kappa),
                "-" if one.kappa_low is None else f"{one.kappa_low:.2f} to {one.kappa_high:.2f}",
                _number(one.correlation),
            )
            for one in found
        ),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}"


def _styled(status: str) -> str:
    style = _STYLES.get(status)
    return f"[{style}]{status}[/]" if style else status


def _table(title: str, names: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
