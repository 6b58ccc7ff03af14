"""``pleura train``: train a network and write its manifest and model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
from rich.table import Table

from models.model_spec import ModelSpec
from node.cli.common import console, fail, import_keras
from node.cli.progress import progress_bars

_folder = click.Path(path_type=Path, file_okay=False)


def _need_keras() -> None:
    import_keras()
    try:
        import keras  # noqa: F401 - only whether it is there
    except ImportError:
        fail("training needs Keras: pip install 'pleura[train]'")


def recipe_file(named: str) -> Path:
    """Path of a recipe: a TOML file, or the name of one that comes with Pleura."""
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
@click.option(
    "--folds", type=click.IntRange(min=0), default=0, help="Number of folds of a cross-validation by patient."
)
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Use about this number of images, for a trial.")
@click.option("--epochs", type=click.IntRange(min=0), default=0, help="Train this number of epochs, for a trial.")
@click.option("--initial", default="", help="Weights to start from: `random`, `imagenet`, or a file (docs/models.md).")
def train(recipe: str, data: Path, out: Path, folds: int, limit: int, epochs: int, initial: str) -> None:
    """Train the network of RECIPE, evaluate it, and export it with its manifest and model card.

    RECIPE is a TOML file, or the name of one that comes with Pleura (`unet-resnet34-siim`, `chexnet-nih` …; a wrong
    name lists them all). --folds, --limit, --epochs and --initial override it. An interrupted training continues
    when the same command is given again. Images and rows that cannot be used are listed in problems.json.
    """
    _need_keras()
    from models.architectures.catalogue import UnknownArchitecture
    from models.training.datasets.sample import DatasetError
    from models.training.onnx_export import ExportError
    from models.training.recipe import RecipeError, read_recipe
    from models.training.train import TrainingError
    from models.training.train import train as run

    try:
        with progress_bars() as progress:
            read = read_recipe(recipe_file(recipe), limit=limit, epochs=epochs, folds=folds, initial=initial)
            command = _again(recipe, {"folds": folds, "limit": limit, "epochs": epochs, "initial": initial})
            spec = run(read, data, out, command=command, progress=progress)
    except (TrainingError, RecipeError, DatasetError, UnknownArchitecture, ExportError) as error:
        fail(str(error))
    console.print(f"{spec.name} {spec.version}: {spec.file} and its manifest")
    _print_evidence(spec)


def _again(recipe: str, options: Mapping[str, int | str]) -> str:
    """The command that reproduces a model, for its model card."""
    given = "".join(f" --{name} {value}" for name, value in options.items() if value)
    return f"pleura train {recipe} --data DIR --out DIR{given}"


def _print_evidence(spec: ModelSpec) -> None:
    """Print the evidence of the manifest."""
    table = Table("finding", "mode", "positives", "AUC (95 %)", "cut-off", box=None, pad_edge=False)
    for label in spec.labels:
        seen = label.evidence
        area = f"{seen.auc:.3f} ({seen.auc_low:.3f} to {seen.auc_high:.3f})" if seen else "not measured"
        table.add_row(label.name, label.mode, str(seen.positives) if seen else "", area, f"{label.threshold:.3f}")
    console.print(table)
    if spec.card:
        console.print(f"All figures: {spec.card}")
