"""A fixed linear map that is fitted outside of the network and then travels in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """``outputs = inputs @ weights + offsets`` with ``weights [inputs, outputs]``."""

    weights: Array
    offsets: Array

    def __call__(self, inputs: Array) -> Array:
        """Apply it to ``[n, inputs]``."""
        return np.asarray(inputs, np.float64) @ self.weights + self.offsets

    def layer(self, inputs: Any, name: str) -> Any:
        """The same in a graph: a dense layer that is not trained."""
        dense = layers.Dense(self.weights.shape[1], trainable=False, dtype="float32", name=name)
        outputs = dense(inputs)
        dense.set_weights([self.weights.astype(np.float32), self.offsets.astype(np.float32)])
        return outputs
