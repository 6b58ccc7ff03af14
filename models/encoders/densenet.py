"""DenseNet121 (Huang et al., 2017): every layer sees the features of all before it in its block."""

from __future__ import annotations

from typing import Any

from keras import layers

from models.encoders.parts import convolve, normalise, relu, repeated, scaled, stem

DENSENET121 = (6, 12, 24, 16)
GROWTH = 32


def _grow(x: Any, growth: int, name: str) -> Any:
    """One dense layer: 1x1 to four times the growth, 3x3 to the growth, joined to what went in."""
    new = relu(normalise(x, f"{name}_0_bn"), f"{name}_0_relu")
    new = convolve(new, 4 * growth, 1, f"{name}_1_conv")
    new = relu(normalise(new, f"{name}_1_bn"), f"{name}_1_relu")
    new = convolve(new, growth, 3, f"{name}_2_conv")
    return layers.Concatenate(name=f"{name}_concat")([x, new])


def build(image: Any, width: float, blocks: tuple[int, ...] = DENSENET121) -> dict[int, Any]:
    """Features after the stem (stride 2) and after each dense block (4 to 32), normalised and rectified."""
    fine, x = stem(image, scaled(64, width), bias=False)
    features = {2: fine}
    for stage, count in enumerate(blocks, start=2):
        for number in range(1, repeated(count, width) + 1):
            x = _grow(x, scaled(GROWTH, width), f"conv{stage}_block{number}")
        last = stage == len(blocks) + 1
        x = normalise(x, "bn" if last else f"pool{stage}_bn")
        x = relu(x, "relu" if last else f"pool{stage}_relu")
        features[2**stage] = x
        if not last:
            x = convolve(x, int(x.shape[-1]) // 2, 1, f"pool{stage}_conv")
            x = layers.AveragePooling2D(2, name=f"pool{stage}_pool")(x)
    return features
