"""``pleura train`` and ``pleura evaluate``: the commands behind every figure of a model card."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.contract import ModelSpec
from node.commands.common import console, fail

_folder = click.Path(path_type=Path, file_okay=False)


def _need_keras() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow writes over the progress bars otherwise
    try:
        import keras  # noqa: F401 - only whether it is there
    except ImportError:
        fail("training needs Keras: pip install 'pleura[train]'")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each thing that reports how far it is."""
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:

        def _report(what: str, done: int, total: int) -> None:
            name = what.split()[0]
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], description=what, completed=done, total=total)

        yield _report


def recipe_file(named: str) -> Path:
    """The recipe in a file, or the one of that name that comes with Pleura."""
    from models.training.recipe import RECIPES

    if Path(named).is_file():
        return Path(named)
    if (own := RECIPES / f"{named}.toml").is_file():
        return own
    known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
    return fail(f"there is no recipe '{named}'; name a TOML file, or one of: {known}")


@click.command()
@click.argument("recipe")
@click.option(
    "--data",
    type=_folder,
    required=True,
    help="Data set in its original layout: SIIM-ACR, RSNA, NIH, a folder for each class, or labels.csv with images/.",
)
@click.option("--out", type=_folder, required=True, help="Folder for network, manifest, card and evidence.")
@click.option("--folds", type=click.IntRange(min=0), default=0, help="Cross-validate by patient, in so many folds.")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Take about so many images, for a trial.")
@click.option("--epochs", type=click.IntRange(min=0), default=0, help="Train so many epochs, for a trial.")
def train(recipe: str, data: Path, out: Path, folds: int, limit: int, epochs: int) -> None:
    """Train the network that RECIPE describes, measure it, and export it with its manifest and model card.

    RECIPE is a TOML file, or the name of one that comes with Pleura (`unet-siim`, `chexnet-nih` …; a wrong name lists
    them all). --folds, --limit and --epochs replace what it says. Stopped, a training goes on where it was when the
    same command is given again. Images and rows that cannot be used are listed in problems.json.
    """
    _need_keras()
    from models.architectures.registry import UnknownArchitecture
    from models.training.dataset import DatasetError
    from models.training.export import ExportError
    from models.training.literature_recipe import names_architecture, read_literature_recipe
    from models.training.recipe_tables import RecipeError
    from models.training.train import TrainingError
    from models.training.train import train as train_bundled

    file = recipe_file(recipe)
    try:
        with _progress() as progress:
            if names_architecture(file):
                from models.training.engine import train_literature

                read = read_literature_recipe(file, limit=limit, epochs=epochs, folds=folds)
                spec = train_literature(
                    read, data, out, command=_again(recipe, folds, limit, epochs), progress=progress
                )
            elif limit or epochs:
                raise RecipeError("--limit and --epochs are for recipes that name an architecture")
            else:
                spec = train_bundled(file, data, out, folds=folds, progress=progress)
    except (TrainingError, RecipeError, DatasetError, UnknownArchitecture, ExportError) as error:
        fail(str(error))
    console.print(f"{spec.name} {spec.version}: {spec.file} and its manifest")
    _print_evidence(spec)


def _again(recipe: str, folds: int, limit: int, epochs: int) -> str:
    """The command that makes a model once more, for its card."""
    options = (("--folds", folds), ("--limit", limit), ("--epochs", epochs))
    return f"pleura train {recipe} --data DIR --out DIR" + "".join(
        f" {name} {count}" for name, count in options if count
    )


def _print_evidence(spec: ModelSpec) -> None:
    """What was measured, as the manifest holds it."""
    table = Table("finding", "mode", "positives", "AUC (95 %)", "cut-off", box=None, pad_edge=False)
    for label in spec.labels:
        seen = label.evidence
        area = f"{seen.auc:.3f} ({seen.auc_low:.3f} to {seen.auc_high:.3f})" if seen else "not measured"
        table.add_row(label.name, label.mode, str(seen.positives) if seen else "", area, f"{label.threshold:.3f}")
    console.print(table)
    if spec.card:
        console.print(f"All figures: {spec.card}")


@click.command()
@click.argument("model")
@click.option("--data", type=_folder, required=True, help="Folder with labels.csv and images/.")
@click.option("--split", default="val", show_default=True, help="Split of labels.csv to judge by.")
@click.option("--out", type=_folder, required=True, help="Folder for metrics.json and report.html.")
def evaluate(model: str, data: Path, split: str, out: Path) -> None:
    """Measure MODEL (`bundled`, the name of a bundled model, or a manifest) on radiographs with known answers."""
    from models.training.dataset import DatasetError
    from models.training.evaluate import EvaluationError
    from models.training.evaluate import evaluate as run

    try:
        with _progress() as progress:
            done = run(model, data, split, out, progress=progress)
    except (EvaluationError, DatasetError) as error:
        fail(str(error))
    table = Table("finding", "positives", "images", "AUC (95 %)", box=None, pad_edge=False)
    for label, figures in done.figures.items():
        interval = f"{figures.auc.value:.3f} ({figures.auc.low:.3f} to {figures.auc.high:.3f})"
        table.add_row(label, str(figures.positives), str(figures.images), interval)
    console.print(table)
    if done.problems:
        console.print(f"{len(done.problems)} images were left out; the report lists them")
    console.print(f"Report: {(done.folder / 'report.html').absolute()}")
