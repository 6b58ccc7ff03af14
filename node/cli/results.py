"""``pleura results`` and ``pleura explain``: read result objects of Pleura, and write a page about a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from rich.markup import escape

from config.logging import escaped
from models.radiograph.data_set import MALFORMED
from node.cli.common import console, fail, json_option, print_json, settings_of
from node.dicom.storage_scu import find_files


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@json_option
def results(paths: tuple[Path, ...], as_json: bool) -> None:
    """Read SEG, SR, captures and presentation states of Pleura and print their content.

    Folders are searched. Give the source images too, and every reference is checked. Exit status 1 if a referenced
    object is missing or does not match.
    """
    from workers.results.readings import NotAResult, ReadResult
    from workers.results.result_reader import as_lines, problems, read_result

    ours: dict[Path, ReadResult] = {}
    others: list[Dataset] = []
    for path, dataset in _datasets(paths):
        try:
            ours[path] = read_result(dataset)
        except NotAResult:
            others.append(dataset)
        except MALFORMED as error:
            fail(f"{path} cannot be read: {error}")
    if not ours:
        fail("none of these files is a result of Pleura")
    found = problems(tuple(ours.values()), others)
    if as_json:
        print_json({"results": [{"path": path, **asdict(one)} for path, one in ours.items()], "problems": found})
    else:
        _print({path: as_lines(one) for path, one in ours.items()}, found)
    if found:
        fail(f"{len(found)} inconsistencies; are all files of the study given?")


def _print(results: Mapping[Path, Sequence[str]], problems: Sequence[str]) -> None:
    for path, lines in results.items():
        console.print(f"[bold]{escape(str(path))}[/]")
        # A file may hold control characters, which a terminal would obey.
        console.print(escape("\n".join(f"  {escaped(line)}" for line in lines)))
    for sentence in problems:
        console.print(f"[red]{escape(escaped(sentence))}[/]")
    if not problems:
        console.print(f"{len(results)} results; every reference resolves")


def _datasets(paths: tuple[Path, ...]) -> list[tuple[Path, Dataset]]:
    good, bad = find_files(paths)
    for unreadable in bad:
        fail(f"{unreadable.path}: {unreadable.reason}")
    datasets: list[tuple[Path, Dataset]] = []
    for item in good:
        try:
            datasets.append((item.path, dcmread(item.path)))
        except (InvalidDicomError, OSError) as error:
            fail(f"{item.path}: {error}")
    return datasets


@click.command()
@click.argument("study")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; without it explain-STUDY.html in the working directory.",
)
@click.pass_context
def explain(context: click.Context, study: str, out: Path | None) -> None:
    """Write an HTML page about STUDY: images, overlays, findings, models and their limits.

    The page contains the images and the study's description, but neither name nor ID of the patient.
    """
    from models.model_registry import read_registry
    from node.cli.worklist import describe_study, find_detail, note_view, open_database
    from node.web.explanation import explain_study

    settings = settings_of(context)
    database = open_database(settings)
    detail = find_detail(database, study)
    note_view(database, detail)
    path = out or Path(f"explain-{detail.row.study_id}.html")
    path.write_text(explain_study(detail, settings.store.folder, read_registry(settings.models.folder)), "utf-8")
    console.print(f"Page of {describe_study(detail)}: {path.absolute()}", markup=False, soft_wrap=True)
