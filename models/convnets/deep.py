"""VGG-16, ResNet-50 and DenseNet-121 as classifiers of radiographs, and CheXNet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from models.architectures.contract import Option, Plan
from models.contract import ModelKind
from models.convnets.classifier import ConvNet
from models.convnets.heads import OPTIONS
from models.encoders.table import encode


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
