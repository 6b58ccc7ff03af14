"""One finding of two networks: who says whether and who says where, and which of two answers is sent."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from models.contract import Finding, ModelInput, Prediction
from models.lung_fields import LUNG
from models.manifest import ManifestError, read_manifest
from models.model_registry import BUNDLED
from models.model_spec import CalibrationSpec, Code, LabelSpec, Mode, ModelSpec
from models.pipeline import Pipeline
from models.predictor import load_predictor
from models.same_finding import reconciled, sent_twice
from tests.models.samples import classifier_graph, manifest, model_input
from tests.models.test_predictor import lungs

SIDE = 320
OPACITY = Code("112001", "DCM", "Opacity")
BASE = read_manifest(BUNDLED / "chest-opacity.toml")


def spots() -> ModelInput:
    """A bright spot in either lung of ``lungs``, brighter on the right of the picture, joined by a grey band."""
    pixels = np.full((SIDE, SIDE), 0.25, np.float32)
    pixels[40:100, 50:270] = 0.7
    pixels[40:100, 60:120] = 0.8
    pixels[40:100, 200:260] = 1.0
    return model_input(pixels)


def whether(folder: Path, threshold: float = 0.3) -> ModelSpec:
    """A classifier that says about 0.4 of :func:`spots`."""
    spec = read_manifest(manifest(classifier_graph(folder / "whether.onnx", bias=0.1), "whether"))
    return replace(spec, labels=(replace(spec.labels[0], site=LUNG, threshold=threshold), spec.labels[1]))


def where(folder: Path, **changes: object) -> ModelSpec:
    """A segmenter whose map is the image."""
    spec = read_manifest(manifest(classifier_graph(folder / "where.onnx"), "where", "segmenter"))
    label = replace(spec.labels[0], site=LUNG, lesions=True, place_of="whether", map_threshold=0.65)
    return replace(spec, labels=(replace(label, **changes), spec.labels[1]))  # type: ignore[arg-type]


def predict(folder: Path, *models: ModelSpec, clipped: bool = True) -> Prediction:
    pipeline = Pipeline(None, models, lungs=lungs(folder) if clipped else None)
    return load_predictor(pipeline, threads=1).predict(spots())


def of(found: Prediction, model: str) -> Finding:
    return next(finding for finding in found.findings if finding.model == model)


def test_one_finding_goes_out_with_the_answer_of_one_and_the_place_of_the_other(tmp_path: Path) -> None:
    alone = of(predict(tmp_path, whether(tmp_path)), "whether")
    found = predict(tmp_path, whether(tmp_path), where(tmp_path))
    opacity, other = of(found, "whether"), of(found, "where")
    assert [each.model for each in found.reportable if each.label == "lung_opacity"] == ["whether"]
    assert (opacity.present, opacity.probability, opacity.threshold) == (True, alone.probability, alone.threshold)
    assert opacity.placed_by == "where"
    assert opacity.lungs == other.lungs is not None
    np.testing.assert_array_equal(opacity.mask, other.mask)
    # The other finding is stored with its own probability, for `pleura drift`, and says why it was not sent.
    assert other.mode is Mode.SHADOW
    assert other.probability != opacity.probability
    assert other.reason == "only stored: its place is that of the finding of whether"
    assert len(found.findings) == 4


def test_where_one_sees_nothing_the_other_s_place_does_not_go_out(tmp_path: Path) -> None:
    """A finding that is not detected has no outline; nothing but the stored finding tells of the disagreement."""
    found = predict(tmp_path, whether(tmp_path, threshold=0.9), where(tmp_path))
    opacity, other = of(found, "whether"), of(found, "where")
    assert (opacity.present, opacity.mask, opacity.lesions) == (False, None, ())
    assert (other.present, other.mode) == (True, Mode.SHADOW)


def test_a_present_finding_whose_place_is_not_found_says_so_and_shows_none(tmp_path: Path) -> None:
    found = predict(tmp_path, whether(tmp_path), where(tmp_path, threshold=0.999, map_threshold=0.999))
    opacity = of(found, "whether")
    assert (opacity.present, opacity.mask) == (True, None)
    assert opacity.reason == "present, but where marks no region"


@pytest.mark.parametrize("shadowed", ["whether", "where"])
def test_a_model_in_shadow_neither_gives_nor_gets_a_place(tmp_path: Path, shadowed: str) -> None:
    """A place that has not been shown to hold (`figures.LEAST_DICE`, `LEAST_POINTING`) ships in shadow."""
    specs = [
        replace(spec, mode=Mode.SHADOW) if spec.name == shadowed else spec
        for spec in (whether(tmp_path), where(tmp_path))
    ]
    found = predict(tmp_path, *specs)
    alone = of(predict(tmp_path, specs[0]), "whether")
    opacity = of(found, "whether")
    assert opacity.placed_by == ""
    np.testing.assert_array_equal(opacity.mask, alone.mask)
    assert [each.model for each in found.reportable if each.label == "lung_opacity"] == [
        "whether" if shadowed == "where" else "where"
    ]


def test_where_the_other_model_does_not_run_the_segmenter_reports_itself(tmp_path: Path) -> None:
    (opacity, *_) = predict(tmp_path, where(tmp_path)).reportable
    assert (opacity.model, opacity.present, len(opacity.lesions)) == ("where", True, 2)


def test_a_place_of_what_the_other_model_does_not_report_is_refused(tmp_path: Path) -> None:
    spec = where(tmp_path)
    lacking = replace(spec, labels=(replace(spec.labels[0], name="nodule"), spec.labels[1]))
    with pytest.raises(ManifestError, match="'where' has the place of 'nodule', which 'whether' does not report"):
        Pipeline(None, (whether(tmp_path), lacking))
    with pytest.raises(ManifestError, match="two models have the place of 'lung_opacity' of 'whether'"):
        Pipeline(None, (whether(tmp_path), spec, replace(spec, name="twin")))
    replacing = replace(spec, labels=(replace(spec.labels[0], place_of="", replaces="whether"), spec.labels[1]))
    with pytest.raises(ManifestError, match="two models have the place of 'lung_opacity' of 'whether', or replace it"):
        Pipeline(None, (whether(tmp_path), spec, replace(replacing, name="twin")))


@pytest.mark.parametrize(
    ("kind", "line", "complaint"),
    [
        ("classifier", "lesions = true", 'belong to kind = "segmenter"'),
        ("classifier", 'place_of = "b"', 'belong to kind = "segmenter"'),
        ("segmenter", 'place_of = "a"', "name another model"),
        ("classifier", 'replaces = "a"', "name another model"),
        ("segmenter", 'place_of = "b"\nreplaces = "b"', "exclude each other"),
        ("detector", "calibration = { slope = 2.0 }", 'belongs to kind = "classifier" or "segmenter"'),
        ("lungs", 'replaces = "b"', "belongs to models that report findings"),
    ],
)
def test_a_manifest_says_what_makes_no_sense(tmp_path: Path, kind: str, line: str, complaint: str) -> None:
    file = manifest(classifier_graph(tmp_path / "a.onnx"), "a", kind)
    file.write_text(file.read_text().replace("localised = true", f"localised = true\n{line}"))
    with pytest.raises(ManifestError, match=complaint):
        read_manifest(file)


def replacing(folder: Path, **changes: object) -> ModelSpec:
    """A segmenter whose finding goes out in the place of the classifier's."""
    return where(folder, place_of="", replaces="whether", **changes)


def part_of_whole(folder: Path, own: float = 0.0) -> ModelSpec:
    """The classifier, with its other label as what an opacity is part of."""
    spec = whether(folder)
    whole = replace(spec.labels[1], threshold=0.7, mode=Mode.ACTIVE)
    opacity = replace(spec.labels[0], parent=whole.name, calibration=CalibrationSpec(offset=own))
    return replace(spec, labels=(opacity, whole))


def test_the_better_of_two_networks_is_sent_and_the_other_one_stored(tmp_path: Path) -> None:
    alone = of(predict(tmp_path, whether(tmp_path)), "whether")
    found = predict(tmp_path, whether(tmp_path), replacing(tmp_path))
    sent, stored = of(found, "where"), of(found, "whether")
    assert [each.model for each in found.reportable if each.label == "lung_opacity"] == ["where"]
    assert (sent.mode, sent.placed_by, len(sent.lesions)) == (Mode.ACTIVE, "", 2)
    assert (stored.mode, stored.probability) == (Mode.SHADOW, alone.probability)
    assert stored.reason == "only stored: where says it in the place of whether"


@pytest.mark.parametrize("own", [-9.0, 0.0, 9.0])
def test_what_the_finding_is_part_of_follows_from_the_one_that_is_sent(tmp_path: Path, own: float) -> None:
    """However sure or unsure the replaced finding is (``own``), nothing that is sent depends on it any more."""
    found = predict(tmp_path, part_of_whole(tmp_path, own), replacing(tmp_path))
    sent, whole = of(found, "where"), found.findings[1]
    assert whole.label == "other"
    assert whole.mode is Mode.ACTIVE
    assert whole.probability == sent.probability
    assert sent.parent == "other", "so that a report does not name the whole beside it"
    absent = replacing(tmp_path, threshold=0.9, calibration=CalibrationSpec(offset=-30.0))
    whole = predict(tmp_path, part_of_whole(tmp_path, own), absent).findings[1]
    assert (whole.probability, whole.present, whole.reason) == (whole.own_probability, False, "")


def test_a_finding_that_is_sent_makes_the_whole_present(tmp_path: Path) -> None:
    unsure = replacing(tmp_path, threshold=0.4, calibration=CalibrationSpec(slope=1e-3))
    found = predict(tmp_path, part_of_whole(tmp_path, -9.0), unsure)
    whole = found.findings[1]
    assert of(found, "where").probability == pytest.approx(0.5, abs=0.01)
    assert (whole.present, whole.implied_by, whole.reason) == (True, "lung_opacity", "follows from lung opacity")


@pytest.mark.parametrize("shadowed", [True, False])
def test_what_is_in_shadow_or_does_not_run_replaces_nothing(tmp_path: Path, shadowed: bool) -> None:
    alone = predict(tmp_path, part_of_whole(tmp_path))
    others = (replace(replacing(tmp_path), mode=Mode.SHADOW),) if shadowed else ()
    found = predict(tmp_path, part_of_whole(tmp_path), *others)
    for before, after in zip(alone.reportable, found.reportable, strict=True):
        assert (before.label, before.model, before.probability) == (after.label, after.model, after.probability)
        np.testing.assert_array_equal(before.mask, after.mask)


def says(model: str, replaces: str = "", **changes: object) -> ModelSpec:
    """A model that is never loaded, with one label."""
    label = LabelSpec("lung_opacity", OPACITY, 0.5, replaces=replaces)
    return replace(BASE, name=model, labels=(replace(label, **changes),))  # type: ignore[arg-type]


def said(model: str, probability: float | None, mode: Mode = Mode.ACTIVE) -> Finding:
    return Finding("lung_opacity", OPACITY, model, probability, 0.5, mode, own_probability=probability)


def whole(model: str, probability: float) -> Finding:
    return replace(said(model, probability), label="abnormal")


CHAIN = (
    replace(says("first"), labels=(says("first", parent="abnormal").labels[0], LabelSpec("abnormal", OPACITY, 0.7))),
    says("second", "first"),
    says("third", "second"),
)


@pytest.mark.parametrize("order", list(permutations(CHAIN)))
@pytest.mark.parametrize("middle", [Mode.ACTIVE, Mode.SHADOW])
def test_of_three_networks_that_replace_each_other_the_last_is_sent(order: tuple[ModelSpec, ...], middle: Mode) -> None:
    """A site's own network replaces chest-opacity, which replaces chest-classifier; whatever the one between does."""
    findings = [said("first", 0.1), whole("first", 0.2), said("second", 0.1, middle), said("third", 0.9)]
    models = [replace(spec, mode=middle) if spec.name == "second" else spec for spec in order]
    found = {(each.model, each.label): each for each in reconciled(findings, models)}
    sent = [model for (model, label), each in found.items() if label == "lung_opacity" and each.mode is Mode.ACTIVE]
    assert sent == ["third"]
    assert found["third", "lung_opacity"].parent == "abnormal"
    assert (found["first", "abnormal"].probability, found["first", "abnormal"].present) == (0.9, True)


@pytest.mark.parametrize("kept", [("first", "third"), ("third", "first"), ("second", "third"), ("first",)])
def test_a_network_replaces_over_one_that_does_not_run(kept: tuple[str, ...]) -> None:
    """A routing rule may choose the first and the last network only."""
    models = Pipeline(None, CHAIN).only(kept).models
    findings = [said(name, 0.9) for name in kept] + ([whole("first", 0.2)] if "first" in kept else [])
    found = [each for each in reconciled(findings, models) if each.label == "lung_opacity"]
    assert [each.model for each in found if each.mode is Mode.ACTIVE] == [
        max(kept, key=["first", "second", "third"].index)
    ]


def test_a_place_goes_over_a_network_that_does_not_run(tmp_path: Path) -> None:
    placing = replace(where(tmp_path, place_of="second"), name="fourth")
    chosen = Pipeline(None, (*CHAIN[:2], placing)).only(["first", "fourth"])
    assert chosen.models[1].labels[0].place_of == "first"


def test_networks_that_replace_each_other_in_a_circle_are_refused() -> None:
    for models in permutations([says("a", "b"), says("b", "c"), says("c", "a")]):
        with pytest.raises(ManifestError, match="each replaces 'lung_opacity' of the next one"):
            Pipeline(None, models)


def test_what_two_networks_send_beside_each_other_is_told(tmp_path: Path) -> None:
    beside = says("beside")
    assert sent_twice((*CHAIN, beside)) == {"lung_opacity": ("third", "beside")}
    assert sent_twice(CHAIN) == sent_twice((*CHAIN, replace(beside, mode=Mode.SHADOW))) == {}
    assert sent_twice((*CHAIN, replace(beside, labels=(replace(beside.labels[0], mode=Mode.SHADOW),)))) == {}
    assert sent_twice((whether(tmp_path), where(tmp_path))) == {}
    assert sent_twice((says("second", "first"), beside)) == {"lung_opacity": ("second", "beside")}


def test_what_is_only_a_place_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'other' replaces 'lung_opacity' of 'where', which is only a place"):
        Pipeline(None, (whether(tmp_path), where(tmp_path), says("other", "where")))


@pytest.mark.parametrize(
    ("second", "first", "sent"), [(None, 0.9, "first"), (0.2, None, "second"), (None, None, "both")]
)
def test_no_finding_is_sent_beside_one_of_the_same_name_that_has_no_answer(
    second: float | None, first: float | None, sent: str
) -> None:
    """A vendor's program may say that it cannot tell: "not assessed" contradicts the answer of the other one."""
    found = reconciled([said("first", first), said("second", second)], [says("first"), says("second", "first")])
    assert [each.model for each in found if each.mode is Mode.ACTIVE] == (
        [sent] if sent != "both" else ["first", "second"]
    )


def test_the_one_that_is_sent_is_present_where_a_part_of_it_is() -> None:
    """The replaced network sends a part of the finding that another one says better."""
    parts = (says("first").labels[0], LabelSpec("nodule", OPACITY, 0.5, parent="lung_opacity"))
    nodule = replace(said("first", 0.8), label="nodule")
    findings = [said("first", 0.8), nodule, said("second", 0.1)]
    found = reconciled(findings, [replace(says("first"), labels=parts), says("second", "first")])
    assert [(each.model, each.probability, each.mode.value) for each in found] == [
        ("first", 0.8, "shadow"),
        ("first", 0.8, "active"),
        ("second", 0.8, "active"),
    ]


def test_the_whole_follows_from_what_is_sent_although_only_a_part_of_that_makes_it_present() -> None:
    implied = replace(said("second", 0.3), implied_by="nodule")
    found = reconciled([said("first", 0.1), whole("first", 0.2), implied], CHAIN[:2])
    assert [(each.label, each.present, each.implied_by) for each in found][1:] == [
        ("abnormal", True, "lung_opacity"),
        ("lung_opacity", True, "nodule"),
    ]


def test_a_calibrated_map_scales_the_image_and_each_lesion(tmp_path: Path) -> None:
    plain = of(predict(tmp_path, replacing(tmp_path)), "where")
    scaled = of(predict(tmp_path, replacing(tmp_path, calibration=CalibrationSpec(0.5, 1.0))), "where")

    def expected(probability: float | None) -> float:
        assert probability is not None
        inside = min(max(probability, 1e-4), 1 - 1e-4)
        return 1 / (1 + ((1 - inside) / inside) ** 0.5 / np.e)

    assert scaled.probability == pytest.approx(expected(plain.probability), abs=1e-4)
    for after, before in zip(scaled.lesions, plain.lesions, strict=True):
        assert after.probability == pytest.approx(expected(before.probability), abs=1e-4)
        np.testing.assert_array_equal(after.mask, before.mask)
