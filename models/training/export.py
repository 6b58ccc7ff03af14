"""From a trained Keras network to the ONNX file that the node serves."""

from __future__ import annotations

import uuid
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from models.agreement import difference
from models.training.onnx_session import open_session, run_session

Array = NDArray[np.float32]
TOLERANCE = 1e-4
ROWS = ("neighbours",)
"""Outputs that number the rows of an index: two rows at one distance may change places, so distances are compared."""
_SERIES = uuid.UUID("7f2a5a1e-6a3c-5d0f-9f5c-1c7b0e5b2d11")


class ExportError(RuntimeError):
    """The exported network does not say what the trained one says."""


def export_onnx(model: keras.Model, file: Path, probe: Array) -> float:
    """Write ``model`` as ONNX with a free batch size; returns the largest difference of any output on ``probe``.

    See :func:`models.agreement.difference`.

    Raises:
        ExportError: an output is missing, NaN, or differs by more than ``TOLERANCE``, in one batch or image by image.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    names = list(model.output)
    expected = {name: keras.ops.convert_to_numpy(value) for name, value in model(probe, training=False).items()}
    model.export(str(file), format="onnx", verbose=False)
    session = open_session(file)
    missing = set(names) - {item.name for item in session.get_outputs()}
    if missing:
        raise ExportError(f"{file.name} lacks the outputs {', '.join(sorted(missing))}")
    whole = run_session(session, probe, names)
    single = [run_session(session, probe[index : index + 1], names) for index in range(len(probe))]
    alone = {name: np.concatenate([item[name] for item in single]) for name in names}
    worst = max(difference(expected, answer, leaving_out=ROWS) for answer in (whole, alone))
    if not worst <= TOLERANCE:
        raise ExportError(f"{file.name} differs from the trained network by {worst:g}")
    return worst


def training_uid(digest: str) -> str:
    """A UID for exactly this training (PS3.5 B.2, derived from a UUID): the same weights have the same UID."""
    return f"2.25.{uuid.uuid5(_SERIES, digest).int}"
