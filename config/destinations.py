"""The settings of a destination, and what each kind of destination needs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from config.secret import Secret
from config.section import Part as _Part
from config.value_types import URI, AETitle, CertificateName, Kind


@dataclass(frozen=True, slots=True)
class _OfKind:
    """What a kind of destination is called on pages, the settings that it needs, and those that it changes.

    ``is_web``: it is reached by HTTP. ``takes_any_object``: it takes an object that is no result of a study, too.
    """

    label: str
    needs: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    is_web: bool = False
    takes_any_object: bool = False


_OF_KIND = {
    "dimse": _OfKind("DICOM", ("ae_title", "host", "port"), takes_any_object=True),
    "dicomweb": _OfKind("DICOMweb", ("url",), is_web=True, takes_any_object=True),
    "deidentified": _OfKind("de-identified", ("folder",)),
    "fhir": _OfKind("FHIR", ("url",), {"kinds": ("summary",), "rejection_notes": True}, is_web=True),
    "on-request": _OfKind("on request", (), {"rejection_notes": True, "associations": 1}),
}
"""The kinds by their name. A FHIR server takes the report of a study and no files, and is told what was taken back.
What is on request and stale cannot be asked for any more, so nobody must remove it: the note says so."""
_HERE = ("127.0.0.1", "localhost", "::1")


class Destination(_Part):
    """A peer that takes results."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    """Its name in log, worklist and database."""
    kind: Literal["dimse", "dicomweb", "deidentified", "fhir", "on-request"] = "dimse"
    """How it is reached: dimse is a DICOM association (C-STORE), dicomweb a server that takes results by STOW-RS,
    deidentified a folder that takes results with their images as [deidentification] says
    (docs/deidentified-export.md), fhir a FHIR R4 server that takes the report of a study (docs/fhir.md), on-request
    nobody: results stay here for whoever asks by Query/Retrieve (listener.peers[].query) or DICOMweb
    (docs/dicomweb.md)."""
    ae_title: AETitle = ""
    """Called AE title; required for dimse."""
    host: str = ""
    """Address; required for dimse."""
    port: Annotated[int, Field(ge=1, le=65535)] = 0
    """TCP port; required for dimse."""
    url: str = Field(default="", pattern=r"^(https?://[^\s@?#]+)?$")
    """Root of the DICOMweb services or of the FHIR server, such as https://pacs.example/dicom-web; required for these
    two."""
    user: str = ""
    """User of a web server (dicomweb, fhir), with password (HTTP Basic)."""
    password: Secret | None = None
    """Password of that user."""
    token: Secret | None = None
    """Bearer token for a web server, in the place of user and password."""
    token_url: str = Field(default="", pattern=r"^(https?://[^\s@?#]+)?$")
    """Where a FHIR destination gets its bearer token (OAuth 2.0 client credentials, with user as client ID and password
    as secret); empty: from nowhere."""
    scope: str = ""
    """Scope to ask for there, such as system/*.cruds; empty: none."""
    references: Literal["identifier", "search", "create"] = "identifier"
    """How a FHIR report refers to the patient. identifier: by patient ID. search: to the one Patient that the server
    has under that ID; the report waits until there is one. create: the same, but a Patient that the server does not
    know is created. With the latter two, order and images are searched, too, and referred to by identifier if not
    found."""
    patient_id_system: str = Field(default="", pattern=rf"^({URI})?$")
    """FHIR system (URI) of this site's patient IDs; empty: the first of site.patient_id_issuers that is an OID or a
    URI. Required for fhir where there is none."""
    accession_system: str = Field(default="", pattern=rf"^({URI})?$")
    """FHIR system (URI) of accession numbers whose issuer the images do not name."""
    folder: Path | None = None
    """Folder that is written; required for deidentified, and for nothing else."""
    kinds: tuple[Kind, ...] = ("seg", "sr", "summary")
    """Kinds of results that it takes: seg, sr, sc (Secondary Capture with a burned-in overlay), gsps, summary, lungs
    (both lungs as a segmentation of their own, which is no finding: docs/viewers.md). An empty list: nothing is sent by
    itself, but a C-MOVE may name it."""
    calling_ae_title: AETitle | None = None
    """AE title that we call with; empty: the listener's."""
    tls: bool = False
    """Call it by TLS, with the files of [tls]."""
    certificates: tuple[CertificateName, ...] = ()
    """Certificates that it may show: a common or alternative name, or the SHA-256 fingerprint, as sha256:AB:CD:… Empty:
    one of tls.ca that is valid for the host that is called."""
    timeout_seconds: float = Field(default=30, gt=0)
    """Time limit for connecting and for each answer."""
    associations: int = Field(default=2, ge=1, le=32)
    """Associations with it at a time, counted over all machines. The delivery worker has as many processes for it, so
    that a destination that hangs delays no other. After a call without an answer there is one at a time."""
    verify_identity: bool = False
    """Ask this peer by C-FIND for the study before sending. The delivery is put on hold if the patient differs, and
    after some attempts if the peer does not hold the study. For the archive that the studies come from."""
    verification: Literal["none", "query", "commitment"] = "none"
    """How this peer verifies that it holds what it took: none (its answer to C-STORE is enough), query (it is asked for
    each object by C-FIND), commitment (Storage Commitment; the peer must know our AE title, address and port, where it
    reports). What it does not hold is sent again once, if it still holds the study, then marked as failed. A
    change applies to what is sent afterwards."""
    verification_after_seconds: float = Field(default=30, gt=0)
    """It is asked so long after it accepted an object; the wait doubles with each further question, up to an hour."""
    rejection_notes: bool = False
    """Send this peer a rejection note of our own (IHE RAD IOCM: a Key Object Selection) for results of ours that are
    stale: their image was rejected or replaced, or there is a newer revision. The peer must support such notes.
    Otherwise the page of the study lists what a person must remove there."""
    erasure_notes: bool = False
    """Send this peer such a note (Data Retention Policy Expired) also for what it holds of a study that is erased here,
    before it is; the erasure waits until the peer has the note, or its attempts are used up."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_its_kind(cls, given: Any) -> Any:
        if not isinstance(given, dict) or (kind := _OF_KIND.get(str(given.get("kind")))) is None:
            return given
        return {**kind.defaults, **given}

    @model_validator(mode="after")
    def _of_its_kind(self) -> Destination:
        for name in _OF_KIND[self.kind].needs:
            if not getattr(self, name):
                raise PydanticCustomError("missing_of_kind", f"{name}: is missing")
        if self.erasure_notes and (not self.rejection_notes or self.kind == "on-request"):
            raise ValueError("erasure_notes: needs rejection_notes, and a peer that holds what it was sent")
        is_web = _OF_KIND[self.kind].is_web
        if self.url and not is_web:
            raise ValueError("url: is for kinds 'dicomweb' and 'fhir' only")
        if self.folder and self.kind != "deidentified":
            raise ValueError("folder: is for kind 'deidentified' only")
        if self.kind == "deidentified" and (
            self.verify_identity or self.verification != "none" or self.rejection_notes or "sc" in self.kinds
        ):
            raise ValueError(
                "kind: 'deidentified' has no verify_identity, verification and rejection_notes, and takes no kind 'sc'"
            )
        if self.kind == "on-request":
            self._check_on_request()
        if is_web:
            self._check_web()
        elif self.user or self.password or self.token:
            raise ValueError("user, password, token: are for kinds 'dicomweb' and 'fhir' only")
        self._check_fhir()
        return self

    def _check_on_request(self) -> None:
        if self.verify_identity or self.verification != "none" or not self.rejection_notes:
            raise ValueError(
                "kind: 'on-request' has no verify_identity and no verification, and its rejection_notes are true"
            )
        if self.host or self.ae_title or self.port:
            raise ValueError("kind: 'on-request' has no ae_title, host and port: nothing is sent")

    def _check_web(self) -> None:
        if self.verification == "commitment":
            raise ValueError(f"verification: a {self.kind} server is asked by query, not by commitment")
        secret = self.password or self.token
        urls = filter(None, (self.url, self.token_url))
        if secret and any(url.startswith("http:") and urlsplit(url).hostname not in _HERE for url in urls):
            raise ValueError("url: a password or a token is sent by https only")
        if bool(self.user) != (self.password is not None) or (self.password and self.token):
            raise ValueError("user needs password, and token stands in the place of both")

    def _check_fhir(self) -> None:
        if self.kind != "fhir":
            if self.token_url or self.scope or self.patient_id_system or self.accession_system:
                raise ValueError("token_url, scope, patient_id_system, accession_system: are for kind 'fhir' only")
            return
        if self.kinds != ("summary",) or not self.rejection_notes or self.verify_identity:
            raise ValueError("kind: 'fhir' takes summaries and rejection notes, and has no verify_identity")
        if self.token_url and not self.password:
            raise ValueError("token_url: needs user and password, which are client ID and secret there")

    @property
    def label(self) -> str:
        """Its kind, for people."""
        return _OF_KIND[self.kind].label

    @property
    def takes_any_object(self) -> bool:
        """Whether it takes an object that is no result of a study, such as one for a test."""
        return _OF_KIND[self.kind].takes_any_object

    @property
    def address(self) -> str:
        """Its host; empty for a folder."""
        return self.host or urlsplit(self.url).hostname or ""

    @property
    def where(self) -> str:
        """Where it is, for people."""
        if self.kind == "dimse":
            return f"{self.ae_title} at {self.host}:{self.port}"
        return "here, for whoever asks" if self.kind == "on-request" else self.url or f"folder {self.folder}"
