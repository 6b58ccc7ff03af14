"""What every architecture of the registry must do: learn, survive its files, and serve a node that sends DICOM.

An architecture is compiled once: it learns the control's world first, is put back to where it began, and learns the
true one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.agreement import difference  # noqa: E402
from models.architectures import catalogue  # noqa: E402
from models.architectures.base import Architecture, Batch, Loss, Plan, Truths, check_plan  # noqa: E402
from models.contract import ModelInput, Prediction  # noqa: E402
from models.manifest import read_manifest, verify_digest  # noqa: E402
from models.model_spec import Mode, ModelKind, ModelSpec  # noqa: E402
from models.pipeline import Pipeline  # noqa: E402
from models.predictor import load_predictor  # noqa: E402
from models.runtime.keras_executor import OWN_LAYERS  # noqa: E402
from models.training.cached_dataset import CachedDataset  # noqa: E402
from models.training.calibrate import calibrate  # noqa: E402
from models.training.fit import TrainingData, TrainingNetwork, compile_network, run_epochs, silent  # noqa: E402
from models.training.gate_data import FRONTAL, GATE_LABELS, GateLoader  # noqa: E402
from models.training.gate_measure import answers, gate_rule, measure_gate  # noqa: E402
from models.training.metrics import auc  # noqa: E402
from models.training.onnx_export import (  # noqa: E402
    ROWS,
    open_session,
    run_session,
)
from models.training.predict import predict  # noqa: E402
from models.training.predicted import Predicted  # noqa: E402
from models.training.publish import CardText, Served, publish, publish_gate  # noqa: E402
from models.training.recipe import Recipe  # noqa: E402
from models.training.train import probe, stored_cases  # noqa: E402
from models.training.truths import LabelNames  # noqa: E402
from tests.models.architectures.tiny import LABELS, meaningless, often, tiny_recipe, world  # noqa: E402
from tests.workers.results.sources import analysis, encode_all, source, write  # noqa: E402
from tests.workers.results.test_objects import complaints  # noqa: E402

pytestmark = [
    pytest.mark.timeout(900),  # tracing a graph is slow on a busy machine
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras with NumPy 2
]

# What learns in five seconds is part of `make test`; what is made like another one, of `make nightly`: Mask R-CNN is
# Faster R-CNN with one head more, patches learn as multiple instances do, a fully convolutional network as U-Net.
QUICK = frozenset({"lenet"})
ALIKE = frozenset({"alexnet", "chexnet", "densenet121", "fcn", "mask-rcnn", "patch-cnn", "vgg16"})


def _marks(name: str) -> list[pytest.MarkDecorator]:
    group = pytest.mark.xdist_group(name)
    if name in QUICK:
        return [group]
    return [group, pytest.mark.nightly if name in ALIKE else pytest.mark.training]


LEAST = {ModelKind.CLASSIFIER: 0.85, ModelKind.GATE: 0.85, ModelKind.SEGMENTER: 0.5, ModelKind.DETECTOR: 0.5}
MARGIN = 0.2
TOLERANCE = 1e-4
_OVERLAP = 0.4
ENLARGED = 4
"""The node refuses images as small as those that are learnt from."""


@dataclass(frozen=True)
class Worlds:
    """What is learnt truly, what is learnt by the control, and by what both are predicted."""

    true: CachedDataset
    control: CachedDataset
    unseen: CachedDataset


@dataclass(frozen=True)
class Graduate:
    """An architecture that has learnt, how well its control did, and what was written for the node."""

    architecture: Architecture
    recipe: Recipe
    quality: float
    control: float
    served: keras.Model
    spec: ModelSpec


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    folder = tmp_path_factory.mktemp("world")
    true = world(folder, 64, seed=1)
    return Worlds(true, meaningless(true, seed=2), world(folder, 32, seed=3))


# One architecture is one group: it learns once, on one worker, beside another one.
@pytest.fixture(scope="module", params=[pytest.param(name, marks=_marks(name)) for name in catalogue.names()])
def graduate(
    request: pytest.FixtureRequest, worlds: Worlds, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Graduate]:
    architecture = catalogue.find(request.param)
    yield graduated(architecture, worlds, tmp_path_factory.mktemp(request.param))
    keras.utils.clear_session()


def graduated(architecture: Architecture, worlds: Worlds, folder: Path) -> Graduate:
    recipe = tiny_recipe(architecture)
    check_plan(architecture, recipe.plan)
    keras.utils.set_random_seed(1)
    student = compile_network(architecture, recipe, len(worlds.true)) if architecture.gradient else None
    begin = _state(student) if student else []
    control, _ = _course(architecture, recipe, student, worlds, folder / "control", control=True)
    if student:
        for variable, value in zip(_variables(student), begin, strict=True):
            variable.assign(value)
    learnt, served = _course(architecture, recipe, student, worlds, folder / "true")
    out, found = folder / "out", CardText("drawn", "none", "drawn")
    if architecture.kind is ModelKind.GATE:
        rule = gate_rule(served, recipe, worlds.true, worlds.true)
        summary = measure_gate(served, rule, recipe, worlds.unseen, worlds.unseen)
        spec = publish_gate(architecture, recipe, Served(served, probe(worlds.unseen)), rule, summary, out, found)
        return Graduate(architecture, recipe, learnt, control, served, spec)
    predicted = predict(architecture, recipe, served, worlds.unseen, "unseen")
    done = calibrate(served, predicted, architecture.outlined(recipe.plan))
    spec = publish(
        architecture, recipe, Served(done.network, probe(worlds.unseen)), done.predicted, out, found,
        fitted=done.summary, stored=stored_cases(worlds.true.samples, LabelNames(LABELS)), rounds=20,
    )  # fmt: skip
    return Graduate(architecture, recipe, learnt, control, done.network, spec)


class Shuffled(GateLoader):
    """Spoilt chests whose classes have nothing to do with them."""

    def __getitem__(self, index: int) -> Batch:
        batch = super().__getitem__(index)
        return replace(batch, labels=np.random.default_rng(index).permutation(batch.labels))


def _course(
    architecture: Architecture,
    recipe: Recipe,
    student: TrainingNetwork | None,
    worlds: Worlds,
    folder: Path,
    *,
    control: bool = False,
) -> tuple[float, keras.Model]:
    """Learn one world, and be measured on the true one."""
    folder.mkdir()
    data = worlds.control if control else worlds.true
    network = student.network if student else architecture.build(recipe.plan)
    if student:
        loader = TrainingData(often(data), data).changed(architecture, recipe)
        if control and isinstance(loader, GateLoader):
            loader = Shuffled(recipe, often(data))
        run_epochs(architecture, recipe, student, loader, None, folder, silent)
    network = architecture.fit(network, recipe.plan, TrainingData(data, data).plain(architecture, recipe))
    served = architecture.serve(network, recipe.plan)
    served.run_eagerly = True  # a second graph of a hundred layers would take longer than the few images
    if architecture.kind is ModelKind.GATE:
        return gate_quality(served, recipe, worlds.unseen), served
    return quality(architecture.kind, predict(architecture, recipe, served, worlds.unseen, "unseen")), served


def gate_quality(served: keras.Model, recipe: Recipe, unseen: CachedDataset) -> float:
    """AUC of the class that is let through."""
    loader = GateLoader(recipe, unseen)
    loader.epoch = 99
    batches = [loader[index] for index in range(len(loader))]
    frontal = np.concatenate([batch.labels[:, FRONTAL] for batch in batches]) > 0
    chances = np.concatenate([answers(served, batch.pixels)[0][:, FRONTAL] for batch in batches])
    return auc(chances, frontal)


def _variables(student: TrainingNetwork) -> list[keras.Variable]:
    return [*student.network.variables, *student.taught.optimizer.variables]


def _state(student: TrainingNetwork) -> list[np.ndarray]:
    student.taught.optimizer.build(student.taught.trainable_variables)
    return [keras.ops.convert_to_numpy(variable) for variable in _variables(student)]


def quality(kind: ModelKind, predicted: Predicted) -> float:
    """AUC of a classifier, Dice of a segmenter where something is, share of squares that a detector's best box hits."""
    if kind is ModelKind.CLASSIFIER:
        columns = range(len(predicted.labels))
        return float(np.mean([auc(predicted.scores[:, column], predicted.prevalent[:, column]) for column in columns]))
    if kind is ModelKind.SEGMENTER:
        assert predicted.areas is not None
        answers, true, both = np.moveaxis(predicted.areas[:, :, 0], -1, 0)
        there = true > 0
        return float(np.mean(2 * both[there] / (answers + true)[there]))
    assert predicted.boxes is not None
    assert predicted.true_boxes is not None
    hits = []
    for answers, true in zip(predicted.boxes, predicted.true_boxes, strict=True):
        for *square, label in true[true[:, 4] >= 0]:
            own = answers[(np.rint(answers[:, 5]) == label) & (answers[:, 4] > 0)]
            hits.append(len(own) > 0 and _iou(own[np.argmax(own[:, 4]), :4], np.array(square)) >= _OVERLAP)
    return float(np.mean(hits))


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    both = sides.prod()
    return float(both / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - both))


def check_learns(made: Graduate) -> None:
    least = LEAST[made.architecture.kind]
    assert made.quality >= least, f"{made.architecture.name} learns nothing: {made.quality:.2f}, not {least}"
    assert made.quality >= made.control + MARGIN, (
        f"{made.architecture.name} reaches {made.quality:.2f}, and {made.control:.2f} where there is nothing to learn"
    )


def test_learns_what_is_there_and_nothing_where_nothing_is(graduate: Graduate) -> None:
    check_learns(graduate)


def test_the_file_says_what_the_network_says(graduate: Graduate, worlds: Worlds) -> None:
    batch = probe(worlds.unseen)
    expected = {name: np.asarray(value) for name, value in graduate.served(batch, training=False).items()}
    loaded = keras.saving.load_model(graduate.spec.file, compile=False, safe_mode=True)
    again = {name: np.asarray(value) for name, value in loaded(batch, training=False).items()}
    _same(again, expected)
    assert graduate.spec.onnx is not None
    session = open_session(graduate.spec.onnx)
    _same(run_session(session, batch, list(expected)), expected)
    alone = [run_session(session, image[np.newaxis], list(expected)) for image in batch]
    _same({name: np.concatenate([answer[name] for answer in alone]) for name in expected}, expected)


def _same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    assert difference(expected, found, leaving_out=ROWS) <= TOLERANCE


def test_the_manifest_is_what_a_node_reads(graduate: Graduate) -> None:
    spec = read_manifest(graduate.spec.file.with_suffix(".toml"))
    verify_digest(spec)
    assert spec == graduate.spec
    if spec.kind is ModelKind.GATE:
        assert tuple(label.name for label in spec.labels) == GATE_LABELS
        assert spec.gate is not None
        return
    assert tuple(label.name for label in spec.labels) == LABELS
    # 16 of the 32 analysed images have a finding: fewer than 30 patients, however good the figure.
    assert (spec.mode, {label.mode for label in spec.labels}) == (Mode.SHADOW, {Mode.SHADOW})
    assert spec.card is not None
    assert "Not a medical device" in spec.card.read_text()


@pytest.mark.peer("dciodvfy")
def test_a_node_makes_dicom_of_it(graduate: Graduate, worlds: Worlds, tmp_path: Path) -> None:
    if graduate.architecture.kind is ModelKind.GATE:
        pytest.skip("a gate reports no findings")
    predictor = load_predictor(Pipeline(None, (_active(graduate.spec),)), device="cpu", threads=1)
    images = [_image(worlds.unseen, place) for place in (3, 0)]  # both squares; none
    together = predictor.predict_all(images)
    for number, (image, found) in enumerate(zip(images, together, strict=True)):
        _agree(predictor.predict(image), found)
        work = replace(analysis(source("cr", image.shape), found.findings), model_input=image)
        for kind, made in encode_all(work).items():
            assert complaints(write(made, tmp_path / f"{number}-{kind}.dcm")) == ([], []), kind
    kinds = encode_all(replace(analysis(source("cr", images[0].shape), together[0].findings), model_input=images[0]))
    assert "sr" in kinds
    if graduate.architecture.kind is ModelKind.SEGMENTER:
        assert "seg" in kinds
    if graduate.architecture.kind is ModelKind.DETECTOR:
        assert any(finding.boxes for finding in together[0].findings)


def _active(spec: ModelSpec) -> ModelSpec:
    """The model as a site would run it that trusts it."""
    labels = tuple(replace(label, mode=Mode.ACTIVE) for label in spec.labels)
    return replace(spec, labels=labels, mode=Mode.ACTIVE)


def _image(stored: CachedDataset, place: int) -> ModelInput:
    large = np.repeat(np.repeat(stored.pixels(place), ENLARGED, axis=0), ENLARGED, axis=1)
    pixels = large.astype(np.float32) / np.float32(255)
    return ModelInput(pixels=pixels, sop_instance_uid="1.2.826.0.1.3680043.10.1561.1.1")


def _agree(alone: Prediction, together: Prediction) -> None:
    for one, other in zip(alone.findings, together.findings, strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=TOLERANCE)


def test_a_process_that_only_serves_knows_every_layer_of_ours() -> None:
    for name in catalogue.names():
        catalogue.find(name)
    ours = {kind.__module__ for name, kind in keras.saving.get_custom_objects().items() if name.startswith("pleura>")}
    assert ours <= set(OWN_LAYERS)


class Broken(Architecture):
    """Answers by chance and learns nothing, which the contract must notice."""

    __slots__ = ()

    def build(self, plan: Plan) -> keras.Model:
        image = keras.Input((plan.size, plan.size, 1))
        mean = keras.layers.GlobalAveragePooling2D()(image)
        still = keras.layers.Dense(len(plan.labels), name="logits", trainable=False)(mean)
        return keras.Model(image, {"logits": still, "bias": keras.layers.Dense(1, name="bias")(mean)})

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        return {"bias": lambda truth, answer: keras.ops.mean(keras.ops.square(answer - truth), axis=-1)}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        return {"bias": batch.labels[:, :1]}

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        probabilities = keras.layers.Activation("sigmoid", name="probabilities")(network.output["logits"])
        return keras.Model(network.input, {"probabilities": probabilities})


def test_the_contract_notices_what_does_not_learn(worlds: Worlds, tmp_path: Path) -> None:
    broken = Broken("broken", ModelKind.CLASSIFIER, "Broken", "nowhere")
    made = graduated(broken, worlds, tmp_path)
    with pytest.raises(AssertionError, match="broken"):
        check_learns(made)


def test_the_contract_notices_what_learns_from_nothing() -> None:
    lucky = SimpleNamespace(kind=ModelKind.CLASSIFIER, name="lucky")
    made = Graduate(lucky, None, 0.95, 0.9, None, None)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="where there is nothing to learn"):
        check_learns(made)
