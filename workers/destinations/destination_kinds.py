"""The destination kinds by their name in the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from config.settings import Settings
from workers.destinations.deidentified import Deidentified
from workers.destinations.destination_kind import DestinationKind
from workers.destinations.dicomweb import DicomWeb
from workers.destinations.dimse import Dimse
from workers.destinations.fhir import Fhir
from workers.destinations.on_request import OnRequest
from workers.open_database import rules_of


def destination_kinds(settings: Settings) -> Mapping[str, DestinationKind]:
    """Every kind of destination, with what it needs of ``settings``."""
    return {
        "dimse": Dimse(settings.tls),
        "dicomweb": DicomWeb(settings.tls),
        "fhir": Fhir(settings.tls, settings.site),
        "on-request": OnRequest(settings.store.folder),
        "deidentified": Deidentified(settings.deidentification, rules_of(settings).patients),
    }
