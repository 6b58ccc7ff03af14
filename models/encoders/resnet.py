"""Residual networks that Keras lacks: ResNet-18, 34 (He et al., 2016), SE-ResNeXt (Xie et al., 2017; Hu et al., 2018).

They follow torchvision: the 3x3 convolution strides, and no convolution has a bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import initializers, layers, ops

from models.encoders.parts import convolve, normalise, relu, repeated, scaled, stem

FILTERS = (64, 128, 256, 512)
GROUPS = 32
GROUP_WIDTH = 4
REDUCTION = 16


@dataclass(frozen=True, slots=True)
class Stage:
    """What the blocks of one stage share: ``filters`` as in the ResNet table, the stride of the first block, width."""

    filters: int
    stride: int
    width: float


Block = Callable[[Any, Stage, int, str], Any]
"""``(features, stage, stride, name) -> features``."""


def build(image: Any, width: float, block: Block, repeats: tuple[int, ...]) -> dict[int, Any]:
    """Features after the stem (stride 2) and after each stage (4 to 32)."""
    fine, x = stem(image, scaled(64, width))
    features = {2: fine}
    for number, (filters, count) in enumerate(zip(FILTERS, repeats, strict=True), start=2):
        stage = Stage(filters, 1 if number == 2 else 2, width)
        for repeat in range(1, repeated(count, width) + 1):
            x = block(x, stage, stage.stride if repeat == 1 else 1, f"conv{number}_block{repeat}")
        features[2**number] = x
    return features


def _shortcut(x: Any, filters: int, stride: int, name: str) -> Any:
    """What is added to a block's result: its input, projected where the shape changes."""
    if stride == 1 and int(x.shape[-1]) == filters:
        return x
    return normalise(convolve(x, filters, 1, f"{name}_0_conv", stride=stride), f"{name}_0_bn")


def _joined(shortcut: Any, x: Any, name: str) -> Any:
    return relu(layers.Add(name=f"{name}_add")([shortcut, x]), f"{name}_out")


def basic(x: Any, stage: Stage, stride: int, name: str) -> Any:
    """The block of ResNet-18 and 34: two 3x3 convolutions."""
    filters = scaled(stage.filters, stage.width)
    shortcut = _shortcut(x, filters, stride, name)
    x = _padded(x, filters, stride, f"{name}_1_conv")
    x = relu(normalise(x, f"{name}_1_bn"), f"{name}_1_relu")
    x = normalise(convolve(x, filters, 3, f"{name}_2_conv"), f"{name}_2_bn")
    return _joined(shortcut, x, name)


def _padded(x: Any, filters: int, stride: int, name: str) -> Any:
    """A 3x3 convolution padded by one pixel on each side; ``same`` would put all of it to one side where it strides."""
    if stride == 1:
        return convolve(x, filters, 3, name)
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return convolve(x, filters, 3, name, stride=stride, padding="valid")


def grouped(x: Any, groups: int, stride: int, name: str) -> Any:
    """A grouped 3x3 convolution with as many filters as channels go in.

    Written as a depthwise convolution whose results are summed within each group: the same weights and sums, but it
    trains on a CPU, and exports to ONNX, where TensorFlow's own grouped convolution needs XLA and does neither.
    """
    _, height, width, channels = (int(side or 0) for side in x.shape)
    each = channels // groups
    # The initialiser takes all channels for the fan-in, where only those of the group are summed.
    start = initializers.VarianceScaling(2.0 * groups, "fan_in", "truncated_normal")
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    x = layers.DepthwiseConv2D(
        3, stride, depth_multiplier=each, use_bias=False, depthwise_initializer=start, name=name
    )(x)
    height, width = -(-height // stride), -(-width // stride)
    x = ops.sum(layers.Reshape((height * width, groups, each, each), name=f"{name}_groups")(x), axis=-2)
    return layers.Reshape((height, width, channels), name=f"{name}_sum")(x)


def _excite(x: Any, name: str) -> Any:
    """Squeeze and excitation: each channel weighted by what the whole image holds."""
    channels = int(x.shape[-1])
    weights = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    weights = convolve(weights, max(4, channels // REDUCTION), 1, f"{name}_reduce", bias=True)
    weights = layers.Conv2D(channels, 1, activation="sigmoid", name=f"{name}_excite")(relu(weights, f"{name}_relu"))
    return layers.Multiply(name=f"{name}_scale")([x, weights])


def se_resnext(x: Any, stage: Stage, stride: int, name: str) -> Any:
    """The block of SE-ResNeXt (32x4d): a bottleneck of 32 groups, its result weighted channel by channel.

    A narrower network has fewer groups of the same size.
    """
    groups = GROUPS if stage.width == 1.0 else max(1, round(GROUPS * stage.width))
    inner = groups * GROUP_WIDTH * stage.filters // FILTERS[0]
    filters = 4 * scaled(stage.filters, stage.width)
    shortcut = _shortcut(x, filters, stride, name)
    x = relu(normalise(convolve(x, inner, 1, f"{name}_1_conv"), f"{name}_1_bn"), f"{name}_1_relu")
    x = relu(normalise(grouped(x, groups, stride, f"{name}_2_conv"), f"{name}_2_bn"), f"{name}_2_relu")
    x = normalise(convolve(x, filters, 1, f"{name}_3_conv"), f"{name}_3_bn")
    return _joined(shortcut, _excite(x, f"{name}_se"), name)
