"""A learnable world for every architecture: a bright and a dark square, each there or not, somewhere on grey noise.

Both findings have boxes, so that classifiers, segmenters and detectors can learn the same images. In the control's
world every kind of image has every kind of label equally often, and the boxes lie anywhere: there is nothing to learn.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from models.architectures.base import Architecture
from models.model_spec import ModelKind
from models.training.cached_dataset import CachedDataset
from models.training.datasets.sample import MarkedBox, Sample
from models.training.gate_data import GATE_LABELS
from models.training.recipe import Data, Network, Recipe, Schedule

SIDE = 64
SQUARE = 20
LABELS = ("lung_opacity", "pneumothorax")
GREYS = {"lung_opacity": 245, "pneumothorax": 5}
KINDS = tuple(product((0, 1), repeat=len(LABELS)))
LIGHT = ("light", "vgg-small", "plain", "resnet18")
"""Encoders that are quick to compile, the quickest first."""


def world(folder: Path, count: int, seed: int) -> CachedDataset:
    """``count`` images, a multiple of 16, as the training engine stores them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    ramp = np.linspace(90, 150, SIDE)[:, np.newaxis]
    pixels = np.clip(ramp + rng.normal(0, 6, (count, SIDE, SIDE)), 1, 254).astype(np.uint8)
    samples = []
    for number in range(count):
        boxes = []
        corners = _apart(rng)
        for label, there, (left, top) in zip(LABELS, KINDS[number % 4], corners, strict=True):
            if there:
                pixels[number, top : top + SQUARE, left : left + SQUARE] = GREYS[label]
                boxes.append(MarkedBox(label, left / SIDE, top / SIDE, SQUARE / SIDE, SQUARE / SIDE))
        file = folder / f"{seed}-{number:03d}.png"
        Image.fromarray(pixels[number]).save(file)
        samples.append(_sample(file, KINDS[number % 4], boxes))
    return CachedDataset(tuple(samples), tuple(range(count)), pixels)


def often(stored: CachedDataset, times: int = 6) -> CachedDataset:
    """The same images several times an epoch: what is kept on disk after each epoch takes longer than to learn it."""
    return replace(stored, samples=stored.samples * times, rows=stored.rows * times)


def meaningless(truth: CachedDataset, seed: int) -> CachedDataset:
    """The same images with labels and boxes that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    samples = []
    for number, sample in enumerate(truth.samples):
        kind = KINDS[number // 4 % 4]
        corners = rng.integers(0, SIDE - SQUARE, (2, 2))
        boxes = [
            MarkedBox(label, left / SIDE, top / SIDE, SQUARE / SIDE, SQUARE / SIDE)
            for label, there, (left, top) in zip(LABELS, kind, corners.tolist(), strict=True)
            if there
        ]
        samples.append(_sample(sample.image, kind, boxes))
    return replace(truth, samples=tuple(samples))


def _sample(file: Path, kind: tuple[int, ...], boxes: list[MarkedBox]) -> Sample:
    return Sample(
        name=file.name,
        patient=file.stem,
        image=file,
        labels=dict(zip(LABELS, map(float, kind), strict=True)),
        boxes=tuple(boxes),
        boxed=frozenset(LABELS),
    )


def _apart(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Two corners (left, top) whose squares do not touch."""
    while True:
        corners = rng.integers(0, SIDE - SQUARE, (2, 2))
        if np.abs(corners[0] - corners[1]).max() > SQUARE:
            return [(int(left), int(top)) for left, top in corners]


def tiny_recipe(architecture: Architecture, epochs: int = 2) -> Recipe:
    """The architecture as small as it gets."""
    quick = [name for name in LIGHT if name in architecture.encoders]
    encoder = next(iter((*quick, *architecture.encoders)), "")
    return Recipe(
        name=f"tiny-{architecture.name}",
        version="0.1",
        title=f"Tiny {architecture.title}",
        architecture=architecture.name,
        data=Data(GATE_LABELS if architecture.kind is ModelKind.GATE else LABELS),
        network=Network(SIDE, encoder, width=0.125),
        schedule=Schedule(epochs, batch=8, rate=3e-3, mixed_precision="off"),
    )
