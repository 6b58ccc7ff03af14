"""Lungs from maps, and masks in them: found or not, clipped, apart, and the right way round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contract import Hanging, Mask, Pixels, Zone
from models.localise import region_masks
from models.lung_fields import CUT, LungFields, lung_fields
from models.radiograph.geometry import Letterbox

SIDE = 96
SOURCE = (400, 300)
PORTRAIT = Letterbox(*SOURCE, 192, 192)


def ellipse(middle: float, width: float = 12.0, top: float = 20.0, height: float = 56.0) -> Mask:
    """A lung on the network's grid."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    inside: Mask = ((columns - middle) / width) ** 2 + ((rows - top - height / 2) / (height / 2)) ** 2 <= 1
    return inside


def maps_of(first: Mask, second: Mask, left_of_first: float = 0.05, left_of_second: float = 0.95) -> Pixels:
    """Maps of the patient's left and right lung, where the network is so sure of each lung's side."""
    left = first * left_of_first + second * left_of_second
    right = first * (1 - left_of_first) + second * (1 - left_of_second)
    return np.stack([left, right], axis=-1).astype(np.float32)


def found(letterbox: Letterbox = PORTRAIT) -> LungFields:
    fields = lung_fields(maps_of(ellipse(34), ellipse(62)), letterbox)
    assert fields is not None
    return fields


def square(rows: slice, columns: slice) -> Mask:
    mask = np.zeros(SOURCE, np.bool_)
    mask[rows, columns] = True
    return mask


def test_two_lungs_are_told_by_their_place_in_the_picture() -> None:
    first, second = found().lungs
    assert np.nonzero(first)[1].mean() < SIDE / 2 < np.nonzero(second)[1].mean()
    assert found().hanging is Hanging.USUAL


def test_a_mirrored_chest_is_noticed_and_its_lungs_stay_where_they_are() -> None:
    maps = maps_of(ellipse(34), ellipse(62))[:, ::-1]
    fields = lung_fields(maps, PORTRAIT)
    assert fields is not None
    assert fields.hanging is Hanging.MIRRORED
    np.testing.assert_array_equal(fields.lungs[0], found().lungs[1][:, ::-1])


def test_a_network_that_does_not_know_the_sides_still_finds_the_lungs() -> None:
    fields = lung_fields(maps_of(ellipse(34), ellipse(62), 0.45, 0.55), PORTRAIT)
    assert fields is not None
    assert fields.hanging is Hanging.UNSURE
    np.testing.assert_array_equal(fields.lungs[0], found().lungs[0])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ellipse(34), ellipse(34) & False),
        (ellipse(34), ellipse(62, width=3, height=12)),
        (ellipse(40, width=16), ellipse(56, width=16)),
        (ellipse(48, top=6, height=36), ellipse(48, top=52, height=36)),
        (ellipse(34, width=3, height=8), ellipse(62, width=3, height=8)),
        (ellipse(48, width=40, top=4, height=88) & ~ellipse(48, width=24, top=16, height=64), ellipse(48, width=20)),
    ],
    ids=["one only", "very unequal", "joined", "one above the other", "both tiny", "one round the other"],
)
def test_what_does_not_look_like_two_lungs_is_none(first: Mask, second: Mask) -> None:
    assert lung_fields(maps_of(first & ~second, second), PORTRAIT) is None


def test_what_lies_beside_the_image_is_no_lung() -> None:
    narrow = Letterbox(400, 120, 192, 192)
    assert lung_fields(maps_of(ellipse(12), ellipse(84)), narrow) is None


@pytest.mark.parametrize(
    ("rows", "columns", "first"), [(96, 192, 34), (192, 96, 34), (192, 192, 10)], ids=["flat", "narrow", "beside"]
)
def test_a_lung_at_the_edge_of_the_image_is_noticed(rows: int, columns: int, first: int) -> None:
    """The bars round an image are no image: what is drawn there is cut off."""
    fields = lung_fields(maps_of(ellipse(first), ellipse(62)), Letterbox(rows, columns, 192, 192))
    assert fields is not None
    assert fields.cut
    assert not found().cut


def test_holes_belong_to_the_lung() -> None:
    hollow = ellipse(34) & ~ellipse(34, width=4, top=40, height=12)
    fields = lung_fields(maps_of(hollow, ellipse(62)), PORTRAIT)
    assert fields is not None
    np.testing.assert_array_equal(fields.lungs[0], ellipse(34))


def test_a_mask_over_everything_becomes_two_that_do_not_touch() -> None:
    clipped = found().clipped(np.ones(SOURCE, np.bool_))
    assert len(region_masks(clipped)) == 2
    assert not clipped[:, SOURCE[1] // 2].any(), "the mediastinum is no lung"
    assert not clipped[-40:].any(), "nor is the abdomen"


@settings(max_examples=40, deadline=None)
@given(
    gap=st.integers(2, 8),
    rows=st.integers(90, 700),
    columns=st.integers(90, 700),
    shift=st.integers(-6, 6),
)
def test_lungs_never_meet_however_near_they_are(gap: int, rows: int, columns: int, shift: int) -> None:
    first, second = np.zeros((SIDE, SIDE), np.bool_), np.zeros((SIDE, SIDE), np.bool_)
    first[20:70, 48 - 14 : 48], second[20 + shift : 70 + shift, 48 + gap - 1 : 48 + gap + 13] = True, True
    fields = LungFields(
        (first, second), Hanging.USUAL, Letterbox(rows, columns, 192, 192), (first | second).astype(np.float32)
    )
    wide = fields.widened
    clipped = fields.clipped(np.ones((rows, columns), np.bool_))
    for region in region_masks(clipped):
        lungs = [np.asarray(region & fields.letterbox.mask_to_source(lung.astype(np.float32), 0.5)) for lung in wide]
        assert min(lung.sum() for lung in lungs) == 0


def test_a_finding_has_shares_and_zones() -> None:
    fields = found()
    upper = fields.involvement(fields.clipped(square(slice(90, 150), slice(60, 140))))
    assert upper.picture_left.zones == (Zone.UPPER,)
    assert 0.1 < upper.picture_left.share < 0.6
    assert upper.picture_right.zones == ()
    assert upper.picture_right.share == 0
    whole = fields.involvement(fields.clipped(np.ones(SOURCE, np.bool_)))
    assert whole.picture_left.share == whole.picture_right.share == 1
    assert whole.picture_left.zones == tuple(Zone)


def test_a_small_finding_at_the_pleura_has_a_lung_and_a_zone() -> None:
    fields = found()
    wide = fields.letterbox.mask_to_source(fields.widened[1].astype(np.float32), 0.5)
    rim = wide & ~fields.letterbox.mask_to_source(fields.lungs[1].astype(np.float32), 0.5)
    rim[:280] = False
    lungs = fields.involvement(fields.clipped(rim))
    assert lungs.picture_left.zones == ()
    assert lungs.picture_right.zones == (Zone.LOWER,)


def test_the_mirrored_mask_is_in_the_other_lung() -> None:
    fields = found()
    turned = replace(fields, lungs=(fields.lungs[1][:, ::-1], fields.lungs[0][:, ::-1]), hanging=Hanging.MIRRORED)
    mask = fields.clipped(square(slice(220, 290), slice(60, 110)))
    there, back = fields.involvement(mask), turned.involvement(mask[:, ::-1])
    assert there.picture_left.zones == back.picture_right.zones != ()
    assert there.picture_left.share == pytest.approx(back.picture_right.share, abs=0.02)
    assert back.picture_left.zones == ()


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_drawn_lungs_never_share_a_pixel_and_follow_the_map(rows, columns, aspect, seed) -> None:
    """On grids finer and coarser than the map, with maps that are as near to each other as can be."""
    chance = np.random.default_rng(seed).uniform(0, 1, (12, 12)).astype(np.float32)
    regions = region_masks(chance >= CUT)
    if len(regions) < 2:
        return
    fields = LungFields(
        (regions[0], regions[1]), Hanging.USUAL, Letterbox(rows, columns, 24, 24, aspect), chance, "chest-lungs"
    )
    first, second = fields.drawn()
    assert first.shape == second.shape == (rows, columns)
    assert not (first & second).any()
    likely = fields.letterbox.map_to_source(chance)
    assert (likely[first | second] >= CUT - 1e-5).all(), "nothing is lung that the map does not call so"


def test_a_drawn_lung_has_no_staircase_and_its_filled_holes() -> None:
    lung = ellipse(34)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    distance = np.sqrt(((columns - 34) / 12) ** 2 + ((rows - 48) / 28) ** 2)
    soft = np.clip(1.5 - distance, 0, 1).astype(np.float32)
    soft[46:49, 33:36] = 0.1  # a hole
    other = ellipse(72, width=8)
    fields = LungFields((lung, other), Hanging.USUAL, Letterbox(960, 960, 192, 192), np.maximum(soft, other * 0.9))
    drawn = fields.drawn()[0]
    assert drawn[480, 345], "the hole is filled"
    rows, columns = np.mgrid[0:960, 0:960] + 0.5
    true = ((columns - 340) / 120) ** 2 + ((rows - 480) / 280) ** 2 <= 1
    stairs = fields.letterbox.mask_to_source(lung.astype(np.float32), CUT)
    assert (drawn ^ true).sum() < 0.4 * (stairs ^ true).sum()
