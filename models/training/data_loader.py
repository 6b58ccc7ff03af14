"""Batches of radiographs: pixels, labels, masks and boxes that went through the same random changes.

Everything random comes from ``(seed, epoch, sample)``, so a resumed training sees what an uninterrupted one would have
seen, however many threads make the batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from models.architectures.base import Architecture, Array, Batch, Batches, Plan
from models.model_spec import ModelKind
from models.training.augment import Affine, random_affine, random_greys, warp
from models.training.cached_dataset import CachedDataset
from models.training.datasets.pixels import BoxShape
from models.training.recipe import UNCHANGED, Augmentation, Recipe
from models.training.truths import (
    LabelNames,
    boxes_of,
    label_truths,
    learnt_places,
    learnt_truths,
    masks_of,
    place_known,
)

LEAST_SHARE = 0.25
"""A box of which less than this share is left inside the image is dropped."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which truths about places are made for batches: masks are large, so only where something learns from them."""

    masks: bool
    boxes: bool


def wanted(architecture: Architecture, plan: Plan) -> Wanted:
    """Classifiers need no places unless they teach more than their logits."""
    if architecture.kind is not ModelKind.CLASSIFIER:
        return Wanted(masks=True, boxes=architecture.kind is ModelKind.DETECTOR)
    return Wanted(masks=bool(set(architecture.losses(plan)) - {"logits"}), boxes=False)


def geometric(plan: Augmentation) -> bool:
    """Whether images are moved or bent at all; such images are stored larger, so that resampling does not blur."""
    return any((plan.rotation, plan.scale, plan.shift, plan.aspect, plan.flip))


def balance(values: Array, known: Array) -> Array:
    """Factors ``float32[2, labels]`` for negatives and positives, with which both weigh the same; 1 where one lacks."""
    positives = (values * known).sum(axis=0)
    total = known.sum(axis=0)
    counts = np.stack([total - positives, positives])
    usable = (counts > 0).all(axis=0)
    factors = total / (2 * np.maximum(counts, 1e-6))
    return np.where(usable, factors, 1.0).astype(np.float32)


class DataLoader:
    """Batches of one epoch by number, as :class:`models.architectures.base.Batches` has them.

    With ``change`` images are shuffled and augmented for the current :attr:`epoch`, and the last images of an epoch
    that fill no batch are left to another one; without it, all come in order as the node would see them.
    """

    def __init__(self, recipe: Recipe, stored: CachedDataset, wants: Wanted, *, change: bool) -> None:
        self.epoch = 0
        self._recipe, self._stored, self._wants, self._change = recipe, stored, wants, change
        self._question = LabelNames(recipe.data.labels, recipe.data.classes)
        weak = recipe.data.weak and change
        self._values, self._known = (learnt_truths if weak else label_truths)(stored.samples, self._question)
        self._weights = self._known
        if recipe.schedule.class_weights == "balanced" and change:
            absent, present = balance(self._values, self._known)
            self._weights = self._known * (self._values * present + (1 - self._values) * absent)
        places = learnt_places if weak else place_known
        self._places = np.stack([places(sample, self._question) for sample in stored.samples])
        # Learnt from as the recipe asks, measured by what readers drew.
        self._boxes_as: BoxShape = recipe.data.boxes_as if change else "filled"
        self._masks: dict[int, dict[int, NDArray[np.uint8]]] = {}
        self._boxes = [boxes_of(sample, self._question, stored.side) for sample in stored.samples]
        self._most = max([1, *(len(boxes) for boxes in self._boxes)])

    def __len__(self) -> int:
        """How many batches an epoch has."""
        batch = self._recipe.schedule.batch
        return max(1, len(self._stored) // batch) if self._change else -(-len(self._stored) // batch)

    def __getitem__(self, index: int) -> Batch:
        """Batch ``index`` of the current epoch."""
        batch = self._recipe.schedule.batch
        chosen = self._order()[index * batch : (index + 1) * batch]
        made = [self._one(int(item)) for item in chosen]
        return Batch(
            pixels=np.stack([pixels for pixels, _, _ in made])[..., np.newaxis],
            labels=self._values[chosen],
            known=self._weights[chosen],
            masks=np.stack([masks for _, masks, _ in made]).astype(np.float32) if self._wants.masks else None,
            mask_known=self._places[chosen] if self._wants.masks else None,
            boxes=np.stack([boxes for _, _, boxes in made]) if self._wants.boxes else None,
            names=tuple(self._stored.samples[item].name for item in chosen),
        )

    def _order(self) -> NDArray[np.int64]:
        if not self._change:
            return np.arange(len(self._stored))
        return np.random.default_rng((self._recipe.schedule.seed, self.epoch)).permutation(len(self._stored))

    def _one(self, item: int) -> tuple[Array, Mask, Array]:
        """Pixels, masks and boxes of one sample at the network's size."""
        size = self._recipe.network.size
        plan = self._recipe.augmentation if self._change else UNCHANGED
        grey = self._stored.pixels(item)
        if plan == UNCHANGED and grey.shape[0] == size:
            pixels = grey.astype(np.float32) / np.float32(255)
            return pixels, self._mask(item), self._padded(self._boxes[item])
        rng = np.random.default_rng((self._recipe.schedule.seed, self.epoch, item))
        aspect = self._stored.samples[item].aspect if plan.aspect else 1.0
        affine = random_affine(plan, aspect, rng)
        pixels = random_greys(warp(grey, affine, size), plan, rng)
        return pixels, self._mask(item, affine), self._padded(self._moved(item, affine))

    def _mask(self, item: int, affine: Affine | None = None) -> Mask:
        """Masks of one sample at the network's size, where an affine has put them."""
        size, side, labels = self._recipe.network.size, self._stored.side, len(self._question.labels)
        if not self._wants.masks:
            return np.zeros((0, 0, labels), np.bool_)
        if item not in self._masks:
            self._masks[item] = packed_layers(
                masks_of(self._stored.samples[item], self._question, side, self._boxes_as)
            )
        whole = np.zeros((size, size, labels), np.bool_)
        for label, bits in self._masks[item].items():
            layer = np.unpackbits(bits, count=side * side).reshape(side, side)
            whole[..., label] = (warp(layer, affine, size, smooth=False) if affine else layer) > 0
        return whole

    def _moved(self, item: int, affine: Affine) -> Array:
        """Boxes of one sample where an affine has put them."""
        boxes = self._boxes[item]
        return moved_boxes(boxes, affine, self._stored.side, self._recipe.network.size)

    def _padded(self, boxes: Array) -> Array:
        padded = np.zeros((self._most, 5), np.float32)
        padded[:, 4] = -1
        padded[: len(boxes)] = boxes
        return padded


def packed_layers(masks: Mask) -> dict[int, NDArray[np.uint8]]:
    """The labels of ``bool[side, side, labels]`` that have a mask, each as bits."""
    return {label: np.packbits(masks[..., label]) for label in np.flatnonzero(masks.any(axis=(0, 1))).tolist()}


def moved_boxes(boxes: Array, affine: Affine, side: int, size: int) -> Array:
    """Boxes ``[k, 5]`` of an image of ``side`` pixels as an affine lays them into one of ``size``.

    A turned box is replaced by the upright one round its corners, and cut to the image.
    """
    if not len(boxes):
        return boxes
    a, b, c, d, e, f = affine
    back = np.linalg.inv(np.array([[a, b, c], [d, e, f], [0, 0, 1]]))
    x, y = boxes[:, [0, 2, 0, 2]] / side, boxes[:, [1, 1, 3, 3]] / side
    across = (back[0, 0] * x + back[0, 1] * y + back[0, 2]) * size
    down = (back[1, 0] * x + back[1, 1] * y + back[1, 2]) * size
    edges = np.stack([across.min(1), down.min(1), across.max(1), down.max(1)], axis=1)
    cut = np.clip(edges, 0, size)
    left = (cut[:, 2] - cut[:, 0]) * (cut[:, 3] - cut[:, 1])
    whole = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    kept = left >= LEAST_SHARE * whole
    moved: Array = np.concatenate([cut, boxes[:, 4:]], axis=1)[kept].astype(np.float32)
    return moved


class KerasLoader(keras.utils.PyDataset):  # type: ignore[misc]
    """A data loader as Keras takes it: pixels, and the truth of each taught output."""

    def __init__(self, loader: DataLoader | Batches, architecture: Architecture, plan: Plan, workers: int = 1) -> None:
        super().__init__(workers=workers)
        self.loader = loader
        self._architecture, self._plan = architecture, plan

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.loader)

    def __getitem__(self, index: int) -> tuple[Array, dict[str, Array]]:
        """One batch of the current epoch."""
        batch = self.loader[index]
        return batch.pixels, dict(self._architecture.truths(self._plan, batch))
