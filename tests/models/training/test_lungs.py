"""Lung fields from drawn lungs: trained, measured as the node finds them, and served."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.contract import Hanging  # noqa: E402
from models.model_spec import ModelKind  # noqa: E402
from models.pipeline import Pipeline  # noqa: E402
from models.predictor import load_predictor  # noqa: E402
from models.training.cached_dataset import CachedDataset, cache  # noqa: E402
from models.training.datasets import read_dataset  # noqa: E402
from models.training.fit import silent  # noqa: E402
from models.training.lung_measure import LABELS, LungRow, lung_figures, measure_lungs  # noqa: E402
from models.training.recipe import RECIPES, Data, Evaluation, Network, Recipe, Schedule, read_recipe  # noqa: E402
from models.training.train import TrainingError, train  # noqa: E402
from models.training.truths import LabelNames  # noqa: E402
from tests.models.training.datasets import made  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = 32


def recipe(**changes: object) -> Recipe:
    parts: dict[str, object] = {
        "name": "lungs",
        "version": "1.0.0",
        "title": "Lungs",
        "architecture": "unet",
        "data": Data(LABELS, layout="lungs", use="positives"),
        "network": Network(SIZE, encoder="light", width=0.125),
        "schedule": Schedule(1, batch=4, rate=1e-2),
        "evaluation": Evaluation(folds=2),
        "serves": "lungs",
    }
    return Recipe(**(parts | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of four patients, dark where the lungs are."""
    folder = made.lungs(tmp_path_factory.mktemp("drawn"), [(f"{number}.png", str(number // 2)) for number in range(8)])
    for number in range(8):
        noise = np.random.default_rng(number).normal(0, 8, (40, 32))
        made.write_png(
            folder / "images" / f"{number}.png",
            np.clip(200 - 0.6 * made.two_lungs() + noise, 0, 255).astype(np.uint8),
        )
    return folder


@pytest.fixture(scope="module")
def stored(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> CachedDataset:
    samples = read_dataset.read(drawn).samples
    kept, problems = cache(samples, SIZE, "none", LabelNames(LABELS), tmp_path_factory.mktemp("pixels"), silent)
    assert not problems
    return kept


class Knows:
    """A network that knows the drawn lungs; ``by_place`` of one that only knows how pictures usually hang."""

    def __init__(self, stored: CachedDataset, *, by_place: bool) -> None:
        self._grey = stored.pixels(0).astype(np.float32) / 255
        self._by_place = by_place

    def __call__(self, batch: np.ndarray, training: bool) -> dict[str, np.ndarray]:
        assert not training
        dark = (batch[..., 0] < 0.5) & (batch[..., 0] > 0.05)
        # The taller lung is the patient's left one.
        columns = np.arange(SIZE) < SIZE / 2
        left = []
        for image in dark:
            first_is_left = (image[:, columns].sum() > image[:, ~columns].sum()) and not self._by_place
            left.append(image & (columns if first_is_left else ~columns))
        maps = np.stack([np.stack(left), dark & ~np.stack(left)], axis=-1)
        return {"maps": maps.astype(np.float32)}


def test_a_network_that_only_knows_how_pictures_hang_is_found_out(stored: CachedDataset) -> None:
    anatomy, place = (measure_lungs(Knows(stored, by_place=way), stored, "fold-0") for way in (False, True))
    for rows in (anatomy, place):
        assert {row.hanging for row in rows} == {Hanging.USUAL.value}
        assert min(row.dice for row in rows) > 0.8
        assert min(min(row.left, row.right) for row in rows) > 0.8
    assert {row.hanging_mirrored for row in anatomy} == {Hanging.MIRRORED.value}
    assert {row.hanging_mirrored for row in place} == {Hanging.USUAL.value}
    assert lung_figures(anatomy)["mirrored_noticed"]["value"] == 1.0
    assert lung_figures(place)["mirrored_missed"]["value"] == 1.0


def test_lungs_that_are_not_found_count_as_no_overlap() -> None:
    rows = [
        LungRow("a", "1", "fold-0", True, 0.9, 0.9, 0.9, "usual", "mirrored"),
        LungRow("b", "2", "fold-0", False, 0.0, 0.0, 0.0, "unsure", "unsure"),
    ]
    figures = lung_figures(rows, rounds=20)
    assert figures["dice"]["value"] == pytest.approx(0.45)
    assert figures["found"]["value"] == figures["sides_right"]["value"] == 0.5
    assert figures["lowest"] == 0.0


@pytest.mark.training
@pytest.mark.timeout(900)
def test_lung_fields_are_trained_measured_and_served(drawn: Path, tmp_path: Path) -> None:
    spec = train(recipe(), drawn, tmp_path, command="pleura train lungs")
    assert spec.kind is ModelKind.LUNGS
    assert tuple(label.name for label in spec.labels) == LABELS
    with (tmp_path / "evidence" / "lungs.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["image"] for row in rows} == {f"{number}.png" for number in range(8)}
    for patient in {row["patient"] for row in rows}:
        assert len({row["group"] for row in rows if row["patient"] == patient}) == 1
    summary = json.loads((tmp_path / "evidence" / "lungs.json").read_text())
    assert (summary["images"], summary["patients"], summary["folds"]) == (8, 4, 2)
    assert spec.card is not None
    assert "Dice, both lungs together" in spec.card.read_text()
    load_predictor(Pipeline(None, (), lungs=spec), threads=1)


def test_only_a_segmenter_of_both_lungs_serves_as_lung_fields(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a segmenter of left_lung and right_lung"):
        train(recipe(data=Data(("left_lung",), layout="lungs", use="positives")), drawn, tmp_path)


def test_the_bundled_recipe_mirrors_half_of_the_images() -> None:
    """Else a network would learn that the patient's left is on the right of every picture."""
    asked = read_recipe(RECIPES / "bundled-lungs.toml")
    assert asked.augmentation.flip == 0.5
    assert asked.data.labels == LABELS
