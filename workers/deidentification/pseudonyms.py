"""Pseudonyms: what stands for a patient, a UID and a date, always the same under one key and one project.

All of them are HMAC-SHA256 (RFC 2104) of the original under the site's key, so without the key nobody can make or
reverse them, no table of them is kept, and the objects of one export still refer to each other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from dataclasses import dataclass

from db.patients import PatientIdentifier, PatientRules

_LEAST_DAYS, _MOST_DAYS = 366, 3650


@dataclass(frozen=True, slots=True)
class Subject:
    """A patient as the export shows them: a pseudonym, and by how many days their dates lie in the past."""

    pseudonym: str
    days: int


@dataclass(frozen=True, slots=True, repr=False)
class Pseudonyms:
    """Pseudonyms under ``key``; another ``project`` gives others, so that two data sets cannot be joined."""

    key: str
    project: str = ""

    def uid(self, original: str) -> str:
        """The UID in the place of ``original``: UUID-derived, under 2.25 (PS3.5 B.2)."""
        number = uuid.UUID(bytes=self._code("uid", original)[:16], version=4).int
        return f"2.25.{number}"

    def subject(self, patient: PatientIdentifier, study_instance_uid: str, rules: PatientRules) -> Subject:
        """The patient of a study; one whose ID is a placeholder has a pseudonym for this study alone."""
        nobody = rules.names_nobody(patient.patient_id)
        parts = ("study", study_instance_uid) if nobody else (rules.issuer(patient.issuer), patient.patient_id.strip())
        code = self._code("patient", *parts)
        days = int.from_bytes(self._code("days", *parts)[:8], "big") % (_MOST_DAYS - _LEAST_DAYS + 1) + _LEAST_DAYS
        return Subject("P-" + base64.b32encode(code[:10]).decode("ascii"), days)

    @property
    def fingerprint(self) -> str:
        """Names key and project without telling them."""
        return self._code("fingerprint").hex()[:16]

    def _code(self, purpose: str, *parts: str) -> bytes:
        text = b"".join(f"{len(part.encode())}:".encode() + part.encode() for part in (self.project, purpose, *parts))
        return hmac.new(self.key.encode(), text, hashlib.sha256).digest()
