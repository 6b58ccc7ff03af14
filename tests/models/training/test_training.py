"""From drawn images to a served model: a tiny network learns what can be learnt, and nothing from shuffled labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.training.drawn import write_drawn
from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.contract import ModelSpec  # noqa: E402
from models.manifest import read_manifest, verify_digest  # noqa: E402
from models.training.batches import plain_batch  # noqa: E402
from models.training.bundle import EvidenceBase  # noqa: E402
from models.training.dataset import load_images, read_cxr  # noqa: E402
from models.training.evaluate import EvaluationError, evaluate  # noqa: E402
from models.training.onnx_session import open_session, run_session  # noqa: E402
from models.training.predictions import Predictions, read_predictions, write_predictions  # noqa: E402
from models.training.train import TrainingError, train  # noqa: E402

pytestmark = pytest.mark.timeout(900)  # tracing a graph is slow on a busy machine

TINY = """
name = "tiny"
version = "0.1"
title = "Tiny network"
kind = "classifier"
[network]
family = "efficientnet"
size = 64
initial = "random"
plan = "tiny"
frozen_stages = 0
dropout = 0.0
[schedule]
epochs = 16
batch = 8
rate = 1e-2
warmup = 0.5
average = 0.8
[augmentation]
rotation = 0.0
scale = 0.05
shift = 0.02
aspect = 0.0
gamma = 0.1
contrast = 0.1
brightness = 0.02
equalise = 0.0
sharpen = 0.0
collimate = 0.0
marker = 0.0
"""


def trained(folder: Path, *, shuffled: bool) -> ModelSpec:
    data = write_drawn(folder / "data", 128, shuffled=shuffled)
    recipe = folder / "tiny.toml"
    recipe.write_text(TINY)
    return train(recipe, data, folder / "out")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return trained(tmp_path_factory.mktemp("learnt"), shuffled=False)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return trained(tmp_path_factory.mktemp("control"), shuffled=True)


def test_learns_what_can_be_learnt_and_points_at_it(learnt: ModelSpec, control: ModelSpec, tmp_path: Path) -> None:
    truth = learnt.file.parent.parent / "data"
    ours = evaluate(learnt.file, truth, "val", tmp_path / "ours", rounds=50)
    theirs = evaluate(control.file, truth, "val", tmp_path / "theirs", rounds=50)
    assert ours.figures["lung_opacity"].auc.value > 0.9
    assert ours.figures["lung_opacity"].auc.value > theirs.figures["lung_opacity"].auc.value + 0.2
    place, chance = ours.places["lung_opacity"], theirs.places["lung_opacity"]
    assert place.pointing.value > max(0.8, chance.pointing.value)


def test_manifest_is_what_the_node_reads(learnt: ModelSpec) -> None:
    spec = read_manifest(learnt.file.with_suffix(".toml"))
    verify_digest(spec)
    assert spec == learnt
    assert [label.name for label in spec.labels if label.localised] == ["lung_opacity"]
    assert spec.card is not None
    assert "Not a medical device" in spec.card.read_text()


def test_too_few_patients_stay_in_shadow(learnt: ModelSpec) -> None:
    # Some 16 positives are in the split val: fewer than 30, however good the figure.
    assert {label.mode for label in learnt.labels} == {"shadow"}


def test_onnx_says_what_keras_says_in_any_batch(learnt: ModelSpec) -> None:
    examples, _ = read_cxr(learnt.file.parent.parent / "data")
    batch = plain_batch(load_images(examples[:5], 64)[0])
    model = keras.models.load_model(learnt.file.with_suffix(".keras"), compile=False)
    maps = keras.ops.convert_to_numpy(model(batch, training=False)["maps"])
    session = open_session(learnt.file)
    whole = run_session(session, batch, ["probabilities", "maps"])
    np.testing.assert_allclose(whole["maps"], maps, atol=1e-4)
    for index in range(5):
        alone = run_session(session, batch[index : index + 1], ["probabilities", "maps"])
        np.testing.assert_allclose(alone["probabilities"][0], whole["probabilities"][index], atol=1e-5)
    assert whole["maps"].shape == (5, 4, 4, len(learnt.labels))


def test_report_is_one_file_with_nothing_to_load(learnt: ModelSpec, tmp_path: Path) -> None:
    result = evaluate(learnt.file, learnt.file.parent.parent / "data", "val", tmp_path, rounds=20)
    page = (result.folder / "report.html").read_text()
    assert "Not a medical device" in page
    assert "<svg" in page
    assert "src=" not in page.replace("xmlns", "")
    summary = json.loads((result.folder / "metrics.json").read_text())
    assert summary["labels"]["lung_opacity"]["positives"] == 16
    assert read_predictions(result.folder / "predictions.csv").labels == tuple(item.name for item in learnt.labels)


def test_evaluation_names_what_is_wrong(learnt: ModelSpec, tmp_path: Path) -> None:
    data = learnt.file.parent.parent / "data"
    with pytest.raises(EvaluationError, match="no split 'test'"):
        evaluate(learnt.file, data, "test", tmp_path)
    with pytest.raises(EvaluationError, match="no model 'unheard-of'"):
        evaluate("unheard-of", data, "val", tmp_path)


def test_training_needs_both_splits(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "data", 2)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    with pytest.raises(TrainingError, match="val"):
        train(recipe, data, tmp_path / "out")


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    from models.training.fit import fit_classifier
    from models.training.recipe import read_recipe

    class PowerCutError(Exception):
        pass

    def stop(_what: str, done: int, _total: int) -> None:
        seen.append(done)
        if done == 2 and len(seen) == 2:
            raise PowerCutError

    seen: list[int] = []
    recipe_file = tmp_path / "tiny.toml"
    recipe_file.write_text(TINY.replace("epochs = 16", "epochs = 4"))
    recipe = read_recipe(recipe_file)
    examples, _ = read_cxr(write_drawn(tmp_path / "data", 16))
    with pytest.raises(PowerCutError):
        fit_classifier(recipe, examples, tmp_path / "out", progress=stop)
    fit_classifier(recipe, examples, tmp_path / "out", progress=stop)
    assert seen[0] == 1
    assert seen[-1] == 4
    assert len(seen) < 2 + 4


def test_predictions_survive_their_file(tmp_path: Path) -> None:
    said = Predictions(
        ("a.png", "b.png"), ("1", "2"), ("x", "y"), ("one", "two"),
        np.array([[0.25, -1.5], [3.0, 0.0]]), np.array([1.0, np.nan]), np.array([0.5, np.nan]),
    )  # fmt: skip
    write_predictions(tmp_path / "said.csv", said)
    again = read_predictions(tmp_path / "said.csv")
    assert (again.images, again.patients, again.groups, again.labels) == (
        said.images,
        said.patients,
        said.groups,
        said.labels,
    )
    np.testing.assert_allclose(again.scores, said.scores)
    np.testing.assert_allclose(again.hits, said.hits)


def test_shadow_rule(learnt: ModelSpec) -> None:
    from models.training.figures import LabelFigures, label_spec
    from models.training.metrics import Interval

    share = Interval(0.8, 0.7, 0.9)
    good = LabelFigures("pneumothorax", 500, 48, 40, Interval(0.8, 0.7, 0.9), 0.5, 0.3, share, share, 0.3, 0.02, 0.1)
    assert label_spec(good, localised=False, map_threshold=0.5).mode == "active"
    few = replace(good, positive_patients=29)
    poor = replace(good, auc=Interval(0.7, 0.59, 0.8))
    noisy = replace(good, label="nodule")
    for item in (few, poor, noisy):
        assert label_spec(item, localised=False, map_threshold=0.5).mode == "shadow"


def test_calibration_is_judged_on_other_groups(learnt: ModelSpec) -> None:
    from models.training.bundle import classifier_figures

    examples, _ = read_cxr(learnt.file.parent.parent / "data")
    rng = np.random.default_rng(0)
    ill = np.array([item.rsna_class == "Lung Opacity" for item in examples])
    scores = np.where(ill, 20.0, -20.0)[:, None] + rng.normal(0, 1, (len(examples), 1))
    blank = np.full(len(examples), np.nan)
    said = Predictions(
        tuple(item.image for item in examples), tuple(item.patient for item in examples),
        tuple(str(index % 4) for index in range(len(examples))), ("lung_opacity",), scores, blank, blank,
    )  # fmt: skip
    figures = classifier_figures(EvidenceBase(said, tuple(examples), 0.5, "drawn"), rounds=20)["lung_opacity"]
    assert figures is not None
    assert figures.auc.value == 1.0
    assert figures.calibration_error < 0.02
