"""A Keras file with three channels and another range: the same route, another executor."""

from pathlib import Path

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.training.datasets import pixels, read_dataset  # noqa: E402
from models.training.evaluation.evaluate import evaluate  # noqa: E402
from models.training.evaluation.predictions import read_predictions  # noqa: E402
from tests.models import samples  # noqa: E402
from tests.models.training.drawn import write_drawn  # noqa: E402

MANIFEST = """channels = 3
value_range = [-1.0, 1.0]
equalise = "histogram"

[[labels]]
name = "lung_opacity"
code = { value = "112001", scheme = "DCM", meaning = "Opacity" }
threshold = 0.5
"""


def test_a_keras_classifier_of_logits_in_three_channels(tmp_path: Path) -> None:
    image = keras.Input((32, 32, 3))
    mean = keras.layers.GlobalMaxPooling2D()(keras.layers.AveragePooling2D(8)(image))
    logits = keras.layers.Dense(1, kernel_initializer="ones", name="probabilities")(mean)
    keras.Model(image, logits).save(tmp_path / "three.keras")
    file = samples.manifest(tmp_path / "three.keras", "three", rest=MANIFEST)
    file.write_text(file.read_text().replace("[input]", 'activation = "logit"\n\n[input]'))
    data = write_drawn(tmp_path / "d", 12)
    found = evaluate(file, data, "all", tmp_path / "out", rounds=20, device="cpu")
    output = read_predictions(tmp_path / "out" / "predictions.csv").scores[:, 0]
    for score, item in zip(output, read_dataset.read(data).samples, strict=True):
        seen = pixels.load(item, 32, "histogram") * 2 - 1
        brightest = seen.reshape(4, 8, 4, 8).mean(axis=(1, 3)).max()
        assert score == pytest.approx(1 / (1 + np.exp(-3 * brightest)), abs=1e-4)
    assert found.figures["lung_opacity"].auc.value > 0.9
