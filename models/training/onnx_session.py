"""Run an exported network with ONNX Runtime, named outputs by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[np.float32]


def open_session(file: Path) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU."""
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, batch: Array, names: Sequence[str]) -> dict[str, Array]:
    """Named outputs of one batch."""
    answers = session.run(list(names), {session.get_inputs()[0].name: batch})
    return {name: np.asarray(answer) for name, answer in zip(names, answers, strict=True)}
