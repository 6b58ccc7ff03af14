"""A model of each kind over tiny data sets: the node's own answers become figures, files and one page."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from config.notice import NOTICE
from models.manifest import read_manifest
from models.pipeline import Pipeline
from models.predictor import Predictor, load_predictor
from models.radiograph.reading import read_model_input
from models.runtime.loading import load
from models.training.datasets import pixels, read_dataset, rle
from models.training.datasets.sample import DatasetError, Sample
from models.training.evaluation.detection import Matched
from models.training.evaluation.evaluate import EvaluationError, evaluate, find_manifest
from models.training.evaluation.evaluation_report import box_precision
from models.training.evaluation.measure import strongest_is_true
from models.training.evaluation.predict_as_node import Shown, WithLungs, run
from models.training.evaluation.predictions import read_predictions
from node.cli.main import cli
from tests.models import samples
from tests.models.training.datasets import made
from tests.models.training.drawn import write_drawn

ONE = """
[[labels]]
name = "{name}"
code = {{ value = "36118008", scheme = "SCT", meaning = "Pneumothorax" }}
threshold = {threshold}
localised = true
map_threshold = {cut}
"""


def classifier(folder: Path, rest: str = samples.LABELS, **more: object) -> Path:
    folder.mkdir(exist_ok=True)
    return samples.manifest(samples.classifier_graph(folder / "tiny.onnx", **more), "tiny", rest=rest)  # type: ignore[arg-type]


def segmenter(folder: Path, name: str = "pneumothorax", threshold: float = 0.02, cut: float = 0.5) -> Path:
    """A network whose map is the picture itself, in half its size; its probability is the mean of the map."""
    folder.mkdir(exist_ok=True)
    file = samples.classifier_graph(folder / "maps.onnx", classes=1)
    return samples.manifest(file, "maps", "segmenter", ONE.format(name=name, threshold=threshold, cut=cut))


def bright(rows: slice, columns: slice, side: int = 128) -> np.ndarray:
    picture = np.zeros((side, side), np.uint8)
    picture[rows, columns] = 255
    return picture


def test_a_classifier_says_what_the_node_says(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(5)]
    rows: list[list[object]] = [[name, "", "", "", "", 0] for name in names]
    folder = made.rsna(tmp_path / "d", rows, [(name, "Normal") for name in names], names)
    for number, name in enumerate(names):
        picture = (samples.chestlike(300, 240 + 10 * number) * 255).astype(np.uint8)
        made.write_dicom(folder / "stage_2_train_images" / f"{name}.dcm", picture, f"1.{number}")
    for equalise in ("none", "clahe"):
        file = classifier(tmp_path / equalise, f'equalise = "{equalise}"\n' + samples.LABELS)
        evaluate(file, folder, "all", tmp_path / "out" / equalise, rounds=20)
        output = read_predictions(tmp_path / "out" / equalise / "predictions.csv")
        spec = read_manifest(file)
        node = Predictor(Pipeline(None, (spec,)), {spec.name: load(spec)})
        for row, item in enumerate(read_dataset.read(folder).samples):
            expected = [finding.probability for finding in node.predict(read_model_input(item.image)).findings]
            assert output.scores[row] == pytest.approx(expected, abs=6e-5)


def test_masks_are_measured_as_the_node_delivers_them_clipped_to_the_lungs(tmp_path: Path) -> None:
    image = made.write_png(tmp_path / "a.png", (samples.chestlike() * 255).astype(np.uint8))
    site = 'site = { value = "39607008", scheme = "SCT", meaning = "Lung" }'
    labels = samples.LABELS.replace("localised = true\n", f"localised = true\n{site}\n")
    spec = read_manifest(classifier(tmp_path / "m", labels))
    maps = np.zeros((16, 16, 2), np.float32)
    maps[1:6, 2:7, 1] = maps[1:6, 8:14, 0] = 0.9
    lungs = read_manifest(
        samples.manifest(samples.lungs_graph(tmp_path / "lungs.onnx", maps), "lungs", "lungs", samples.LUNGS)
    )
    node = load_predictor(Pipeline(None, (spec,), lungs=lungs), threads=1)
    sample = Sample("a.png", "1", image)
    (shown,) = run(WithLungs(load(spec), load(lungs)), [sample])
    (bare,) = run(load(spec), [sample])
    assert isinstance(shown, Shown)
    assert isinstance(bare, Shown)
    expected = node.predict(pixels.read(image)).findings[0]
    assert expected.lungs is not None
    assert shown.findings[0].lungs == expected.lungs
    np.testing.assert_array_equal(shown.findings[0].mask, expected.mask)
    assert bare.findings[0].mask.sum() > expected.mask.sum()  # type: ignore[union-attr]


def test_a_classifier_on_the_cxr_layout(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 40)
    (data / "images" / "0001.png").write_bytes(b"nothing")
    rest = samples.LABELS.replace('"other"', '"abnormal"').replace("threshold = 0.3", "threshold = 0.37")
    found = evaluate(classifier(tmp_path / "m", rest), data, "all", tmp_path / "out", rounds=50)
    # The mean of a picture with a bright patch is larger, so the trivial network ranks all of them rightly.
    assert found.figures["lung_opacity"].auc.value == 1.0
    assert found.figures["lung_opacity"].images == 39
    assert found.places["lung_opacity"].pointing.value == 1.0
    assert found.places["lung_opacity"].served.dice.value > 0.8
    assert [name for name, _ in found.problems] == ["0001.png"]
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["labels"]["lung_opacity"]["chosen"]["true_positives"] == 19
    assert figures["left_out"] == [{"image": "0001.png", "reason": figures["left_out"][0]["reason"]}]
    assert figures["confusion"][0]["classes"] == ["normal", "no opacity, not normal", "lung opacity"]
    with (tmp_path / "out" / "truths.csv").open() as stream:
        assert list(csv.reader(stream))[2] == ["0002.png", "0", "0"]


def test_a_segmenter_against_masks(tmp_path: Path) -> None:
    # Three of four images are bright exactly where their mask is; one has its mask elsewhere; one has none.
    truth = np.zeros((rle.SIDE, rle.SIDE), bool)
    truth[256:512, 256:512] = True
    elsewhere = np.roll(truth, 512, axis=1)
    rows = [("1.0", rle.encode(truth)), ("1.1", rle.encode(truth)), ("1.2", rle.encode(elsewhere)), ("1.3", "-1")]
    folder = made.siim(tmp_path / "d", rows, {uid: uid for uid, _ in rows})
    for uid, _ in rows:
        picture = bright(slice(32, 64), slice(32, 64)) if uid != "1.3" else made.gradient(128, 128) // 4
        made.write_dicom(folder / "dicom-images-train" / uid / f"{uid}.dcm", picture, uid, PatientID=uid)
    found = evaluate(segmenter(tmp_path / "m"), folder, "all", tmp_path / "out", rounds=50)
    place = found.places["pneumothorax"]
    assert (place.images, place.positives) == (4, 3)
    overlap = place.served.dice.value * 3
    assert overlap == pytest.approx(2.0, abs=0.15)  # two masks found but for their blurred rim, one not at all
    assert place.served.dice_all.value == pytest.approx((overlap + 1) / 4)
    assert place.nothing == 0.25
    assert place.pointing.value == pytest.approx(2 / 3)
    assert place.marked_negatives.value == 0.0
    with (tmp_path / "out" / "places.csv").open() as stream:
        seen = list(csv.DictReader(stream))
    assert [row["true_pixels"] for row in seen] == ["1024", "1024", "1024", "0"]
    assert [row["pointing_hit"] for row in seen] == ["1", "1", "0", ""]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "worst: Dice 0.00" in page
    assert 'alt="Dice of positives: images by Dice"' in page


def test_below_its_cut_off_a_finding_is_not_delivered_though_the_map_marks_it(tmp_path: Path) -> None:
    truth = np.zeros((rle.SIDE, rle.SIDE), bool)
    truth[256:512, 256:512] = True
    folder = made.siim(tmp_path / "d", [("1.0", rle.encode(truth)), ("1.1", "-1")], {"1.0": "a", "1.1": "b"})
    grey = bright(slice(32, 64), slice(32, 64))
    made.write_dicom(folder / "dicom-images-train" / "1.0" / "1.0.dcm", (grey * 0.6).astype(np.uint8), "1.0")
    file = segmenter(tmp_path / "m", threshold=0.9, cut=0.3)
    place = evaluate(file, folder, "all", tmp_path / "out", rounds=20).places["pneumothorax"]
    assert place.served.dice.value == 0.0
    assert place.map.dice.value > 0.8


def test_a_detector_keeps_its_boxes_in_the_images_own_pixels(tmp_path: Path) -> None:
    rows: list[list[object]] = [["a", 0, 0, 32, 64, 1], ["b", "", "", "", "", 0]]
    folder = made.rsna(tmp_path / "d", rows, [("a", "Lung Opacity"), ("b", "Normal")], ["a", "b"])
    (tmp_path / "m").mkdir()
    file = samples.detector_graph(tmp_path / "m" / "boxes.onnx", [[0, 0, 16, 32], [4, 4, 8, 8]], [0.9, 0.2], [0, 0])
    spec = samples.manifest(file, "boxes", "detector", ONE.format(name="lung_opacity", threshold=0.5, cut=0.5))
    found = evaluate(spec, folder, "all", tmp_path / "out", rounds=20)
    first, second = found.measured.boxes
    assert first.predicted.tolist() == [pytest.approx([0, 0, 32, 64, 0.9, 0]), pytest.approx([8, 8, 16, 16, 0.2, 0])]
    assert first.true.tolist() == [[0, 0, 32, 64, 0]]
    assert (len(second.true), second.known.tolist()) == (0, [True])
    assert found.figures["lung_opacity"].auc.value == 0.5
    with (tmp_path / "out" / "boxes.csv").open() as stream:
        seen = list(csv.DictReader(stream))
    assert [row["kind"] for row in seen] == ["model", "model", "reader", "model", "model"]
    boxes = found.boxes["lung_opacity"]
    assert (boxes.images, boxes.positives, boxes.boxes) == (2, 1, 1)
    assert (boxes.sensitivity.value, boxes.pointing.value, boxes.positive_images.at[0.5].value) == (1.0, 1.0, 1.0)
    assert (boxes.false_per_hundred.value, boxes.marked_normals.value) == (100.0, 1.0)
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'alt="boxes hit by false marks: boxes hit by false marks an image"' in page
    assert 'stroke-dasharray="6 4"' in page  # the model's boxes on a picture
    told_boxes = json.loads((tmp_path / "out" / "metrics.json").read_text())["boxes"]["lung_opacity"]
    assert told_boxes["positive_images"]["at"]["0.5"]["value"] == 1.0


def test_precision_and_recall_of_boxes_by_hand() -> None:
    images = [Matched(np.array([0.9, 0.4]), np.array([True, False]), 1), Matched(np.array([0.6]), np.array([True]), 2)]
    assert box_precision(images) == [(1 / 3, 1.0), (2 / 3, 1.0), (2 / 3, 2 / 3)]
    assert box_precision([]) == []


def test_labels_may_have_other_names_in_the_data(tmp_path: Path) -> None:
    for number in range(6):
        kind = "Collapsed" if number % 2 else "Well"
        made.write_png(tmp_path / "d" / kind / f"{number}.png", bright(slice(0, 20 + 60 * (number % 2)), slice(0, 90)))
    file = classifier(tmp_path / "m", samples.LABELS.replace('"other"', '"pneumothorax"'))
    with pytest.raises(EvaluationError, match="it knows collapsed, well: say which means what with --truth"):
        evaluate(file, tmp_path / "d", "all", tmp_path / "out")
    for label, name, message in (("mass", "well", "no label 'mass'"), ("pneumothorax", "ill", "says nothing of 'ill'")):
        with pytest.raises(EvaluationError, match=message):
            evaluate(file, tmp_path / "d", "all", tmp_path / "out", truths={label: (name,)})
    # A copy of a picture in the same class is left out, so each picture differs a little.
    found = evaluate(file, tmp_path / "d", "all", tmp_path / "out", truths={"pneumothorax": ("collapsed",)}, rounds=20)
    assert "pneumothorax" in {*found.classified, *found.not_evaluated}
    assert found.not_evaluated["lung_opacity"] == "the data set says nothing of it"


def test_what_cannot_be_measured_is_told(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 8)
    file = classifier(tmp_path / "m")
    with pytest.raises(EvaluationError, match=r"no split 'test' \(there are: train, val"):
        evaluate(file, data, "test", tmp_path / "out")
    with pytest.raises(DatasetError, match=r"train-rle\.csv is missing"):
        evaluate(file, data, "val", tmp_path / "out", layout="siim")
    broken = classifier(tmp_path / "n", bias=float("nan"))
    with pytest.raises(EvaluationError, match="NaN"):
        evaluate(broken, data, "val", tmp_path / "out")
    for image in (data / "images").iterdir():
        image.unlink()
    with pytest.raises(
        EvaluationError, match=r"no image can be used: 8 rows were left out, .*the image file is missing"
    ):
        evaluate(file, data, "all", tmp_path / "out")
    file.with_suffix(".onnx").write_bytes(b"another network")
    with pytest.raises(EvaluationError, match="digest"):
        evaluate(file, data, "val", tmp_path / "out")
    gate = samples.manifest(samples.gate_graph(tmp_path / "g.onnx", [1.0, 0, 0, 0, 0]), "g", "gate", samples.CLASSES)
    with pytest.raises(EvaluationError, match="a gate"):
        evaluate(gate, data, "val", tmp_path / "out")


def test_models_are_found_by_name(tmp_path: Path) -> None:
    site = classifier(tmp_path / "site")
    assert find_manifest("tiny", tmp_path / "site") == site
    assert find_manifest(str(site.with_suffix(".onnx"))) == site
    assert find_manifest("bundled").name == "chest-classifier.toml"
    with pytest.raises(EvaluationError, match="no model 'tiny'"):
        find_manifest("tiny")


def test_the_page_is_one_file_and_hides_nothing(tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 24)
    (data / "images" / "0003.png").unlink()
    rest = samples.LABELS.replace('"other"', '"hernia"')
    out = tmp_path / "out"
    done = CliRunner().invoke(
        cli,
        ["evaluate", str(classifier(tmp_path / "m", rest)), "--data", str(data), "--split", "all", "--out", str(out)],
    )
    assert done.exit_code == 0, done.output
    assert "not analysed: hernia: all 23 images that are known lack it" in done.output
    assert "left out: 0003.png: the image file is missing" in done.output
    page = (out / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page
    for text in (NOTICE, "Youden", "ROC", "calibration", "sex F", "Dice, positives", "0003.png"):
        assert text in page, text
    assert "NaN" not in (out / "metrics.json").read_text()


def test_the_command_tells_what_is_wrong(tmp_path: Path) -> None:
    arguments = ["evaluate", "unheard-of", "--data", str(tmp_path), "--out", str(tmp_path)]
    done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, "no model 'unheard-of'" in done.output) == (1, True)
    done = CliRunner().invoke(cli, [*arguments, "--truth", "nonsense"])
    assert "--truth takes LABEL=NAME" in done.output


def test_the_strongest_place_is_looked_for_on_the_image_alone(tmp_path: Path) -> None:
    item = read_dataset.read(made.siim(tmp_path, [("1.0", "-1")], {"1.0": "a"})).samples[0]
    made.write_dicom(item.image, made.gradient(128, 64), "1.0")
    box = pixels.letterbox(item, 32)
    assert (box.left, box.image_width) == (8, 16)
    network_map, truth = np.zeros((16, 16), np.float32), np.zeros((128, 64), bool)
    network_map[0, 0] = 1.0  # in the padding
    network_map[4, 5] = 0.5  # centre (11, 9) in the network: (12, 36) in the image
    truth[36, 12] = True
    assert strongest_is_true(network_map, box, truth)
    assert not strongest_is_true(network_map, box, ~truth)


@pytest.mark.parametrize("module", ["evaluation.evaluate", "datasets.exploration_report"])
def test_what_measures_and_explores_needs_no_keras(module: str) -> None:
    code = f"import sys; sys.modules.update(keras=None, tensorflow=None); import models.training.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
