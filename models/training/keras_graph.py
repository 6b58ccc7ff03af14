"""The bundled networks for TensorFlow: ``python -P -m models.training.keras_graph`` writes what Keras needs of each.

A network is built by its recipe, and its variables are looked for in the ONNX file (:mod:`models.runtime.keras_graph`):
tf2onnx keeps the names of Keras's layers. It folds normalisation into the convolution before it, so what is found is a
convolution with its scale, and a normalisation that adds a bias and does nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
from keras import layers
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from models.architectures import catalogue
from models.architectures.base import Plan
from models.architectures.calibration import Platt
from models.architectures.linear import Linear
from models.efficientnet.ensemble import ensemble
from models.efficientnet.network import FEATURES, mahalanobis_distance
from models.manifest import file_digest, manifest_text, read_manifest
from models.model_registry import BUNDLED
from models.model_spec import ModelSpec
from models.runtime.keras_graph import GRAPH, Filled, KerasGraph, Stored
from models.training.calibrate import with_probabilities
from models.training.recipe import RECIPES, Recipe, read_recipe

Array = NDArray[np.float32]
Place = Stored | Filled
_KERNEL, _DEPTHWISE = (2, 3, 1, 0), (2, 3, 0, 1)
"""Axes of kernels ``[out, in, h, w]`` and ``[channels, 1, h, w]`` in Keras's order."""
_EARLIER = {"whiten": "distance"}
"""What layers were called when bundled networks were exported."""


class GraphError(ValueError):
    """An ONNX file is not the export of the network that its recipe describes."""


class Export:
    """An ONNX file that tf2onnx has made of a Keras network: its constants by operator and layer."""

    def __init__(self, file: Path) -> None:
        """Read ``file``."""
        graph = onnx.load(file).graph
        self._name, self._content = file.name, file.read_bytes()
        self._nodes = tuple(graph.node)
        self._constants: dict[str, TensorProto] = {item.name: item for item in graph.initializer}

    def find(self, operator: str, layer: str, part: str = "") -> list[TensorProto]:
        """The constants of an operator that, or one of whose constants, carries the name of a layer (and a part of it).

        Raises:
            GraphError: there is none.
        """
        for name in filter(None, (layer, _EARLIER.get(layer))):
            for node in self._nodes:
                if node.op_type == operator and self._is_of(node, f"/{name}_1/{part}"):
                    return self._constants_of(node)
        raise GraphError(f"{self._name} has no {operator} of the layer '{layer}'")

    def values(self, operator: str, layer: str) -> Array:
        """The first constant of :meth:`find`, in one row."""
        return np.array(numpy_helper.to_array(self.find(operator, layer)[0]), np.float32).ravel()

    def place(self, constant: TensorProto, axes: tuple[int, ...] | None = None) -> Stored:
        """Where a constant lies; without ``axes`` in one row."""
        at = self._content.find(constant.raw_data)
        if constant.data_type != TensorProto.FLOAT or not constant.raw_data or at < 0:
            raise GraphError(f"{self._name}: {constant.name} does not lie in the file as float32")
        if axes is None:
            return Stored(at, (int(np.prod(constant.dims)),), (0,))
        return Stored(at, tuple(constant.dims), axes)

    def _is_of(self, node: NodeProto, name: str) -> bool:
        constants = [item.name for item in self._constants_of(node)]
        return bool(constants) and any(name in each for each in (node.name, *constants))

    def _constants_of(self, node: NodeProto) -> list[TensorProto]:
        return [self._constants[name] for name in node.input if name in self._constants]


def places(network: keras.Model, export: Export) -> dict[str, Place]:
    """Where the values of each variable of a network lie, by its path.

    Raises:
        GraphError: they are not in the export.
    """
    found: dict[str, Place] = {}
    for layer in _layers(network):
        found |= dict(zip([variable.path for variable in layer.weights], _places_of(layer, export), strict=True))
    return found


def _layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers with variables, those of networks inside of it among them."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif layer.weights:
            yield layer


def _places_of(layer: keras.layers.Layer, export: Export) -> list[Place]:
    """Where the variables of a layer lie, in its order."""
    name = layer.name
    if isinstance(layer, layers.BatchNormalization):
        return _normalisation(layer, export)
    if isinstance(layer, layers.SeparableConv2D):
        pointwise = export.find("Conv", name, "separable_conv2d/merged_input")[0]
        return [export.place(export.find("Conv", name)[0], _DEPTHWISE), export.place(pointwise, _KERNEL)]
    if isinstance(layer, layers.DepthwiseConv2D):
        return [export.place(export.find("Conv", name)[0], _DEPTHWISE)]
    if isinstance(layer, layers.Conv2D):
        kernel, *bias = export.find("Conv", name)
        return [export.place(kernel, _KERNEL), *(export.place(each) for each in bias if layer.use_bias)]
    if isinstance(layer, layers.Dense):
        return _dense(layer, export)
    raise GraphError(f"the layer '{name}' is a {type(layer).__name__}, whose variables are looked for nowhere")


def _dense(layer: keras.layers.Layer, export: Export) -> list[Place]:
    """Kernel and bias; a bias of zeros is left out by the export."""
    kernel: list[Place] = [export.place(export.find("MatMul", layer.name)[0], (0, 1))]
    if not layer.use_bias:
        return kernel
    try:
        return [*kernel, export.place(export.find("Add", layer.name)[0])]
    except GraphError:
        return [*kernel, Filled(0.0)]


def _normalisation(layer: keras.layers.Layer, export: Export) -> list[Place]:
    """Scale, bias, mean and variance of a normalisation that was folded, or stands behind a depthwise convolution."""
    still: list[Place] = [Filled(0.0), Filled(1 - layer.epsilon)]
    try:
        _, bias = export.find("Conv", layer.name)
    except GraphError:
        return [*(export.place(export.find(operator, layer.name)[0]) for operator in ("Mul", "Add")), *still]
    return [Filled(1.0), export.place(bias), *still]


def rebuilt(recipe: Recipe, export: Export) -> keras.Model:
    """The served network that a recipe describes; its variables have any values.

    Raises:
        GraphError: the file is an export of another network.
    """
    architecture, plan = catalogue.find(recipe.architecture), recipe.plan
    network = fitted(architecture.build(plan), plan, export)
    return calibrated(architecture.serve(network, plan), export)


def fitted(network: keras.Model, plan: Plan, export: Export) -> keras.Model:
    """What the ``fit`` of an architecture adds: the distance of a gate, the mirror image of a classifier."""
    if FEATURES in network.output:
        mean = export.values("Sub", "distance")
        distance = mahalanobis_distance(network.output[FEATURES], mean, np.eye(len(mean), dtype=np.float32))
        return keras.Model(network.input, {**network.output, "distance": distance}, name=network.name)
    if "logits" in network.output:
        return ensemble(network, None, mirrored=bool(plan.options["mirrored"]))
    return network


def calibrated(served: keras.Model, export: Export) -> keras.Model:
    """What calibration adds to a network that answers members: their mean, and the scaling of each label."""
    if "members" not in served.output:
        return served
    slopes, offsets = (export.values(operator, "calibrated").tolist() for operator in ("Mul", "Add"))
    inputs = int(np.prod(served.output["members"].shape[1:]))
    mean = Linear(np.zeros((inputs, len(slopes))), np.zeros(len(slopes)))
    return with_probabilities(served, mean, [Platt(*pair) for pair in zip(slopes, offsets, strict=True)])


def write_graph(network: keras.Model, exported: Path) -> Path:
    """Write the Keras graph of a network beside its ONNX file.

    Raises:
        GraphError: the file is an export of another network.
    """
    config = keras.saving.serialize_keras_object(network)
    graph = KerasGraph(exported.name, file_digest(exported), config, places(network, Export(exported)))
    file = exported.with_suffix(".keras.json")
    file.write_bytes(GRAPH.dump_json(graph) + b"\n")
    return file


def with_graph(spec: ModelSpec, recipe: Recipe) -> ModelSpec:
    """The model of an ONNX file with a Keras graph, which is written.

    Raises:
        GraphError: the file is an export of another network.
    """
    file = write_graph(rebuilt(recipe, Export(spec.file)), spec.file)
    return replace(spec, keras=file, keras_digest=file_digest(file))


def main() -> None:
    """Write the Keras graph of each bundled network, and name it in its manifest."""
    for manifest in sorted(BUNDLED.glob("*.toml")):
        spec = read_manifest(manifest)
        keras.utils.clear_session()
        spec = with_graph(spec, read_recipe(RECIPES / f"bundled-{spec.name.removeprefix('chest-')}.toml"))
        manifest.write_text(manifest_text(spec), encoding="utf-8")
        print(spec.keras)


if __name__ == "__main__":
    main()
