"""A segmenter's probability: from the map inside the image, by its hottest cell, its hottest share, or its area."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.findings import findings_of
from models.manifest import read_manifest
from models.model_spec import Fit, Pooling, PoolingSpec
from models.pooling import pooled
from models.radiograph.contrast import letterbox_for
from models.radiograph.geometry import Letterbox
from tests.models.samples import chestlike, classifier_graph, manifest, model_input

WIDE = Letterbox(100, 200, 100, 100)
"""An image that fills rows 25 to 74 of the input: 5,000 of its cells."""


def speckled(hot: int, value: float = 0.9) -> np.ndarray:
    """A map with so many hot cells inside the image, the rest of it at 0.1, and a fire in the padding."""
    found = np.full((100, 100), 0.1, np.float32)
    found[:25] = 1.0
    found[25:75].reshape(-1)[:hot] = value
    return found


def test_the_padding_never_counts() -> None:
    assert pooled(speckled(0), WIDE, PoolingSpec()) == pytest.approx(0.1)
    assert pooled(speckled(1), WIDE, PoolingSpec()) == pytest.approx(0.9)


def test_one_hot_pixel_is_no_finding_by_area_or_top() -> None:
    area, top = PoolingSpec(Pooling.AREA, 0.01), PoolingSpec(Pooling.TOP, 0.01)
    assert pooled(speckled(1), WIDE, area) == pytest.approx(0.1)
    assert pooled(speckled(1), WIDE, top) == pytest.approx((0.9 + 49 * 0.1) / 50)
    for spec in (area, top):
        assert pooled(speckled(50), WIDE, spec) == pytest.approx(0.9)


@pytest.mark.parametrize("hot", [49, 50, 51])
@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_by_area_a_finding_is_present_where_its_region_is_as_large(hot: int, threshold: float) -> None:
    network_map = speckled(hot)
    share = float((network_map[25:75] >= np.float32(threshold)).mean())
    present = pooled(network_map, WIDE, PoolingSpec(Pooling.AREA, 0.01)) >= np.float32(threshold)
    assert present == (share >= 0.01)


def test_a_coarse_map_has_one_cell_at_least() -> None:
    for method in Pooling:
        assert pooled(np.full((1, 1), 0.7, np.float32), WIDE, PoolingSpec(method, 0.001)) == pytest.approx(0.7)


def test_the_node_pools_as_the_manifest_says(tmp_path: Path) -> None:
    spec = read_manifest(manifest(classifier_graph(tmp_path / "s.onnx"), "s", "segmenter"))
    image = model_input(chestlike(100, 200))
    maps = speckled(1)[..., np.newaxis].repeat(2, axis=-1)
    place = letterbox_for(image, spec.input)
    by_maximum = findings_of(spec, {"maps": maps}, place, 1e-4)[0]
    by_area = findings_of(replace(spec, pooling=PoolingSpec(Pooling.AREA, 0.01)), {"maps": maps}, place, 1e-4)[0]
    assert by_maximum.present
    assert not by_area.present


@pytest.mark.parametrize("fit", list(Fit))
def test_a_mask_lies_on_what_the_network_saw(tmp_path: Path, fit: Fit) -> None:
    """The map of this network is its own input: its mask is where the picture is bright, whatever the fit."""
    spec = read_manifest(manifest(classifier_graph(tmp_path / "s.onnx"), "s", "segmenter"))
    spec = replace(spec, input=replace(spec.input, fit=fit, height=128, width=128))
    pixels = np.full((300, 200), 0.2, np.float32)
    pixels[120:180, 60:100] = 1.0
    image = model_input(pixels)
    place = letterbox_for(image, spec.input)
    seen = place.forward(image.pixels)
    found = findings_of(spec, {"maps": np.stack([seen, seen], axis=-1)}, place, 1e-4)[0]
    assert found.mask is not None
    truth = pixels >= 0.6
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.93
    assert found.heat_map is not None
    rows, columns = found.heat_map.shape
    hot = np.unravel_index(int(np.argmax(found.heat_map)), (rows, columns))
    assert 120 <= hot[0] / rows * 300 <= 180
    assert 60 <= hot[1] / columns * 200 <= 100
