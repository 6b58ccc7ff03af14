"""A network on another machine: the table ``[endpoint]`` of a manifest."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from config.section import TABLE


class EndpointProtocol(StrEnum):
    """Protocol of a model server."""

    OPEN_INFERENCE_HTTP = "open-inference-http"
    OPEN_INFERENCE_GRPC = "open-inference-grpc"
    FINDINGS_HTTP = "findings-http"


class ImageFormat(StrEnum):
    """How a server of findings gets the radiograph."""

    PNG16 = "png16"
    DICOM = "dicom"


def _absolute(value: str) -> str:
    if value and not Path(value).is_absolute():
        raise ValueError("must be an absolute path")
    return value


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


@dataclass(frozen=True, slots=True, config=TABLE)
class EndpointSpec:
    """The one server that is asked, what exactly it must run, and how it is reached.

    ``protocol`` to ``image`` say what answers and are part of the analysis; the others are not.
    """

    protocol: EndpointProtocol
    """open-inference-http and open-inference-grpc: the Open Inference Protocol (KServe v2: Triton, KServe, MLServer,
    OpenVINO Model Server). findings-http: a vendor's program that answers findings (docs/findings-protocol.md)."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]
    """Root of the server, such as https://inference.example:8000; for gRPC http or https with host and port alone.
    Nothing else is contacted."""
    model: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\s/]+$")]
    """Name of the model there."""
    version: Annotated[str, Field(max_length=64, pattern=r"^[^\s/]*$")] = ""
    """Its version there. An answer of another one is refused. Empty only where the server has no versions."""
    input: str = ""
    """Name of its input; empty: it has one."""
    probe: tuple[float, ...] = ()
    """What it answered to a drawn picture, as `pleura models new` writes it: other weights under the same name and
    version are refused. Empty: not asked (findings-http, detectors)."""
    image: ImageFormat = ImageFormat.PNG16
    """What findings-http sends: png16 (grey, 16 bit) or dicom (a new CR object of pixels alone). Neither holds anything
    of a patient."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Time limit for one image, all attempts together. Keep the sum over all models below
    `workers.job_timeout_seconds`."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Attempts within this time where the server cannot be reached or is busy. Then the job waits and is tried again
    until the server is back."""
    ca: AbsolutePath = ""
    """PEM file with the CAs that the server's certificate must come from; empty: those of this machine."""
    certificate: AbsolutePath = ""
    """PEM file with a client certificate."""
    key: AbsolutePath = ""
    """PEM file with its key; empty: it is in the same file."""
    token_file: AbsolutePath = ""
    """File with a bearer token, read for each connection."""

    @model_validator(mode="after")
    def _consistent(self) -> EndpointSpec:
        if urlsplit(self.url).hostname is None:
            raise ValueError("url: has no host")
        if self.protocol is EndpointProtocol.OPEN_INFERENCE_GRPC and urlsplit(self.url).path.strip("/"):
            raise ValueError("url: gRPC has no path")
        if not self.secure and (self.ca or self.certificate):
            raise ValueError("ca and certificate need a url with https")
        if self.probe and self.protocol is EndpointProtocol.FINDINGS_HTTP:
            raise ValueError("probe is for networks; a vendor's program tells the digest of its weights")
        if self.key and not self.certificate:
            raise ValueError("key needs certificate")
        if self.token_file and not self.secure and not self._on_this_machine:
            raise ValueError("token_file: a token is sent by https only")
        return self

    @property
    def secure(self) -> bool:
        """Whether it is called by TLS."""
        return self.url.startswith("https:")

    @property
    def identity(self) -> tuple[str, ...]:
        """What answers: the part of an endpoint that names an analysis."""
        probe = (",".join(map(str, self.probe)),) if self.probe else ()
        return self.protocol, self.url, self.model, self.version, self.input, self.image, *probe

    @property
    def _on_this_machine(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"
