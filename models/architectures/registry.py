"""Every architecture that a recipe can name, by name; one is imported (and Keras with it) only when it is asked for."""

from __future__ import annotations

from importlib import import_module

from models.architectures.contract import Architecture

_WHERE: dict[str, str] = {
    "retinanet": "models.detectors.retinanet:RETINANET",
    "faster-rcnn": "models.detectors.faster_rcnn:FASTER_RCNN",
    "mask-rcnn": "models.detectors.mask_rcnn:MASK_RCNN",
    "simple-cnn": "models.convnets.simple:SIMPLE_CNN",
    "lenet": "models.convnets.simple:LENET",
    "alexnet": "models.convnets.simple:ALEXNET",
    "vgg16": "models.convnets.deep:VGG16",
    "resnet50": "models.convnets.deep:RESNET50",
    "densenet121": "models.convnets.deep:DENSENET121",
    "chexnet": "models.convnets.deep:CHEXNET",
    "patch-cnn": "models.multiple_instance.networks:PATCH_CNN",
    "mil": "models.multiple_instance.networks:MIL",
    "fcn": "models.multiple_instance.networks:FCN",
    "ensemble": "models.multiple_instance.ensemble:ENSEMBLE",
    "unet": "models.unet.segmenter:UNET",
    "lbp-svm": "models.local_patterns.machine:LBP_SVM",
    "densenet121-svm": "models.vector_machines.network:DENSENET121_SVM",
    "retrieval": "models.retrieval.network:RETRIEVAL",
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
