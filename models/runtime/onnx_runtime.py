"""ONNX Runtime without its telemetry.

Since version 1.31 it looks up a host of its maker and writes a device id into the cache folder, unless it is told not
to before it is imported. So the product imports it from here and from nowhere else.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["onnxruntime"]
