"""What every encoder is made of: scaled filter counts, three colours of a grey image, convolutions with their names.

Backend-agnostic; only layers of Keras itself, so that a saved network needs no class of ours.
"""

from __future__ import annotations

from typing import Any

from keras import layers

NORM_EPSILON = 1.001e-5
NORM_MOMENTUM = 0.9
"""How slowly a normalisation forgets: Keras's own 0.99 needs hundreds of steps before a network can be served."""
SHALLOW = 0.25
"""Networks narrower than this are made shallow as well."""


def scaled(filters: int, width: float) -> int:
    """``filters`` times ``width`` as a multiple of 8, at least 8; unchanged at width 1."""
    return filters if width == 1.0 else max(8, 8 * round(filters * width / 8))


def repeated(blocks: int, width: float) -> int:
    """How many blocks a stage has: all of them, but in a network narrower than :data:`SHALLOW` a share, at least one.

    A network of a hundred thin layers would take as long to compile as a full one, and a trial should take seconds.
    """
    return blocks if width >= SHALLOW else max(1, round(blocks * width))


def three_colours(grey: Any) -> Any:
    """``[n, h, w, 1]`` as ``[n, h, w, 3]``."""
    return layers.Concatenate(name="grey_to_rgb")([grey, grey, grey])


def centred(grey: Any) -> Any:
    """Three colours from -1 to 1: for networks that have seen no other images."""
    return layers.Rescaling(2.0, offset=-1.0, name="scaled")(three_colours(grey))


def torch_scaled(grey: Any) -> Any:
    """Three colours less ImageNet's mean, by its deviation: as DenseNet's published weights expect it."""
    means, deviations = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    scale = [1.0 / deviation for deviation in deviations]
    offset = [-mean / deviation for mean, deviation in zip(means, deviations, strict=True)]
    return layers.Rescaling(scale, offset=offset, name="scaled")(three_colours(grey))


def caffe_scaled(grey: Any) -> Any:
    """Blue, green, red from 0 to 255 less ImageNet's mean: as VGG's and ResNet's published weights expect it."""
    return layers.Rescaling(255.0, offset=[-103.939, -116.779, -123.68], name="scaled")(three_colours(grey))


def convolve(
    x: Any, filters: int, kernel: int, name: str, *, stride: int = 1, bias: bool = False, padding: str = "same"
) -> Any:
    """A convolution started as He et al. (2015) propose for layers before a ReLU."""
    return layers.Conv2D(
        filters,
        kernel,
        stride,
        padding=padding,
        use_bias=bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def normalise(x: Any, name: str) -> Any:
    """Batch normalisation with the constants of ``keras.applications`` but a shorter memory."""
    return layers.BatchNormalization(epsilon=NORM_EPSILON, momentum=NORM_MOMENTUM, name=name)(x)


def relu(x: Any, name: str) -> Any:
    """Rectified linear units."""
    return layers.Activation("relu", name=name)(x)


def convolve_normalise_relu(x: Any, filters: int, kernel: int, name: str, stride: int = 1) -> Any:
    """Convolution without bias, batch normalisation, ReLU: ``name``, ``name_bn``, ``name_relu``."""
    x = normalise(convolve(x, filters, kernel, name, stride=stride), f"{name}_bn")
    return relu(x, f"{name}_relu")


def stem(image: Any, filters: int) -> tuple[Any, Any]:
    """The beginning of residual networks: 7x7 at stride 2, then a pool; features at strides 2 and 4."""
    x = layers.ZeroPadding2D(3, name="conv1_pad")(image)
    x = convolve(x, filters, 7, "conv1_conv", stride=2, padding="valid")
    fine = relu(normalise(x, "conv1_bn"), "conv1_relu")
    padded = layers.ZeroPadding2D(1, name="pool1_pad")(fine)
    return fine, layers.MaxPooling2D(3, 2, name="pool1_pool")(padded)
