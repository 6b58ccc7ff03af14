"""Retrieval against scikit-learn's neighbours, exported, and shown beside a finding by the predictor."""

from pathlib import Path

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.architectures.base import Batch, Plan  # noqa: E402
from models.manifest import ManifestError, file_digest  # noqa: E402
from models.model_spec import Activation, Code, InputSpec, LabelSpec, ModelKind, ModelSpec  # noqa: E402
from models.pipeline import Pipeline  # noqa: E402
from models.predictor import Predictor  # noqa: E402
from models.retrieval.architecture import FEATURES, RETRIEVAL  # noqa: E402
from models.runtime.loading import load  # noqa: E402
from models.similar import SHOWN, StoredCase, read_index, similar_cases, write_index  # noqa: E402
from models.training.onnx_export import export_onnx  # noqa: E402
from tests.models.samples import model_input  # noqa: E402

PLAN = Plan("retrieval", 64, ("bright", "other"), "vgg-small", width=0.125, options={"neighbours": 7})
LABELS = tuple(LabelSpec(name, Code("1", "99TEST", name), 0.5) for name in PLAN.labels)


class _Images:
    """Twenty-four noisy images in three batches, half of them bright; of each third the other label is not known."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng(index)
        bright = np.arange(8) % 2
        pixels = rng.random((8, 64, 64, 1)) * 0.4 + 0.5 * bright[:, None, None, None]
        labels = np.stack([bright, rng.integers(0, 2, 8)], axis=-1).astype(np.float32)
        known = np.ones_like(labels)
        known[::3, 1] = 0
        return Batch(pixels.astype(np.float32), labels, known, names=tuple(f"{index}-{item}" for item in range(8)))


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    return RETRIEVAL.fit(RETRIEVAL.build(PLAN), PLAN, _Images())


def _all() -> Batch:
    parts = [_Images()[index] for index in range(3)]
    pixels, labels, known = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("pixels", "labels", "known")
    )
    return Batch(pixels, labels, known)


def test_neighbours_and_votes_are_those_of_an_independent_search(network: keras.Model) -> None:
    from sklearn.neighbors import NearestNeighbors

    stored, asked = _all(), _Images()[9].pixels
    features = keras.Model(network.input, network.get_layer(FEATURES).output)
    reference = NearestNeighbors(n_neighbors=7, metric="cosine").fit(np.asarray(features(stored.pixels)))
    distances, rows = reference.kneighbors(np.asarray(features(asked)))
    answer = {name: np.asarray(value) for name, value in RETRIEVAL.serve(network, PLAN)(asked).items()}
    np.testing.assert_allclose(answer["neighbour_distances"], distances, atol=1e-4)
    known, labels = stored.known[rows], stored.labels[rows]
    expected = (known * labels).sum(axis=1) / known.sum(axis=1)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    assert [set(row) for row in answer["neighbours"]] == [set(row) for row in rows]


def test_a_stored_image_is_its_own_nearest_neighbour(network: keras.Model) -> None:
    answer = RETRIEVAL.serve(network, PLAN)(_Images()[1].pixels)
    assert np.asarray(answer["neighbours"])[:, 0].tolist() == list(range(8, 16))


def test_more_neighbours_than_images_are_all_images() -> None:
    plan = Plan("retrieval", 64, ("bright", "other"), "vgg-small", width=0.125, options={"neighbours": 1001})
    served = RETRIEVAL.serve(RETRIEVAL.fit(RETRIEVAL.build(plan), plan, _Images()), plan)
    assert np.asarray(served(_Images()[9].pixels)["neighbours"]).shape == (8, 24)


def test_the_predictor_shows_the_cases_that_look_alike(network: keras.Model, tmp_path: Path) -> None:
    served = RETRIEVAL.serve(network, PLAN)
    assert export_onnx(served, tmp_path / "alike.onnx", _Images()[9].pixels) < 1e-4
    cases = [
        StoredCase(
            name,
            {label: float(batch.labels[item, at]) for at, label in enumerate(PLAN.labels) if batch.known[item, at]},
        )
        for batch in (_Images()[index] for index in range(3))
        for item, name in enumerate(batch.names)
    ]
    write_index(tmp_path / "alike.index.csv", PLAN.labels, cases)
    assert read_index(tmp_path / "alike.index.csv") == tuple(cases)
    file = tmp_path / "alike.onnx"
    spec = ModelSpec(
        *("alike", "1", "Alike", ModelKind.CLASSIFIER, file, file_digest(file), "2.25.1", InputSpec(64, 64)),
        activation=Activation.PROBABILITY,
        labels=LABELS,
        index=tmp_path / "alike.index.csv",
    )
    predictor = Predictor(Pipeline(None, (spec,)), {"alike": load(spec)})
    pixels = np.asarray(_Images()[9].pixels[1, :, :, 0])
    bright, other = predictor.predict(model_input(np.kron(pixels, np.ones((8, 8), np.float32)))).findings
    assert len(bright.similar) == SHOWN
    assert all(case.label in ("bright", "no bright") for case in bright.similar)
    assert [case.distance for case in bright.similar] == sorted(case.distance for case in bright.similar)
    unknown = {case.reference for case in cases if "other" not in case.labels}
    assert not unknown & {case.reference for case in other.similar}


def test_rows_beyond_the_index_are_left_out() -> None:
    answer = {"neighbours": np.array([5.0, 0.0], np.float32), "neighbour_distances": np.array([0.1, 0.2], np.float32)}
    (case,) = similar_cases(answer, [StoredCase("a.png", {"bright": 0.0})], LABELS[0])
    assert (case.reference, case.label) == ("a.png", "no bright")


@pytest.mark.parametrize("text", ["", "name,bright\na,1\n", "reference,bright\na,yes\n"])
def test_what_is_no_index_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text or "\0", encoding="utf-8")
    with pytest.raises(ManifestError, match="no index"):  # noqa: PT012
        if not read_index(path):
            raise ManifestError("no index")
