"""The Open Inference Protocol (KServe v2): a network on Triton, KServe, MLServer or OpenVINO Model Server.

https://github.com/kserve/open-inference-protocol. Shared by HTTP and gRPC: the description of a model, what is pinned
of it, and the executor. Only prepared pixels and the name of the model leave this node.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.contract import Pixels
from models.endpoint import EndpointProtocol, EndpointSpec
from models.model_spec import ModelSpec
from models.remote.calling import Caller, OtherModelError, Pin
from models.remote.probe import TOLERANCE, difference, probe_input
from models.runtime.executor import (
    ModelLoadError,
    ModelOutputError,
    Outputs,
    RunsOn,
    blank,
    check_batch,
    check_outputs,
    input_shape,
)

DATATYPES: Mapping[str, str] = {
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "BOOL": "<u1",
}
"""Names of the protocol to NumPy's."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Description of an input or output; -1 stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """Description of a model by its server."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def digest(self, version: str) -> str:
        """SHA-256 of all that names this version, whatever other versions the server has."""
        tensors = [
            [[each.name, each.datatype, list(each.shape)] for each in sorted(group, key=lambda one: one.name)]
            for group in (self.inputs, self.outputs)
        ]
        content = json.dumps([self.name, version, self.platform, *tensors], separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


class Transport(Protocol):
    """HTTP or gRPC; each method asks once and raises as :meth:`models.remote.http.HttpServer.request` does."""

    def describe(self, seconds: float) -> Description:
        """The description that the server gives of the model."""

    def infer(self, name: str, tensor: Pixels, seconds: float) -> dict[str, NDArray[Any]]:
        """Its outputs by name for the input ``name``; an answer of another model or version is an OtherModelError."""


class OpenInferenceExecutor:
    """A network on another machine. Images go one by one: the server batches what several workers send."""

    runs_on: RunsOn = "server"

    def __init__(
        self, spec: ModelSpec, transport: Transport | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Look whether the server runs what the manifest pins; one that is away is asked when the first image comes.

        Raises:
            ModelLoadError: it runs something else, or what calling it needs is not installed.
        """
        assert spec.endpoint is not None
        self.spec = spec
        self._endpoint = spec.endpoint
        self._caller = Caller(spec.endpoint)
        self._transport = transport or transport_of(spec.endpoint)
        self._pin = Pin(self._described, clock)
        self._pin.get_at_start(spec.name)

    def run(self, batch: Pixels) -> Outputs:
        """Answer a batch; see :class:`models.runtime.executor.Executor`.

        Raises:
            ModelUnavailableError: the server is away, or runs another model now.
        """
        check_batch(self.spec, batch)
        name = self._pin.get()
        parts = [self._answer(name, batch[number : number + 1]) for number in range(len(batch))]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def warm(self) -> None:
        """Run once on an empty image, if the server is there."""
        if self._pin.holds:
            self.run(blank(self.spec))

    def _answer(self, name: str, image: Pixels) -> dict[str, Pixels]:
        with self._pin.dropped_on_failure():
            found = self._caller.ask(lambda seconds: self._transport.infer(name, image, seconds))
        return check_outputs(self.spec, found, 1)

    def _described(self) -> str:
        return pinned_input(self.spec, self._endpoint, self._caller, self._transport)


def check_description(spec: ModelSpec) -> None:
    """Ask once whether the server of a model runs what its manifest pins.

    Raises:
        ModelUnavailableError: it does not, or cannot be asked.
        ModelLoadError: what calling it needs is not installed.
        ModelOutputError: its answer cannot be read.
    """
    assert spec.endpoint is not None
    once = replace(spec.endpoint, attempts=1)
    pinned_input(spec, once, Caller(once), transport_of(once))


def pinned_input(spec: ModelSpec, endpoint: EndpointSpec, caller: Caller, transport: Transport) -> str:
    """The name of the server's input, once it describes itself, and answers a drawn picture, as the manifest pins.

    Raises:
        OtherModelError: it does not; the message says what differs.
        ModelUnavailableError: it cannot be asked.
    """
    description = caller.ask(transport.describe)
    name = input_of(spec, endpoint, description)
    if endpoint.probe:
        picture = probe_input(input_tensor(endpoint, description).shape)
        apart = difference(endpoint.probe, caller.ask(lambda seconds: transport.infer(name, picture, seconds)))
        if apart > TOLERANCE:
            raise OtherModelError(
                f"{spec.name}: the model server {endpoint.url} answers a drawn picture otherwise than when it was"
                f" pinned ({apart:.0%} apart): it has other weights under the same name and version"
            )
    return name


def transport_of(endpoint: EndpointSpec) -> Transport:
    """How a server is called.

    Raises:
        ModelLoadError: gRPC is not installed.
    """
    if endpoint.protocol is EndpointProtocol.OPEN_INFERENCE_HTTP:
        from models.remote.open_inference_http import HttpTransport

        return HttpTransport(endpoint)
    try:
        from models.remote.open_inference_grpc import GrpcTransport
    except ImportError as error:
        raise ModelLoadError(f"{endpoint.url}: gRPC needs `pip install 'pleura[grpc]'` ({error})") from error
    return GrpcTransport(endpoint)


def input_of(spec: ModelSpec, endpoint: EndpointSpec, description: Description) -> str:
    """The name of the server's input, once what it says is what the manifest pins.

    Raises:
        OtherModelError: it is not; the message says what differs.
    """
    who = f"{spec.name}: the model server {endpoint.url}"
    if description.name != endpoint.model:
        raise OtherModelError(f"{who} describes the model '{description.name}', its manifest names '{endpoint.model}'")
    if description.versions and endpoint.version not in description.versions:
        known = ", ".join(description.versions)
        raise OtherModelError(f"{who} has the versions {known}, its manifest pins '{endpoint.version}'")
    if (found := description.digest(endpoint.version)) != spec.digest:
        raise OtherModelError(
            f"{who} describes another model '{description.name}' {endpoint.version}: digest {found}, its manifest pins"
            f" {spec.digest}"
        )
    given = input_tensor(endpoint, description)
    wanted = (1, *input_shape(spec))
    fits = len(given.shape) == len(wanted) and all(
        side in (-1, want) for side, want in zip(given.shape, wanted, strict=True)
    )
    if not fits or given.datatype != "FP32":
        raise OtherModelError(
            f"{who} takes {given.datatype} {list(given.shape)}, its manifest says FP32 {list(wanted)}"
        )
    return given.name


def input_tensor(endpoint: EndpointSpec, description: Description) -> Tensor:
    """The one input of a model.

    Raises:
        OtherModelError: there is none of that name, or several and the manifest names none.
    """
    names = [each.name for each in description.inputs]
    chosen = [each for each in description.inputs if endpoint.input in ("", each.name)]
    if len(chosen) != 1 or len(names) != 1:
        raise OtherModelError(f"the model '{description.name}' has the inputs {', '.join(names)}; one is expected")
    return chosen[0]


def check_answer(endpoint: EndpointSpec, name: str, version: str) -> None:
    """Raise OtherModelError unless an answer comes from the pinned model and version."""
    if name != endpoint.model or version != endpoint.version:
        raise OtherModelError(
            f"the model server {endpoint.url} answers with '{name}' version '{version}', the manifest pins"
            f" '{endpoint.model}' version '{endpoint.version}'"
        )


def array_of(endpoint: EndpointSpec, tensor: Tensor, content: bytes | list[Any]) -> NDArray[Any]:
    """An output's values.

    Raises:
        ModelOutputError: it has another type than numbers, or not so many values as its shape says.
    """
    if tensor.datatype not in DATATYPES:
        raise ModelOutputError(
            f"{endpoint.model}: '{tensor.name}' is of the type {tensor.datatype}, numbers are needed"
        )
    kind = np.dtype(DATATYPES[tensor.datatype])
    try:
        values = np.frombuffer(content, kind) if isinstance(content, bytes) else np.asarray(content, kind)
        return values.reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelOutputError(
            f"{endpoint.model}: '{tensor.name}' does not hold {tensor.datatype} {list(tensor.shape)}"
        ) from error
