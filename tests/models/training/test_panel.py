"""Several judgements made one: fair means, sides that stay sides, and a network that serves what was judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.models.training.drawn import write_drawn
from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

from models.efficientnet.panel import Linear, feature_network, panel_network  # noqa: E402
from models.training.batches import served_batch  # noqa: E402
from models.training.dataset import Example, read_cxr  # noqa: E402
from models.training.fit import build, predict  # noqa: E402
from models.training.panel import crossed_means, described, fit_mean, fit_opinion  # noqa: E402
from models.training.predictions import read_predictions  # noqa: E402
from models.training.recipe import RecipeError, read_recipe  # noqa: E402
from models.training.targets import LABELS  # noqa: E402
from models.training.train import TrainingError, train  # noqa: E402
from tests.models.training.test_training import TINY  # noqa: E402

pytestmark = pytest.mark.timeout(900)

AVERAGED = [column for column, label in enumerate(LABELS) if label != "lung_opacity"]
PANEL = """
[panel]
mirrored = true
unchanged = 0.01
"""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return read_cxr(write_drawn(tmp_path_factory.mktemp("drawn"), 24))[0]


def opacity(examples: list[Example]) -> np.ndarray:
    return np.array([item.rsna_class == "Lung Opacity" for item in examples])


def test_members_of_different_scale_have_one_voice_each() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, (48, len(LABELS)))
    second = rng.normal(-3, 5, first.shape)
    final = fit_mean(np.stack([first, second], axis=1))(np.concatenate([first, second], axis=1))
    expected = (first - first.mean(0)) / first.std(0) + (second - second.mean(0)) / second.std(0)
    for column in AVERAGED:
        assert np.corrcoef(final[:, column], expected[:, column])[0, 1] == pytest.approx(1.0)
    # In the logits' own units, so that calibration starts near what a network means by them.
    np.testing.assert_allclose(final.mean(0)[AVERAGED], ((first.mean(0) + second.mean(0)) / 2)[AVERAGED])


def test_what_is_outlined_is_judged_by_the_network_that_drew_it() -> None:
    said = np.random.default_rng(5).normal(0, 2, (48, 2, len(LABELS)))
    final = fit_mean(said)(said.reshape(48, -1))
    opacity = LABELS.index("lung_opacity")
    np.testing.assert_allclose(final[:, opacity], said[:, 0, opacity], atol=1e-12)


def test_one_member_alone_says_what_it_said() -> None:
    said = np.random.default_rng(1).normal(0, 2, (48, 1, len(LABELS)))
    np.testing.assert_allclose(fit_mean(said)(said[:, 0]), said[:, 0], atol=1e-12)


def test_a_member_that_never_differs_has_no_voice() -> None:
    first = np.random.default_rng(1).normal(0, 2, (48, len(LABELS)))
    both = np.stack([first, np.zeros_like(first)], axis=1)
    final = fit_mean(both)(both.reshape(48, -1))
    assert np.isfinite(final).all()
    for column in AVERAGED:
        assert np.corrcoef(final[:, column], first[:, column])[0, 1] == pytest.approx(1.0)


def test_nobody_judges_how_loud_his_own_group_is_heard() -> None:
    rng = np.random.default_rng(2)
    said = rng.normal(0, 1, (48, 2, len(LABELS)))
    groups = [str(index % 3) for index in range(48)]
    inside = np.array(groups) == "0"
    before = crossed_means(said, groups)
    louder = said.copy()
    louder[inside, 1] *= 10
    after = crossed_means(louder, groups)
    # What group 0 says counts as before in group 0 (a sum of its members' parts), and otherwise in the others.
    parts = after[inside] - before[inside]
    loud = said[inside, 1]
    for column in AVERAGED:
        assert np.corrcoef(parts[:, column], loud[:, column])[0, 1] == pytest.approx(1.0)
    assert np.abs(after[~inside] - before[~inside]).max() > 1e-3


def test_an_opinion_is_a_logistic_regression(examples: list[Example]) -> None:
    features = np.random.default_rng(3).normal(5, 3, (len(examples), 6))
    ours = fit_opinion(features, examples, 0.5)(features)[:, LABELS.index("lung_opacity")]
    scaled = (features - features.mean(0)) / features.std(0)
    theirs = LogisticRegression(C=0.5).fit(scaled, opacity(examples)).decision_function(scaled)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    # Hernia is nowhere in the drawn images: nothing is said about it.
    assert not fit_opinion(features, examples, 0.5).weights[:, LABELS.index("hernia")].any()


def test_a_panel_judges_the_mirror_image_alike_and_keeps_the_sides(examples: list[Example], tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    recipe = read_recipe(file)
    model, unchanged = build(recipe), feature_network(64, "tiny")
    rng = np.random.default_rng(4)
    opinion = Linear(rng.normal(0, 1, (unchanged.output_shape[1], len(LABELS))), rng.normal(0, 1, len(LABELS)))
    mean = fit_mean(rng.normal(0, 1, (len(examples), 2, len(LABELS))))
    panel = panel_network(model, True, (unchanged, opinion), mean)
    images = served_batch(examples[:5], 64)
    said, again = panel(images, training=False), panel(images[:, :, ::-1].copy(), training=False)
    np.testing.assert_allclose(said["logits"], again["logits"], atol=1e-5)
    np.testing.assert_allclose(said["maps"], keras.ops.convert_to_numpy(again["maps"])[:, :, ::-1], atol=1e-6)
    # The graph says what evidence is made of.
    logits, maps = predict(model, examples[:5], mirrored=True)
    features = described(unchanged, examples[:5], tmp_path / "features.npz", lambda _done: None)
    members = np.concatenate([logits, opinion(features)], axis=1)
    np.testing.assert_allclose(said["logits"], mean(members), atol=1e-3)
    np.testing.assert_allclose(said["maps"], maps, atol=1e-5)


def test_a_panel_trains_with_folds_and_serves(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "data", 48)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY.replace("epochs = 16", "epochs = 2") + PANEL)
    spec = train(recipe, data, tmp_path / "out", folds=2)
    said = read_predictions(tmp_path / "out" / "evidence" / "tiny.csv")
    assert set(said.groups) == {"fold-0", "fold-1"}
    assert len(said.images) == len(read_cxr(data)[0])
    assert spec.card is not None
    assert "mirror image" in spec.card.read_text()
    # Started again, nothing is trained anew.
    before = (tmp_path / "out" / "folds" / "fold-0" / "network.keras").stat().st_mtime_ns
    train(recipe, data, tmp_path / "out", folds=2)
    assert (tmp_path / "out" / "folds" / "fold-0" / "network.keras").stat().st_mtime_ns == before
    # With another recipe, other folds or other images it would be another training's network: refused.
    with pytest.raises(TrainingError, match="other folds"):
        train(recipe, data, tmp_path / "out", folds=3)
    recipe.write_text(recipe.read_text().replace("epochs = 2", "epochs = 3"))
    with pytest.raises(TrainingError, match="--out"):
        train(recipe, data, tmp_path / "out", folds=2)


def test_a_panel_that_cannot_be_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    for panel, complaint in (('read = ["cough"]', "no option"), ("unchanged = -1.0", "negative")):
        recipe.write_text(f"{TINY}\n[panel]\n{panel}\n")
        with pytest.raises(RecipeError, match=complaint):
            read_recipe(recipe)
