"""Masks from maps: regions, specks, boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.contract import Mask
from models.localise import MapCut, mask_from_map, paste_boxes, paste_masks, region_masks, without_specks
from models.radiograph.geometry import Letterbox


def flooded(mask: Mask, minimum: int) -> NDArray[np.bool_]:
    """The same by flooding, pixel by pixel."""
    kept, seen = np.zeros_like(mask), np.zeros_like(mask)
    for start in zip(*np.nonzero(mask), strict=True):
        if seen[start]:
            continue
        stack, region = [start], []
        seen[start] = True
        while stack:
            y, x = stack.pop()
            region.append((y, x))
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    near = (y + dy, x + dx)
                    inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
                    if inside and mask[near] and not seen[near]:
                        seen[near] = True
                        stack.append(near)
        if len(region) >= minimum:
            kept[tuple(np.array(region).T)] = True
    return kept


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 10**6), st.floats(0.05, 0.95), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_drops_what_flooding_drops(rows: int, columns: int, seed: int, density: float, minimum: int) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < density
    np.testing.assert_array_equal(without_specks(mask, minimum), flooded(mask, minimum))


def test_keeps_a_spiral_whole() -> None:
    spiral = np.zeros((9, 9), np.bool_)
    spiral[0, :] = spiral[:, 8] = spiral[8, :] = spiral[2:, 0] = spiral[2, :7] = spiral[2:7, 6] = True
    np.testing.assert_array_equal(without_specks(spiral, int(spiral.sum())), spiral)
    assert not without_specks(spiral, int(spiral.sum()) + 1).any()


def test_a_map_becomes_a_mask_where_it_is_high() -> None:
    letterbox = Letterbox(400, 300, 64, 64)
    network = np.zeros((64, 64), np.float32)
    network[10:30, 20:40] = 0.9
    network[50, 50] = 1.0
    place = mask_from_map(network, letterbox, MapCut(0.5, minimum_fraction=5e-3))
    assert place.mask is not None
    rows, columns = np.nonzero(place.mask)
    expected = [*letterbox.to_source(20, 10), *letterbox.to_source(40, 30)]
    np.testing.assert_allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], expected, atol=4)
    assert place.heat_map is not None
    assert place.heat_map.shape == (64, 48)


def test_the_foot_of_a_high_peak_is_cut_off_and_a_low_map_keeps_the_flat_cut() -> None:
    letterbox = Letterbox(64, 64, 64, 64)
    peak = np.full((64, 64), 0.05, np.float32)
    peak[10:40, 10:40], peak[20:30, 20:30] = 0.3, 0.9
    flat, relative = MapCut(0.1), MapCut(0.1, 0.4)
    assert flat.mask(peak, letterbox).sum() == 900
    assert relative.mask(peak, letterbox).sum() == 100
    fifth = peak / np.float32(5)
    np.testing.assert_array_equal(flat.mask(fifth, letterbox), relative.mask(fifth, letterbox))


def test_what_lies_beside_the_image_does_not_raise_the_cut() -> None:
    letterbox = Letterbox(64, 32, 64, 64)
    network = np.zeros((64, 64), np.float32)
    network[20:30, 20:30], network[:, :8] = 0.3, 1.0  # the bar on the left of the image
    assert MapCut(0.1, 0.4).mask(network, letterbox).sum() == 100


def test_regions_come_apart_largest_first() -> None:
    mask = np.zeros((9, 9), np.bool_)
    mask[0:2, 0:2] = mask[4:8, 4:8] = mask[8, 8] = True
    regions = region_masks(mask)
    assert [int(region.sum()) for region in regions] == [17, 4]
    np.testing.assert_array_equal(regions[0] | regions[1], mask)
    assert region_masks(np.zeros((3, 3), np.bool_)) == ()


def test_a_low_map_is_no_mask() -> None:
    place = mask_from_map(np.full((8, 8), 0.4, np.float32), Letterbox(100, 100, 64, 64), MapCut(0.5))
    assert place.mask is None
    assert place.heat_map is not None


def test_boxes_come_sorted_cut_and_without_the_improbable() -> None:
    letterbox = Letterbox(200, 200, 64, 64)
    edges = np.array([[0, 0, 32, 32], [16, 16, 80, 80], [5, 5, 5, 9], [1, 1, 9, 9]], np.float32)
    found = paste_boxes(edges, np.array([0.6, 0.9, 0.9, 0.2], np.float32), letterbox, 0.5)
    assert [(box.x, box.y, box.width, box.height) for box in found] == [(50, 50, 150, 150), (0, 0, 100, 100)]
    assert found[0].probability == pytest.approx(0.9)


def test_a_detector_s_mask_is_what_its_map_has_inside_its_boxes() -> None:
    letterbox = Letterbox(200, 200, 50, 50)
    network_map = np.zeros((50, 50), np.float32)
    network_map[10:20, 10:20] = 0.9
    network_map[30:40, 30:40] = 0.9  # of a detection that was too improbable to be a box
    boxes = paste_boxes(np.array([[8, 8, 18, 22]], np.float32), np.array([0.7], np.float32), letterbox, 0.5)
    place = paste_masks(network_map, boxes, letterbox, MapCut(0.5))
    assert place.boxes == boxes
    assert place.mask is not None
    rows, columns = np.nonzero(place.mask)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (40, 80, 40, 72)
    assert place.heat_map is not None
    assert paste_masks(network_map * 0.1, boxes, letterbox, MapCut(0.5)).mask is None
