"""Keras belongs to the extra ``train``: a test that needs it is skipped without it, but never in CI."""

import importlib.util

from tests.peers import skip_without


def require_keras() -> None:
    """Skip the module that calls this if Keras and TensorFlow are not installed; fail in CI."""
    missing = [name for name in ("keras", "tensorflow", "tf2onnx") if importlib.util.find_spec(name) is None]
    if missing:
        skip_without(f"{', '.join(missing)} missing: pip install '.[train]'", module=True)
