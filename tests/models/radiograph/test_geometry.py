"""The letterbox: where the image lies, and that the way back is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.model_spec import Fit
from models.radiograph.geometry import Letterbox, Window

sides = st.integers(16, 700)
networks = st.integers(16, 320)
aspects = st.sampled_from([1.0, 1.0, 0.5, 2.0, 1.3, 143 / 139])
letterboxes = st.builds(Letterbox, sides, sides, networks, networks, aspects)
laid = st.builds(Letterbox, sides, sides, networks, networks, aspects, st.sampled_from(Fit))
"""Letterboxes, stretched and cropped ones."""


@given(laid, st.floats(-2000, 2000), st.floats(-2000, 2000))
def test_the_two_maps_are_inverse(letterbox: Letterbox, x: float, y: float) -> None:
    back = letterbox.to_source(*letterbox.to_network(x, y))
    np.testing.assert_allclose(back, (x, y), atol=1e-6)


@given(letterboxes)
def test_the_image_fills_one_side_is_centred_and_keeps_its_shape(letterbox: Letterbox) -> None:
    height, width = letterbox.image_height, letterbox.image_width
    assert height == letterbox.height or width == letterbox.width
    assert 0 <= letterbox.height - height - 2 * letterbox.top <= 1
    assert 0 <= letterbox.width - width - 2 * letterbox.left <= 1
    shape = letterbox.rows * letterbox.pixel_aspect / letterbox.columns
    if height == letterbox.height:
        assert abs(width - height / shape) <= max(1.0, 0.5)
    else:
        assert abs(height - width * shape) <= max(1.0, 0.5)
    np.testing.assert_allclose(letterbox.to_network(0, 0), (letterbox.left, letterbox.top))
    corner = letterbox.to_network(letterbox.columns, letterbox.rows)
    np.testing.assert_allclose(corner, (letterbox.left + width, letterbox.top + height))


@given(laid)
def test_what_is_not_letterboxed_fills_the_input(letterbox: Letterbox) -> None:
    assume(letterbox.fit is not Fit.LETTERBOX)
    window = letterbox.window
    corners = (
        letterbox.to_network(window.left, window.top),
        letterbox.to_network(window.left + window.columns, window.top + window.rows),
    )
    np.testing.assert_allclose(corners, ((0, 0), (letterbox.width, letterbox.height)), atol=1e-6)
    if letterbox.fit is Fit.STRETCH:
        assert window == Window(0, 0, letterbox.rows, letterbox.columns)
        return
    assert window.rows == letterbox.rows or window.columns == letterbox.columns
    assert 0 <= letterbox.rows - window.rows - 2 * window.top <= 1
    assert 0 <= letterbox.columns - window.columns - 2 * window.left <= 1
    wanted, found = letterbox.height / letterbox.width, window.rows * letterbox.pixel_aspect / window.columns
    assert found == pytest.approx(wanted, rel=1 / window.rows + 1 / window.columns)


@given(laid, st.integers(0, 10**6))
@settings(deadline=None)
def test_a_mark_lands_where_the_map_says(letterbox: Letterbox, seed: int) -> None:
    """A bright rectangle in the source has its centre of mass in the network input where ``to_network`` puts it."""
    random, window = np.random.default_rng(seed), letterbox.window
    assume(min(window.rows, window.columns) >= 12)
    top = window.top + int(random.integers(0, window.rows - 8))
    left = window.left + int(random.integers(0, window.columns - 8))
    bottom = min(window.top + window.rows, top + int(random.integers(4, 60)))
    right = min(window.left + window.columns, left + int(random.integers(4, 60)))
    source = np.zeros((letterbox.rows, letterbox.columns), np.float32)
    source[top:bottom, left:right] = 1
    network = letterbox.forward(source)
    weight = network.sum()
    if weight < 1e-3:
        return
    y = (network.sum(axis=1) * (np.arange(letterbox.height) + 0.5)).sum() / weight
    x = (network.sum(axis=0) * (np.arange(letterbox.width) + 0.5)).sum() / weight
    expected = letterbox.to_network((left + right) / 2, (top + bottom) / 2)
    np.testing.assert_allclose((x, y), expected, atol=1.0)


@given(laid, st.integers(0, 10**6))
@settings(deadline=None)
def test_a_network_mask_lands_on_the_source_to_the_pixel(letterbox: Letterbox, seed: int) -> None:
    """A source pixel is in the mask of a network rectangle when its centre is inside, to half a network pixel."""
    random = np.random.default_rng(seed)
    network = np.zeros((letterbox.height, letterbox.width), np.float32)
    top, left = int(random.integers(0, letterbox.height - 4)), int(random.integers(0, letterbox.width - 4))
    bottom, right = top + int(random.integers(3, letterbox.height)), left + int(random.integers(3, letterbox.width))
    network[top:bottom, left:right] = 1
    bottom, right = min(bottom, letterbox.height), min(right, letterbox.width)
    mask = letterbox.mask_to_source(network, 0.5)
    y = np.array([letterbox.to_network(0, row + 0.5)[1] for row in range(letterbox.rows)])
    x = np.array([letterbox.to_network(column + 0.5, 0)[0] for column in range(letterbox.columns)])
    window = letterbox.window
    shrinks = max(letterbox.image_height / window.rows, letterbox.image_width / window.columns)
    slack = 0.5 + max(1.0, shrinks)
    surely = ((y > top + slack) & (y < bottom - slack))[:, None] & ((x > left + slack) & (x < right - slack))[None]
    maybe = ((y > top - slack) & (y < bottom + slack))[:, None] & ((x > left - slack) & (x < right + slack))[None]
    seen = np.zeros_like(mask)
    seen[window.top : window.top + window.rows, window.left : window.left + window.columns] = True
    assert mask[surely & seen].all()
    assert not mask[~seen].any()
    assert not mask[~maybe].any()


@given(st.integers(64, 900), st.integers(64, 900), st.integers(0, 10**6), st.sampled_from(Fit))
@settings(deadline=None)
def test_a_rectangle_survives_the_round_trip_within_a_network_pixel(
    rows: int, columns: int, seed: int, fit: Fit
) -> None:
    letterbox = Letterbox(rows, columns, 256, 224, fit=fit)
    random, window = np.random.default_rng(seed), letterbox.window
    assume(min(window.rows, window.columns) >= 64)
    tall = random.integers(window.rows // 4, window.rows // 2)
    wide = random.integers(window.columns // 4, window.columns // 2)
    top = window.top + random.integers(0, window.rows - tall)
    left = window.left + random.integers(0, window.columns - wide)
    source = np.zeros((rows, columns), np.float32)
    source[top : top + tall, left : left + wide] = 1
    mask = letterbox.mask_to_source(letterbox.forward(source), 0.5)
    found_rows, found_columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    pixel = max(window.rows / letterbox.image_height, window.columns / letterbox.image_width, 1.0) + 1e-6
    assert abs(found_rows[0] - top) <= pixel
    assert abs(found_rows[-1] + 1 - top - tall) <= pixel
    assert abs(found_columns[0] - left) <= pixel
    assert abs(found_columns[-1] + 1 - left - wide) <= pixel


def test_at_equal_size_nothing_is_changed() -> None:
    source = np.random.default_rng(1).random((48, 64)).astype(np.float32)
    letterbox = Letterbox(48, 64, 64, 64)
    network = letterbox.forward(source, padding=0.25)
    np.testing.assert_array_equal(network[8:56], source)
    assert (network[:8] == 0.25).all()
    assert (network[56:] == 0.25).all()
    np.testing.assert_array_equal(letterbox.mask_to_source(network, 0.5), source >= 0.5)


def test_shrinking_averages_and_does_not_alias() -> None:
    checks = (np.indices((400, 400)).sum(axis=0) % 2).astype(np.float32)
    np.testing.assert_allclose(Letterbox(400, 400, 50, 50).forward(checks), 0.5, atol=0.02)


def test_a_coarse_map_covers_the_whole_input() -> None:
    letterbox = Letterbox(200, 100, 64, 64)
    coarse = np.zeros((8, 8), np.float32)
    coarse[:, 4:] = 1
    mask = letterbox.mask_to_source(coarse, 0.5)
    assert not mask[:, :50].any()
    assert mask[:, 50:].all()


@given(laid)
@settings(max_examples=60, deadline=None)
def test_a_heat_map_is_small_and_has_the_shape_of_the_image(letterbox: Letterbox) -> None:
    heat = letterbox.map_to_image(np.random.default_rng(0).random((16, 16)).astype(np.float32))
    assert max(heat.shape) <= 64
    assert heat.min() >= 0
    assert heat.max() <= 1
    true = letterbox.rows * letterbox.pixel_aspect / letterbox.columns
    if letterbox.fit is Fit.LETTERBOX:
        true = letterbox.image_height / letterbox.image_width
    assert abs(heat.shape[0] / heat.shape[1] - true) <= 0.5 * true + 1


def test_a_heat_map_of_a_cropped_image_is_empty_where_the_network_saw_nothing() -> None:
    heat = Letterbox(200, 100, 64, 64, fit=Fit.CROP).map_to_image(np.ones((8, 8), np.float32))
    assert heat.shape == (64, 32)
    assert heat[18:46].min() == pytest.approx(1)
    assert heat[:15].max() == heat[49:].max() == 0


@given(laid)
@settings(max_examples=60)
def test_the_padding_is_not_inside(letterbox: Letterbox) -> None:
    whole = np.full((letterbox.height, letterbox.width), 9.0, np.float32)
    top, left = letterbox.top, letterbox.left
    whole[top : top + letterbox.image_height, left : left + letterbox.image_width] = 1
    inside = letterbox.inside(whole)
    assert inside.shape == (letterbox.image_height, letterbox.image_width)
    assert (inside == 1).all()
    assert letterbox.inside(np.zeros((1, 1), np.float32)).shape == (1, 1)


@given(laid, st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 1), st.floats(0.05, 1))
def test_boxes_come_back(letterbox: Letterbox, x: float, y: float, wide: float, tall: float) -> None:
    window = letterbox.window
    left, top = window.left + x * window.columns * 0.9, window.top + y * window.rows * 0.9
    right = min(left + wide * window.columns, window.left + window.columns)
    bottom = min(top + tall * window.rows, window.top + window.rows)
    network = [*letterbox.to_network(left, top), *letterbox.to_network(right, bottom)]
    np.testing.assert_allclose(letterbox.boxes_to_source(np.array([network])), [[left, top, right, bottom]], atol=1e-6)


def test_boxes_are_cut_to_the_image() -> None:
    found = Letterbox(100, 50, 64, 64).boxes_to_source(np.array([[-5.0, -5.0, 80.0, 80.0]], np.float32))
    np.testing.assert_array_equal(found, [[0, 0, 50, 100]])
    found = Letterbox(100, 50, 64, 64, fit=Fit.CROP).boxes_to_source(np.array([[-5.0, -5.0, 80.0, 80.0]], np.float32))
    np.testing.assert_array_equal(found, [[0, 25, 50, 75]])


@pytest.mark.parametrize("sizes", [(0, 5, 5, 5), (5, 0, 5, 5), (5, 5, 0, 5), (5, 5, 5, -1)])
def test_refuses_sizes_that_are_none(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="sizes"):
        Letterbox(*sizes)
    with pytest.raises(ValueError, match="aspect"):
        Letterbox(5, 5, 5, 5, 0.0)


def test_refuses_pixels_of_another_size() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Letterbox(10, 10, 16, 16).forward(np.zeros((10, 11), np.float32))
