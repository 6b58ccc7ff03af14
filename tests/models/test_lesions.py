"""Lesions of one mask, and one finding of two networks: who says whether, and who says where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.contract import Code, Finding, Mode, ModelInput, ModelSpec, Pooling, PoolingSpec, Prediction, Zone
from models.lesions import MOST, with_lesions
from models.lung_fields import LUNG
from models.manifest import ManifestError, read_manifest
from models.pipeline import Pipeline
from models.predictor import load_predictor
from tests.models.samples import classifier_graph, manifest, model_input
from tests.models.test_predictor import lungs

SIDE = 320


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


def test_a_lesion_is_one_region_in_one_lung_with_its_own_probability(tmp_path: Path) -> None:
    opacity = of(predict(tmp_path, whether(tmp_path), where(tmp_path)), "whether")
    first, second = opacity.lesions
    assert first.probability == pytest.approx(1.0, abs=0.02)
    assert second.probability == pytest.approx(0.8, abs=0.02)
    # The brighter spot lies on the right of the picture; the band between them lies in no lung.
    assert np.nonzero(first.mask)[1].min() >= SIDE / 2 > np.nonzero(second.mask)[1].max()
    np.testing.assert_array_equal(first.mask | second.mask, opacity.mask)
    assert first.lungs is not None
    assert second.lungs is not None
    assert first.lungs.picture_left.zones == second.lungs.picture_right.zones == ()
    assert Zone.UPPER in first.lungs.picture_right.zones
    joined = of(predict(tmp_path, whether(tmp_path), where(tmp_path), clipped=False), "whether")
    assert len(joined.lesions) == 1, "without lungs the band joins them"


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


@pytest.mark.parametrize(
    ("kind", "line", "complaint"),
    [
        ("classifier", "lesions = true", 'belong to kind = "segmenter"'),
        ("classifier", 'place_of = "b"', 'belong to kind = "segmenter"'),
        ("segmenter", 'place_of = "a"', "names another model"),
    ],
)
def test_a_manifest_says_what_makes_no_sense(tmp_path: Path, kind: str, line: str, complaint: str) -> None:
    file = manifest(classifier_graph(tmp_path / "a.onnx"), "a", kind)
    file.write_text(file.read_text().replace("localised = true", f"localised = true\n{line}"))
    with pytest.raises(ManifestError, match=complaint):
        read_manifest(file)


def test_many_regions_are_told_apart_up_to_a_number() -> None:
    mask = np.zeros((64, 64), np.bool_)
    for number in range(16):
        row, column = divmod(number, 4)
        mask[row * 16 : row * 16 + 4 + (number < 8), column * 16 : column * 16 + 4] = True
    heat = np.tile(np.linspace(0.1, 0.9, 64, dtype=np.float32), (64, 1))
    code = Code("112001", "DCM", "Opacity")
    found = with_lesions(Finding("a", code, "m", 0.9, 0.5, mask=mask, heat_map=heat), PoolingSpec(Pooling.TOP, 0.001))
    assert len(found.lesions) == MOST
    assert np.array([lesion.mask for lesion in found.lesions]).sum() == mask.sum()
    probabilities = [lesion.probability for lesion in found.lesions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert with_lesions(replace(found, mask=None, lesions=()), PoolingSpec()).lesions == ()
