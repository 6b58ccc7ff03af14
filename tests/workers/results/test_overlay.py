"""Outlines and text on a copy of a radiograph."""

from __future__ import annotations

import numpy as np

from models.contract import ModelInput
from workers.results.overlay import colour_of, draw_masks

EMPTY = np.zeros((400, 800), dtype=bool)
MASK = EMPTY.copy()
MASK[200:300, 600:700] = True


def image(rows: int, columns: int, aspect: float = 1.0) -> ModelInput:
    return ModelInput(np.full((rows, columns), 0.5, dtype=np.float32), "1.2.3", pixel_aspect=aspect)


def test_the_outline_is_drawn_along_the_edge_of_the_mask_and_nowhere_else() -> None:
    shown = image(400, 800)
    plain = np.asarray(draw_masks(shown, "", [("", EMPTY)]), dtype=int)[-400:]
    drawn = np.asarray(draw_masks(shown, "", [("", MASK)]), dtype=int)[-400:]
    rows, columns = np.nonzero((plain != drawn).any(axis=2))
    assert np.abs(np.array([rows.min(), rows.max(), columns.min(), columns.max()]) - (200, 300, 600, 700)).max() <= 2
    assert tuple(drawn[200, 650]) == colour_of(0)
    assert tuple(drawn[250, 650]) == (128, 128, 128)


def test_pixels_are_shown_square_below_a_band_with_the_banner() -> None:
    picture = draw_masks(image(500, 500, aspect=2.0), "An image", [])
    band = picture.height - 768
    assert (picture.width, band > 0) == (384, True)
    assert np.asarray(picture)[:band].max() > 200


def test_a_mask_on_another_grid_is_only_named() -> None:
    assert np.array_equal(
        np.asarray(draw_masks(image(300, 300), "", [("one", MASK)]))[-768:],
        np.asarray(draw_masks(image(300, 300), "", [("one", EMPTY)]))[-768:],
    )
