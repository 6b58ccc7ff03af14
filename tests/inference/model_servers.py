"""A real inference server with a network of ours: MLServer."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.peers import skip_without
from tests.ports import free_port

ENVIRONMENT = Path(__file__).parent / ".venv"
_SECONDS = 240
_MLSERVER_MODEL = """
import numpy, onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class OnnxModel(MLModel):
    async def load(self):
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload):
        image = numpy.asarray(NumpyCodec.decode_input(payload.inputs[0]), numpy.float32)
        names = [output.name for output in self.session.get_outputs()]
        found = self.session.run(names, {self.session.get_inputs()[0].name: image})
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(names, found)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
"""


@dataclass(frozen=True, slots=True)
class ServedNetwork:
    """An ONNX network to be served, and the shape of its input and outputs without the batch (-1: any)."""

    name: str
    version: str
    file: Path
    size: tuple[int, int]
    outputs: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A server that runs."""

    http: str
    grpc: str


def require_model_servers() -> None:
    """Skip where they are not installed; in CI fail."""
    if not list(ENVIRONMENT.glob(".installed-*")):
        skip_without("MLServer is missing: `make peers` installs them (tests/inference/install.sh)")


@contextmanager
def mlserver(network: ServedNetwork, folder: Path) -> Iterator[ModelServer]:
    """MLServer with a runtime of ours for ONNX."""
    require_model_servers()
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    (folder / "model").mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
    (folder / "onnx_model.py").write_text(_MLSERVER_MODEL)
    settings = {
        "name": network.name,
        "implementation": "onnx_model.OnnxModel",
        "parameters": {"uri": str(network.file), "version": network.version},
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, *network.size, 1]}],
        "outputs": [{"name": k, "datatype": "FP32", "shape": [-1, *v]} for k, v in network.outputs.items()],
    }
    (folder / "model" / "model-settings.json").write_text(json.dumps(settings))
    command = [str(ENVIRONMENT / "bin" / "mlserver"), "start", str(folder)]
    with _running(command, {"PYTHONPATH": str(folder)}, folder, ports["http_port"], network.name):
        yield ModelServer(f"http://127.0.0.1:{ports['http_port']}", f"http://127.0.0.1:{ports['grpc_port']}")


@contextmanager
def _running(
    command: list[str], surroundings: Mapping[str, str], folder: Path, port: int, model: str
) -> Iterator[None]:
    log = folder / "server.log"
    path = os.pathsep.join([str(ENVIRONMENT / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **surroundings}
    with log.open("wb") as written:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=written, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, port, model, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, model: str, log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", f"/v2/models/{model}/ready")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            time.sleep(0.2)
        finally:
            connection.close()
    raise AssertionError(f"the inference server does not start: {log.read_text(errors='replace')[-3000:]}")
