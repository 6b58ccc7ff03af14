"""The whole pipeline on tiny networks, its digest, and a contract test over every registered model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.contract import Hanging, LungShare, ModelInput, Pixels, Prediction, Zone
from models.findings import findings_of
from models.lung_fields import LUNG
from models.manifest import ManifestError, read_manifest
from models.model_registry import read_registry
from models.model_spec import Evidence, Mode, ModelSpec
from models.pipeline import Condition, Pipeline, Processing, load_pipeline
from models.predictor import Predictor, load_predictor
from models.radiograph.contrast import letterbox_for
from models.runtime.executor import ModelOutputError, Outputs
from models.runtime.loading import load
from tests.models.samples import (
    CLASSES,
    LABELS,
    LUNGS,
    chestlike,
    classifier_graph,
    detector_graph,
    gate_graph,
    lungs_graph,
    manifest,
    model_input,
)


@pytest.fixture
def classifier(tmp_path: Path) -> ModelSpec:
    return read_manifest(manifest(classifier_graph(tmp_path / "tiny.onnx"), "tiny"))


def gate(folder: Path, verdict: list[float], distance: float | None = 1.0) -> ModelSpec:
    return read_manifest(manifest(gate_graph(folder / "gate.onnx", verdict, distance), "gate", "gate", CLASSES))


def predict(pipeline: Pipeline, image: ModelInput | None = None) -> Prediction:
    return load_predictor(pipeline, threads=1).predict(image or model_input())


def ticking() -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += 1.0


def test_every_label_has_one_finding_and_a_mask_lies_on_it(classifier: ModelSpec, tmp_path: Path) -> None:
    found = predict(Pipeline(gate(tmp_path, [1, 0, 0, 0, 0]), (classifier,)))
    assert found.not_analysed is None
    assert [finding.label for finding in found.findings] == ["lung_opacity", "other"]
    opacity, other = found.findings
    assert opacity.present
    assert opacity.localised
    assert opacity.mask is not None
    assert opacity.mask.shape == found.shape == (300, 260)
    spot = np.zeros((300, 260), np.bool_)
    spot[30:75, 130:195] = True
    assert opacity.mask[40:65, 145:180].all()
    assert opacity.mask[:150][spot[:150]].mean() > 0.8
    assert opacity.heat_map is not None
    assert max(opacity.heat_map.shape) <= 64
    assert other.mode is Mode.SHADOW
    assert [finding.label for finding in found.reportable] == ["lung_opacity"]
    assert [use.name for use in found.models] == ["gate", "tiny"]
    assert found.models[1].device_uid == classifier.device_uid


def test_present_without_a_region_keeps_its_probability_and_says_so(classifier: ModelSpec) -> None:
    strict = replace(classifier, labels=(replace(classifier.labels[0], map_threshold=0.999), classifier.labels[1]))
    opacity = predict(Pipeline(None, (strict,)), model_input(chestlike() * 0.9)).findings[0]
    assert opacity.present
    assert not opacity.localised
    assert opacity.mask is None
    assert "no region reaches" in opacity.reason


def test_an_absent_finding_has_no_place(classifier: ModelSpec) -> None:
    opacity = predict(Pipeline(None, (classifier,)), model_input(chestlike() * 0.4)).findings[0]
    assert not opacity.present
    assert opacity.probability is not None
    assert opacity.mask is None
    assert opacity.heat_map is None
    assert opacity.reason == ""


def test_a_finding_is_present_where_something_that_is_part_of_it_is(classifier: ModelSpec) -> None:
    """The other label of the network stays far below its threshold."""
    first, second = classifier.labels
    labels = (replace(first, parent=second.name, site=first.code), replace(second, threshold=0.999, mode=Mode.ACTIVE))
    opacity, whole = predict(Pipeline(None, (replace(classifier, labels=labels),))).findings
    alone = predict(Pipeline(None, (replace(classifier, labels=(first, labels[1])),))).findings[1]

    assert (opacity.present, alone.present, whole.present) == (True, False, True)
    assert opacity.probability is not None
    assert whole.probability is not None
    assert whole.probability >= opacity.probability
    assert (whole.implied_by, whole.reason) == ("lung_opacity", "follows from lung opacity")
    assert (opacity.parent, opacity.site) == (second.name, first.code)


@pytest.mark.parametrize(
    ("verdict", "distance", "code"),
    [([0, 1, 0, 0, 0], 1, "rotated"), ([0, 0, 0, 0, 1], None, "not_frontal_chest"), ([1, 0, 0, 0, 0], 11, "unsure")],
)
def test_what_the_gate_stops_is_not_analysed(
    classifier: ModelSpec, tmp_path: Path, verdict: list[float], distance: float | None, code: str
) -> None:
    found = predict(Pipeline(gate(tmp_path, verdict, distance), (classifier,)))
    assert found.not_analysed is not None
    assert found.not_analysed.code == code
    assert found.findings == ()
    assert "infer" not in found.timings


def test_a_blank_image_never_reaches_a_network(classifier: ModelSpec, tmp_path: Path) -> None:
    found = predict(
        Pipeline(gate(tmp_path, [1, 0, 0, 0, 0]), (classifier,)), model_input(np.zeros((300, 300), np.float32))
    )
    assert found.not_analysed is not None
    assert found.not_analysed.code == "blank"
    assert "prepare" not in found.timings


def test_waiting_images_get_the_answers_that_they_would_get_alone(classifier: ModelSpec, tmp_path: Path) -> None:
    pipeline = Pipeline(gate(tmp_path, [1, 0, 0, 0, 0]), (classifier,))
    predictor = Predictor(pipeline, {spec.name: load(spec) for spec in pipeline}, batch=2)
    images = [model_input(chestlike(200 + 20 * n, 260) * (0.5 + 0.1 * n)) for n in range(5)]
    images.insert(2, model_input(np.zeros((300, 300), np.float32)))
    together = predictor.predict_all(images)
    assert together[2].not_analysed is not None
    for image, prediction in zip(images, together, strict=True):
        alone = predictor.predict(image)
        assert alone.not_analysed == prediction.not_analysed
        for one, other in zip(alone.findings, prediction.findings, strict=True):
            assert one.probability == other.probability
            assert (one.mask is None) == (other.mask is None)
            if one.mask is not None and other.mask is not None:
                np.testing.assert_array_equal(one.mask, other.mask)


def assert_same(one: Prediction, other: Prediction) -> None:
    """All but the time that it took."""
    assert (one.not_analysed, one.models, one.lungs_cut) == (other.not_analysed, other.models, other.lungs_cut)
    for left, right in zip(one.findings, other.findings, strict=True):
        assert repr(replace(left, mask=None)) == repr(replace(right, mask=None))
        assert (left.mask is None) == (right.mask is None)
        if left.mask is not None and right.mask is not None:
            np.testing.assert_array_equal(left.mask, right.mask)


class InStep:
    """An executor that answers only when so many others are asked, too."""

    def __init__(self, spec: ModelSpec, together: threading.Barrier) -> None:
        self.spec, self._executor, self._together = spec, load(spec, device="cpu"), together
        self.runs_on = self._executor.runs_on

    def run(self, batch: Pixels) -> Outputs:
        self._together.wait(60)
        return self._executor.run(batch)

    def warm(self) -> None:
        self._executor.warm()


def with_lungs(classifier: ModelSpec, tmp_path: Path, *models: ModelSpec, **others: Any) -> Pipeline:
    return Pipeline(
        gate(tmp_path, [1, 0, 0, 0, 0]), (in_the_lung(classifier), *models), lungs=lungs(tmp_path), **others
    )


def test_networks_side_by_side_answer_as_in_turn(classifier: ModelSpec, tmp_path: Path) -> None:
    second, third = (replace(classifier, name=name) for name in ("second", "third"))
    waits = (Condition("third", "second", "lung_opacity"),)
    in_turn = load_predictor(with_lungs(classifier, tmp_path, second, third, conditions=waits), device="cpu", threads=1)
    images = [model_input(), model_input(chestlike() * 0.2), model_input(np.zeros((300, 300), np.float32))]
    for image in images:
        assert_same(in_turn.side_by_side().predict(image), in_turn.predict(image))
    several = zip(in_turn.side_by_side().predict_all(images), in_turn.predict_all(images), strict=True)
    for one, other in several:
        assert_same(one, other)


def test_networks_of_one_image_run_at_the_same_time(classifier: ModelSpec, tmp_path: Path) -> None:
    pipeline = with_lungs(classifier, tmp_path, replace(classifier, name="second"))
    together, quality = threading.Barrier(3), pipeline.gate
    assert quality is not None
    executors = {spec.name: InStep(spec, together) for spec in pipeline} | {quality.name: load(quality)}
    with ThreadPoolExecutor(3) as threads:
        found = Predictor(pipeline, executors, threads=threads).predict(model_input())
    assert found.not_analysed is None
    assert {"infer", "lungs"} <= set(found.timings)


def test_a_model_that_fails_beside_others_is_told_when_all_have_answered(classifier: ModelSpec, tmp_path: Path) -> None:
    bad = read_manifest(manifest(classifier_graph(tmp_path / "bad.onnx", bias=float("nan")), "bad"))
    in_shadow = with_lungs(classifier, tmp_path, replace(bad, mode=Mode.SHADOW))
    executors = {spec.name: load(spec, device="cpu") for spec in in_shadow}
    shadowed = Predictor(in_shadow, executors).side_by_side().predict(model_input())
    assert "NaN" in shadowed.findings[-1].reason
    active = Predictor(with_lungs(bad, tmp_path, classifier), executors).side_by_side()
    with pytest.raises(ModelOutputError, match="NaN"):
        active.predict(model_input())


def test_stages_are_timed_by_the_clock_that_was_given(classifier: ModelSpec, tmp_path: Path) -> None:
    pipeline = Pipeline(gate(tmp_path, [1, 0, 0, 0, 0]), (classifier,))
    ticks = ticking()
    predictor = Predictor(pipeline, {spec.name: load(spec) for spec in pipeline}, clock=lambda: next(ticks))
    found = predictor.predict(model_input(), {"decode": 0.5})
    assert found.timings == {"decode": 0.5, "gate": 2.0, "prepare": 2.0, "infer": 1.0, "localise": 1.0}


def test_a_detector_gives_boxes(tmp_path: Path) -> None:
    weights = detector_graph(tmp_path / "d.onnx", [[8, 8, 16, 24], [8, 8, 9, 9]], [0.9, 0.1], [0, 1])
    labels = LABELS.replace('mode = "shadow"', "localised = true")
    found = predict(Pipeline(None, (read_manifest(manifest(weights, "d", "detector", labels)),)), square())
    first, second = found.findings
    assert first.probability == pytest.approx(0.9)
    assert [(box.x, box.y, box.width, box.height) for box in first.boxes] == [(80, 80, 80, 160)]
    assert not second.present
    assert second.boxes == ()


def test_a_detector_with_maps_gives_masks_inside_its_boxes(tmp_path: Path) -> None:
    weights = detector_graph(tmp_path / "d.onnx", [[8, 8, 16, 24]], [0.9], [0])
    spec = read_manifest(manifest(weights, "d", "detector", LABELS))
    answer = {
        "boxes": np.array([[8, 8, 16, 24], [0, 0, 4, 4]], np.float32),
        "scores": np.array([0.9, 0.1], np.float32),
        "classes": np.zeros(2, np.float32),
        "maps": np.ones((16, 16, 2), np.float32),
    }
    found = findings_of(spec, answer, letterbox_for(square(), spec.input), 1e-4)[0]
    assert [(box.x, box.y, box.width, box.height) for box in found.boxes] == [(80, 80, 80, 160)]
    assert found.mask is not None
    wanted = np.zeros((320, 320), np.bool_)
    wanted[80:240, 80:160] = True
    np.testing.assert_array_equal(found.mask, wanted)


def square() -> ModelInput:
    return model_input(chestlike(320, 320))


def test_a_segmenter_s_probability_is_its_map_s_highest_value(tmp_path: Path) -> None:
    weights = classifier_graph(tmp_path / "s.onnx")
    found = predict(Pipeline(None, (read_manifest(manifest(weights, "s", "segmenter")),)), square())
    assert found.findings[0].localised


def test_two_models_may_say_the_same_word(classifier: ModelSpec) -> None:
    second_model = replace(classifier, name="another", mode=Mode.SHADOW)
    found = predict(Pipeline(None, (classifier, second_model)))
    assert [(finding.model, finding.label) for finding in found.findings] == [
        ("tiny", "lung_opacity"),
        ("tiny", "other"),
        ("another", "lung_opacity"),
        ("another", "other"),
    ]
    assert len(found.reportable) == 1


def test_a_model_in_shadow_that_fails_harms_nobody(classifier: ModelSpec, tmp_path: Path) -> None:
    weights = classifier_graph(tmp_path / "bad.onnx", bias=float("nan"))
    bad = read_manifest(manifest(weights, "bad"))
    with pytest.raises(ModelOutputError, match="NaN"):
        Predictor(Pipeline(None, (bad,)), {"bad": load(bad)}).predict(model_input())
    pipeline = Pipeline(None, (replace(bad, mode=Mode.SHADOW), classifier))
    found = Predictor(pipeline, {spec.name: load(spec) for spec in pipeline}).predict(model_input())
    assert [finding.probability is None for finding in found.findings] == [True, True, False, False]
    assert "NaN" in found.findings[0].reason
    assert not found.findings[0].present
    assert found.findings[0].mode is Mode.SHADOW


def test_a_model_may_wait_for_what_another_finds(classifier: ModelSpec, tmp_path: Path) -> None:
    second = replace(classifier, name="second")
    seen = [Condition("second", classifier.name, "lung_opacity")]
    pipeline = Pipeline(None, (classifier, second), conditions=tuple(seen))
    predictor = Predictor(pipeline, {spec.name: load(spec) for spec in pipeline})
    bright, dark = model_input(chestlike()), model_input(chestlike() * 0.2 + 0.01 * np.eye(300, 260, dtype=np.float32))
    found, nothing = predictor.predict_all([bright, dark])
    assert found.findings[0].present
    assert [finding.model for finding in found.findings] == [classifier.name] * 2 + ["second"] * 2
    assert not nothing.findings[0].present
    assert [finding.model for finding in nothing.findings] == [classifier.name] * 2
    assert [use.name for use in nothing.models] == [classifier.name]
    assert pipeline.digest() != Pipeline(None, (classifier, second)).digest()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (("second", "nobody", "lung_opacity"), "'nobody' does not run"),
        (("tiny", "second", "lung_opacity"), "does not come before it"),
        (("second", "tiny", "toe"), "has no label 'toe'"),
    ],
)
def test_a_condition_that_can_never_hold_is_refused(
    classifier: ModelSpec, condition: tuple[str, str, str], message: str
) -> None:
    models = (replace(classifier, name="tiny"), replace(classifier, name="second"))
    with pytest.raises(ManifestError, match=message):
        Pipeline(None, models, conditions=(Condition(*condition),))


def test_a_predictor_needs_all_its_networks(classifier: ModelSpec) -> None:
    with pytest.raises(ValueError, match="no executor for tiny"):
        Predictor(Pipeline(None, (classifier,)), {})


def test_a_pipeline_refuses_what_stands_in_the_wrong_place(classifier: ModelSpec, tmp_path: Path) -> None:
    quality = gate(tmp_path, [1, 0, 0, 0, 0])
    with pytest.raises(ManifestError, match="cannot be the gate"):
        Pipeline(classifier, ())
    with pytest.raises(ManifestError, match="reports no findings"):
        Pipeline(None, (quality,))
    with pytest.raises(ManifestError, match="twice"):
        Pipeline(None, (classifier, classifier))


def test_the_digest_names_all_that_changes_a_result(classifier: ModelSpec, tmp_path: Path) -> None:
    quality = gate(tmp_path, [1, 0, 0, 0, 0])
    assert quality.gate is not None
    first, second = classifier.labels
    measured = Evidence(40, 0.75, 0.5, 0.875, sensitivity=0.625)
    base = Pipeline(quality, (classifier,))
    others = [
        Pipeline(None, (classifier,)),
        Pipeline(quality, ()),
        Pipeline(quality, (classifier, replace(classifier, name="another"))),
        Pipeline(quality, (classifier,), Processing(minimum_fraction=1e-3)),
        Pipeline(quality, (classifier,), Processing(version=base.processing.version + 1)),
        Pipeline(quality, (replace(classifier, digest="1" * 64),)),
        Pipeline(quality, (replace(classifier, mode=Mode.SHADOW),)),
        Pipeline(quality, (replace(classifier, version="1.0.1"),)),
        Pipeline(quality, (replace(classifier, input=replace(classifier.input, padding=0.5)),)),
        Pipeline(quality, (replace(classifier, labels=(replace(first, threshold=0.31), second)),)),
        Pipeline(quality, (replace(classifier, labels=(replace(first, map_threshold=0.61), second)),)),
        Pipeline(quality, (replace(classifier, labels=(first, replace(second, mode=Mode.ACTIVE))),)),
        Pipeline(quality, (replace(classifier, labels=(replace(first, parent=second.name), second)),)),
        Pipeline(quality, (replace(classifier, labels=(replace(first, site=first.code), second)),)),
        Pipeline(quality, (replace(classifier, labels=(replace(first, evidence=measured), second)),)),
        Pipeline(replace(quality, gate=replace(quality.gate, min_probability=0.61)), (classifier,)),
    ]
    digests = {pipeline.digest() for pipeline in (base, *others)}
    assert len(digests) == len(others) + 1
    assert base.digest() == Pipeline(quality, (classifier,)).digest()
    assert base.digest("a", "bc") != base.digest("ab", "c") != base.digest()


def test_where_a_file_lies_does_not_change_the_digest(classifier: ModelSpec) -> None:
    moved = replace(classifier, file=Path("/elsewhere/tiny.onnx"), card=Path("/elsewhere/card.md"))
    assert Pipeline(None, (classifier,)).digest() == Pipeline(None, (moved,)).digest()


def test_composes_a_pipeline_from_names(tmp_path: Path) -> None:
    manifest(classifier_graph(tmp_path / "site-a.onnx"), "site-a")
    manifest(classifier_graph(tmp_path / "site-b.onnx"), "site-b")
    manifest(gate_graph(tmp_path / "site-gate.onnx", [1, 0, 0, 0, 0]), "site-gate", "gate", CLASSES)
    pipeline = load_pipeline(tmp_path, ["site-a"], shadow=["site-b"], gate="site-gate")
    assert [spec.name for spec in pipeline] == ["site-gate", "site-a", "site-b"]
    found = predict(pipeline)
    assert {finding.mode for finding in found.findings if finding.model == "site-b"} == {Mode.SHADOW}


@pytest.mark.parametrize("spec", tuple(read_registry(verify=False)), ids=lambda spec: spec.name)
def test_every_bundled_model_keeps_the_contract(spec: ModelSpec) -> None:
    """A registry entry tests itself: right digest, loads, answers finite values of the right shape, in any batch."""
    read_registry()
    executor = load(spec, threads=1)
    executor.warm()
    size = spec.input
    images = np.random.default_rng(2).random((3, size.height, size.width, size.channels)).astype(np.float32)
    together = executor.run(images)
    assert together["probabilities"].shape == (3, len(spec.labels)) if "probabilities" in together else True
    for name, array in executor.run(images[1:2]).items():
        np.testing.assert_array_equal(array[0], together[name][1])
    if any(label.localised for label in spec.labels):
        assert {"maps", "boxes"} & set(together)
    assert spec.card is not None
    assert "not a medical device" in spec.card.read_text().lower()


def lungs(folder: Path, *, first: slice = slice(2, 7), second: slice = slice(8, 14)) -> ModelSpec:
    """Lungs in these columns of the image's sixteenths, the patient's right one on the left."""
    maps = np.zeros((16, 16, 2), np.float32)
    maps[1:6, first, 1] = maps[1:6, second, 0] = 0.9
    return read_manifest(manifest(lungs_graph(folder / "lungs.onnx", maps), "lungs", "lungs", LUNGS))


def in_the_lung(classifier: ModelSpec) -> ModelSpec:
    return replace(classifier, labels=(replace(classifier.labels[0], site=LUNG), classifier.labels[1]))


def test_a_mask_is_clipped_to_the_lungs_and_told_by_lung_and_zone(classifier: ModelSpec, tmp_path: Path) -> None:
    """The spot lies in the upper third of the lung on the right of the picture, and reaches over its inner edge."""
    placed = in_the_lung(classifier)
    before = predict(Pipeline(None, (placed,))).findings[0]
    found = predict(Pipeline(None, (placed,), lungs=lungs(tmp_path)))
    opacity = found.findings[0]
    assert opacity.mask is not None
    assert before.mask is not None
    assert 0 < opacity.mask.sum() < before.mask.sum()
    assert not (opacity.mask & ~before.mask).any()
    assert opacity.lungs is not None
    assert opacity.hanging is Hanging.USUAL
    assert opacity.lungs.picture_left == LungShare(0.0)
    assert Zone.UPPER in opacity.lungs.picture_right.zones
    assert opacity.lungs.picture_right.share > 0
    assert [use.name for use in found.models] == ["tiny", "lungs"]
    assert found.lungs_by == "lungs"
    assert found.timings["lungs"] >= 0


def test_a_prediction_keeps_both_lungs_and_nothing_of_the_sources_size(classifier: ModelSpec, tmp_path: Path) -> None:
    dark = model_input(chestlike() * 0.4)
    found = predict(Pipeline(None, (classifier,), lungs=lungs(tmp_path)), dark)
    assert not any(finding.present for finding in found.findings)
    fields = found.lung_fields
    assert fields is not None
    assert fields.model == "lungs"
    assert set(vars(fields)) == {field.name for field in dataclass_fields(fields)}, (
        "a worker keeps it until the job ends"
    )
    first, second = fields.drawn()
    assert first.shape == second.shape == found.shape
    assert not (first & second).any()
    assert np.nonzero(first)[1].max() < np.nonzero(second)[1].min()
    assert predict(Pipeline(None, (classifier,)), dark).lung_fields is None
    narrow = lungs(tmp_path, second=slice(13, 14))
    assert predict(Pipeline(None, (classifier,), lungs=narrow), dark).lung_fields is None


def test_what_need_not_lie_in_the_lungs_stays_where_it_is(classifier: ModelSpec, tmp_path: Path) -> None:
    found, before = (predict(Pipeline(None, (classifier,), lungs=spec)).findings[0] for spec in (lungs(tmp_path), None))
    assert found.lungs is None
    assert found.hanging is Hanging.USUAL, "its side must not contradict the anatomy either"
    assert before.hanging is None
    np.testing.assert_array_equal(found.mask, before.mask)


def test_lungs_at_the_edge_are_told_of_negatives_too(classifier: ModelSpec, tmp_path: Path) -> None:
    """``chestlike`` fills columns 2 to 29 of 32, so 1 to 14 of the sixteenths."""
    dark = model_input(chestlike() * 0.4)
    for first, cut in ((slice(1, 7), True), (slice(3, 7), False)):
        found = predict(Pipeline(None, (classifier,), lungs=lungs(tmp_path, first=first)), dark)
        assert found.lungs_cut is cut
        assert not found.findings[0].present
    assert not predict(Pipeline(None, (classifier,)), dark).lungs_cut


def test_where_no_two_lungs_are_found_a_mask_stays_as_it_is(classifier: ModelSpec, tmp_path: Path) -> None:
    placed = in_the_lung(classifier)
    found = predict(Pipeline(None, (placed,), lungs=lungs(tmp_path, second=slice(13, 14)))).findings[0]
    np.testing.assert_array_equal(found.mask, predict(Pipeline(None, (placed,))).findings[0].mask)
    assert found.lungs is None


def test_a_finding_outside_of_the_lungs_is_still_reported_but_shows_no_place(
    classifier: ModelSpec, tmp_path: Path
) -> None:
    narrow = lungs(tmp_path, first=slice(1, 3), second=slice(4, 6))
    found = predict(Pipeline(None, (in_the_lung(classifier),), lungs=narrow)).findings[0]
    assert found.present
    assert not found.localised
    assert (found.mask, found.lungs) == (None, None)
    assert "no region lies in a lung" in found.reason
    assert found.heat_map is not None


def test_each_image_of_a_batch_has_its_own_lungs(classifier: ModelSpec, tmp_path: Path) -> None:
    predictor = load_predictor(Pipeline(None, (in_the_lung(classifier),), lungs=lungs(tmp_path)), threads=1)
    images = [model_input(chestlike() * 0.4), model_input(), model_input(chestlike(520, 300))]
    for together, image in zip(predictor.predict_all(images), images, strict=True):
        alone = predictor.predict(image)
        assert together.findings[0].lungs == alone.findings[0].lungs
        assert [use.name for use in together.models] == [use.name for use in alone.models]


def test_lungs_have_their_own_place_in_a_pipeline(classifier: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not say where the lungs are"):
        Pipeline(None, (), lungs=classifier)
    with pytest.raises(ManifestError, match="reports no findings"):
        Pipeline(None, (lungs(tmp_path),))
    whole = Pipeline(None, (classifier,), lungs=lungs(tmp_path))
    assert whole.digest() != Pipeline(None, (classifier,)).digest()
    turned = tmp_path / "lungs.toml"
    turned.write_text(turned.read_text().replace("left_lung", "x").replace("right_lung", "left_lung"))
    with pytest.raises(ManifestError, match="left_lung and right_lung"):
        read_manifest(turned)
