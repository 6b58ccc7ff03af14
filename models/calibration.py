"""Platt scaling that a manifest declares: from a network's output to a calibrated probability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.model_spec import CalibrationSpec

Array = NDArray[np.floating]
EDGE = 1e-4
"""Probabilities nearer to 0 or 1 than this count as this: a network that is sure is not infinitely sure."""


def logit(probabilities: Array) -> Array:
    """The logit of probabilities, which are kept away from 0 and 1 by :data:`EDGE`."""
    inside = np.clip(np.asarray(probabilities, np.float64), EDGE, 1 - EDGE)
    return np.asarray(np.log(inside / (1 - inside)))


def calibrated(probability: float, spec: CalibrationSpec | None) -> float:
    """A probability as the manifest scales it; as it is where it does not."""
    if spec is None:
        return probability
    scaled = spec.slope * float(logit(np.array(probability))) + spec.offset
    return float(0.5 * (1.0 + np.tanh(0.5 * scaled)))
