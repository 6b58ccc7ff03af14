"""What a network should answer for an example, and how far that answer can be trusted.

A target is a pair of arrays: values in ``[0, 1]``, and weights, 0 where nothing is known. Radiologists' readings (RSNA)
weigh 1. NIH labels were mined from reports; where they must stand in for a reading they give a soft value with a small
weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.training.dataset import NIH_FINDINGS, Example

LUNG_OPACITY = "lung_opacity"
ABNORMAL = "abnormal"
LABELS = (LUNG_OPACITY, "pneumothorax", ABNORMAL, *(name.lower() for name in NIH_FINDINGS if name != "Pneumothorax"))
"""Order of the classifier's outputs."""

DELIVERABLE = (LUNG_OPACITY, "pneumothorax", ABNORMAL)
"""Findings that may leave the node at all: the others are learnt from noisy report labels and stay in shadow."""

WEAK_WEIGHT = 0.3
WEAK_OPACITY = {
    "Edema": 0.7,
    "Pneumonia": 0.45,
    "Infiltration": 0.4,
    "Effusion": 0.35,
    "Consolidation": 0.3,
    "Atelectasis": 0.2,
}
"""Share of RSNA-read training images with this NIH label that radiologists called *Lung Opacity* (rounded)."""
WEAK_OPACITY_NONE = 0.07
"""The same share for images without any NIH label."""

Array = NDArray[np.float32]


def label_target(label: str, example: Example) -> tuple[float, float]:
    """Value and weight of one label for one example."""
    if label == LUNG_OPACITY:
        return _opacity(example)
    if label == ABNORMAL:
        return _abnormal(example)
    known = {name.lower() for name in example.findings}
    return float(label in known), 1.0


def _opacity(example: Example) -> tuple[float, float]:
    if example.rsna_class:
        return float(example.rsna_class == "Lung Opacity"), 1.0
    if not example.findings:
        return WEAK_OPACITY_NONE, WEAK_WEIGHT
    shares = [WEAK_OPACITY[name] for name in example.findings if name in WEAK_OPACITY]
    return (max(shares), WEAK_WEIGHT) if shares else (0.0, 0.0)


def _abnormal(example: Example) -> tuple[float, float]:
    if example.rsna_class:
        return float(example.rsna_class != "Normal"), 1.0
    return float(bool(example.findings)), 0.7


def image_targets(examples: Sequence[Example], labels: Sequence[str] = LABELS) -> tuple[Array, Array]:
    """Values and weights of all examples, both ``float32[n, labels]``."""
    pairs = np.array([[label_target(label, item) for label in labels] for item in examples], np.float32)
    pairs = pairs.reshape(len(examples), len(labels), 2)
    return pairs[..., 0], pairs[..., 1]


def box_mask(example: Example, size: int) -> NDArray[np.uint8]:
    """255 inside the readers' boxes, 0 elsewhere, ``uint8[size, size]``."""
    mask = np.zeros((size, size), np.uint8)
    for box in example.boxes:
        top, left = round(box.y * size), round(box.x * size)
        mask[top : round((box.y + box.height) * size), left : round((box.x + box.width) * size)] = 255
    return mask


def map_weight(example: Example) -> float:
    """How far the opacity map of an example is known: boxes or a reader's *no opacity* fully, no NIH label weakly."""
    if example.rsna_class:
        return 1.0
    return 0.0 if example.findings else WEAK_WEIGHT
