"""Batches of augmented radiographs with their packed truths, the same for the same seed and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from models.training.augment import random_affine, random_greys, warp
from models.training.dataset import Example, Grey
from models.training.datasets import pixels
from models.training.datasets.sample import Sample
from models.training.recipe import Recipe
from models.training.targets import DELIVERABLE, LABELS, box_mask, image_targets, map_weight

Pixels = NDArray[np.float32]
MAP_STRIDE = 16


def map_target(mask: Grey, weight: float) -> Pixels:
    """Share of each map cell inside a mask, and its weight: ``uint8[size, size]`` to ``float32[h, w, 2]``."""
    cells = mask.shape[0] // MAP_STRIDE
    share = mask.reshape(cells, MAP_STRIDE, cells, MAP_STRIDE).mean(axis=(1, 3), dtype=np.float32) / np.float32(255)
    return np.stack([share, np.full_like(share, weight)], axis=-1)


class ClassifierBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Training batches: image ``[n, size, size, 1]`` and the truths of ``logits`` and ``maps``.

    ``images`` are squares somewhat larger than the network's input, so that resampling does not blur. Everything random
    comes from ``(seed, epoch, position)``: a resumed training sees what an uninterrupted one would have seen.
    """

    def __init__(
        self,
        recipe: Recipe,
        examples: Sequence[Example],
        images: Grey,
        labels: Sequence[str] = LABELS,
        first_epoch: int = 0,
    ) -> None:
        super().__init__(workers=1)
        self._recipe, self._examples, self._images = recipe, examples, images
        self._values, self._weights = image_targets(examples, labels)
        emphasis = [recipe.weights.emphasis if label in DELIVERABLE else 1.0 for label in labels]
        self._weights *= np.array(emphasis, np.float32)
        self._epoch = first_epoch
        self._order = self._shuffled()

    def __len__(self) -> int:
        """Whole batches an epoch; the examples left over change from epoch to epoch."""
        return max(1, len(self._examples) // self._recipe.schedule.batch)

    def __getitem__(self, index: int) -> tuple[Pixels, dict[str, Pixels]]:
        """Batch ``index`` of the current epoch."""
        batch = self._recipe.schedule.batch
        chosen = self._order[index * batch : (index + 1) * batch]
        pairs = [self._one(int(item)) for item in chosen]
        values, weights = self._values[chosen], self._weights[chosen]
        smoothing = np.float32(self._recipe.weights.smoothing)
        values = values * (1 - 2 * smoothing) + smoothing
        truth = {
            "logits": np.concatenate([values, weights], axis=-1),
            "maps": np.stack([pair[1] for pair in pairs]),
        }
        return np.stack([pair[0] for pair in pairs])[..., np.newaxis], truth

    def on_epoch_end(self) -> None:
        """Shuffle anew."""
        self._epoch += 1
        self._order = self._shuffled()

    def _shuffled(self) -> NDArray[np.int64]:
        rng = np.random.default_rng((self._recipe.schedule.seed, self._epoch))
        return rng.permutation(len(self._examples))

    def _one(self, item: int) -> tuple[Pixels, Pixels]:
        plan, size = self._recipe.augmentation, self._recipe.network.size
        rng = np.random.default_rng((self._recipe.schedule.seed, self._epoch, item))
        example = self._examples[item]
        affine = random_affine(plan, example.aspect, rng)
        greys = random_greys(warp(self._images[item], affine, size), plan, rng)
        if example.boxes:
            mask = warp(box_mask(example, size), affine, size, smooth=False)
        else:
            mask = np.zeros((size, size), np.uint8)
        return greys, map_target(mask, map_weight(example))


def served_batch(examples: Sequence[Example], size: int) -> Pixels:
    """Images exactly as the node would show them to the network: ``float32[n, size, size, 1]``.

    What stands behind a model's figures must not be rounded to grey levels that serving does not round to.
    """
    return np.stack([pixels.load(Sample(item.image, item.patient, item.path), size) for item in examples])[
        ..., np.newaxis
    ]


def plain_batch(images: Grey) -> Pixels:
    """Images as the node gives them to a network, without any change: ``uint8[n, h, w]`` to ``float32[n, h, w, 1]``."""
    scaled: Any = images[..., np.newaxis].astype(np.float32) / np.float32(255)
    return np.asarray(scaled, np.float32)
