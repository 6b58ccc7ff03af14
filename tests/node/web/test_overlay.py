from __future__ import annotations

import numpy as np

from node.web.overlay import Region, colour_of, draw_overlay


def test_the_region_is_drawn_where_the_mask_is_and_nowhere_else() -> None:
    pixels = np.full((400, 800), 0.5, dtype=np.float32)
    mask = np.zeros((400, 800), dtype=bool)
    mask[200:300, 600:700] = True
    plain = np.asarray(draw_overlay(pixels, [], [], width=800), dtype=int)
    drawn = np.asarray(draw_overlay(pixels, [Region("", mask)], [], width=800), dtype=int)
    changed = (plain != drawn).any(axis=2)
    changed[:60, :] = False  # the name of the region is written there
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (200, 299, 600, 699)
    assert tuple(drawn[200, 650]) == colour_of(0)


def test_the_aspect_ratio_is_kept_and_the_banner_is_always_there() -> None:
    pixels = np.zeros((500, 250), dtype=np.float32)
    image = draw_overlay(pixels, [], [], width=300)
    assert image.size == (300, 600)
    assert np.asarray(image)[-40:].max() > 200
