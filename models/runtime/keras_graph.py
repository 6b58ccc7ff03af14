"""A Keras graph: what a network of an ONNX file is in Keras, without weights of its own.

The JSON file holds the configuration of the Keras model, and where in the ONNX file the values of each of its variables
lie. So a GPU with TensorFlow runs exactly the weights that ONNX Runtime runs, and a network is not shipped twice.
``models.training.keras_graph`` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from models.manifest import file_digest
from models.runtime.executor import ModelLoadError

SUFFIX = ".json"
_TYPE = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Stored:
    """Values in the ONNX file: ``float32[shape]`` from byte ``at`` on, whose axes Keras has in the order ``axes``."""

    at: Annotated[int, Field(ge=0)]
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def read(self, content: bytes) -> NDArray[np.float32]:
        """The values, as Keras has them.

        Raises:
            ValueError: they do not lie in the file.
        """
        values = np.frombuffer(content, _TYPE, int(np.prod(self.shape)), self.at)
        return values.reshape(self.shape).transpose(self.axes)


@dataclass(frozen=True, slots=True)
class Filled:
    """A variable of which every value is the same."""

    value: float


@dataclass(frozen=True, slots=True)
class KerasGraph:
    """``network`` is the model as ``keras.saving.serialize_keras_object`` gives it, ``weights`` its variables by path.

    ``onnx`` names the ONNX file beside this one, ``onnx_digest`` is its SHA-256.
    """

    onnx: str
    onnx_digest: str
    network: dict[str, Any]
    weights: dict[str, Stored | Filled]
    format: Literal[1] = 1


GRAPH = TypeAdapter(KerasGraph)


def open_graph(file: Path) -> Any:
    """The Keras model of a graph with the weights of its ONNX file; no code of the file runs (Keras's safe mode).

    Raises:
        ModelLoadError: it is no such file, or its ONNX file is another one than it was made of.
    """
    import keras

    try:
        graph = GRAPH.validate_json(file.read_bytes())
    except (ValidationError, OSError) as error:
        raise ModelLoadError(f"{file} is no Keras graph: {error}") from error
    exported = file.with_name(Path(graph.onnx).name)
    if (found := file_digest(exported)) != graph.onnx_digest:
        raise ModelLoadError(f"{file.name} belongs to {exported.name} with the digest {graph.onnx_digest}, not {found}")
    network = keras.saving.deserialize_keras_object(graph.network, safe_mode=True)
    content = exported.read_bytes()
    for variable in network.weights:
        place = graph.weights[variable.path]
        variable.assign(
            place.read(content) if isinstance(place, Stored) else np.full(variable.shape, place.value, _TYPE)
        )
    return network
