"""What training measures of a segmenter: scores pooled as by the node, lesions, and only what lies in the lungs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.architectures import catalogue  # noqa: E402
from models.contract import Mask  # noqa: E402
from models.model_spec import Pooling, PoolingSpec  # noqa: E402
from models.training import inside_lungs  # noqa: E402
from models.training.cached_dataset import CachedDataset  # noqa: E402
from models.training.datasets.sample import Sample  # noqa: E402
from models.training.evaluation.lesions import BOXES, FALSE, HIT, LESIONS, NORMAL, REGIONS, SAID  # noqa: E402
from models.training.figures import figures  # noqa: E402
from models.training.predict import Inside, predict  # noqa: E402
from models.training.predicted import Predicted, gathered, keep, kept  # noqa: E402
from models.training.recipe import Data, Evaluation, Network, Recipe, Schedule  # noqa: E402
from models.training.train import Shares, fingerprint  # noqa: E402
from tests.models.architectures.tiny import SIDE, SQUARE, world  # noqa: E402
from tests.models.samples import chestlike  # noqa: E402
from tests.models.test_predictor import lungs  # noqa: E402
from tests.models.training.datasets.made import write_png  # noqa: E402

STRIDE = 4
CELL = SQUARE // STRIDE
RECIPE = Recipe(
    "tiny",
    "1",
    "Tiny",
    "fpn",
    Data(("lung_opacity",)),
    Network(SIDE, "light"),
    Schedule(1, batch=8),
    evaluation=Evaluation(map_cut_off=0.8, pooling=PoolingSpec(Pooling.TOP, CELL * CELL * STRIDE**2 / SIDE**2)),
)


class Bright:
    """A network whose map is the brightness of each cell of :data:`STRIDE` pixels."""

    output: ClassVar = {"maps": None}

    def predict_on_batch(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        count, side = len(pixels), SIDE // STRIDE
        return {"maps": pixels.reshape(count, side, STRIDE, side, STRIDE, 1).mean(axis=(2, 4))}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> CachedDataset:
    made = world(tmp_path_factory.mktemp("world"), 16, seed=5)
    samples = tuple(
        replace(sample, labels={**sample.labels, "normal": 1 - sample.labels["lung_opacity"]})
        for sample in made.samples
    )
    return replace(made, samples=samples)


def seen(stored: CachedDataset, inside: Inside | None = None) -> Predicted:
    return predict(catalogue.find("fpn"), RECIPE, Bright(), stored, "fold-0", inside=inside)


def test_every_square_is_a_lesion_that_is_hit(stored: CachedDataset) -> None:
    found = seen(stored)
    ill = found.truths[:, 0] == 1
    assert found.lesions is not None
    assert found.kinds is not None
    rows = found.lesions[:, 0, 0]
    assert (rows[ill][:, [LESIONS, HIT, REGIONS, FALSE]] == [1, 1, 1, 0]).all()
    assert (rows[~ill][:, [LESIONS, REGIONS, SAID]] == 0).all()
    assert found.kinds[:, 0].tolist() == [BOXES if has else NORMAL for has in ill]
    # The mean of so many cells as a square has: only where there is one, it is high.
    assert found.scores[ill].min() > 0.8 > 0.6 > found.scores[~ill].max()
    figure = figures(found, None, 0.8, rounds=20).lesions["lung_opacity"]["boxes"]
    assert (figure.hit.value, figure.false_normal.value, figure.lesions) == (1.0, 0.0, 8)
    assert figure.iou.value > 0.7


def test_what_lies_outside_of_the_lungs_is_not_marked(stored: CachedDataset) -> None:
    def upper_half(_: Sample, side: int) -> Mask:
        mask = np.zeros((side, side), np.bool_)
        mask[: side // 2] = True
        return mask

    everywhere, inside = seen(stored), seen(stored, upper_half)
    assert everywhere.lesions is not None
    assert inside.lesions is not None
    assert 0 < inside.lesions[..., SAID].sum() < everywhere.lesions[..., SAID].sum()
    np.testing.assert_array_equal(inside.scores, everywhere.scores)
    # Where two lungs are not found, everything is as without them.
    np.testing.assert_array_equal(seen(stored, lambda _, __: None).lesions, everywhere.lesions)


def test_what_was_predicted_is_kept_with_its_lesions(stored: CachedDataset, tmp_path: Path) -> None:
    found = seen(stored)
    keep(found, tmp_path / "predicted.npz")
    twice = gathered([kept(tmp_path / "predicted.npz"), found])
    assert twice.lesions is not None
    assert twice.kinds is not None
    assert found.kinds is not None
    assert twice.lesions.shape == (32, 1, 1, 8)
    assert twice.kinds.tolist() == [*found.kinds.tolist(), *found.kinds.tolist()]


def test_how_a_network_is_measured_or_called_does_not_train_it_again(stored: CachedDataset) -> None:
    shares = Shares(stored.samples[:8], stored.samples[8:])
    own = fingerprint(RECIPE, shares)
    same = replace(RECIPE, title="Other", evaluation=replace(RECIPE.evaluation, map_cut_off=0.3))
    assert fingerprint(same, shares) == own
    assert fingerprint(replace(RECIPE, evaluation=replace(RECIPE.evaluation, folds=3)), shares) != own
    assert fingerprint(replace(RECIPE, schedule=Schedule(2, batch=8)), shares) != own
    assert fingerprint(RECIPE, Shares(stored.samples[:7], stored.samples[8:])) != own


def test_the_lungs_are_those_of_the_lungs_network_on_the_grid_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = lungs(tmp_path)  # columns 2 to 6 and 8 to 13, rows 1 to 5 of sixteenths
    monkeypatch.setattr(inside_lungs, "read_registry", lambda verify: SimpleNamespace(find=lambda _: spec))
    image = write_png(tmp_path / "a.png", (chestlike(320, 320) * 255).astype(np.uint8))
    mask = inside_lungs.InsideLungs()(Sample("a", "1", image), SIDE)
    assert mask is not None
    rows, columns = np.nonzero(mask)
    # Widened by a cell of four pixels on each side, and apart in the middle.
    assert (rows.min(), rows.max()) == pytest.approx((0, 27), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((4, 59), abs=2)
    assert not mask[:, 30].any()
    dark = lungs(tmp_path, second=slice(13, 14))
    monkeypatch.setattr(inside_lungs, "read_registry", lambda verify: SimpleNamespace(find=lambda _: dark))
    assert inside_lungs.InsideLungs()(Sample("a", "1", image), SIDE) is None, "one of two is too small to be a lung"
