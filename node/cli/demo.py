"""``pleura demo``: a demonstration of the whole node."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from config.notice import NOTICE
from db.shown_records import WorklistRow
from node.cli.common import console, fail, program
from node.cli.worklist import worklist_table


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Folder for the node's data and the results; a former demonstration in it is deleted.",
)
@click.option("--seconds", default=120.0, show_default=True, help="Maximum duration in seconds.")
def demo(files: tuple[Path, ...], folder: Path, seconds: float) -> None:
    """Start a whole node, send it radiographs by C-STORE and show the results.

    Without FILES it sends two real radiographs of NEMA's sample set: a chest, and a lower leg, which is not eligible.
    """
    from node.demo import DemoError
    from node.dicom.storage_scu import SendError
    from node.embedded_broker import BrokerError
    from node.opening import ServeError

    began = time.monotonic()
    if (folder / "pleura.toml").exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        fail(f"{folder} is not empty and not from a former demonstration; name another with --folder")
    try:
        _run(files, folder, seconds)
    except (DemoError, ServeError, BrokerError, SendError) as error:
        fail(str(error))
    console.print(f"\n{time.monotonic() - began:.0f} s. [bold yellow]{NOTICE}[/]")


def _run(files: tuple[Path, ...], folder: Path, seconds: float) -> None:
    from node import demo as scene
    from node.dicom.storage_scu import Peer, find_files, send_files
    from node.supervisor import free_port
    from workers.association import status_text

    outgoing, unreadable = find_files(files or scene.bundled_radiographs())
    for item in unreadable:
        console.print(f"[red]{item.path}[/]: {item.reason}")
    if not outgoing:
        raise scene.DemoError("there is nothing to send")
    inbox = folder / "received"
    inbox.mkdir(parents=True)
    receiver = scene.ResultReceiver(inbox, free_port("127.0.0.1"))
    config = scene.write_configuration(folder, receiver.port)
    columns = (SpinnerColumn(finished_text="[green]✓[/]"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, receiver.running():
        step = progress.add_task("start the node: listener, workers, scheduler, broker, admin page", total=1)
        with scene.running_node(config) as (node, settings):
            progress.update(step, completed=1)
            step = progress.add_task("", total=len(outgoing))
            peer = Peer("127.0.0.1", node.port, settings.listener.ae_title, "DEMOSCU")
            studies = set()
            for sent in send_files(outgoing, peer):
                progress.update(
                    step, advance=1, description=f"send {sent.path.name} by C-STORE: {status_text(sent.status)}"
                )
                studies.add(_study_of(sent.path))
            step = progress.add_task("wait for results", total=1)
            rows: tuple[WorklistRow, ...] = ()
            for rows in scene.wait_for_results(settings, len(studies), seconds):  # noqa: B007 - the last one is shown
                progress.update(step, description=f"results that came back by C-STORE: {len(receiver.received)}")
            progress.update(step, completed=1)
            step = progress.add_task("draw the findings", total=1)
            pictures = scene.draw_results([item.path for item in outgoing], receiver.received, folder)
            progress.update(step, completed=1)
    console.print(worklist_table(rows))
    console.print(f"Results:  {inbox.absolute()}")
    for path in receiver.received:
        console.print(f"          {path.name}")
    console.print(f"          (to print their content: {program()} results {inbox})", soft_wrap=True)
    for picture in pictures:
        console.print(f"Picture:  {picture.absolute()}")


def _study_of(path: Path) -> str:
    from pydicom import dcmread

    return str(dcmread(path, specific_tags=["StudyInstanceUID"], stop_before_pixels=True).StudyInstanceUID)
