"""``pleura train``, from a folder to a model that a node can serve."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.architectures import catalogue  # noqa: E402
from models.manifest import read_manifest  # noqa: E402
from models.model_spec import Mode, Pooling, PoolingSpec  # noqa: E402
from models.training import fit  # noqa: E402
from models.training import train as training  # noqa: E402
from models.training.datasets import read_dataset as datasets  # noqa: E402
from models.training.datasets.sample import DatasetError, Sample  # noqa: E402
from models.training.figures import figures  # noqa: E402
from models.training.fit import KeepBest, dtype_policy, optimiser, precision  # noqa: E402
from models.training.metrics import Interval, calibration_error  # noqa: E402
from models.training.predict import compare_maps, image_scores  # noqa: E402
from models.training.predicted import Predicted, gathered, keep, kept  # noqa: E402
from models.training.publish import label_specs  # noqa: E402
from models.training.recipe import Data, Evaluation, Network, Recipe, Schedule  # noqa: E402
from models.training.train import TrainingError, choose, train  # noqa: E402
from models.training.truths import LabelNames  # noqa: E402
from node.cli.train import train as command  # noqa: E402
from tests.models.training.drawn import write_drawn  # noqa: E402

# Slow: to begin first, for others would wait for them. Tracing a graph takes long on a busy machine.
pytestmark = [pytest.mark.training, pytest.mark.slow, pytest.mark.timeout(900)]

CNN = catalogue.find("simple-cnn")
RECIPE = """
name = "tiny-cnn"
version = "0.1"
title = "Tiny"
architecture = "simple-cnn"
[data]
labels = ["lung_opacity"]
[network]
size = 32
width = 0.25
[network.options]
dropout = 0.0
[schedule]
epochs = 25
batch = 8
rate = 3e-3
patience = 8
"""


def recipe(**changes: object) -> Recipe:
    made = Recipe(
        "tiny",
        "1",
        "Tiny",
        "simple-cnn",
        Data(("lung_opacity",)),
        Network(32, width=0.25),
        Schedule(3, batch=8, rate=3e-3),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_drawn(tmp_path_factory.mktemp("drawn") / "data", 64)
    with (folder / "labels.csv").open("a") as stream:
        stream.write("missing.png,train,9999,50,F,PA,2000,2000,,,Normal,[]" + ",0" * 14 + "\n")
    (folder / "images" / "0001.png").write_bytes(b"no picture")
    return folder


def test_a_command_leaves_a_model_that_a_node_can_serve(drawn: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    out = tmp_path / "out"
    done = CliRunner().invoke(command, [str(file), "--data", str(drawn), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    spec = read_manifest(out / "tiny-cnn.toml")
    (label,) = spec.labels
    assert label.evidence is not None
    assert label.evidence.auc > 0.9
    assert (spec.mode, label.mode) == (Mode.SHADOW, Mode.SHADOW)
    assert spec.onnx == out / "tiny-cnn.onnx"
    problems = {item["image"]: item["reason"] for item in json.loads((out / "problems.json").read_text())}
    assert set(problems) == {"missing.png", "0001.png"}
    assert "missing" in problems["missing.png"]
    assert not (out / "work").exists()
    card = (out / "tiny-cnn.md").read_text()
    assert "Not a medical device" in card
    assert f"pleura train {file} --data DIR --out DIR" in card
    rows = (out / "evidence" / "tiny-cnn.csv").read_text().splitlines()
    assert rows[0] == "image,patient,group,lung_opacity,lung_opacity truth"
    assert len(rows) - 1 == json.loads((out / "evidence" / "tiny-cnn.json").read_text())["images"]


def test_a_command_says_what_is_wrong(drawn: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    for text, complaint in (
        (RECIPE.replace("simple-cnn", "perceptron"), "no architecture 'perceptron'"),
        (RECIPE.replace('["lung_opacity"]', '["scoliosis"]'), "says nothing about scoliosis (its labels are: abnormal"),
        (RECIPE.replace("[data]", '[data]\nlayout = "siim"'), "train-rle.csv"),
        (RECIPE.replace("dropout = 0.0", 'head = "cubist"'), "head must be 'sigmoid' or 'softmax'"),
        (RECIPE.replace("width = 0.25", 'encoder = "vgg16"'), "simple-cnn has no encoder 'vgg16'"),
    ):
        file.write_text(text)
        done = CliRunner().invoke(command, [str(file), "--data", str(drawn), "--out", str(tmp_path / "out")])
        assert done.exit_code == 1
        assert complaint in done.output
    done = CliRunner().invoke(command, ["unet-sim", "--data", str(drawn), "--out", str(tmp_path / "out")])
    assert "unet-light-siim" in done.output


@pytest.mark.xdist_group("folds")
def test_an_interrupted_cross_validation_goes_on(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PowerCutError(Exception):
        pass

    asked = recipe(evaluation=Evaluation(folds=2))
    trained: list[str] = []
    fitted = fit.fit_network

    def counted(architecture, recipe, material, folder, progress):
        trained.append(folder.name)
        if folder.name == "fold-1" and trained.count("fold-1") == 1:
            raise PowerCutError
        return fitted(architecture, recipe, material, folder, progress)

    monkeypatch.setattr(training, "fit_network", counted)
    with pytest.raises(PowerCutError):
        train(asked, drawn, tmp_path)
    spec = train(asked, drawn, tmp_path)
    assert trained == ["fold-0", "fold-1", "fold-1", "final"]
    evidence = json.loads((tmp_path / "evidence" / "tiny.json").read_text())
    assert evidence["images"] == 63, "every image is analysed once, by a network that has not seen it"
    assert "2-fold" in evidence["how"]
    assert spec.labels[0].evidence is not None


def test_splits_limits_and_positives(drawn: Path) -> None:
    dataset = datasets.read(drawn)
    served = ("lung_opacity",)
    everybody = choose(CNN, recipe(), dataset, drawn)
    assert {sample.split for sample in everybody.seen} == {"train"}
    assert {sample.split for sample in everybody.unseen} == {"val"}
    limited = choose(CNN, recipe(data=Data(served, limit=20)), dataset, drawn)
    assert len(limited.seen) + len(limited.unseen) == 20
    ill = choose(CNN, recipe(data=Data(served, use="positives")), dataset, drawn)
    assert all(sample.labels["lung_opacity"] == 1 for sample in ill.seen)
    assert len(ill.unseen) == len(everybody.unseen)
    with pytest.raises(TrainingError, match="0 positive"):
        choose(CNN, recipe(data=Data(("hernia",))), dataset, drawn)
    assert choose(CNN, recipe(data=Data(("hernia",), rare=True)), dataset, drawn) == everybody
    with pytest.raises(DatasetError, match="no folder"):
        train(recipe(), drawn / "nowhere", drawn / "out")


def test_nothing_that_can_be_decoded_is_said_in_words(tmp_path: Path) -> None:
    folder = write_drawn(tmp_path / "data", 16)
    for file in (folder / "images").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(TrainingError, match="no image to learn from can be decoded"):
        train(recipe(), folder, tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "problems.json").read_text())) == 16


def test_stopping_early_keeps_the_best_and_remembers_it(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    for epoch, (loss, value) in enumerate([(3.0, 1.0), (1.0, 2.0), (2.0, 3.0)]):
        keep_best = KeepBest(tmp_path, patience=2)  # a new one each epoch, as after an interruption
        keep_best.set_model(model)
        model.layers[0].set_weights([np.full((1, 1), value), np.zeros(1)])
        model.stop_training = False
        keep_best.on_epoch_end(epoch, {"val_loss": loss})
    assert not model.stop_training
    keep_best.on_epoch_end(3, {"val_loss": 1.5})
    assert model.stop_training
    keep_best.on_train_end()
    assert model.layers[0].get_weights()[0] == 2.0


def test_a_schedule_is_what_runs() -> None:
    for name in ("adamw", "adam", "sgd", "rmsprop"):
        made = optimiser(Schedule(2, optimiser=name, rate=0.01, decay=0.1, clip=3.0), 5)
        assert type(made).__name__.lower() == name
        assert float(made.learning_rate) == pytest.approx(0.01)
        assert made.weight_decay == 0.1
        assert made.global_clipnorm == 3.0
    falling = optimiser(Schedule(2, rate=0.01, cosine=True), 5)
    assert float(falling._learning_rate(10)) == pytest.approx(0, abs=1e-9)


def test_half_precision_is_for_gpus_and_leaves_nothing_behind() -> None:
    assert precision("off") == "float32"
    assert precision("float16") == "mixed_float16"
    with dtype_policy("mixed_bfloat16"):
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
    assert keras.layers.Dense(1).compute_dtype == "float32"


def test_a_network_of_half_precision_is_served_in_full(drawn: Path, tmp_path: Path) -> None:
    asked = recipe(schedule=Schedule(1, batch=8, mixed_precision="bfloat16"))
    spec = train(asked, drawn, tmp_path)
    network = keras.saving.load_model(spec.file, compile=False)
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}


def test_maps_are_compared_by_hand() -> None:
    truth = np.zeros((4, 4, 2), np.bool_)
    truth[0:2, 0:2, 0] = True
    maps = np.zeros((4, 4, 2), np.float32)
    maps[1, 0:4, 0] = (0.6, 0.9, 0.7, 0.2)
    areas, hits = compare_maps(maps, truth, np.array([True, False]), np.array([0.5, 0.8], np.float32))
    np.testing.assert_array_equal(areas[0], [[3, 4, 2], [1, 4, 1]])
    high = float(maps[..., 0].max())
    raised, _ = compare_maps(maps, truth, np.array([True, False]), np.array([0.5, 0.8], np.float32), 0.8 / high)
    np.testing.assert_array_equal(raised[0], [[1, 4, 1], [1, 4, 1]])
    assert hits[0] == 1.0
    assert np.isnan(areas[1]).all()
    assert np.isnan(hits[1])
    _, hits = compare_maps(maps, np.zeros_like(truth), np.array([True, True]), np.array([0.5], np.float32))
    assert np.isnan(hits).all(), "nothing can be hit where nothing is"


def test_a_detector_says_its_best_box_of_each_label() -> None:
    answer = {
        "boxes": np.zeros((1, 3, 4), np.float32),
        "scores": np.array([[0.3, 0.8, 0.0]], np.float32),
        "classes": np.array([[0.0, 0.0, 1.0]], np.float32),
    }
    np.testing.assert_allclose(image_scores(answer, 2), [[0.8, 0.0]])


def _predicted(count: int, group: str, boxes: int) -> Predicted:
    rng = np.random.default_rng(count)
    names = tuple(f"{group}-{number}" for number in range(count))
    truths = (np.arange(count) % 2 == 0).astype(np.float32)[:, np.newaxis]
    true = np.zeros((count, 1, 5), np.float32)
    true[truths[:, 0] == 0, :, 4] = -1
    true[..., 2:4] = 10
    found = np.concatenate(
        [true[..., :4].repeat(boxes, 1), rng.uniform(0.1, 1, (count, boxes, 1)), np.zeros((count, boxes, 1))], -1
    )
    areas = np.stack([np.full(count, 8.0), truths[:, 0] * 8, truths[:, 0] * 4], -1)[:, np.newaxis].astype(np.float32)
    return Predicted(
        names, names, (group,) * count, ("lung_opacity",), rng.random((count, 1)).astype(np.float32) + truths, truths,
        np.ones((count, 1), np.float32), np.ones((count, 1), np.float32), np.array([0.5], np.float32),
        areas[:, :, np.newaxis],
        np.where(truths > 0, 1.0, np.nan).astype(np.float32), found.astype(np.float32), true,
    )  # fmt: skip


def test_folds_are_gathered_and_survive_their_files(tmp_path: Path) -> None:
    first, second = _predicted(6, "a", 2), _predicted(4, "b", 3)
    keep(first, tmp_path / "fold.npz")
    again = kept(tmp_path / "fold.npz")
    assert (again.names, again.labels) == (first.names, first.labels)
    np.testing.assert_array_equal(again.scores, first.scores)
    both = gathered([again, second])
    assert both.names == first.names + second.names
    assert both.boxes is not None
    assert both.boxes.shape == (10, 3, 6)
    assert both.groups[-1] == "b"


def test_figures_by_hand() -> None:
    found = figures(_predicted(8, "a", 1), None, 0.5, rounds=20)
    places = found.places["lung_opacity"]
    assert places is not None
    assert (places.images, places.positives, places.dice.value) == (8, 4, 0.5)
    assert places.iou.value == pytest.approx(4 / 12)
    assert places.dice_all == pytest.approx(0.25)
    assert places.pointing.value == 1.0
    boxes = found.boxes["lung_opacity"]
    assert boxes is not None
    assert boxes.positive_images.at[0.5].value == pytest.approx(1.0)
    assert boxes.all_images.at[0.5].value < 1.0, "marks on normals cost"
    json.dumps(found.as_dict())


def test_an_index_of_stored_cases_names_nobody() -> None:
    known = {"bright": 1.0}
    samples = [Sample(f"DOE_JANE_{number}.png", "MRN-7712", Path("DOE_JANE.png"), labels=known) for number in range(2)]
    cases = training.stored_cases(samples, LabelNames(("bright",)))
    assert [case.reference for case in cases] == ["case-1", "case-2"]
    assert [dict(case.labels) for case in cases] == [known, known]


def test_a_classifier_shows_places_only_where_readers_have_analysed_them() -> None:
    for images, localised in ((20, False), (100, True)):
        found = figures(_predicted(images, "a", 1), 0.4, 0.5, rounds=20)
        (label,) = label_specs(CNN, recipe(), found, 0.5, maps=True)
        assert (label.localised, label.threshold) == (localised, 0.4)
        assert (label.mode is Mode.ACTIVE) is localised, "30 patients, and an interval above 0.6"


def test_no_place_goes_out_on_the_area_under_the_curve_alone() -> None:
    """A segmenter that knows which images are ill, and marks elsewhere on them, runs in shadow; so does a detector."""
    right = figures(_predicted(100, "a", 1), 0.4, 0.5, rounds=20)
    place, box = right.places["lung_opacity"], right.boxes["lung_opacity"]
    assert place is not None
    assert box is not None
    beside = replace(place, pointing=Interval(0.4, 0.3, 0.5))
    thin = replace(place, dice=Interval(0.35, 0.25, 0.45))
    segmenter, detector = catalogue.find("unet"), catalogue.find("retinanet")
    for architecture, places, boxes, mode in (
        (segmenter, place, None, Mode.ACTIVE),
        (segmenter, beside, None, Mode.SHADOW),
        (segmenter, thin, None, Mode.SHADOW),
        (segmenter, replace(place, positives=29), None, Mode.SHADOW),
        (detector, None, box, Mode.ACTIVE),
        (detector, None, replace(box, pointing=Interval(0.5, 0.4, 0.6)), Mode.SHADOW),
        (detector, None, None, Mode.SHADOW),
    ):
        found = replace(right, places={"lung_opacity": places}, boxes={"lung_opacity": boxes})
        (label,) = label_specs(architecture, recipe(), found, 0.5, maps=True)
        assert (label.mode, label.localised) == (mode, True)
    unheld = replace(right, places={"lung_opacity": beside}, boxes={"lung_opacity": None})
    (label,) = label_specs(catalogue.find("efficientnet-classifier"), recipe(), unheld, 0.5, maps=True)
    assert (label.mode, label.localised) == (Mode.ACTIVE, False), "an outline must hold as well"


@pytest.mark.xdist_group("lesions")
def test_a_segmenter_of_lesions_is_measured_by_folds_and_published(drawn: Path, tmp_path: Path) -> None:
    """Card and evidence have the figures of single lesions; the manifest says how the node tells them apart."""
    asked = recipe(
        architecture="fpn",
        network=Network(64, "light", width=0.125),
        schedule=Schedule(1, batch=8, rate=3e-3),
        data=Data(("lung_opacity",), boxes_as="ellipse"),
        evaluation=Evaluation(folds=2, map_cut_off="best", pooling=PoolingSpec(Pooling.TOP, 0.02)),
        lesions=True,
        replaces="chest-classifier",
        calibrated=True,
    )
    spec = train(asked, drawn, tmp_path)
    (label,) = spec.labels
    assert (label.lesions, label.replaces, spec.pooling) == (True, "chest-classifier", asked.evaluation.pooling)
    assert spec.mode is Mode.SHADOW, "too few patients stand behind it"
    evidence = json.loads((tmp_path / "evidence" / "tiny.json").read_text())
    figures = evidence["lesions"]["lung_opacity"]["boxes"]
    assert (figures["positives"], figures["lesions"], figures["normals"]) == (31, 31, 32)
    assert "| lesions hit |" in (tmp_path / "tiny.md").read_text()
    assert label.calibration is not None
    assert evidence["calibration"]["lung_opacity"] == pytest.approx(asdict(label.calibration))
    assert "Calibration: Platt scaling" in (tmp_path / "tiny.md").read_text().replace("\n", " ")
    # The figures follow from what is kept of each image.
    rows = list(csv.DictReader((tmp_path / "evidence" / "tiny.csv").open(encoding="utf-8")))
    boxed = [row for row in rows if row["lung_opacity against"] == "boxes"]
    assert sum(int(row["lung_opacity lesions"]) for row in boxed) == figures["lesions"]
    scores = np.array([float(row["lung_opacity"]) for row in rows])
    truths = np.array([row["lung_opacity truth"] == "1" for row in rows])
    assert calibration_error(scores, truths) == pytest.approx(
        evidence["labels"]["lung_opacity"]["calibration_error"], abs=1e-3
    )
