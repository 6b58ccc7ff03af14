"""Lesions of one mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.contract import Finding, Zone
from models.lesions import MOST, with_lesions
from models.model_spec import Code, Pooling, PoolingSpec
from tests.models.test_same_finding import SIDE, of, predict, where, whether


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
