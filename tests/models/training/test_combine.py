"""An ensemble is one ONNX file that says the mean of what its members say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.manifest import read_manifest
from models.model_spec import Activation, InputSpec, Mode, ModelSpec
from models.runtime.loading import load
from tests.models.samples import SIZE, classifier_graph, detector_graph, manifest
from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.training.combine import CombineError, combine  # noqa: E402


@pytest.fixture
def members(tmp_path: Path) -> tuple[ModelSpec, ModelSpec]:
    one = read_manifest(manifest(classifier_graph(tmp_path / "one.onnx", bias=0.1), "one"))
    other = read_manifest(manifest(classifier_graph(tmp_path / "other.onnx", bias=-0.05), "other"))
    return one, other


def _images() -> np.ndarray:
    return np.random.default_rng(0).random((3, SIZE, SIZE, 1)).astype(np.float32) * 0.6 + 0.1


def test_it_says_the_mean_of_its_members(members: tuple[ModelSpec, ModelSpec], tmp_path: Path) -> None:
    spec = combine(members, "both", "1.0.0", "Both", tmp_path / "out")
    assert spec.mode is Mode.SHADOW
    assert spec.digest not in {member.digest for member in members}
    combined = load(spec).run(_images())
    one, other = (load(member).run(_images()) for member in members)
    for name in ("probabilities", "maps"):
        np.testing.assert_allclose(combined[name], (one[name] + other[name]) / 2, atol=1e-6)


def test_only_common_labels_are_answered_whatever_their_order(
    members: tuple[ModelSpec, ModelSpec], tmp_path: Path
) -> None:
    one, other = members
    turned = replace(other, labels=(other.labels[1], other.labels[0]))
    spec = combine([one, turned], "both", "1", "Both", tmp_path / "turned")
    found = [load(member).run(_images())["probabilities"] for member in (one, other)]
    expected = (found[0] + found[1][:, ::-1]) / 2
    np.testing.assert_allclose(load(spec).run(_images())["probabilities"], expected, atol=1e-6)
    fewer = combine([one, replace(other, labels=other.labels[:1])], "less", "1", "Less", tmp_path / "less")
    assert [label.name for label in fewer.labels] == ["lung_opacity"]
    assert load(fewer).run(_images())["probabilities"].shape == (3, 1)


def test_logits_are_made_probabilities_before_they_are_averaged(
    members: tuple[ModelSpec, ModelSpec], tmp_path: Path
) -> None:
    one, other = members
    spec = combine([one, replace(other, activation=Activation.LOGIT)], "both", "1", "Both", tmp_path / "out")
    raw = load(other).run(_images())["probabilities"]
    expected = (load(one).run(_images())["probabilities"] + 1 / (1 + np.exp(-raw))) / 2
    np.testing.assert_allclose(load(spec).run(_images())["probabilities"], expected, atol=1e-6)


def test_what_cannot_answer_together_is_refused(members: tuple[ModelSpec, ModelSpec], tmp_path: Path) -> None:
    one, other = members
    for wrong, message in (
        ([one], "two models at least"),
        ([one, replace(other, input=InputSpec(64, 64))], "takes another input"),
        ([one, replace(other, labels=(replace(other.labels[0], name="toe"),))], "share no label"),
    ):
        with pytest.raises(CombineError, match=message):
            combine(wrong, "both", "1", "Both", tmp_path / "out")
    boxes = detector_graph(tmp_path / "boxes.onnx", [[1, 2, 3, 4]], [0.5], [0])
    detector = read_manifest(manifest(boxes, "boxes", "detector"))
    with pytest.raises(CombineError, match="only classifiers"):
        combine([one, detector], "both", "1", "Both", tmp_path / "out")
