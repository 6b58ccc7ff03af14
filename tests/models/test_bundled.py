"""The bundled models on real radiographs: what must be let through, what must not, and the same in every file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from config.settings import Models
from models.contract import Hanging, ModelInput, Pixels, Prediction, Zone
from models.localise import region_masks
from models.lung_fields import lung_fields
from models.model_registry import read_registry
from models.pipeline import load_pipeline
from models.predictor import Predictor, load_predictor
from models.radiograph.contrast import letterbox_for, prepare
from models.radiograph.reading import read_model_input
from models.runtime.loading import load
from workers.laterality import LEFT, RIGHT, UNKNOWN, side_of

pytestmark = pytest.mark.peer("shared-data")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    defaults = Models()
    return load_predictor(load_pipeline(None, defaults.active, gate=defaults.gate, lungs=defaults.lungs), threads=1)


def verdict(predictor: Predictor, image: ModelInput) -> str:
    not_analysed = predictor.predict(image).not_analysed
    return "frontal" if not_analysed is None else not_analysed.code


def test_chests_are_analysed_and_extremities_are_not(predictor: Predictor, shared_data: Path) -> None:
    chests = [*sorted((shared_data / "dicom").glob("*.dcm")), shared_data / "wg04" / "RG1_JLSN.dcm"]
    analysed = [verdict(predictor, read_model_input(path)) == "frontal" for path in chests]
    assert len(analysed) >= 20
    assert np.mean(analysed) >= 0.9
    for name in ("RG2_RLE.dcm", "RG3_JLSL.dcm"):
        not_analysed = predictor.predict(read_model_input(shared_data / "wg04" / name)).not_analysed
        assert not_analysed is not None
        assert not not_analysed.is_chest


def _upside_down(pixels: Pixels) -> Pixels:
    return pixels[::-1].copy()


def _on_its_side(pixels: Pixels) -> Pixels:
    return np.rot90(pixels).copy()


def _inverted(pixels: Pixels) -> Pixels:
    return 1 - pixels


def _upper_half(pixels: Pixels) -> Pixels:
    return pixels[: len(pixels) // 2].copy()


@pytest.mark.parametrize("spoil", [_upside_down, _on_its_side, _inverted, _upper_half])
def test_a_spoilt_chest_is_not_analysed(predictor: Predictor, shared_data: Path, spoil: object) -> None:
    let_through = 0
    paths = sorted((shared_data / "dicom").glob("*.dcm"))
    for path in paths:
        image = read_model_input(path)
        spoilt = replace(image, pixels=spoil(image.pixels))  # type: ignore[operator]
        let_through += verdict(predictor, spoilt) == "frontal"
    assert let_through <= len(paths) // 10


def test_a_transfer_syntax_does_not_change_the_findings(predictor: Predictor, shared_data: Path) -> None:
    data_store = pytest.importorskip("data_store", reason="pydicom-data is missing: pip install pydicom-data")
    folder = Path(data_store.__file__).parent / "data"
    plain = predictor.predict(read_model_input(folder / "RG1_UNCR.dcm"))
    assert plain.not_analysed is None
    for path, slack in ((folder / "RG1_J2KR.dcm", 0.0), (shared_data / "wg04" / "RG1_JLSN.dcm", 0.01)):
        other = predictor.predict(read_model_input(path))
        for one, two in zip(plain.findings, other.findings, strict=True):
            assert one.probability == pytest.approx(two.probability, abs=slack)
            assert (one.mask is None) == (two.mask is None)
            if one.mask is not None and two.mask is not None:
                assert (one.mask & two.mask).sum() >= 0.98 * (one.mask | two.mask).sum()


def _mirrored(image: ModelInput) -> ModelInput:
    return replace(image, pixels=image.pixels[:, ::-1].copy())


def test_a_mirrored_chest_is_never_taken_for_a_usual_one(shared_data: Path) -> None:
    """Nor a usual one for a mirrored one: MONOCHROME1, 12 bit, JPEG, and another maker's."""
    spec = read_registry().find(Models().lungs)
    executor = load(spec, device="cpu", threads=1)
    for path in [*sorted((shared_data / "dicom").glob("*.dcm")), shared_data / "wg04" / "RG1_JLSN.dcm"]:
        for turn, wrong in ((False, Hanging.MIRRORED), (True, Hanging.USUAL)):
            image = read_model_input(path)
            image = _mirrored(image) if turn else image
            letterbox = letterbox_for(image, spec.input)
            fields = lung_fields(executor.run(prepare(image, letterbox, spec.input)[np.newaxis])["maps"][0], letterbox)
            assert fields is not None, path.name
            assert fields.hanging is not wrong, (path.name, turn)


def test_rg1_has_its_opacity_in_the_right_lung_however_it_hangs(predictor: Predictor, shared_data: Path) -> None:
    """The side follows Patient Orientation; mirrored pixels with the old orientation have none."""
    image = read_model_input(shared_data / "wg04" / "RG1_JLSN.dcm")
    usual, turned = predictor.predict(image), predictor.predict(_mirrored(image))
    assert sides(usual, ("L", "F")) == {RIGHT}
    assert sides(turned, ("R", "F")) == {RIGHT}
    assert sides(turned, ("L", "F")) <= {UNKNOWN}
    assert sides(usual, ("R", "F")) == {UNKNOWN}
    assert LEFT not in sides(turned, ("L", "F"))
    opacity = next(finding for finding in usual.findings if finding.mask is not None)
    assert opacity.lungs is not None
    assert Zone.LOWER in opacity.lungs.picture_left.zones
    columns = [np.nonzero(region)[1] for region in region_masks(opacity.mask)]  # type: ignore[arg-type]
    assert all(found.max() < 0.5 * image.shape[1] for found in columns), "nothing reaches over the mediastinum"


def sides(found: Prediction, orientation: tuple[str, str]) -> set[str]:
    return {side_of(finding, found.shape, orientation) for finding in found.findings if finding.mask is not None}
