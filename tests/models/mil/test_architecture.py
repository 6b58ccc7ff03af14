"""The three and their ensemble: what they are taught, and that what is served is the same in ONNX."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.architectures.base import Batch, Option, Plan, check_plan  # noqa: E402
from models.architectures.catalogue import find  # noqa: E402
from models.mil.architecture import Ensemble  # noqa: E402
from models.training.onnx_export import export_onnx  # noqa: E402

PLAN = Plan("mil", 64, ("opacity", "pneumothorax"), "vgg-small", width=0.125)


def plan(name: str, **options: Option) -> Plan:
    made = replace(PLAN, architecture=name, options=options)
    check_plan(find(name), made)
    return made


def pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(4).random((count, 64, 64, 1), np.float32)


def batch(masks: bool = True) -> Batch:
    labels = np.array([[1, 0], [0, 1]], np.float32)
    drawn = np.zeros((2, 64, 64, 2), np.float32)
    drawn[0, 8:16, 16:20, 0] = 1
    known = np.array([[1, 1], [1, 0]], np.float32)
    return Batch(pixels(2), labels, np.ones_like(labels), drawn if masks else None, known if masks else None)


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("patch-cnn", {"patches": 2}, 2),
        ("mil", {"pooling": "attention"}, 4),
        ("mil", {"patches": 2}, 2),
        ("fcn", {}, 8),
    ],
)
def test_serves_probabilities_and_a_map_alike_in_onnx(
    name: str, options: dict[str, Option], side: int, tmp_path: Path
) -> None:
    architecture, found = find(name), plan(name, **options)
    served = architecture.serve(architecture.build(found), found)
    assert served.output["probabilities"].shape == (None, 2)
    assert served.output["maps"].shape == (None, side, side, 2)
    assert export_onnx(served, tmp_path / "model.onnx", pixels()) < 1e-4


def test_the_ensemble_is_the_mean_of_its_members(tmp_path: Path) -> None:
    architecture, asked = find("ensemble"), plan("ensemble")
    network = architecture.build(asked)
    outputs = {name: keras.ops.convert_to_numpy(value) for name, value in network(pixels(), training=False).items()}
    served = architecture.serve(network, asked)
    probabilities = [1 / (1 + np.exp(-outputs[f"{member}_logits"])) for member in ("cnn", "mil", "fcn")]
    answer = served(pixels(), training=False)
    np.testing.assert_allclose(answer["probabilities"], np.mean(probabilities, axis=0), atol=1e-6)
    assert answer["maps"].shape == (3, 8, 8, 2)
    assert set(architecture.losses(asked)) == {"cnn_logits", "mil_logits", "fcn_logits", "fcn_map_logits"}
    assert set(architecture.truths(asked, batch())) == set(architecture.losses(asked))
    assert export_onnx(served, tmp_path / "model.onnx", pixels()) < 1e-4


def test_the_members_of_an_ensemble_are_told_its_options() -> None:
    architecture = find("ensemble")
    assert isinstance(architecture, Ensemble)
    found = plan("ensemble", pooling="max", dropout=0.5, map_share=2.0)
    assert architecture.member_plan(found, "mil").options["pooling"] == "max"
    assert architecture.member_plan(found, "fcn").options["map_share"] == 2.0
    assert all(architecture.member_plan(found, member).options["dropout"] == 0.5 for member in ("cnn", "mil", "fcn"))
    for member, name in (("cnn", "patch-cnn"), ("mil", "mil"), ("fcn", "fcn")):
        check_plan(find(name), architecture.member_plan(found, member))


def test_a_fully_convolutional_network_learns_from_the_masks_that_are_known() -> None:
    truth = find("fcn").truths(plan("fcn"), batch())["map_logits"]
    assert truth.shape == (2, 8, 8, 4)
    assert truth[0, 1, 2].tolist() == [0.5, 0, 1, 1]  # half of the cell of 8 x 8 pixels
    assert truth[0, ..., 0].sum() == 0.5
    assert truth[1, 0, 0].tolist() == [0, 0, 1, 0]


def test_a_data_set_without_masks_teaches_the_image_alone() -> None:
    truths = find("fcn").truths(plan("fcn"), batch(masks=False))
    assert not truths["map_logits"].any()
    assert truths["logits"].tolist() == [[1, 0, 1, 1], [0, 1, 1, 1]]


def test_class_weights_weigh_positives() -> None:
    truths = find("mil").truths(plan("mil", class_weights="3,0.5"), batch())
    assert truths["logits"][:, 2:].tolist() == [[3, 1], [1, 0.5]]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("mil", {"pooling": "median"}, "pooling must be one of"),
        ("mil", {"patches": 3}, "patches = 3"),
        ("fcn", {"map_share": 0.0}, "map_share"),
        ("patch-cnn", {"class_weights": "1"}, "needs 2 positive numbers"),
    ],
)
def test_options_without_sense_are_refused(name: str, options: dict[str, Option], sentence: str) -> None:
    found = plan(name, **options)
    with pytest.raises(ValueError, match=sentence):
        find(name).build(found)
