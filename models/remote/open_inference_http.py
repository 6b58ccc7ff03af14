"""The Open Inference Protocol by HTTP: JSON, and binary tensors where the server has that extension."""

from __future__ import annotations

import json
from typing import Any, TypeVar
from urllib.parse import quote

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from models.contract import Pixels
from models.endpoint import EndpointSpec
from models.remote.http import HttpServer
from models.remote.open_inference import Description, Tensor, array_of, check_answer
from models.runtime.executor import ModelOutputError

_BINARY = "binary_tensor_data"
_HEADER_LENGTH = "Inference-Header-Content-Length"


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


_T = TypeVar("_T", bound=_Read)


class _Server(_Read):
    extensions: tuple[str, ...] = ()


class _Tensor(_Read):
    name: str
    datatype: str
    shape: tuple[int, ...]


class _Model(_Read):
    name: str
    versions: tuple[str, ...] | None = None
    platform: str = ""
    inputs: tuple[_Tensor, ...] = ()
    outputs: tuple[_Tensor, ...] = ()


class _Output(_Tensor):
    data: Any = None
    parameters: dict[str, Any] | None = None


class _Inference(_Read):
    model_name: str
    model_version: str | None = None
    outputs: tuple[_Output, ...]


class HttpTransport:
    """A model behind ``endpoint.url``; see :class:`models.remote.open_inference.Transport`."""

    def __init__(self, endpoint: EndpointSpec) -> None:
        self._endpoint = endpoint
        self._server = HttpServer(endpoint)
        self._binary = False

    def describe(self, seconds: float) -> Description:
        """See there."""
        server = self._parsed(_Server, self._server.request("v2", seconds).body)
        self._binary = _BINARY in server.extensions
        model = self._parsed(_Model, self._server.request(self._path(), seconds).body)
        tensors = map(_tensors, (model.inputs, model.outputs))
        return Description(model.name, model.versions or (), model.platform, *tensors)

    def infer(self, name: str, tensor: Pixels, seconds: float) -> dict[str, NDArray[Any]]:
        """See there."""
        given: dict[str, Any] = {"name": name, "shape": list(tensor.shape), "datatype": "FP32"}
        headers, raw = {"Content-Type": "application/json"}, b""
        if self._binary:
            raw = tensor.astype("<f4").tobytes()
            given["parameters"] = {"binary_data_size": len(raw)}
            head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
            headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(head))}
        else:
            given["data"] = tensor.ravel().tolist()
            head = json.dumps({"inputs": [given]}).encode()
        answer = self._server.request(f"{self._path()}/infer", seconds, head + raw, headers)
        length = answer.headers.get(_HEADER_LENGTH)
        end = int(length) if length is not None and length.isdecimal() else len(answer.body)
        parsed = self._parsed(_Inference, answer.body[:end])
        check_answer(self._endpoint, parsed.model_name, parsed.model_version or "")
        return self._outputs(parsed.outputs, answer.body[end:])

    def _outputs(self, outputs: tuple[_Output, ...], raw: bytes) -> dict[str, NDArray[Any]]:
        found, at = {}, 0
        for output in outputs:
            size = (output.parameters or {}).get("binary_data_size")
            content: bytes | list[Any] = output.data if isinstance(output.data, list) else []
            if isinstance(size, int) and size >= 0:
                content, at = raw[at : at + size], at + size
            found[output.name] = array_of(self._endpoint, Tensor(output.name, output.datatype, output.shape), content)
        return found

    def _path(self) -> str:
        version = f"/versions/{quote(self._endpoint.version, safe='')}" if self._endpoint.version else ""
        return f"v2/models/{quote(self._endpoint.model, safe='')}{version}"

    def _parsed(self, kind: type[_T], body: bytes) -> _T:
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            raise ModelOutputError(
                f"{self._endpoint.model}: {self._endpoint.url} does not speak the Open Inference Protocol"
            ) from error


def _tensors(tensors: tuple[_Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(each.name, each.datatype, each.shape) for each in tensors)
