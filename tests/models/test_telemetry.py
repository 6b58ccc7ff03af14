"""Running a network writes nothing about this machine, and the product has one way to import ONNX Runtime."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import config
import db
import models
import node
import workers

_LOAD = """
import sys
from pathlib import Path
from models.manifest import read_manifest
from models.runtime.loading import load
load(read_manifest(Path(sys.argv[1])), device="cpu")
"""


def test_loading_a_network_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    manifest = Path(models.__file__).parent / "bundled" / "chest-gate.toml"
    hidden = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"HOME": str(tmp_path)}
    command = [sys.executable, "-P", "-c", _LOAD, str(manifest)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []


def test_nothing_else_imports_onnx_runtime() -> None:
    rooms = [Path(str(room.__file__)).parent for room in (config, db, models, node, workers)]
    found = {
        path.name
        for room in rooms
        for path in room.rglob("*.py")
        for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(statement, ast.Import) and any(name.name == "onnxruntime" for name in statement.names))
        or (isinstance(statement, ast.ImportFrom) and statement.module == "onnxruntime")
    }
    assert found == {"onnx_runtime.py"}
