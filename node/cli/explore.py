"""``pleura explore``: a report on a data set, before training on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click
from rich.table import Table

from node.cli.common import console, fail, need
from node.cli.progress import progress_bars

_folder = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--data", type=_folder, required=True, help="Folder of the data set.")
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    help="cxr, readings, siim, rsna, nih, lungs or folders; auto detects the layout.",
)
@click.option(
    "--out", type=_folder, default=Path("exploration"), show_default=True, help="Folder for report.html, metrics.json."
)
@click.option("--patient", default="", help="Regular expression with one group: the patient in a file name (folders).")
@click.option("--decode/--headers", default=True, help="Decode every image (finds damaged ones), or read headers only.")
def explore(data: Path, layout: str, out: Path, patient: str, decode: bool) -> None:
    """Describe a data set: classes, ages, sexes, views, boxes and masks, sizes, samples, and all its errors.

    Writes a self-contained HTML report, and the figures as JSON. Invalid rows are counted and listed.
    Research use only: not a medical device.
    """
    need("matplotlib", "reports", "exploring")
    from models.training.datasets.exploration_report import explore_folder
    from models.training.datasets.sample import DatasetError

    try:
        with progress_bars() as progress:
            explored = explore_folder(data, out, layout=layout, decode=decode, patient=patient, progress=progress)
    except (DatasetError, OSError) as error:
        fail(str(error))
    table = Table("finding", "known", "present", "patients", box=None, pad_edge=False)
    for item in explored.labels:
        table.add_row(item.label, str(item.known), str(item.present), str(item.patients))
    console.print(f"{explored.images} images of {explored.patients} patients (layout {explored.layout})")
    console.print(table)
    for reason, count in Counter(reason.split(":")[0] for _, reason in explored.problems).most_common():
        console.print(f"left out: {count} x {reason}", markup=False)
    console.print(f"Report: {(out / 'report.html').absolute()}", soft_wrap=True)
