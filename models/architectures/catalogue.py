"""Every architecture that a recipe can name, by name; one is imported (and Keras with it) only when it is asked for."""

from __future__ import annotations

from importlib import import_module

from models.architectures.base import Architecture

_WHERE: dict[str, str] = {
    "retinanet": "models.detectors.architecture:RETINANET",
    "faster-rcnn": "models.detectors.architecture:FASTER_RCNN",
    "mask-rcnn": "models.detectors.architecture:MASK_RCNN",
    "simple-cnn": "models.classifiers.architecture:SIMPLE_CNN",
    "lenet": "models.classifiers.architecture:LENET",
    "alexnet": "models.classifiers.architecture:ALEXNET",
    "vgg16": "models.classifiers.architecture:VGG16",
    "resnet50": "models.classifiers.architecture:RESNET50",
    "densenet121": "models.classifiers.architecture:DENSENET121",
    "chexnet": "models.classifiers.architecture:CHEXNET",
    "patch-cnn": "models.mil.architecture:PATCH_CNN",
    "mil": "models.mil.architecture:MIL",
    "fcn": "models.mil.architecture:FCN",
    "ensemble": "models.mil.architecture:ENSEMBLE",
    "fpn": "models.fpn.architecture:FPN",
    "unet": "models.unet.architecture:UNET",
    "lbp-svm": "models.lbp.architecture:LBP_SVM",
    "densenet121-svm": "models.svm.architecture:DENSENET121_SVM",
    "efficientnet-classifier": "models.efficientnet.architecture:EFFICIENTNET_CLASSIFIER",
    "efficientnet-gate": "models.efficientnet.architecture:EFFICIENTNET_GATE",
    "retrieval": "models.retrieval.architecture:RETRIEVAL",
}
"""Name to ``module:attribute``; the attribute is an :class:`Architecture`."""


class UnknownArchitecture(LookupError):  # noqa: N818 - reads as a sentence where it is caught
    """A recipe names an architecture that does not exist; the message lists those that do."""


def names() -> tuple[str, ...]:
    """The names of all architectures."""
    return tuple(_WHERE)


def find(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        UnknownArchitecture: there is none.
    """
    if name not in _WHERE:
        raise UnknownArchitecture(f"there is no architecture '{name}'; there are: {', '.join(_WHERE)}")
    module, attribute = _WHERE[name].split(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, Architecture) or found.name != name:
        raise TypeError(f"{_WHERE[name]} is not the architecture '{name}'")
    return found
