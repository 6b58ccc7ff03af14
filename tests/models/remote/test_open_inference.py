"""The executor for the Open Inference Protocol: what is pinned, what crosses the network, and a server that is away."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from pydantic import ValidationError

from config.settings import Models, Settings
from models.endpoint import EndpointProtocol, EndpointSpec
from models.manifest import ManifestError, manifest_text, read_manifest
from models.model_spec import Mode, ModelSpec
from models.new_manifest import look_at_server
from models.pipeline import Pipeline
from models.predictor import load_predictor
from models.radiograph.reading import read_model_input
from models.remote.calling import RECHECK_SECONDS, Caller, NotReachedError
from models.remote.http import HttpServer
from models.remote.open_inference import OpenInferenceExecutor, transport_of
from models.runtime.executor import ModelLoadError, ModelOutputError, ModelUnavailableError
from models.runtime.loading import load
from models.training.datasets import read_dataset
from models.training.evaluation.evaluate import measure_network
from models.training.truths import LabelNames
from node.cli.main import cli
from node.monitoring.health import check_model_servers, check_models
from tests.certificates import Authority
from tests.dripping import dripping
from tests.models.remote.fake_server import NAME, VERSION, FakeServer, serving, tiny
from tests.models.samples import LABELS, SIZE, classifier_graph, manifest, model_input, radiograph, ramp, written
from tests.models.training.drawn import write_drawn

HTTP = EndpointProtocol.OPEN_INFERENCE_HTTP


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer()) as running:
        yield running


def endpoint(server: FakeServer, **more: Any) -> EndpointSpec:
    return EndpointSpec(**{"protocol": HTTP, "url": server.url, "model": NAME, "version": VERSION} | more)


@pytest.fixture
def local(tmp_path: Path) -> ModelSpec:
    return read_manifest(manifest(classifier_graph(tmp_path / "tiny.onnx"), "tiny"))


def remote(local: ModelSpec, server: FakeServer, **more: Any) -> ModelSpec:
    """The tiny classifier on ``server``, pinned as it is described there."""
    where = endpoint(server, **more)
    found = transport_of(where).describe(5)
    server.requests.clear()
    return replace(local, endpoint=where, digest=found.digest(where.version))


def images(count: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(5).random((count, SIZE, SIZE, 1)).astype(np.float32)


@pytest.mark.parametrize("binary", [False, True])
def test_a_server_answers_as_the_file_does(local: ModelSpec, server: FakeServer, binary: bool) -> None:
    server.binary = binary
    executor = load(remote(local, server))
    executor.warm()
    assert executor.runs_on == "server"
    here, there = load(local).run(images()), executor.run(images())
    for name, array in here.items():
        np.testing.assert_allclose(there[name], array, atol=1e-6)
    bodies = [body for path, _, body in server.requests if path.endswith("/infer")]
    assert len(bodies) == 4, "one to warm up, then each image alone"
    assert {len(body) > 4 * SIZE * SIZE for body in bodies} == {True}
    assert [b'"data"' in body for body in bodies] == [not binary] * 4


@pytest.mark.parametrize("binary", [False, True])
def test_nothing_of_a_patient_crosses_the_network(
    local: ModelSpec, server: FakeServer, tmp_path: Path, binary: bool
) -> None:
    identifiers: dict[str, Any] = {
        "PatientName": "Zyxwvut^Quirinus",
        "PatientID": "MRN-77120045",
        "PatientBirthDate": "19470523",
        "AccessionNumber": "ACC-99821",
        "StudyInstanceUID": "1.2.826.0.1.3680043.9.7433.1.777",
        "SeriesInstanceUID": "1.2.826.0.1.3680043.9.7433.1.778",
        "StudyDate": "20240229",
        "InstitutionName": "Saint Elsewhere",
        "StudyDescription": "THORAX-BETTAUFNAHME",
        "ReferringPhysicianName": "Hackenbush^Hugo",
    }
    source = radiograph(ramp(300, 260, 12), **identifiers)
    image = read_model_input(written(source, tmp_path / "image.dcm"))
    server.binary = binary
    predictor = load_predictor(Pipeline(None, (remote(local, server),)))
    assert predictor.predict(image).findings
    values = {
        *identifiers.values(),
        source.SOPInstanceUID,
        "DICM",
        "MRN",
        *(word for v in identifiers.values() for word in v.split("^")),
    }
    assert [value for value in values if value.encode() in server.sent] == []
    assert any(path.endswith("/infer") for path, _, _ in server.requests)


def a_newer_version(server: FakeServer) -> None:
    server.versions = ["2"]


def another_name(server: FakeServer) -> None:
    server.name = "heart"


def another_shape(server: FakeServer) -> None:
    server.shape = (-1, 64, 64, 1)


@pytest.mark.parametrize("swap", [a_newer_version, another_name, another_shape])
def test_another_model_than_the_pinned_one_is_never_used(
    local: ModelSpec, server: FakeServer, swap: Callable[[FakeServer], None]
) -> None:
    spec = remote(local, server)
    running = OpenInferenceExecutor(spec, clock=iter([0.0, 10.0, 100.0, 200.0, 300.0]).__next__)
    running.run(images(1))
    swap(server)
    with pytest.raises(ModelUnavailableError, match="manifest"):
        running.run(images(1))
    with pytest.raises(ModelLoadError, match="manifest"):
        load(spec)


def test_other_weights_under_the_same_name_and_version_are_refused(local: ModelSpec, server: FakeServer) -> None:
    network = look_at_server(endpoint(server))
    assert network.endpoint is not None
    assert len(network.endpoint.probe) == 2 + 16
    spec = replace(remote(local, server), endpoint=network.endpoint)
    load(spec).run(images(1))

    server.network = lambda given: {name: values * 1.001 for name, values in tiny(given).items()}
    load(spec).run(images(1))  # another device, another library
    server.network = lambda given: {name: values**1.2 for name, values in tiny(np.abs(given)).items()}
    with pytest.raises(ModelLoadError, match="has other weights under the same name and version"):
        load(spec)
    server.network = lambda given: {name: np.full_like(values, np.nan) for name, values in tiny(given).items()}
    with pytest.raises(ModelLoadError, match="other weights"):
        load(spec)
    load(replace(spec, endpoint=replace(network.endpoint, probe=())))


def test_weights_that_change_while_the_node_runs_are_noticed(local: ModelSpec, server: FakeServer) -> None:
    network = look_at_server(endpoint(server))
    spec, time = replace(remote(local, server), endpoint=network.endpoint), [0.0]
    executor = OpenInferenceExecutor(spec, clock=lambda: time[0])
    server.network = lambda given: {name: values + 0.1 for name, values in tiny(given).items()}
    time[0] = RECHECK_SECONDS
    with pytest.raises(ModelUnavailableError, match="other weights"):
        executor.run(images(1))


def test_an_answer_of_another_version_is_refused_and_asked_about(local: ModelSpec, server: FakeServer) -> None:
    executor = load(remote(local, server))
    server.version = "2"
    with pytest.raises(
        ModelUnavailableError, match="answers with 'tiny' version '2', the manifest pins 'tiny' version '1'"
    ):
        executor.run(images(1))
    server.version = VERSION
    executor.run(images(1))
    paths = [path for path, _, _ in server.requests]
    assert paths.count(f"/v2/models/{NAME}/versions/{VERSION}") == 2, "which model it runs was asked again"


def test_a_server_that_is_away_is_waited_for(local: ModelSpec, free_port: int) -> None:
    with serving(FakeServer(), port=free_port) as server:
        spec = remote(local, server, timeout_seconds=2.0, attempts=2)
    executor = load(spec)  # it starts all the same
    executor.warm()
    with pytest.raises(ModelUnavailableError, match=r"model server http://127.0.0.1:\d+ cannot be used: it cannot be"):
        executor.run(images(1))
    again = load(spec)
    with serving(FakeServer(), port=free_port):
        with pytest.raises(ModelUnavailableError):
            again.run(images(1))  # asked a moment ago
        again._caller._away = None  # type: ignore[attr-defined]  # the moment is over
        assert set(again.run(images(1))) == {"probabilities", "maps"}


def test_attempts_are_bounded_and_back_off() -> None:
    now, waits, asked = [0.0], list[float](), list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    def away(seconds: float) -> None:
        asked.append(seconds)
        raise NotReachedError("nobody is there")

    where = EndpointSpec(protocol=HTTP, url="http://127.0.0.1:1", model="m", timeout_seconds=3.0, attempts=10)
    caller = Caller(where, lambda: now[0], sleep)
    for _ in range(3):
        with pytest.raises(ModelUnavailableError, match="nobody is there"):
            caller.ask(away)
    assert (waits, asked) == ([0.25, 0.5, 1.0], [3.0, 2.75, 2.25, 1.25])
    now[0] += 5
    assert caller.ask(lambda seconds: seconds) == 3.0


def test_a_busy_server_is_asked_again_and_a_stranger_is_not(local: ModelSpec, server: FakeServer) -> None:
    executor = load(remote(local, server))
    server.statuses = [503, 429]
    executor.run(images(1))
    server.requests.clear()
    server.statuses = [401]
    with pytest.raises(ModelUnavailableError, match="refuses the credentials"):
        executor.run(images(1))
    assert len(server.requests) == 1
    server.statuses = [500]
    with pytest.raises(ModelOutputError, match="answers with status 500"):
        executor.run(images(1))


def test_only_the_configured_host_is_contacted(
    local: ModelSpec, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a redirect nor a proxy of the environment leads elsewhere."""
    executor = load(remote(local, server))
    with serving(FakeServer()) as elsewhere:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "grpc_proxy"):
            monkeypatch.setenv(name, elsewhere.url)
        server.statuses, server.headers = [307], {"Location": f"{elsewhere.url}/v2/models/tiny/infer"}
        with pytest.raises(ModelOutputError, match="status 307"):
            executor.run(images(1))
        executor.run(images(1))
        assert elsewhere.requests == []


def test_a_server_that_drips_meets_the_time_limit(local: ModelSpec, server: FakeServer) -> None:
    executor = load(remote(local, server, timeout_seconds=0.4, attempts=1))
    server.drip_seconds = 0.01
    with pytest.raises(ModelUnavailableError, match="TimeoutError"):
        executor.run(images(1))
    with dripping() as url, pytest.raises(NotReachedError, match="TimeoutError"):
        HttpServer(replace(endpoint(server), url=url)).request("v2", 0.2)


def test_a_connection_that_the_server_has_closed_is_opened_again(local: ModelSpec, server: FakeServer) -> None:
    executor = load(remote(local, server, attempts=1))
    server.closes = True
    for _ in range(3):
        executor.run(images(1))


def lacks_values(answer: dict[str, Any]) -> None:
    answer["outputs"][0]["data"].pop()


def holds_words(answer: dict[str, Any]) -> None:
    answer["outputs"][0]["data"] = ["high", "low"]


def has_no_outputs(answer: dict[str, Any]) -> None:
    del answer["outputs"]


def is_of_bytes(answer: dict[str, Any]) -> None:
    answer["outputs"][0]["datatype"] = "BYTES"


def is_not_a_number(answer: dict[str, Any]) -> None:
    answer["outputs"][0]["data"][0] = float("nan")


@pytest.mark.parametrize("change", [lacks_values, holds_words, has_no_outputs, is_of_bytes, is_not_a_number])
def test_an_answer_that_cannot_be_believed_is_an_error(
    local: ModelSpec, server: FakeServer, change: Callable[[dict[str, Any]], None]
) -> None:
    executor = load(remote(local, server))
    server.change = change
    with pytest.raises(ModelOutputError):
        executor.run(images(1))


def test_certificates_on_both_sides_and_a_token_from_a_file(local: ModelSpec, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    there, here = authority.issue("inference"), authority.issue("node")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    context.load_cert_chain(there.certificate, there.key)
    context.verify_mode = ssl.CERT_REQUIRED
    token = tmp_path / "token"
    token.write_text("s3cret-of-the-server\n")
    files = {"ca": authority.certificate, "certificate": here.certificate, "key": here.key, "token_file": token}
    with serving(FakeServer(), context) as server:
        spec = remote(local, server, **{name: str(path) for name, path in files.items()})
        load(spec).run(images(1))
        assert {headers["Authorization"] for _, headers, _ in server.requests} == {"Bearer s3cret-of-the-server"}
        assert spec.endpoint is not None
        for wrong in (replace(spec.endpoint, ca=""), replace(spec.endpoint, certificate="", key="")):
            with pytest.raises(ModelUnavailableError, match=r"no TLS connection|cannot be reached"):
                load(replace(spec, endpoint=replace(wrong, attempts=1))).run(images(1))
        gone = replace(spec.endpoint, token_file=str(tmp_path / "none"))
        with pytest.raises(ModelUnavailableError, match=r"the token of .* cannot be read"):
            load(replace(spec, endpoint=gone)).run(images(1))


def test_a_shadow_model_whose_server_is_away_costs_the_others_nothing(local: ModelSpec, free_port: int) -> None:
    with serving(FakeServer(), port=free_port) as server:
        away = replace(remote(local, server, attempts=1), name="away", mode=Mode.SHADOW)
    predictor = load_predictor(Pipeline(None, (local, away)))
    predicted = {(finding.model, finding.label): finding for finding in predictor.predict(model_input()).findings}
    assert predicted["tiny", "lung_opacity"].probability is not None
    assert predicted["away", "lung_opacity"].probability is None
    assert "cannot be used" in predicted["away", "lung_opacity"].reason


def test_what_answers_names_the_analysis_and_how_it_is_reached_does_not(local: ModelSpec, server: FakeServer) -> None:
    spec = remote(local, server)
    assert spec.endpoint is not None

    def digest(**changes: Any) -> str:
        assert spec.endpoint is not None
        return Pipeline(None, (replace(spec, endpoint=replace(spec.endpoint, **changes)),)).digest()

    assert digest() == digest(timeout_seconds=5.0, attempts=1, token_file="/run/token")
    others = ({"version": "2"}, {"model": "other"}, {"url": "http://127.0.0.1:1"}, {"probe": (0.5,)})
    assert len({digest(), *(digest(**other) for other in others)}) == 5


FILLED = f"""
[model]
name = "remote-tiny"
version = "1.0.0"
title = "A tiny classifier elsewhere"
kind = "classifier"
digest = "DIGEST"
device_uid = "2.25.1234567890"

[endpoint]
protocol = "open-inference-http"
url = "URL"
model = "{NAME}"
version = "{VERSION}"

[input]
height = {SIZE}
width = {SIZE}
{LABELS}"""


def test_an_administrator_adds_a_network_on_a_server(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["models", "new", "--server", server.url, "--model", NAME, "--version", VERSION]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.output
    assert f"pleura models add --manifest {NAME}.toml" in done.stdout
    text = Path(f"{NAME}.toml").read_text()
    seen = transport_of(endpoint(server)).describe(5).digest(VERSION)
    assert f'digest = "{seen}"' in text
    assert f'[endpoint]\nprotocol = "open-inference-http"\nurl = "{server.url}"\n' in text
    Path("filled.toml").write_text(FILLED.replace("DIGEST", seen).replace("URL", server.url))
    Path("pleura.toml").write_text('[models]\nfolder = "own"\nactive = ["remote-tiny"]\ngate = ""\nlungs = ""\n')
    added = CliRunner().invoke(cli, ["--config", "pleura.toml", "models", "add", "--manifest", "filled.toml"])
    assert added.exit_code == 0, added.output
    shown = CliRunner().invoke(cli, ["--config", "pleura.toml", "models", "show", "remote-tiny"]).stdout
    assert f"runs on      {server.url} (open-inference-http) as {NAME} {VERSION}" in shown
    spec = read_manifest(Path("own/remote-tiny.toml"))
    assert manifest_text(spec)
    assert load(spec).run(images(1))

    settings = Settings(models=Models(folder=Path("own"), active=("remote-tiny",), gate="", lungs=""))
    assert check_models(settings).ok
    (good,) = check_model_servers(settings)
    assert good.ok
    assert good.found == f"{server.url} runs {NAME} {VERSION}, as pinned"
    server.versions = ["7"]
    (bad,) = check_model_servers(settings)
    assert not bad.ok
    assert "has the versions 7, its manifest pins '1'" in bad.found
    assert "Bring the pinned model back" in bad.remedy
    gone = CliRunner().invoke(cli, ["--config", "pleura.toml", "models", "remove", "remote-tiny", "--yes"])
    assert "the configuration runs" in gone.stderr
    Path("pleura.toml").write_text('[models]\nfolder = "own"\n')
    gone = CliRunner().invoke(cli, ["--config", "pleura.toml", "models", "remove", "remote-tiny", "--yes"])
    assert (gone.exit_code, list(Path("own").iterdir())) == (0, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "ftp://host"}, "url"),
        ({"url": "http://host", "ca": "/ca.pem"}, "need a url with https"),
        ({"url": "http://host", "token_file": "/token"}, "by https only"),
        ({"url": "https://host", "ca": "ca.pem"}, "absolute path"),
        ({"url": "https://host", "key": "/key.pem"}, "key needs certificate"),
        ({"url": "https://host/path", "protocol": EndpointProtocol.OPEN_INFERENCE_GRPC}, "gRPC has no path"),
    ],
)
def test_an_endpoint_that_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EndpointSpec(**{"protocol": HTTP, "model": "m"} | change)


def test_a_manifest_has_a_file_or_an_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(FILLED.replace("DIGEST", "0" * 64).replace("URL", "http://h").replace("[endpoint]", "[endpoint_]"))
    with pytest.raises(ManifestError, match="endpoint_"):
        read_manifest(path)
    text = FILLED.replace("DIGEST", "0" * 64).replace("URL", "http://h")
    path.write_text(text.replace('kind = "cl', 'file = "a.onnx"\nkind = "cl'))
    with pytest.raises(ManifestError, match=r"model.file or \[endpoint\] says where the network is"):
        read_manifest(path)


def test_the_fake_answers_as_the_graph(local: ModelSpec) -> None:
    found = load(local).run(images())
    for name, array in tiny(images()[..., 0]).items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)


def test_it_is_measured_as_the_same_network_here_is(server: FakeServer, local: ModelSpec, tmp_path: Path) -> None:
    samples = read_dataset.read(write_drawn(tmp_path / "d", 10)).samples
    names = LabelNames(tuple(label.name for label in local.labels), {"other": ("abnormal",)})
    there, here = (measure_network(load(spec), samples, names) for spec in (remote(local, server), local))
    np.testing.assert_allclose(there.scores, here.scores, atol=1e-6)
    np.testing.assert_allclose(there.marked["lung_opacity"][1].served, here.marked["lung_opacity"][1].served)
