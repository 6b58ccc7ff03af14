"""Where the bundled network sees lungs in a training image: masks are measured as the node clips them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from models.contract import Mask
from models.lung_fields import CUT, LUNG_FIELDS, lung_fields
from models.model_registry import read_registry
from models.radiograph.contrast import letterbox_for, prepare
from models.radiograph.geometry import Letterbox
from models.runtime.executor import Executor
from models.runtime.loading import load
from models.training.datasets import pixels
from models.training.datasets.sample import Sample


class InsideLungs:
    """The widened lungs of one image after another; the network is loaded when the first is asked for."""

    @cached_property
    def _network(self) -> Executor:
        return load(read_registry(verify=False).find(LUNG_FIELDS), device="cpu")

    def __call__(self, sample: Sample, side: int) -> Mask | None:
        """``bool[side, side]`` in the letterbox of a network; None where two lungs are not found.

        Raises:
            UnreadableImage: the image cannot be decoded.
        """
        spec = self._network.spec
        image = pixels.read(sample.image)
        letterbox = letterbox_for(image, spec.input)
        maps = self._network.run(prepare(image, letterbox, spec.input)[np.newaxis])["maps"][0]
        fields = lung_fields(maps, letterbox)
        if fields is None:
            return None
        first, second = fields.widened
        # Both networks see the image in a square letterbox: one grid is the other, coarser.
        grid = Letterbox(side, side, letterbox.height, letterbox.width)
        return grid.mask_to_source((first | second).astype(np.float32), CUT)
