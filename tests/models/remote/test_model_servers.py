"""The bundled classifier on a real inference server, MLServer, by HTTP and gRPC, as on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from models.contract import ModelInput, Prediction
from models.endpoint import EndpointProtocol, EndpointSpec
from models.model_registry import read_registry
from models.model_spec import ModelSpec
from models.pipeline import Pipeline
from models.predictor import load_predictor
from models.remote.calling import Caller
from models.remote.open_inference import transport_of
from models.runtime.executor import ModelLoadError, ModelUnavailableError
from models.runtime.loading import load
from tests.inference.model_servers import ModelServer, ServedNetwork, mlserver
from tests.models.samples import chestlike

pytestmark = pytest.mark.campaign

HTTP, GRPC = EndpointProtocol.OPEN_INFERENCE_HTTP, EndpointProtocol.OPEN_INFERENCE_GRPC


@pytest.fixture(scope="module")
def bundled() -> ModelSpec:
    return read_registry().find("chest-classifier")


@pytest.fixture(scope="module")
def served(bundled: ModelSpec) -> ServedNetwork:
    count = len(bundled.columns)
    outputs = {"probabilities": (count,), "maps": (-1, -1, count)}
    return ServedNetwork("chest", "3", bundled.file, (bundled.input.height, bundled.input.width), outputs)


@pytest.fixture(scope="module")
def server(served: ServedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with mlserver(served, tmp_path_factory.mktemp("server")) as running:
        yield running


def remote(bundled: ModelSpec, server: ModelServer, protocol: EndpointProtocol, version: str = "3") -> ModelSpec:
    """The bundled classifier as it is described by ``server``."""
    url = server.http if protocol is HTTP else server.grpc
    endpoint = EndpointSpec(protocol=protocol, url=url, model="chest", version=version)
    found = Caller(endpoint).ask(transport_of(endpoint).describe)
    return replace(bundled, endpoint=endpoint, digest=found.digest(version))


def predicted(spec: ModelSpec) -> Prediction:
    image = ModelInput(chestlike(512, 420), "1.2.3")
    return load_predictor(Pipeline(None, (spec,)), threads=1).predict(image)


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_a_server_gives_the_probabilities_and_maps_of_this_machine(
    bundled: ModelSpec, server: ModelServer, protocol: EndpointProtocol
) -> None:
    images = np.random.default_rng(4).random((2, 320, 320, 1)).astype(np.float32)
    here, there = load(bundled, threads=1).run(images), load(remote(bundled, server, protocol)).run(images)
    assert set(here) == set(there) == {"probabilities", "maps"}
    for name, array in here.items():
        np.testing.assert_allclose(there[name], array, atol=1e-5)
    ours, theirs = predicted(bundled), predicted(remote(bundled, server, protocol))
    assert [finding.label for finding in ours.findings] == [finding.label for finding in theirs.findings]
    for mine, other in zip(ours.findings, theirs.findings, strict=True):
        assert (mine.present, mine.implied_by) == (other.present, other.implied_by)
        assert other.probability == pytest.approx(mine.probability, abs=1e-5)


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_both_protocols_tell_of_one_model_and_another_is_refused(
    bundled: ModelSpec, server: ModelServer, protocol: EndpointProtocol
) -> None:
    spec = remote(bundled, server, protocol)
    assert spec.digest == remote(bundled, server, HTTP).digest
    with pytest.raises(ModelLoadError, match="describes another model 'chest' 3: digest"):
        load(replace(spec, digest="0" * 64))
    assert spec.endpoint is not None
    for other in (replace(spec.endpoint, version="9"), replace(spec.endpoint, model="heart")):
        with pytest.raises(ModelUnavailableError, match=r"it has no model|NOT_FOUND"):
            load(replace(spec, endpoint=other)).run(np.zeros((1, 320, 320, 1), np.float32))
