"""``pleura results`` and ``pleura explain``: read result objects of Pleura, and write a page about a study."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from rich.markup import escape

from config.logging import escaped
from models.radiograph.data_set import MALFORMED
from node.cli.common import console, fail, json_option, print_json, print_notice, settings_of
from node.dicom.storage_scu import find_files

if TYPE_CHECKING:
    from workers.results.readings import ReadResult


_UNREADABLE = (InvalidDicomError, OSError, EOFError, struct.error, zlib.error, *MALFORMED)
_INSTANCE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@json_option
def results(paths: tuple[Path, ...], as_json: bool) -> None:
    """Read SEG, SR, captures and presentation states of Pleura and print their content.

    Folders are searched. Give the source images too, and every reference is checked. Exit status 1 if a file cannot be
    read, or a referenced object is missing or does not match.
    """
    from workers.results.result_reader import as_lines, problems

    ours, others, unreadable = _read(paths)
    if not ours and not unreadable:
        fail("none of these files is a result of Pleura")
    found = problems(tuple(ours.values()), others)
    if as_json:
        read = [{"path": path, **asdict(one)} for path, one in ours.items()]
        print_json({"results": read, "problems": found, "unreadable": unreadable})
    else:
        _print({path: as_lines(one) for path, one in ours.items()}, found)
        print_notice()
    for path, reason in unreadable.items():
        click.echo(f"pleura: {escaped(str(path))} cannot be read: {escaped(reason)}", err=True)
    if found:
        fail(f"{len(found)} inconsistencies; are all files of the study given?")
    if unreadable:
        sys.exit(1)


def _read(paths: tuple[Path, ...]) -> tuple[dict[Path, ReadResult], list[Dataset], dict[str, str]]:
    """Results and other instances in ``paths``, and what cannot be read with the reason. One file hides no other."""
    from workers.results.readings import BrokenResult, NotAResult
    from workers.results.result_reader import read_result

    good, bad = find_files(paths)
    ours: dict[Path, ReadResult] = {}
    others: list[Dataset] = []
    unreadable = {str(item.path): item.reason for item in bad}
    for item in good:
        try:
            dataset = dcmread(item.path)
            ours[item.path] = read_result(dataset)
        except (NotAResult, *_UNREADABLE) as error:
            if not isinstance(error, NotAResult) or isinstance(error, BrokenResult):
                unreadable[str(item.path)] = str(error) or type(error).__name__
            elif all(each in dataset for each in _INSTANCE):  # nothing references a DICOMDIR
                others.append(dataset)
    return ours, others, unreadable


def _print(results: Mapping[Path, Sequence[str]], problems: Sequence[str]) -> None:
    for path, lines in results.items():
        console.print(f"[bold]{escape(str(path))}[/]")
        # A file may hold control characters, which a terminal would obey.
        console.print(escape("\n".join(f"  {escaped(line)}" for line in lines)))
    for sentence in problems:
        console.print(f"[red]{escape(escaped(sentence))}[/]")
    if results and not problems:
        console.print(f"{len(results)} results; every reference resolves")


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
