"""The settings of de-identified export."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr, field_validator

from config.secret import Secret
from config.section import Part


class Deidentification(Part):
    """De-identified export for research: the basic profile of PS3.15 Annex E (docs/deidentified-export.md)."""

    key: Secret | None = None
    """Secret of 32 characters or more from which pseudonyms, UIDs and shifts of dates are made; without it nothing is
    exported. Who has it can find a patient again: guard it as the images, and never change it within a project."""
    project: str = ""
    """Name of the research project: each has pseudonyms of its own, so that their data sets cannot be joined."""
    dates: Literal["shifted", "removed"] = "shifted"
    """shifted: all dates of a patient lie by the same number of days in the past (one to ten years), times of day stay
    (Retain Longitudinal Temporal Information with Modified Dates). removed: no dates and times."""
    patient_characteristics: bool = True
    """Keep age (from 90 years on: 90), sex, size, weight and the like (Retain Patient Characteristics)."""
    device_identity: bool = False
    """Keep station name, serial numbers and other identifiers of devices (Retain Device Identity)."""
    clean_descriptors: bool = True
    """Keep descriptions as far as they consist of well-known words for body parts, views and procedures (Clean
    Descriptors); otherwise they are removed."""
    unknown_burned_in: Literal["radiographs", "refuse"] = "radiographs"
    """Images that do not say whether text is burned into their pixels: export radiographs (CR, DX) whose Image Type is
    PRIMARY and that were not scanned, or none. Secondary captures and images that say YES are never exported."""

    @field_validator("key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("the key needs 32 characters at least; `openssl rand -base64 32` makes one")
        return value
