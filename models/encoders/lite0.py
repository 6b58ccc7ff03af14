"""EfficientNet-Lite0 as an encoder: the trunk of the bundled models, with ImageNet weights where they are wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.efficientnet.network import LITE0, trunk
from models.encoders.parts import repeated, scaled

LAST_OF_STRIDE = {2: 0, 4: 1, 8: 2, 16: 4, 32: 6}
"""For each stride, the last of Lite0's seven stages that has it."""


def build(image: Any, width: float) -> dict[int, Any]:
    """Features at strides 2 to 32."""
    stages = tuple(
        replace(stage, filters=scaled(stage.filters, width), repeats=repeated(stage.repeats, width)) for stage in LITE0
    )
    results = trunk(image, stages)
    return {stride: results[index] for stride, index in LAST_OF_STRIDE.items()}
