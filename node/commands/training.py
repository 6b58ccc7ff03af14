"""``pleura train`` and ``pleura evaluate``: the commands behind every figure of a model card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from node.commands.common import console, fail

_folder = click.Path(path_type=Path, file_okay=False)


def _need_keras() -> None:
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


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--data", type=_folder, required=True, help="Folder with labels.csv and images/.")
@click.option("--out", type=_folder, required=True, help="Folder for network, manifest, card and evidence.")
@click.option("--folds", default=0, show_default=True, help="Folds of a cross-validation by patient; 0: none.")
def train(recipe: Path, data: Path, out: Path, folds: int) -> None:
    """Train the network that RECIPE (a TOML file) describes and export it with its manifest and model card.

    Stopped, it goes on where it was when it is called again with the same --out.
    """
    _need_keras()
    from models.training.dataset import DatasetError
    from models.training.recipe_tables import RecipeError
    from models.training.train import TrainingError
    from models.training.train import train as run

    try:
        with _progress() as progress:
            spec = run(recipe, data, out, folds=folds, progress=progress)
    except (TrainingError, RecipeError, DatasetError) as error:
        fail(str(error))
    console.print(f"{spec.name} {spec.version}: {spec.file} and its manifest")


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
