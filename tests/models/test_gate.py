"""The pixel gate: cheap checks and the verdict of a gate network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract import ModelInput
from models.gate import NotAnalysedCode, assess, inspect
from models.model_spec import Activation, Code, GateSpec, InputSpec, LabelSpec, ModelKind, ModelSpec
from tests.models.samples import chestlike, model_input

CLASSES = ("frontal", "rotated", "inverted", "cropped", "other")
GATE = ModelSpec(
    name="gate",
    version="1",
    title="Gate",
    kind=ModelKind.GATE,
    file=Path("gate.onnx"),
    digest="0" * 64,
    device_uid="1.2",
    input=InputSpec(32, 32),
    activation=Activation.PROBABILITY,
    labels=tuple(LabelSpec(name, Code(name, "99PLEURA", name), 0.5) for name in CLASSES),
    gate=GateSpec(min_probability=0.7, distance_threshold=10.0),
)


def code_of(image: ModelInput) -> str | None:
    reason = inspect(image)
    return None if reason is None else reason.code


def test_a_radiograph_passes() -> None:
    assert inspect(model_input()) is None


@pytest.mark.parametrize("upright", [("L", "F"), ("R", "F"), ("LA", "F"), ("L", "FP"), None])
def test_an_orientation_with_the_head_up_passes(upright: tuple[str, str] | None) -> None:
    assert inspect(replace(model_input(), patient_orientation=upright)) is None


@pytest.mark.parametrize("turned", [("L", "H"), ("R", "H"), ("F", "L"), ("H", "R"), ("A", "F"), ("P", "F"), ("L", "P")])
def test_an_orientation_upside_down_turned_or_lateral_is_not_analysed(turned: tuple[str, str]) -> None:
    assert code_of(replace(model_input(), patient_orientation=turned)) == "orientation"


@pytest.mark.parametrize(
    ("pixels", "code"),
    [
        (np.zeros((300, 300), np.float32), "blank"),
        (np.full((300, 300), 0.5, np.float32), "blank"),
        (0.5 + 0.02 * chestlike(), "flat"),
        ((chestlike() > 0.5).astype(np.float32), "saturated"),
        (chestlike(127, 300), "too_small"),
        (chestlike(300, 127), "too_small"),
        (chestlike(1000, 300), "extreme_shape"),
        (chestlike(200, 600), "extreme_shape"),
    ],
)
def test_cheap_checks(pixels: np.ndarray, code: str) -> None:
    assert code_of(model_input(pixels.astype(np.float32))) == code


def test_shape_is_analysed_in_millimetres() -> None:
    squeezed = chestlike(200, 600)
    assert code_of(ModelInput(squeezed, "1.2", pixel_aspect=3.0)) is None
    assert code_of(ModelInput(chestlike(), "1.2", pixel_aspect=3.0)) == "extreme_shape"


def test_a_wide_black_border_is_no_fault() -> None:
    pixels = np.zeros((600, 500), np.float32)
    pixels[100:500, 100:400] = chestlike(400, 300)
    assert code_of(model_input(pixels)) is None


@pytest.mark.parametrize(
    ("probabilities", "distance", "code"),
    [
        ([0.9, 0.1, 0, 0, 0], None, None),
        ([0.9, 0.1, 0, 0, 0], 9.9, None),
        ([0.9, 0.1, 0, 0, 0], 10.1, "unsure"),
        ([0.7, 0.3, 0, 0, 0], 1, None),
        ([0.69, 0.31, 0, 0, 0], 1, "unsure"),
        ([0.1, 0.9, 0, 0, 0], 1, "rotated"),
        ([0.1, 0, 0.9, 0, 0], 1, "inverted"),
        ([0.1, 0, 0, 0.9, 0], 1, "cropped"),
        ([0.1, 0, 0, 0, 0.9], 1, "not_frontal_chest"),
        ([0.1, 0, 0, 0, 0.9], 99, "not_frontal_chest"),
        ([0.4, 0, 0, 0, 0.6], 1, "unsure"),
        ([0.0, 0.5, 0.5, 0, 0], 1, "unsure"),
    ],
)
def test_the_verdict(probabilities: list[float], distance: float | None, code: str | None) -> None:
    reason = assess(probabilities, distance, GATE)
    assert (None if reason is None else reason.code) == code


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), st.none() | st.floats(0, 100))
def test_nothing_passes_that_is_not_surely_frontal(probabilities: list[float], distance: float | None) -> None:
    if assess(probabilities, distance, GATE) is None:
        assert probabilities[0] >= 0.7
        assert probabilities[0] == max(probabilities)
        assert distance is None or distance <= 10


def test_refuses_what_is_no_gate() -> None:
    with pytest.raises(ValueError, match="no gate"):
        assess([0.5, 0.5], None, GATE)


def test_every_code_has_a_sentence_and_a_side() -> None:
    for code in NotAnalysedCode:
        assert code.sentence.endswith(".")
    assert not NotAnalysedCode.NOT_FRONTAL_CHEST.is_chest
    assert NotAnalysedCode.UNSURE.is_chest
