"""Real inference servers with a network of ours: MLServer, and NVIDIA's Triton with its Python backend."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.peers import skip_without
from tests.ports import free_port

ENVIRONMENT = Path(__file__).parent / ".venv"
_SECONDS = 90
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
_TRITON_MODEL = """
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, arguments):
        self.session = onnxruntime.InferenceSession({network!r}, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def execute(self, requests):
        answers = []
        for request in requests:
            image = triton.get_input_tensor_by_name(request, "image").as_numpy()
            found = self.session.run(self.names, {{self.session.get_inputs()[0].name: image}})
            answers.append(triton.InferenceResponse([triton.Tensor(*pair) for pair in zip(self.names, found)]))
        return answers
"""
_TRITON_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 8
input [ {{ name: "image" data_type: TYPE_FP32 dims: [{height}, {width}, 1] }} ]
output [ {outputs} ]
version_policy: {{ specific: {{ versions: [{version}] }} }}
instance_group [ {{ kind: KIND_CPU }} ]
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
        skip_without("MLServer and Triton are missing: `make peers` installs them (tests/inference/install.sh)")


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
def triton(network: ServedNetwork, folder: Path) -> Iterator[ModelServer]:
    """Triton; its program and Python backend lie in PyTriton's package."""
    require_model_servers()
    packages = next((ENVIRONMENT / "lib").glob("python3.*")) / "site-packages"
    program = packages / "pytriton" / "tritonserver"
    repository, backend = folder / "models", folder / "backends" / "python"
    shutil.copytree(program / "backends" / "python", backend)
    stub = next((program / "python_backend_stubs" / packages.parent.name.removeprefix("python")).iterdir())
    shutil.copy(stub, backend).chmod(0o755)
    (repository / network.name / network.version).mkdir(parents=True)
    outputs = ", ".join(
        f'{{ name: "{name}" data_type: TYPE_FP32 dims: {list(shape)} }}' for name, shape in network.outputs.items()
    )
    (repository / network.name / "config.pbtxt").write_text(
        _TRITON_CONFIG.format(
            name=network.name, version=network.version, height=network.size[0], width=network.size[1], outputs=outputs
        )
    )
    model = repository / network.name / network.version / "model.py"
    model.write_text(_TRITON_MODEL.format(network=str(network.file)))
    ports = {"http": free_port(), "grpc": free_port()}
    command = [str(program / "bin" / "tritonserver"), "--model-repository", str(repository)]
    command += ["--backend-directory", str(folder / "backends"), "--allow-metrics", "false"]
    for kind, port in ports.items():
        command += [f"--{kind}-address", "127.0.0.1", f"--{kind}-port", str(port)]
    surroundings = {"PYTHONPATH": str(packages), "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or ""}
    with _running(command, surroundings, folder, ports["http"], network.name):
        yield ModelServer(f"http://127.0.0.1:{ports['http']}", f"http://127.0.0.1:{ports['grpc']}")


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
