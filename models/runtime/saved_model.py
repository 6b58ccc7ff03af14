"""A TensorFlow SavedModel: a folder with a graph and its variables, run by its signature ``serving_default``.

A graph is a program: TensorFlow has operations that read and write files and call Python. A graph that holds one is
refused before it is loaded, but for those by which every SavedModel saves and restores its variables; these may not
stand in what is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from models.contract import Pixels
from models.manifest import SAVED_MODEL

SIGNATURE = "serving_default"
_FORBIDDEN = re.compile(r"PyFunc|File|Reader|Record|Dataset|Iterator|Rpc|Summary|Debug|Checkpoint|Library|Save|Restore")
_OF_SAVER = frozenset({"ShardedFilename", "SaveV2", "RestoreV2", "MergeV2Checkpoints"})


class SavedModelError(ValueError):
    """A folder is no SavedModel that can be run, or its graph does what no network needs; the message says what."""


class SavedModel:
    """A loaded SavedModel with one image as its input."""

    def __init__(self, folder: Path) -> None:
        """Load ``folder``.

        Raises:
            SavedModelError: see there.
        """
        _refuse(_operations(folder), besides=_OF_SAVER)
        try:
            loaded = tensorflow.saved_model.load(str(folder))
        except tensorflow.errors.OpError as error:
            raise SavedModelError(f"cannot be read: {error}") from error
        if SIGNATURE not in loaded.signatures:
            known = ", ".join(loaded.signatures) or "none"
            raise SavedModelError(f"has no signature '{SIGNATURE}' (it has: {known})")
        self.signature = loaded.signatures[SIGNATURE]
        self._loaded = loaded  # owns the variables
        _refuse(_in_graph(self.signature.graph.as_graph_def()))
        inputs = self.signature.structured_input_signature[1]
        if len(inputs) != 1:
            raise SavedModelError(f"has {len(inputs)} inputs ({', '.join(inputs)}), one is expected")
        self.input_name, self.input = next(iter(inputs.items()))

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of its input, None where it is free."""
        return () if self.input.shape.rank is None else tuple(self.input.shape)

    def predict_on_batch(self, batch: Pixels) -> Mapping[str, Pixels]:
        """Its outputs by name."""
        found = self.signature(**{self.input_name: tensorflow.constant(batch)})
        return {name: np.asarray(value) for name, value in found.items()}


def _refuse(operations: Iterable[str], besides: frozenset[str] = frozenset()) -> None:
    found = sorted({name for name in operations if _FORBIDDEN.search(name) and name not in besides})
    if found:
        raise SavedModelError(f"its graph holds operations that no network needs: {', '.join(found)}")


def _operations(folder: Path) -> Iterable[str]:
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / SAVED_MODEL).read_bytes())
    except (OSError, DecodeError) as error:
        raise SavedModelError(f"cannot be read: {error}") from error
    for graph in saved.meta_graphs:
        yield from _in_graph(graph.graph_def)


def _in_graph(graph: Any) -> Iterable[str]:
    yield from (node.op for node in graph.node)
    for function in graph.library.function:
        yield from (node.op for node in function.node_def)
