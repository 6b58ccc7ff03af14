"""``pleura evaluate``: measure a model on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.table import Table

from node.cli.common import console, fail, need, settings_of
from node.cli.progress import progress_bars

if TYPE_CHECKING:
    from models.training.evaluation.result import Evaluation

_folder = click.Path(path_type=Path, file_okay=False)
_LEFT_OUT = 5


def _truths(options: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Parse options ``LABEL=NAME[,NAME]``."""
    truths: dict[str, tuple[str, ...]] = {}
    for text in options:
        label, equals, names = text.partition("=")
        if not equals or not label or not names:
            fail(f"--truth takes LABEL=NAME (or LABEL=NAME,NAME), not '{text}'")
        truths[label] = tuple(name.strip() for name in names.split(","))
    return truths


@click.command()
@click.argument("model")
@click.option("--data", type=_folder, required=True, help="Folder of the data set.")
@click.option(
    "--split",
    default="val",
    show_default=True,
    help="Split to evaluate; `all` uses every image. If there is no `val`, it is a fixed fifth of the patients.",
)
@click.option("--out", type=_folder, required=True, help="Folder for report.html, metrics.json and predictions.")
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    help="cxr, readings, siim, rsna, nih, lungs or folders; auto detects the layout.",
)
@click.option(
    "--truth",
    multiple=True,
    metavar="LABEL=NAME",
    help="Name in the data set of a label of the model.",
)
@click.option("--patient", default="", help="Regular expression with one group: the patient in a file name (folders).")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    show_default=True,
    help="Where networks in Keras format run.",
)
@click.pass_context
def evaluate(
    context: click.Context,
    model: str,
    data: Path,
    split: str,
    out: Path,
    layout: str,
    truth: tuple[str, ...],
    patient: str,
    device: Literal["auto", "cpu", "gpu"],
) -> None:
    """Evaluate MODEL on labelled radiographs, with the same processing as the node.

    MODEL is `bundled`, the name of a model, a manifest, or a network beside its manifest: a classifier, segmenter or
    detector, ONNX or Keras, or one on an inference server. Of a vendor's program that answers findings the
    probabilities are measured, and not the places. Writes a self-contained HTML report, all figures as JSON, and the
    predictions for each image as CSV. Images that cannot be used, or of which a program cannot tell, are counted and
    listed.
    Research use only: not a medical device.
    """
    need("matplotlib", "reports", "evaluating")
    from models.training.datasets.sample import DatasetError
    from models.training.evaluation.evaluate import EvaluationError
    from models.training.evaluation.evaluate import evaluate as run

    truths = _truths(truth)
    folder = settings_of(context).models.folder
    try:
        with progress_bars() as progress:
            done = run(
                model,
                data,
                split,
                out,
                layout=layout,
                truths=truths,
                patient=patient,
                folder=folder,
                device=device,
                progress=progress,
            )
    except (EvaluationError, DatasetError, OSError) as error:
        fail(str(error))
    _print(done)


def _print(done: Evaluation) -> None:
    samples = done.measured.samples
    console.print(
        f"{done.spec.name} {done.spec.version} on {len(samples)} images of "
        f"{len({item.patient for item in samples})} patients (layout {done.layout}, split {done.split})"
    )
    if done.warning:
        console.print(f"[bold yellow]{done.warning}[/]")
    if done.classified:
        table = Table("finding", "positives", "images", "AUC (95 %)", "sens.", "spec.", "ECE", box=None, pad_edge=False)
        for label, item in done.classified.items():
            figures, area = item.figures, item.figures.auc
            table.add_row(
                label,
                str(figures.positives),
                str(figures.images),
                f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})",
                f"{item.chosen.sensitivity.value:.3f}",
                f"{item.chosen.specificity.value:.3f}",
                f"{figures.calibration_error:.3f}",
            )
        console.print(table)
    if done.places:
        table = Table("place of", "positives", "Dice, positives", "IoU, positives", "Dice, all", "strongest is true")
        table.box, table.pad_edge = None, False
        for label, place in done.places.items():
            own = place.served
            values = (own.dice, own.iou, own.dice_all, place.pointing)
            table.add_row(label, str(place.positives), *(f"{item.value:.3f}" for item in values))
        console.print(table)
    if done.boxes:
        table = Table("boxes of", "boxes", "AP 0.50, all", "AP 0.50, positives", "hit", "false on 100 normals")
        table.box, table.pad_edge = None, False
        for label, found in done.boxes.items():
            shares = (found.all_images.at[0.5], found.positive_images.at[0.5], found.sensitivity)
            false = f"{found.false_per_hundred.value:.1f}"
            table.add_row(label, str(found.boxes), *(f"{item.value:.3f}" for item in shares), false)
        console.print(table)
    for label, reason in done.not_evaluated.items():
        console.print(f"not analysed: {label}: {reason}", markup=False)
    for name, reason in done.problems[:_LEFT_OUT]:
        console.print(f"left out: {name}: {reason}", markup=False)
    if len(done.problems) > _LEFT_OUT:
        console.print(f"left out: {len(done.problems)} in all; the report lists them")
    console.print(f"Report: {(done.folder / 'report.html').absolute()}", soft_wrap=True)
