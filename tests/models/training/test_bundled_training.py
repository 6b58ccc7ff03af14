"""The bundled recipes, made tiny: the classifier learns what can be learnt; the gate trains, ships and is measured."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.notice import NOTICE
from tests.models.training.drawn import write_drawn
from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.manifest import read_manifest, verify_digest  # noqa: E402
from models.model_spec import ModelKind, ModelSpec  # noqa: E402
from models.training import fit  # noqa: E402
from models.training.data_loader import DataLoader  # noqa: E402
from models.training.datasets import pixels, read_dataset  # noqa: E402
from models.training.evaluation.evaluate import EvaluationError, evaluate  # noqa: E402
from models.training.evaluation.predictions import Predictions, read_predictions, write_predictions  # noqa: E402
from models.training.figures import LabelFigures, label_spec  # noqa: E402
from models.training.gate_data import GATE_LABELS  # noqa: E402
from models.training.metrics import Interval  # noqa: E402
from models.training.onnx_export import open_session, run_session  # noqa: E402
from models.training.recipe import RECIPES, Augmentation, Network, Recipe, read_recipe  # noqa: E402
from models.training.train import TrainingError, train  # noqa: E402

# Slow: to begin first, for others would wait for them. Tracing a graph takes long on a busy machine.
pytestmark = [pytest.mark.training, pytest.mark.slow, pytest.mark.timeout(900)]


def tiny(kind: str, epochs: int, **options: Any) -> Recipe:
    """A bundled recipe, narrow and at 64 pixels."""
    recipe = read_recipe(RECIPES / f"bundled-{kind}.toml", epochs=epochs)
    own = {**recipe.network.options, "dropout": 0.0, "frozen_stages": 0, **options}
    network = replace(recipe.network, size=64, width=0.2, initial="random", options=own)
    schedule = replace(recipe.schedule, batch=8, rate=1e-2, warmup=0.5, average=0.8, mixed_precision="off")
    recipe = replace(recipe, name="tiny", network=network, schedule=schedule)
    if kind == "gate":
        return recipe  # drawn chests are all alike: without its own changes a distance from them means nothing
    slight = Augmentation(scale=0.05, shift=0.02, gamma=0.1, contrast=0.1, brightness=0.02)
    return replace(recipe, augmentation=slight)


def quick(epochs: int) -> Recipe:
    """The same schedule and changes of images with a network that is traced in a second."""
    return replace(tiny("classifier", epochs), architecture="simple-cnn", network=Network(64, width=0.25))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    folder = tmp_path_factory.mktemp("learnt")
    data = write_drawn(folder / "data", 128)
    return train(tiny("classifier", 16, mirrored=False, linear_probe=0.0), data, folder / "out")


def test_learns_what_can_be_learnt_and_points_at_it(learnt: ModelSpec, tmp_path: Path) -> None:
    # That it learns nothing from meaningless labels is asked of every architecture (tests/models/architectures).
    truth = learnt.file.parent.parent / "data"
    found = evaluate(learnt.file, truth, "val", tmp_path, rounds=50)
    assert found.figures["lung_opacity"].auc.value > 0.9
    assert found.places["lung_opacity"].pointing.value > 0.8


def test_manifest_is_what_the_node_reads(learnt: ModelSpec) -> None:
    spec = read_manifest(learnt.file.with_suffix(".toml"))
    verify_digest(spec)
    assert spec == learnt
    assert spec.file.suffix == ".onnx"
    assert [label.name for label in spec.labels if label.localised] == ["lung_opacity"]
    assert spec.card is not None
    assert "Not a medical device" in spec.card.read_text()


def test_too_few_patients_stay_in_shadow(learnt: ModelSpec) -> None:
    # Some 16 positives are in the split val: fewer than 30, however good the figure.
    assert {label.mode for label in learnt.labels} == {"shadow"}


def test_onnx_says_what_keras_says_in_any_batch(learnt: ModelSpec) -> None:
    samples = read_dataset.read(learnt.file.parent.parent / "data").samples[:5]
    batch = np.stack([pixels.load(sample, 64) for sample in samples])[..., np.newaxis]
    model = keras.models.load_model(learnt.file.with_suffix(".keras"), compile=False)
    expected = {name: keras.ops.convert_to_numpy(value) for name, value in model(batch, training=False).items()}
    session = open_session(learnt.file)
    whole = run_session(session, batch, ["probabilities", "maps"])
    for name, values in expected.items():
        np.testing.assert_allclose(whole[name], values, atol=1e-4)
    for index in range(5):
        alone = run_session(session, batch[index : index + 1], ["probabilities", "maps"])
        np.testing.assert_allclose(alone["probabilities"][0], whole["probabilities"][index], atol=1e-5)
    assert whole["maps"].shape == (5, 4, 4, len(learnt.labels))


def test_report_is_one_file_with_nothing_to_load(learnt: ModelSpec, tmp_path: Path) -> None:
    result = evaluate(learnt.file, learnt.file.parent.parent / "data", "val", tmp_path, rounds=20)
    page = (result.folder / "report.html").read_text()
    assert NOTICE in page
    assert 'src="data:image/svg+xml' in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
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
    with pytest.raises(TrainingError, match="leaves nobody"):
        train(tiny("classifier", 1), data, tmp_path / "out")


def test_an_interrupted_training_goes_on_with_the_changes_of_its_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCutError(Exception):
        pass

    class Noted(DataLoader):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "epoch" and len(vars(self)) > 1:
                epochs.append(int(str(value)))

    def stop(what: str, done: int, _total: int) -> None:
        if what.startswith("loss"):
            seen.append(done)
            if done == 2 and len(seen) == 2:
                raise PowerCutError

    seen: list[int] = []
    epochs: list[int] = []
    monkeypatch.setattr(fit, "DataLoader", Noted)
    data = write_drawn(tmp_path / "data", 16)
    with pytest.raises(PowerCutError):
        train(quick(4), data, tmp_path / "out", progress=stop)
    train(quick(4), data, tmp_path / "out", progress=stop)
    assert (seen[0], seen[-1]) == (1, 4)
    assert len(seen) < 2 + 4
    # What of an image is changed follows from the epoch: one that began anew would repeat those of the first.
    assert epochs[-2:] == [2, 3]
    assert epochs.count(0) == 1


def test_folds_calibrate_on_everybody_and_ship_what_learnt_from_all(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "data", 48)
    recipe = tiny("classifier", 1, linear_probe=0.005)
    recipe = replace(recipe, evaluation=replace(recipe.evaluation, folds=2))
    spec = train(recipe, data, tmp_path / "out")
    rows = (tmp_path / "out" / "evidence" / "tiny.csv").read_text().splitlines()[1:]
    assert {row.split(",")[2] for row in rows} == {"fold-0", "fold-1"}
    assert len(rows) == 48
    summary = json.loads((tmp_path / "out" / "evidence" / "tiny.json").read_text())
    assert summary["learnt_from"] == "all"
    assert len(summary["members"]["lung_opacity"]) == 2, "the network and the linear probe"
    assert set(summary["calibration"]) == {label.name for label in spec.labels}
    assert evaluate(spec.file, data, "val", tmp_path / "measured", rounds=20).learnt > 0


def test_the_gate_trains_ships_and_is_measured(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "data", 16)
    recipe = tiny("gate", 1)
    recipe = replace(recipe, schedule=replace(recipe.schedule, rate=1e-4))
    spec = train(recipe, data, tmp_path / "out", command="pleura train bundled-gate")
    assert (spec.kind, spec.file.suffix) == (ModelKind.GATE, ".onnx")
    assert tuple(label.name for label in spec.labels) == GATE_LABELS
    assert spec.gate is not None
    assert spec.gate.distance_threshold
    verify_digest(spec)
    summary = json.loads((tmp_path / "out" / "evidence" / "tiny.json").read_text())
    assert {"unchanged", *GATE_LABELS} <= set(summary)
    assert summary["others"] > 0
    assert spec.card is not None
    assert "Mahalanobis" in spec.card.read_text()
    with pytest.raises(TrainingError, match="held-out"):
        train(replace(recipe, evaluation=replace(recipe.evaluation, folds=2)), data, tmp_path / "folds")
    with pytest.raises(TrainingError, match="labels of a gate"):
        train(replace(recipe, data=replace(recipe.data, labels=("frontal", "other"))), data, tmp_path / "labels")


def test_predictions_survive_their_file(tmp_path: Path) -> None:
    found = Predictions(
        ("a.png", "b.png"), ("1", "2"), ("x", "y"), ("one", "two"),
        np.array([[0.25, -1.5], [3.0, 0.0]]), np.array([1.0, np.nan]), np.array([0.5, np.nan]),
    )  # fmt: skip
    write_predictions(tmp_path / "said.csv", found)
    again = read_predictions(tmp_path / "said.csv")
    assert (again.images, again.patients, again.groups, again.labels) == (
        found.images,
        found.patients,
        found.groups,
        found.labels,
    )
    np.testing.assert_allclose(again.scores, found.scores)
    np.testing.assert_allclose(again.hits, found.hits)


def test_shadow_rule() -> None:
    share = Interval(0.8, 0.7, 0.9)
    good = LabelFigures("pneumothorax", 500, 48, 40, Interval(0.8, 0.7, 0.9), 0.5, 0.3, share, share, 0.3, 0.02, 0.1)
    assert label_spec(good, localised=False, map_threshold=0.5).mode == "active"
    few = replace(good, positive_patients=29)
    poor = replace(good, auc=Interval(0.7, 0.59, 0.8))
    noisy = replace(good, label="nodule")
    for item in (few, poor, noisy):
        assert label_spec(item, localised=False, map_threshold=0.5).mode == "shadow"
