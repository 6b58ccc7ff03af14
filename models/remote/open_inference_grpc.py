"""The Open Inference Protocol by gRPC.

Its few messages are described here: generated code would tie us to one version of protobuf.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from models.contract import Pixels
from models.endpoint import EndpointSpec
from models.remote.calling import NotReachedError
from models.remote.http import LARGEST_ANSWER, bearer_token
from models.remote.open_inference import DATATYPES, Description, Tensor, array_of, check_answer
from models.runtime.executor import ModelOutputError, ModelUnavailableError

_PACKAGE = "inference"
_Field = descriptor_pb2.FieldDescriptorProto
_TEXT, _BYTES, _INT64 = _Field.TYPE_STRING, _Field.TYPE_BYTES, _Field.TYPE_INT64
_MESSAGES: dict[str, list[tuple[str, int, int | str, bool]]] = {
    # Message: name, number, type (or message), whether there are many. Fields that nobody here needs are left out.
    "ModelMetadataRequest": [("name", 1, _TEXT, False), ("version", 2, _TEXT, False)],
    "TensorMetadata": [("name", 1, _TEXT, False), ("datatype", 2, _TEXT, False), ("shape", 3, _INT64, True)],
    "ModelMetadataResponse": [
        ("name", 1, _TEXT, False),
        ("versions", 2, _TEXT, True),
        ("platform", 3, _TEXT, False),
        ("inputs", 4, "TensorMetadata", True),
        ("outputs", 5, "TensorMetadata", True),
    ],
    "InferTensorContents": [
        ("int_contents", 2, _Field.TYPE_INT32, True),
        ("int64_contents", 3, _INT64, True),
        ("uint_contents", 4, _Field.TYPE_UINT32, True),
        ("uint64_contents", 5, _Field.TYPE_UINT64, True),
        ("fp32_contents", 6, _Field.TYPE_FLOAT, True),
        ("fp64_contents", 7, _Field.TYPE_DOUBLE, True),
    ],
    "InferTensor": [
        ("name", 1, _TEXT, False),
        ("datatype", 2, _TEXT, False),
        ("shape", 3, _INT64, True),
        ("contents", 5, "InferTensorContents", False),
    ],
    "ModelInferRequest": [
        ("model_name", 1, _TEXT, False),
        ("model_version", 2, _TEXT, False),
        ("inputs", 5, "InferTensor", True),
        ("raw_input_contents", 7, _BYTES, True),
    ],
    "ModelInferResponse": [
        ("model_name", 1, _TEXT, False),
        ("model_version", 2, _TEXT, False),
        ("outputs", 5, "InferTensor", True),
        ("raw_output_contents", 6, _BYTES, True),
    ],
}
_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
)
_REFUSED = {
    grpc.StatusCode.UNAUTHENTICATED: "it refuses the credentials",
    grpc.StatusCode.PERMISSION_DENIED: "it refuses the credentials",
    grpc.StatusCode.NOT_FOUND: "it has no model '{model}' {version}",
    grpc.StatusCode.UNIMPLEMENTED: "it does not speak the Open Inference Protocol",
}
_LONGEST_ERROR = 200


class GrpcTransport:
    """A model behind ``endpoint.url``; see :class:`models.remote.open_inference.Transport`."""

    def __init__(self, endpoint: EndpointSpec) -> None:
        self._endpoint = endpoint
        self._messages = message_classes()
        self._channel: grpc.Channel | None = None

    def describe(self, seconds: float) -> Description:
        """See there."""
        request = self._messages["ModelMetadataRequest"](name=self._endpoint.model, version=self._endpoint.version)
        metadata = self._call("ModelMetadata", request, "ModelMetadataResponse", seconds)
        tensors = map(_tensors, (metadata.inputs, metadata.outputs))
        return Description(metadata.name, tuple(metadata.versions), metadata.platform, *tensors)

    def infer(self, name: str, tensor: Pixels, seconds: float) -> dict[str, NDArray[Any]]:
        """See there."""
        request = self._messages["ModelInferRequest"](
            model_name=self._endpoint.model,
            model_version=self._endpoint.version,
            inputs=[{"name": name, "datatype": "FP32", "shape": tensor.shape}],
            raw_input_contents=[tensor.astype("<f4").tobytes()],
        )
        answer = self._call("ModelInfer", request, "ModelInferResponse", seconds)
        check_answer(self._endpoint, answer.model_name, answer.model_version)
        raw = list(answer.raw_output_contents)
        if raw and len(raw) != len(answer.outputs):
            raise ModelOutputError(f"{self._endpoint.model}: the server's answer does not hold all of its outputs")
        contents = raw or [_typed(each) for each in answer.outputs]
        pairs = zip(_tensors(answer.outputs), contents, strict=True)
        return {tensor.name: array_of(self._endpoint, tensor, content) for tensor, content in pairs}

    def _call(self, method: str, request: Any, answer: str, seconds: float) -> Any:
        if self._channel is None:
            self._channel = _channel(self._endpoint)
        ask = self._channel.unary_unary(
            f"/{_PACKAGE}.GRPCInferenceService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._messages[answer].FromString,
        )
        token = bearer_token(self._endpoint)
        try:
            return ask(request, timeout=seconds, metadata=[("authorization", f"Bearer {token}")] if token else [])
        except grpc.RpcError as error:
            self._close()
            raise self._checked(error) from error

    def _close(self) -> None:
        """Leave the channel: another reads renewed certificates, and knows no longer wait of its own."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _checked(self, error: Any) -> Exception:
        code, details = error.code(), str(error.details() or "")[:_LONGEST_ERROR]
        details = "".join(each if each.isprintable() else " " for each in details)
        if code in _AWAY:
            return NotReachedError(f"it cannot be reached ({code.name})")
        who = f"the model server {self._endpoint.url}"
        if code in _REFUSED:
            why = _REFUSED[code].format(model=self._endpoint.model, version=self._endpoint.version).rstrip()
            return ModelUnavailableError(f"{who} cannot be used: {why} ({code.name}: {details})")
        return ModelOutputError(f"{self._endpoint.model}: {who} answers with {code.name}: {details}")


def _tensors(tensors: Any) -> tuple[Tensor, ...]:
    return tuple(Tensor(each.name, each.datatype, tuple(each.shape)) for each in tensors)


def _typed(output: Any) -> bytes:
    """The values of an output that stand in typed fields, as they would stand in the raw ones."""
    contents = output.contents
    filled = [name for name, *_ in _MESSAGES["InferTensorContents"] if len(getattr(contents, name))]
    values = list(getattr(contents, filled[0])) if filled else []
    return np.asarray(values, DATATYPES.get(output.datatype, "<f4")).tobytes()


def _channel(endpoint: EndpointSpec) -> grpc.Channel:
    url = urlsplit(endpoint.url)
    options = [
        ("grpc.max_receive_message_length", LARGEST_ANSWER),
        ("grpc.max_send_message_length", LARGEST_ANSWER),
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),  # no look-up of a TXT record beside the host
    ]
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    where = f"{host}:{url.port or (443 if endpoint.secure else 80)}"
    if not endpoint.secure:
        return grpc.insecure_channel(where, options)
    return grpc.secure_channel(where, _credentials(endpoint), options)


def _credentials(endpoint: EndpointSpec) -> grpc.ChannelCredentials:
    """TLS as the endpoint says; gRPC has no CAs of the machine, so those of OpenSSL are given to it."""
    ca = endpoint.ca or ssl.get_default_verify_paths().cafile
    try:
        authorities = Path(ca).read_bytes() if ca else None
        chain = Path(endpoint.certificate).read_bytes() if endpoint.certificate else None
        key = Path(endpoint.key or endpoint.certificate).read_bytes() if endpoint.certificate else None
    except OSError as error:
        raise ModelUnavailableError(f"the TLS files of {endpoint.url} cannot be used: {error}") from error
    return grpc.ssl_channel_credentials(authorities, key, chain)


def message_classes() -> dict[str, Any]:
    """The classes of :data:`_MESSAGES`, from a pool of their own: another library may know messages of these names."""
    file = descriptor_pb2.FileDescriptorProto(name="pleura_open_inference.proto", package=_PACKAGE, syntax="proto3")
    for name, members in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for member, number, kind, many in members:
            label = _Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL
            added = message.field.add(name=member, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }
