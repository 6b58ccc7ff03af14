"""Checks over any protocol that a model server runs what the manifest pins."""

from __future__ import annotations

from models.model_spec import ModelKind, ModelSpec
from models.remote import findings_server, open_inference


def check_server(spec: ModelSpec) -> None:
    """Ask the server of a model with an ``endpoint`` what it runs.

    Raises:
        ModelUnavailableError: it is not what the manifest pins, or cannot be asked.
        ModelLoadError: what calling it needs is not installed.
        ModelOutputError: its answer cannot be read.
    """
    assert spec.endpoint is not None
    if spec.kind is ModelKind.FINDINGS:
        findings_server.check_description(spec, findings_server.describe(spec.endpoint))
    else:
        open_inference.check_description(spec)
