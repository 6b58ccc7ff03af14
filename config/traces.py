"""The settings of OpenTelemetry traces."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from config.secret import Secret
from config.section import Part


class Traces(Part):
    """OpenTelemetry traces of an image's way: received, analysed, delivered (docs/traces.md). No patient data."""

    enabled: bool = False
    """Send traces; needs the extra `traces`."""
    endpoint: str = Field(default="", pattern=r"^(https?://[^\s?#]+)?$")
    """Where an OpenTelemetry collector takes traces by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces."""
    authorization: Secret | None = None
    """Value of the Authorization header, such as `Bearer …`; empty: none."""
    ca_file: Path | None = None
    """PEM file with the CA of the collector, where it is none that this system trusts."""
    timeout_seconds: float = Field(default=10, gt=0, le=60)
    """Time limit for connecting and for the answer."""
    interval_seconds: float = Field(default=5, gt=0, le=300)
    """How often the database is asked for what has ended, and spans are sent."""

    @model_validator(mode="after")
    def _complete(self) -> Traces:
        if self.enabled and not self.endpoint:
            raise ValueError("traces are enabled: set endpoint too")
        return self
