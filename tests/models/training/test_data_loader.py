"""Batches of radiographs: truths keep to their pixels through every change, by seed alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.training.augment import random_affine, warp  # noqa: E402
from models.training.cached_dataset import CachedDataset, cache  # noqa: E402
from models.training.data_loader import DataLoader, Wanted, balance, moved_boxes  # noqa: E402
from models.training.datasets.sample import MarkedBox, Sample  # noqa: E402
from models.training.recipe import (  # noqa: E402
    Augmentation,
    Data,
    Network,
    Recipe,
    Schedule,
)
from models.training.truths import LabelNames, label_truths, masks_of, place_known  # noqa: E402
from tests.models.architectures.tiny import LABELS, SIDE, world  # noqa: E402

BOTH = Wanted(masks=True, boxes=True)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> CachedDataset:
    return world(tmp_path_factory.mktemp("world"), 16, seed=5)


def recipe(**changes: object) -> Recipe:
    made = Recipe("a", "1", "A", "none", Data(LABELS), Network(SIDE), Schedule(2, batch=4, seed=7))
    return replace(made, **changes)  # type: ignore[arg-type]


def test_without_change_pixels_are_those_that_a_node_sees(stored: CachedDataset) -> None:
    loader = DataLoader(recipe(), stored, BOTH, change=False)
    assert len(loader) == 4
    batch = loader[1]
    np.testing.assert_array_equal(batch.pixels[2, ..., 0], stored.pixels(6) / np.float32(255))
    assert batch.names == tuple(sample.name for sample in stored.samples[4:8])
    np.testing.assert_array_equal(batch.labels[3], [1, 1])


def test_masks_and_boxes_lie_on_the_squares(stored: CachedDataset) -> None:
    plan = Augmentation(rotation=8.0, scale=0.1, shift=0.05, flip=0.5)
    loader = DataLoader(recipe(augmentation=plan), stored, BOTH, change=True)
    for index in range(len(loader)):
        batch = loader[index]
        assert batch.masks is not None
        assert batch.boxes is not None
        for pixels, masks, boxes in zip(batch.pixels[..., 0], batch.masks, batch.boxes, strict=True):
            bright = masks[..., 0] > 0
            if bright.sum() > 30:
                assert np.median(pixels[bright]) > 0.85
            for left, top, right, bottom, label in boxes[boxes[:, 4] >= 0]:
                inside = masks[round(top) : round(bottom), round(left) : round(right), int(label)]
                assert inside.sum() >= 0.9 * masks[..., int(label)].sum()


def test_the_same_epoch_is_the_same_again_and_another_is_not(stored: CachedDataset) -> None:
    plan = Augmentation(noise=0.02, shift=0.05)
    first, again = (DataLoader(recipe(augmentation=plan), stored, BOTH, change=True) for _ in range(2))
    first.epoch = again.epoch = 3
    _ = again[0], again[2]  # what was asked before changes nothing
    np.testing.assert_array_equal(first[1].pixels, again[1].pixels)
    again.epoch = 4
    assert first[1].names != again[1].names


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 40), st.integers(0, 40))
def test_a_box_goes_where_its_mask_goes(seed: int, left: int, top: int) -> None:
    plan = Augmentation(rotation=10, scale=0.15, shift=0.1, aspect=0.1, flip=0.5)
    affine = random_affine(plan, 1.0, np.random.default_rng(seed))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[top : top + 20, left : left + 20] = 1
    warped = warp(mask, affine, SIDE, smooth=False) > 0
    moved = moved_boxes(np.array([[left, top, left + 20, top + 20, 0]], np.float32), affine, SIDE, SIDE)
    rows, columns = np.nonzero(warped)
    if not len(moved):
        assert warped.sum() < 0.5 * mask.sum()
        return
    x0, y0, x1, y1, _ = moved[0]
    assert 0 <= x0 < x1 <= SIDE
    assert 0 <= y0 < y1 <= SIDE
    if len(rows):
        assert x0 - 1 <= columns.min()
        assert columns.max() <= x1
        assert y0 - 1 <= rows.min()
        assert rows.max() <= y1


def test_balanced_positives_and_negatives_weigh_the_same() -> None:
    values = np.array([[1, 1], [0, 1], [0, 1], [0, 1]], np.float32)
    absent, present = balance(values, np.ones((4, 2), np.float32))
    assert 1 * present[0] == pytest.approx(3 * absent[0])
    assert (absent[1], present[1]) == (1.0, 1.0)  # nothing to balance where all are positive


def test_a_label_may_be_several_of_the_data_set() -> None:
    label_names = LabelNames(("opacity",), {"opacity": ("mass", "edema")})
    samples = [
        Sample("a", "a", Path("a"), labels={"mass": 0.0, "edema": 1.0}),
        Sample("b", "b", Path("b"), labels={"mass": 0.0, "edema": 0.0}),
        Sample("c", "c", Path("c"), labels={"mass": 0.0}),
        Sample("d", "d", Path("d"), labels={"mass": 1.0}),
    ]
    values, known = label_truths(samples, label_names)
    assert values[:, 0].tolist() == [1, 0, 0, 1]
    assert known[:, 0].tolist() == [1, 1, 0, 1], "one absent and one unknown is unknown"


def test_a_place_is_known_where_readers_marked_or_nothing_is() -> None:
    label_names = LabelNames(("mass", "edema"))
    marked = Sample("a", "a", Path("a"), labels={"mass": 1.0, "edema": 1.0}, boxed=frozenset({"mass"}))
    assert place_known(marked, label_names).tolist() == [1, 0]
    assert place_known(Sample("b", "b", Path("b"), labels={"mass": 0.0}), label_names).tolist() == [1, 0]


def test_what_cannot_be_decoded_is_listed_and_decoding_happens_once(stored: CachedDataset, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    samples = (*stored.samples[:2], Sample("broken.png", "p", broken), stored.samples[2])
    messages: list[str] = []

    def tell(what: str, _done: int, _total: int) -> None:
        messages.append(what)

    kept, problems = cache(samples, 32, "none", LabelNames(LABELS), tmp_path / "work", tell)
    assert [sample.name for sample in kept.samples] == [sample.name for sample in stored.samples[:3]]
    assert [name for name, _ in problems] == ["broken.png"]
    assert "cannot be decoded" in problems[0][1]
    assert kept.pixels(2).shape == (32, 32)
    again, listed = cache(samples, 32, "none", LabelNames(LABELS), tmp_path / "work", tell)
    assert (again.samples, listed) == (kept.samples, problems)
    assert len(messages) == 1
    assert kept.only([samples[3], samples[0]]).rows == (2, 0)


def test_boxes_fill_masks(stored: CachedDataset) -> None:
    sample = stored.samples[3]
    assert all(isinstance(box, MarkedBox) for box in sample.boxes)
    masks = masks_of(sample, LabelNames(LABELS), SIDE)
    bright = stored.pixels(3) == 245
    np.testing.assert_array_equal(masks[..., 0], bright)
