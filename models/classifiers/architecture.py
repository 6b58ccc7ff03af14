"""A classifier of whole images: a body of convolutions, and the head of :mod:`models.classifiers.network`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import layers

from models.architectures.base import Architecture, Batch, Loss, Option, Plan, Truths
from models.classifiers.network import OPTIONS, Head, head_losses, head_truths, read_head, serve_head, teach
from models.encoders.parts import centred, convolve, normalise, relu, scaled
from models.encoders.table import encode
from models.model_spec import ModelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNet(Architecture):
    """``body`` turns ``[n, size, size, 1]`` in ``[0, 1]`` into a map of features or a vector of them.

    ``own_dropout`` is true where the body leaves features out itself, as published, and the head need not.
    """

    body: Callable[[Any, Plan, float], Any]
    own_dropout: bool = False

    def head(self, plan: Plan) -> Head:
        """What the plan says of the head; raises ValueError where it has no sense."""
        return read_head(plan, self.options)

    def build(self, plan: Plan) -> keras.Model:
        """``logits``, and ``map_logits`` where the body keeps places."""
        head = self.head(plan)
        image = keras.Input((plan.size, plan.size, 1), name="image")
        features = self.body(image, plan, head.dropout)
        outputs = teach(features, len(plan.labels), 0.0 if self.own_dropout else head.dropout)
        return keras.Model(image, outputs, name=self.name.replace("-", "_"))

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Cross-entropy of ``logits``; the places are not taught."""
        return head_losses(self.head(plan))

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """The labels, packed with how far they are known."""
        return head_truths(self.head(plan), batch)

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """``probabilities``, and ``maps`` where the body keeps places."""
        return serve_head(network, self.head(plan))

    def served(self, plan: Plan) -> tuple[str, ...]:
        """The labels without the class that means nothing found."""
        return plan.labels[1:] if self.head(plan).first_is_nothing else plan.labels


def _started_anew(plan: Plan) -> None:
    """Refuse initial weights: none are published for these networks."""
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


def _coarsest(image: Any, plan: Plan, _dropout: float, *, encoder: str) -> Any:
    return encode(encoder, image, plan.width, plan.initial)[32]


def _deep(name: str, title: str, source: str, encoder: str, options: Mapping[str, Option]) -> ConvNet:
    body = partial(_coarsest, encoder=encoder)
    return ConvNet(name, ModelKind.CLASSIFIER, title, source, (), options, body=body)


VGG16 = _deep("vgg16", "VGG-16", "D: RSNA pneumonia, two and three classes", "vgg16", OPTIONS)
RESNET50 = _deep("resnet50", "ResNet-50", "D: RSNA pneumonia, two and three classes", "resnet50", OPTIONS)
DENSENET121 = _deep(
    "densenet121", "DenseNet-121", "C: softmax against a support vector machine", "densenet121", OPTIONS
)
CHEXNET = _deep(
    "chexnet",
    "CheXNet",
    "A's survey: beside retrieval; Rajpurkar et al., 2017",
    "densenet121",
    {"class_weights": "", "dropout": 0.0},
)
