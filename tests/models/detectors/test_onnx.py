"""Suppression and RoI align as ONNX Runtime computes them on a CPU, for any batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.detectors.layers import Detections, Refined, RoiAlign  # noqa: E402
from models.training.onnx_export import open_session, run_session  # noqa: E402
from tests.models.detectors import slow  # noqa: E402
from tests.models.detectors.test_geometry import some_boxes  # noqa: E402

COUNT, KEPT, OVERLAP = 40, 12, 0.4
NAMES = ["boxes", "scores", "classes", "under"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boxes and their scores in one input, since what a node serves has one."""
    seen = keras.Input((COUNT, 4 + 2 + 4), name="told")
    still = keras.ops.reshape(seen[..., 6:] - seen[..., 6:], (-1, COUNT, 1, 4))
    boxes = Refined(64, name="refined")(seen[..., :4], still)
    found, scores, classes = Detections(KEPT, 2 * COUNT, OVERLAP)(boxes, seen[..., 4:6])
    feature = keras.ops.reshape(seen[:, :16, 6:8], (-1, 4, 4, 2))
    under = RoiAlign((16,), 3)(found, [feature])
    network = keras.Model(seen, {"boxes": found, "scores": scores, "classes": classes, "under": under})
    network(told_boxes(0)[np.newaxis])  # Keras exports only what has been called
    path = tmp_path_factory.mktemp("onnx") / "suppression.onnx"
    network.export(str(path), format="onnx", verbose=False)
    return path


def told_boxes(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    boxes = np.minimum(some_boxes(seed, COUNT, 56), 64)
    return np.concatenate([boxes, rng.random((COUNT, 2)), rng.normal(size=(COUNT, 4))], axis=1).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_cpu_suppresses_and_aligns_as_plain_loops_do(file: Path, batch: int) -> None:
    images = np.stack([told_boxes(seed) for seed in range(batch)])
    answer = run_session(open_session(file), images, NAMES)
    assert answer["boxes"].shape == (batch, KEPT, 4)
    for number, image in enumerate(images):
        scores = image[:, 4:6].ravel()
        order = np.argsort(-scores, kind="stable")
        boxes, kinds = np.repeat(image[:, :4], 2, axis=0)[order], np.tile([0, 1], COUNT)[order]
        rows = slow.greedy(boxes, OVERLAP, kinds)[:KEPT]
        np.testing.assert_allclose(answer["scores"][number], scores[order][rows], rtol=1e-6)
        np.testing.assert_allclose(answer["boxes"][number], boxes[rows], atol=1e-4)
        np.testing.assert_array_equal(answer["classes"][number], kinds[rows])
        feature = image[:16, 6:8].reshape(4, 4, 2)
        wanted = [slow.aligned(feature, box, 16, 3, 2) for box in boxes[rows]]
        np.testing.assert_allclose(answer["under"][number], wanted, atol=1e-4)
