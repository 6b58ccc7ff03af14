"""From a segmenter's map to the probability of an image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.contract import Pixels
from models.model_spec import Pooling, PoolingSpec
from models.radiograph.geometry import Letterbox


def pooled(network_map: Pixels, letterbox: Letterbox, spec: PoolingSpec) -> float:
    """The probability that a map ``float32[h, w]`` gives an image: of its cells inside the image, padding aside."""
    values = letterbox.inside(network_map).ravel()
    return pooled_values(values, values.size, spec)


def pooled_values(values: NDArray[np.floating], whole: int, spec: PoolingSpec) -> float:
    """The probability that some ``values`` give, of an image that has ``whole`` such places; there is one at least."""
    if spec.method is Pooling.MAXIMUM:
        return float(values.max())
    count = min(values.size, max(1, math.ceil(spec.share * whole)))
    highest = np.partition(values, values.size - count)[values.size - count :]
    return float(highest.min() if spec.method is Pooling.AREA else highest.mean())
