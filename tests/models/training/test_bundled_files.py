"""The files in models/bundled agree with each other and with the evidence beside them."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models
from benchmarks import opacity
from config.settings import Models
from models.calibration import logit
from models.manifest import read_manifest, verify_digest
from models.model_spec import Mode, ModelKind
from models.runtime.onnx_runtime import onnxruntime
from models.training.calibrate import platt_scalings
from models.training.codes import DELIVERABLE
from models.training.datasets import read_dataset
from models.training.datasets.sample import Sample
from models.training.evaluation.evaluate import learnt_from
from models.training.evaluation.lesions import COLUMN_NAMES, lesion_figures, silenced
from models.training.evaluation.predictions import read_predictions
from models.training.figures import LEAST_AUC, LEAST_POSITIVES, figures_of
from models.training.recipe import RECIPES, read_recipe
from models.training.truths import LabelNames, label_truths

BUNDLED = Path(models.__file__).parent / "bundled"
MANIFESTS = sorted(BUNDLED.glob("*.toml"))
_EVIDENCE = BUNDLED / "evidence" / "chest-classifier.csv"
MEGABYTE = 1_000_000


def test_there_are_a_classifier_a_gate_lung_fields_and_an_opacity_network() -> None:
    kinds = {read_manifest(path).kind for path in MANIFESTS}
    assert kinds == {ModelKind.CLASSIFIER, ModelKind.GATE, ModelKind.LUNGS, ModelKind.SEGMENTER}


def test_all_together_are_small() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 45 * MEGABYTE


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_weights_are_those_of_the_manifest_and_answer_as_it_says(path: Path) -> None:
    spec = read_manifest(path)
    verify_digest(spec)
    session = onnxruntime.InferenceSession(str(spec.file), providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).random((3, spec.input.height, spec.input.width, 1), np.float32)
    names = [item.name for item in session.get_outputs()]
    answers = dict(zip(names, session.run(None, {session.get_inputs()[0].name: batch}), strict=True))
    if spec.kind is ModelKind.LUNGS:
        maps = answers[spec.outputs.maps]
        assert maps.shape == (3, spec.input.height // 2, spec.input.width // 2, 2)
        assert ((maps >= 0) & (maps <= 1)).all()
        return
    if spec.kind is ModelKind.SEGMENTER:
        maps = answers[spec.outputs.maps]
        assert maps.shape == (3, spec.input.height // 4, spec.input.width // 4, len(spec.labels))
        assert ((maps >= 0) & (maps <= 1)).all()
        return
    probabilities = answers[spec.outputs.probabilities]
    assert probabilities.shape == (3, len(spec.labels))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    if spec.kind is ModelKind.GATE:
        assert spec.labels[0].name == "frontal"
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        assert answers[spec.outputs.distance].shape == (3,)
    else:
        maps = answers[spec.outputs.maps]
        assert maps.shape == (3, spec.input.height // 16, spec.input.width // 16, len(spec.labels))
        assert ((maps >= 0) & (maps <= 1)).all()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_card_says_what_it_must(path: Path) -> None:
    card = read_manifest(path).card
    assert card is not None
    text = card.read_text(encoding="utf-8")
    sources: tuple[str, ...] = ("NIH Clinical Center", "CVPR 2017", "Radiological Society of North America")
    if read_manifest(path).kind is ModelKind.LUNGS:
        sources = ("CC BY 3.0", "CC BY 4.0", "Hannover Medical School", "V7")
    for words in ("Not a medical device", *sources):
        assert words in text.replace("\n", " ")
    named = re.findall(r"`(models/[\w/.]+\.py)`", text) + re.findall(r"(models/training/recipes/[\w-]+\.toml)", text)
    assert named
    for file in named:
        assert (BUNDLED.parents[1] / file).is_file(), file


def test_only_what_the_evidence_carries_leaves_the_node() -> None:
    spec = read_manifest(BUNDLED / "chest-classifier.toml")
    summary = json.loads((BUNDLED / "evidence" / "chest-classifier.json").read_text(encoding="utf-8"))
    for label in spec.labels:
        assert label.evidence is not None
        figures = summary["labels"][label.name]
        assert label.evidence.sensitivity == pytest.approx(figures["sensitivity"]["value"], abs=1e-4)
        enough = figures["positive_patients"] >= LEAST_POSITIVES and label.evidence.auc_low > LEAST_AUC
        assert (label.mode is Mode.ACTIVE) == (enough and label.name in DELIVERABLE), label.name
    assert tuple(label.name for label in spec.labels) == read_recipe(RECIPES / "bundled-classifier.toml").data.labels


@pytest.mark.peer("shared-data")
def test_figures_follow_from_the_kept_predictions(shared_data: Path) -> None:
    spec = read_manifest(BUNDLED / "chest-classifier.toml")
    predicted = read_predictions(BUNDLED / "evidence" / "chest-classifier.csv")
    by_name = {item.name: item for item in read_dataset.read(shared_data / "cxr").samples}
    samples = [by_name[image] for image in predicted.images]
    assert tuple(item.patient for item in samples) == predicted.patients
    values, weights = label_truths(samples, LabelNames(predicted.labels))
    truths, known = values >= 0.5, weights > 0
    cut_offs = read_recipe(RECIPES / "bundled-classifier.toml").cut_offs
    for column, label in enumerate(spec.labels):
        evaluated = known[:, column]
        patients = [patient for patient, use in zip(predicted.patients, evaluated, strict=True) if use]
        figures = figures_of(
            label.name,
            predicted.scores[evaluated, column],
            truths[evaluated, column],
            patients,
            cut_offs.get(label.name),
            rounds=1,
        )
        assert figures is not None
        assert label.evidence is not None
        assert figures.positives == label.evidence.positives
        assert figures.auc.value == pytest.approx(label.evidence.auc, abs=2e-3)
        assert figures.threshold == pytest.approx(label.threshold, abs=2e-3)


def test_the_opacity_map_is_cut_as_the_recipe_says() -> None:
    spec = read_manifest(BUNDLED / "chest-classifier.toml")
    recipe = read_recipe(RECIPES / "bundled-classifier.toml")
    outlined = [label for label in spec.labels if label.localised]
    assert [label.name for label in outlined] == ["lung_opacity"]
    assert outlined[0].map_relative_threshold == recipe.evaluation.map_relative_cut_off > 0


def test_the_opacity_network_s_figures_follow_from_its_rows() -> None:
    """AUC, calibration, cut-off and figures of lesions: from one line an image, by networks that had not seen it."""
    summary = json.loads((BUNDLED / "evidence" / "chest-opacity.json").read_text(encoding="utf-8"))
    with (BUNDLED / "evidence" / "chest-opacity.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    (label,) = read_manifest(BUNDLED / "chest-opacity.toml").labels
    patients = [row["patient"] for row in rows]
    scores = np.array([float(row["lung_opacity"]) for row in rows])
    truths = np.array([float(row["lung_opacity truth"]) >= 0.5 for row in rows])
    found = figures_of("lung_opacity", scores, truths, patients, rounds=1)
    assert found is not None
    assert label.evidence is not None
    assert found.auc.value == pytest.approx(label.evidence.auc, abs=2e-3)
    assert found.threshold == pytest.approx(label.threshold, abs=2e-3)
    assert found.calibration_error < 0.05
    unscaled = logit(np.array([[float(row["lung_opacity unscaled"])] for row in rows]))
    known = np.ones((len(rows), 1), np.bool_)
    (scaling,) = platt_scalings(unscaled, truths[:, np.newaxis], known)
    assert label.calibration is not None
    assert (scaling.slope, scaling.offset) == pytest.approx(
        (label.calibration.slope, label.calibration.offset), rel=0.02
    )
    marked = np.array([[float(row[f"lung_opacity {name}"]) for name in COLUMN_NAMES] for row in rows])
    kinds = [row["lung_opacity against"] for row in rows]
    lesions = lesion_figures("lung_opacity", silenced(marked, scores >= label.threshold), kinds, patients, rounds=1)
    for against, item in lesions.items():
        kept = summary["lesions"]["lung_opacity"][against]
        for name in ("iou", "iou_marked", "precision", "area", "hit", "across", "false_normal"):
            assert getattr(item, name).value == pytest.approx(kept[name]["value"], abs=0.01), (against, name)
    folds = {patient: {row["group"] for row in rows if row["patient"] == patient} for patient in patients}
    assert all(len(groups) == 1 for groups in folds.values())


def test_the_opacity_network_says_lung_opacity_in_the_classifier_s_place() -> None:
    """Only because it does so better on the same images (docs/models.md), and its places hold."""
    spec = read_manifest(BUNDLED / "chest-opacity.toml")
    (label,) = spec.labels
    assert (spec.mode, label.mode, label.replaces, label.lesions) == (
        Mode.ACTIVE,
        Mode.ACTIVE,
        "chest-classifier",
        True,
    )
    answers = opacity.read(BUNDLED / "evidence")
    ways = opacity.ways_of(answers)
    assert opacity.gain(ways[opacity.OPACITY], ways[opacity.CLASSIFIER], answers, rounds=200).low > 0
    assert Models().active == ("chest-classifier", "chest-opacity")


def test_the_lungs_figures_follow_from_their_rows() -> None:
    summary = json.loads((BUNDLED / "evidence" / "chest-lungs.json").read_text(encoding="utf-8"))
    with (BUNDLED / "evidence" / "chest-lungs.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == summary["images"]
    assert len({row["patient"] for row in rows}) == summary["patients"]
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(summary["dice"]["value"], abs=1e-3)
    assert summary["sides_wrong"]["value"] == summary["mirrored_missed"]["value"] == 0
    folds = {row["patient"]: {other["group"] for other in rows if other["patient"] == row["patient"]} for row in rows}
    assert all(len(groups) == 1 for groups in folds.values())


def test_no_patient_sits_in_two_folds() -> None:
    predicted = read_predictions(BUNDLED / "evidence" / "chest-classifier.csv")
    folds: dict[str, set[str]] = {}
    for patient, group in zip(predicted.patients, predicted.groups, strict=True):
        if group.startswith("fold"):
            folds.setdefault(patient, set()).add(group)
    assert all(len(found) == 1 for found in folds.values())


def test_an_evaluation_says_which_images_the_network_has_learnt_from(tmp_path: Path) -> None:
    spec = read_manifest(BUNDLED / "chest-classifier.toml")
    known = [Sample(name, "1", tmp_path / name) for name in read_predictions(_EVIDENCE).images[:3]]
    others = [Sample(name, "2", tmp_path / name) for name in ("another.jpg", "one-more.jpg")]
    assert learnt_from(spec, [*known, *others]) == 3
    # A network whose evidence is not at hand is not accused of anything.
    assert learnt_from(replace(spec, file=tmp_path / "chest-classifier.onnx"), known) == 0
