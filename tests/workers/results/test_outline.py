"""Outlines against a plain reference: the polygon filled again, pixel by pixel."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from models.contract import Box
from workers.results.outline import (
    MAXIMUM_PIXELS,
    MAXIMUM_POINTS,
    MAXIMUM_REGIONS,
    TOLERANCE,
    _boundaries,
    box_outline,
    outlines,
)

masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def winding(loops, shape):
    """How often the loops go round each pixel centre, by counting vertical pieces to the left of it."""
    count = np.zeros(shape, dtype=int)
    for loop in loops:
        for (x0, y0), (x1, y1) in pairwise(loop):
            if x0 == x1:
                low, high = sorted((int(y0), int(y1)))
                count[low:high, int(x0) :] += 1 if y1 < y0 else -1
    return count


@given(masks)
@settings(max_examples=300, deadline=None)
def test_boundaries_enclose_exactly_the_regions_that_share_an_edge_and_their_holes(mask):
    image = pytest.importorskip("scipy.ndimage", reason="SciPy is missing: pip install '.[train]'")
    labels, regions = image.label(mask)
    found = _boundaries(mask)
    assert len(found) == regions
    around = np.ones((3, 3))  # what lies around a region is connected at corners, too
    filled = sum((image.binary_fill_holes(labels == one, around).astype(int) for one in range(1, regions + 1)), 0)
    assert np.array_equal(winding(found, mask.shape), filled + np.zeros(mask.shape, int))
    for loop in found:
        assert np.array_equal(loop[0], loop[-1])
        steps = np.diff(loop, axis=0) != 0
        assert (steps.sum(axis=1) == 1).all()  # along one axis
        assert (steps[1:, 0] != steps[:-1, 0]).all()  # and round a corner


def test_a_rectangle_is_its_four_corners_on_pixel_edges():
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:5, 3:11] = True
    (outline,), left_out = outlines(mask)
    assert left_out == 0
    assert outline.area == 24
    assert sorted(set(map(tuple, outline.points.tolist()))) == [(3, 2), (3, 5), (11, 2), (11, 5)]
    assert np.array_equal(outline.points[0], outline.points[-1])


def test_a_hole_leaves_the_outer_boundary():
    mask = np.ones((9, 9), dtype=bool)
    mask[3:6, 3:6] = False
    (outline,), left_out = outlines(mask)
    assert (outline.area, left_out) == (81, 0)


def test_pixels_that_touch_at_a_corner_are_two_regions():
    assert len(outlines(np.eye(2, dtype=bool))[0]) == 2


def test_the_largest_regions_come_first_and_the_rest_is_counted():
    mask = np.zeros((10, 60), dtype=bool)
    for index in range(14):
        mask[: 2 + index % 3, index * 4 : index * 4 + 2] = True
    drawn, left_out = outlines(mask)
    assert len(drawn) == MAXIMUM_REGIONS
    assert left_out == 4
    assert [item.area for item in drawn] == sorted((item.area for item in drawn), reverse=True)


def test_an_empty_mask_has_no_outline():
    assert outlines(np.zeros((4, 4), dtype=bool)) == ((), 0)


def test_a_curved_region_is_thinned_and_still_covers_it():
    rows, columns = np.mgrid[:900, :700]
    mask = ((rows - 400) / 300) ** 2 + ((columns - 350) / 200) ** 2 < 1
    (outline,), _ = outlines(mask)
    assert len(outline.points) < 200
    picture = Image.new("1", (700, 900))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in outline.points - 0.5], fill=1)
    filled = np.asarray(picture)
    assert (filled & mask).sum() / (filled | mask).sum() > 0.99


def test_thinning_stays_within_its_tolerance_of_every_corner():
    rows, columns = np.mgrid[:500, :500]
    turned = np.arctan2(rows - 250, columns - 250)
    mask = np.hypot(rows - 250, columns - 250) < 150 + 30 * np.sin(11 * turned)
    ((outline,), _), (boundary,) = outlines(mask), _boundaries(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corners = set(map(tuple, boundary.tolist()))
    assert set(map(tuple, outline.points.tolist())) <= corners
    assert len(outline.points) < len(boundary) / 5
    starts, along = outline.points[:-1], np.diff(outline.points, axis=0)
    for corner in boundary:
        share = np.clip(((corner - starts) * along).sum(axis=1) / (along**2).sum(axis=1), 0, 1)
        assert np.hypot(*(corner - starts - share[:, None] * along).T).min() <= TOLERANCE + 1e-9
    assert outline.points.min(axis=0).tolist() == pytest.approx([columns[0], rows[0]], abs=TOLERANCE)


def test_a_very_large_region_is_outlined_on_a_coarser_grid_that_covers_it():
    mask = np.ones((2001, MAXIMUM_PIXELS // 2000), dtype=bool)
    ((outline,), left_out) = outlines(mask)
    assert (outline.points.min(axis=0).tolist(), left_out) == ([0, 0], 0)
    assert outline.points.max(axis=0).tolist() == pytest.approx([mask.shape[1], 2001], abs=1)


def test_a_ragged_region_keeps_within_the_length_of_an_explicit_vr():
    noise = np.random.default_rng(7).random((400, 400)) < 0.8
    drawn, _ = outlines(noise)
    assert all(len(item.points) <= MAXIMUM_POINTS for item in drawn)


def test_noise_of_any_size_is_outlined_on_a_coarser_grid():
    noise = np.zeros((3000, 2500), dtype=bool)
    noise[100:2900, 200:2400] = np.random.default_rng(3).random((2800, 2200)) < 0.5
    drawn, _ = outlines(noise)
    assert drawn[0].points.min(axis=0).tolist() == [200, 100]
    assert drawn[0].points.max(axis=0) == pytest.approx([2400, 2900], abs=16)


def test_a_box_is_closed_and_clockwise():
    outline = box_outline(Box(4, 8, 10, 12.5, 0.75))
    assert outline.points.tolist() == [[4, 8], [14, 8], [14, 20.5], [4, 20.5], [4, 8]]
    assert outline.area == 125
