"""Keras belongs to the extra ``train``: a test that needs it is skipped without it, but never in CI."""

import importlib.util
import os

import pytest


def require_keras() -> None:
    """Skip the module that calls this if Keras and TensorFlow are not installed; fail in CI."""
    missing = [name for name in ("keras", "tensorflow", "tf2onnx") if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"in CI the extra 'train' must be installed: {', '.join(missing)} missing", pytrace=False)
    if missing:
        pytest.skip(f"needs the extra 'train': {', '.join(missing)} missing", allow_module_level=True)
