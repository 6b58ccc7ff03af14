"""The small networks that pneumothorax was first told from normal lungs with: a simple CNN, LeNet, AlexNet."""

from __future__ import annotations

from typing import Any

from keras import layers

from models.architectures.contract import Plan
from models.contract import ModelKind
from models.convnets.classifier import ConvNet
from models.convnets.heads import OPTIONS
from models.encoders.parts import centred, convolve, normalise, relu, scaled


def _started_anew(plan: Plan) -> None:
    """Refuse initial weights: nobody publishes any for these networks."""
    if plan.initial != "random":
        raise ValueError(f"{plan.architecture} has no initial weights '{plan.initial}', only 'random'")


def _dense(x: Any, units: int, activation: str, name: str) -> Any:
    start = "he_normal" if activation == "relu" else "glorot_uniform"
    return layers.Dense(units, activation=activation, kernel_initializer=start, name=name)(x)


def simple_cnn(image: Any, plan: Plan, dropout: float) -> Any:
    """Three convolutions with pools, one dense layer: the tutorial network for a folder of classes."""
    _started_anew(plan)
    x = centred(image)
    for number, filters in enumerate((32, 32, 64), start=1):
        x = relu(convolve(x, scaled(filters, plan.width), 3, f"conv{number}", bias=True), f"relu{number}")
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = _dense(layers.Flatten(name="flat")(x), scaled(64, plan.width), "relu", "dense")
    return layers.Dropout(dropout, name="dense_dropout")(x)


def lenet(image: Any, plan: Plan, dropout: float) -> Any:
    """LeNet-5 (LeCun et al., 1998) for images of any size; 32 x 32 as published, with one channel."""
    _started_anew(plan)
    x = layers.Rescaling(2.0, offset=-1.0, name="scaled")(image)
    for number, filters in enumerate((6, 16), start=1):
        x = layers.Conv2D(scaled(filters, plan.width), 5, activation="tanh", name=f"conv{number}")(x)
        x = layers.AveragePooling2D(2, name=f"pool{number}")(x)
    x = _dense(layers.Flatten(name="flat")(x), scaled(120, plan.width), "tanh", "dense1")
    x = _dense(x, scaled(84, plan.width), "tanh", "dense2")
    return layers.Dropout(dropout, name="dense_dropout")(x)


def alexnet(image: Any, plan: Plan, dropout: float) -> Any:
    """AlexNet (Krizhevsky et al., 2012) in one tower; 224 x 224 as published.

    Batch normalisation stands where the paper normalises over neighbouring channels.

    Raises:
        ValueError: the image is smaller than 64 x 64, and nothing would be left of it.
    """
    _started_anew(plan)
    if plan.size < 64:
        raise ValueError(f"alexnet needs images of 64 x 64 or more, not {plan.size}")
    x = layers.ZeroPadding2D(2, name="pad")(centred(image))
    x = convolve(x, scaled(96, plan.width), 11, "conv1", stride=4, bias=True, padding="valid")
    x = layers.MaxPooling2D(3, 2, name="pool1")(normalise(relu(x, "relu1"), "norm1"))
    x = relu(convolve(x, scaled(256, plan.width), 5, "conv2", bias=True), "relu2")
    x = layers.MaxPooling2D(3, 2, name="pool2")(normalise(x, "norm2"))
    for number, filters in enumerate((384, 384, 256), start=3):
        x = relu(convolve(x, scaled(filters, plan.width), 3, f"conv{number}", bias=True), f"relu{number}")
    x = layers.Flatten(name="flat")(layers.MaxPooling2D(3, 2, name="pool5")(x))
    for number in (6, 7):
        x = _dense(
            layers.Dropout(dropout, name=f"dropout{number}")(x), scaled(4096, plan.width), "relu", f"dense{number}"
        )
    return x


def _small(name: str, title: str, source: str, body: Any, dropout: float) -> ConvNet:
    options = {**OPTIONS, "dropout": dropout}
    return ConvNet(name, ModelKind.CLASSIFIER, title, source, (), options, body=body, own_dropout=True)


SIMPLE_CNN = _small("simple-cnn", "Simple CNN", "A: pneumothorax vs normal", simple_cnn, 0.5)
LENET = _small("lenet", "LeNet-5", "A: pneumothorax vs normal; LeCun et al., 1998", lenet, 0.0)
ALEXNET = _small("alexnet", "AlexNet", "A: pneumothorax vs normal; Krizhevsky et al., 2012", alexnet, 0.5)
