"""The Open Inference Protocol by gRPC, against a small server; the real ones are asked in test_model_servers.py."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from models.endpoint import EndpointProtocol, EndpointSpec
from models.manifest import read_manifest
from models.model_spec import ModelSpec
from models.remote.open_inference import transport_of
from models.remote.open_inference_grpc import message_classes
from models.runtime.executor import ModelLoadError, ModelOutputError, ModelUnavailableError
from models.runtime.loading import load
from tests.certificates import Authority
from tests.models.remote.fake_server import NAME, VERSION, tiny
from tests.models.samples import SIZE, classifier_graph, manifest

MESSAGES = message_classes()


@dataclass
class FakeGrpcServer(grpc.GenericRpcHandler):
    version: str = VERSION
    raw: bool = True
    code: grpc.StatusCode | None = None
    url: str = ""
    token: str = ""

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        answer = {"ModelMetadata": self.describe, "ModelInfer": self.infer}[method]
        self.token = dict(details.invocation_metadata).get("authorization", "")
        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=MESSAGES[f"{method}Request"].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def describe(self, asked: Any, _context: Any) -> Any:
        image = {"name": "image", "datatype": "FP32", "shape": [-1, SIZE, SIZE, 1]}
        return MESSAGES["ModelMetadataResponse"](name=asked.name, versions=[VERSION], platform="fake", inputs=[image])

    def infer(self, asked: Any, context: Any) -> Any:
        if self.code is not None:
            context.abort(self.code, "as told")
        given = np.frombuffer(asked.raw_input_contents[0], "<f4").reshape(asked.inputs[0].shape)
        found = tiny(given[..., 0])
        answer = MESSAGES["ModelInferResponse"](model_name=asked.model_name, model_version=self.version)
        for name, array in found.items():
            output = answer.outputs.add(name=name, datatype="FP32", shape=array.shape)
            if self.raw:
                answer.raw_output_contents.append(array.astype("<f4").tobytes())
            else:
                output.contents.fp32_contents.extend(array.ravel())
        return answer


@contextmanager
def serving(server: FakeGrpcServer, credentials: grpc.ServerCredentials | None = None) -> Iterator[FakeGrpcServer]:
    listening = grpc.server(ThreadPoolExecutor(2), handlers=[server])
    if credentials is None:
        server.url = f"http://127.0.0.1:{listening.add_insecure_port('127.0.0.1:0')}"
    else:
        server.url = f"https://127.0.0.1:{listening.add_secure_port('127.0.0.1:0', credentials)}"
    listening.start()
    try:
        yield server
    finally:
        listening.stop(0).wait()


def remote(folder: Path, server: FakeGrpcServer, **more: Any) -> ModelSpec:
    where = EndpointSpec(
        protocol=EndpointProtocol.OPEN_INFERENCE_GRPC, url=server.url, model=NAME, version=VERSION, attempts=1, **more
    )
    spec = read_manifest(manifest(classifier_graph(folder / "tiny.onnx"), "tiny"))
    return replace(spec, endpoint=where, digest=transport_of(where).describe(5).digest(VERSION))


IMAGES = np.random.default_rng(5).random((2, SIZE, SIZE, 1)).astype(np.float32)


@pytest.mark.parametrize("raw", [True, False])
def test_a_server_answers_as_the_file_does(tmp_path: Path, raw: bool) -> None:
    with serving(FakeGrpcServer(raw=raw)) as server:
        spec = remote(tmp_path, server)
        there = load(spec).run(IMAGES)
    here = load(replace(spec, endpoint=None)).run(IMAGES)
    for name, array in here.items():
        np.testing.assert_allclose(there[name], array, atol=1e-6)


def test_another_version_an_error_and_an_absent_server(tmp_path: Path) -> None:
    with serving(FakeGrpcServer()) as server:
        spec = remote(tmp_path, server)
        executor = load(spec)
        server.version = "2"
        with pytest.raises(ModelUnavailableError, match="answers with 'tiny' version '2'"):
            executor.run(IMAGES)
        with pytest.raises(ModelLoadError, match="describes another model"):
            load(replace(spec, digest="0" * 64))
        server.version, server.code = VERSION, grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(ModelOutputError, match="INVALID_ARGUMENT: as told"):
            executor.run(IMAGES)
        server.code = grpc.StatusCode.NOT_FOUND
        with pytest.raises(ModelUnavailableError, match=r"it has no model 'tiny' 1 \(NOT_FOUND"):
            executor.run(IMAGES)
    with pytest.raises(ModelUnavailableError, match="it cannot be reached"):
        executor.run(IMAGES)


def test_certificates_on_both_sides_and_a_token_from_a_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    there, here = authority.issue("inference"), authority.issue("node")
    roots = authority.certificate.read_bytes()
    pairs = [(there.key.read_bytes(), there.certificate.read_bytes())]
    token = tmp_path / "token"
    token.write_text("s3cret")
    files = {"ca": authority.certificate, "certificate": here.certificate, "key": here.key, "token_file": token}
    with serving(FakeGrpcServer(), grpc.ssl_server_credentials(pairs, roots, require_client_auth=True)) as server:
        spec = remote(tmp_path, server, timeout_seconds=5.0, **{name: str(path) for name, path in files.items()})
        load(spec).run(IMAGES)
        assert server.token == "Bearer s3cret"
        assert spec.endpoint is not None
        stranger = replace(spec.endpoint, certificate="", key="", timeout_seconds=1.0)
        with pytest.raises(ModelUnavailableError, match="it cannot be reached"):
            load(replace(spec, endpoint=stranger)).run(IMAGES)
