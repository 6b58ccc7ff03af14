"""A FHIR R4 server: the report of a study as DiagnosticReport with its Observations (docs/fhir.md).

The DiagnosticReport is registered by a conditional create, so that a study never has two. All the rest is one
transaction that updates what is there, so that a resend doubles nothing. What an earlier revision said and this one
does not, and what a rejection note takes back, is entered in error. No conditional request is in the transaction:
servers limit their number there (Medplum to eight entries).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from config.destinations import Destination
from config.settings import Site
from config.tls import Tls
from db.patients import PatientRules
from db.records import NOTE
from workers.destinations.destination_kind import (
    DAMAGED,
    DestinationKind,
    NoAnswerError,
    Outgoing,
    PeerError,
    PeerUnreachableError,
    Receipt,
    StoredObject,
    Verdict,
    unreadable,
)
from workers.destinations.web_server import Answer, WebServer, credentials, web_server
from workers.fhir.resources import (
    ENTERED_IN_ERROR,
    Links,
    Naming,
    Resource,
    Stored,
    algorithm_device,
    algorithms,
    bundle,
    has_identifier,
    is_ours,
    is_valid,
    logical,
    not_the_patient,
    order_identifiers,
    patient_identifier,
    patient_resource,
    registered,
    report_identifier,
    revision_of,
    search_for,
    software_device,
    taken_back,
    transaction,
    uid_identifier,
)
from workers.fhir.study_report import StudyReport, read_study_report
from workers.results.readings import NotAResult

_JSON = "application/fhir+json"
_MOST_IDS = 50
_REFERENCE = re.compile(r"(?:^|/)Observation/([A-Za-z0-9.-]{1,64})")


class _NotSentError(Exception):
    """The object is not sent in a transaction; ``receipt`` is its outcome."""

    def __init__(self, verdict: Verdict, note: str) -> None:
        super().__init__(note)
        self.receipt = Receipt(verdict, note)


@dataclass(frozen=True, slots=True)
class Fhir(DestinationKind):
    """The kind, with the files of destinations that are called by TLS, and how the site names patients."""

    tls: Tls
    site: Site
    takes_reports = True
    answer = "answers a search (FHIR R4)"

    def send(self, destination: Destination, calling: str, objects: Sequence[Outgoing]) -> Iterator[Receipt]:
        """A transaction for each of ``objects``: a summary, the report that stands for one, or a rejection note."""
        del calling
        try:
            with self._server(destination) as server:
                for outgoing in objects:
                    yield self._receipt(server, destination, outgoing)
        except PeerError as error:
            # No token, or a file of [tls] cannot be used: nothing was sent yet.
            for _ in objects:
                yield Receipt(Verdict.UNREACHABLE, str(error))

    def _receipt(self, server: _Server, destination: Destination, outgoing: Outgoing) -> Receipt:
        try:
            if outgoing.is_damaged:
                return Receipt(Verdict.REJECTED, DAMAGED)
            document = dcmread(outgoing.path)
            if outgoing.kind == NOTE:
                made = _note(server, document, self.site.uid_root)
            else:
                made = self._bundle(server, destination, document, outgoing)
            return server.store(made) if made["entry"] else Receipt(Verdict.SENT, "(there is nothing to take back)")
        except _NotSentError as reason:
            return reason.receipt
        except PeerUnreachableError as error:
            return Receipt(Verdict.UNREACHABLE, str(error), isinstance(error, NoAnswerError))
        except PeerError as error:
            return Receipt(Verdict.RETRY, str(error), may_have_arrived=True)
        except OSError as error:
            return unreadable(outgoing, error)
        except (InvalidDicomError, NotAResult) as error:
            why = str(error) if isinstance(error, NotAResult) else type(error).__name__
            return Receipt(Verdict.REJECTED, f"the result file cannot be read ({why}); analyse it again")

    def _bundle(self, server: _Server, destination: Destination, document: Dataset, outgoing: Outgoing) -> Resource:
        naming = self._naming(destination)
        earlier = server.search("DiagnosticReport", report_identifier(document, naming))
        newest = max((revision_of(each, document, naming) for each in earlier), default=0)
        if newest > int(document.get("InstanceNumber") or 1):
            raise _NotSentError(Verdict.REJECTED, f"the server holds revision {newest} of this report already")
        _check_ours(earlier)
        reports = {each.sop_instance_uid: dcmread(each.path) for each in outgoing.reports}
        report = read_study_report(document, reports, self.site.zone, outgoing.made_at)
        links = self._links(server, destination, report, naming)
        stored = server.ensured(registered(report, links, naming), earlier)
        return transaction(
            report, links, naming, Stored(stored, tuple(server.observations_of([stored], naming.uid_root)))
        )

    def _naming(self, destination: Destination) -> Naming:
        site = self.site
        systems = destination.patient_id_system, destination.accession_system
        return Naming(site.uid_root, site.patient_id_issuers, *systems)

    def _links(self, server: _Server, destination: Destination, report: StudyReport, naming: Naming) -> Links:
        """References to patient, orders, images and devices; what is to be created is created."""
        header = report.header
        rules = PatientRules(self.site.patient_id_issuers, self.site.placeholder_patient_ids)
        identifier = patient_identifier(header, naming)
        if identifier is None or rules.names_nobody(identifier["value"]):
            raise _NotSentError(Verdict.REJECTED, "the study names no patient: it has no patient ID, or a placeholder")
        literal = destination.references != "identifier"
        patient = _patient(server, destination, header, identifier) if literal else logical("Patient", identifier)
        link = server.reference if literal else logical
        software = _reference(server.ensured(software_device(header, naming)))
        made_by = {
            each: _reference(server.ensured(algorithm_device(header, naming, each, software)))
            for each in algorithms(report)
        }
        orders = tuple(link("ServiceRequest", each) for each in order_identifiers(header, naming))
        study = link("ImagingStudy", uid_identifier(str(header.StudyInstanceUID)))
        return Links(patient, orders, study, software, made_by)

    def verify(self, destination: Destination, calling: str) -> None:
        """Return if the server speaks R4 and lets us search for reports."""
        del calling
        with self._server(destination) as server:
            server.check()

    def holds(self, destination: Destination, calling: str, objects: Sequence[StoredObject]) -> Iterator[bool]:
        """Read back whether the server has a DiagnosticReport, not entered in error, of each of ``objects``."""
        del calling
        with self._server(destination) as server:
            for each in objects:
                found = server.search("DiagnosticReport", uid_identifier(each.sop_instance_uid))
                yield any(map(is_valid, found))

    @contextmanager
    def _server(self, destination: Destination) -> Iterator[_Server]:
        headers = {"Accept": _JSON}
        headers |= _bearer(destination, self.tls) if destination.token_url else credentials(destination)
        with web_server(destination.url, destination, self.tls, **headers) as server:
            yield _Server(server)


class _Server:
    """Searches and transactions on one connection."""

    def __init__(self, server: WebServer) -> None:
        self._server = server

    def store(self, bundle: Resource) -> Receipt:
        """Send a transaction."""
        try:
            body = json.dumps(bundle).encode()
            answer = self._server.request("POST", "", body, Content_Type=_JSON, Prefer="return=minimal")
        except PeerError as error:
            return Receipt(Verdict.UNREACHABLE, str(error), may_have_arrived=True)
        return _receipt(answer)

    def search(self, kind: str, identifier: Resource) -> list[Resource]:
        """The resources with an identifier.

        Raises:
            PeerError: no connection, or no success.
        """
        found = self._found(kind, search_for(identifier))
        # A server may ignore a parameter and give whatever it has (FHIR R4, 3.1.1.3).
        return [each for each in found if has_identifier(each, identifier)]

    def observations_of(self, reports: Sequence[Resource], uid_root: str) -> list[Resource]:
        """The Observations of ours that DiagnosticReports refer to: a person may have added others."""
        links = [str(each.get("reference")) for report in reports for each in report.get("result") or ()]
        ids = list(dict.fromkeys(match[1] for link in links if (match := _REFERENCE.search(link))))
        found = []
        for start in range(0, len(ids), _MOST_IDS):
            some = quote(",".join(ids[start : start + _MOST_IDS]), safe="")
            found += self._found("Observation", f"_id={some}&_count={_MOST_IDS}")
        return [each for each in found if is_ours(each, uid_root)]

    def reference(self, kind: str, identifier: Resource) -> Resource:
        """A reference to the one resource with an identifier, by identifier alone where there is not exactly one.

        A number without a system may be that of another department's order.
        """
        found = self.search(kind, identifier) if "system" in identifier else []
        return (_reference(found[0]) if len(found) == 1 else {}) | logical(kind, identifier)

    def ensured(self, resource: Resource, found: Sequence[Resource] = ()) -> Resource:
        """The resource with the first identifier of ``resource`` as the server has it; a missing one is created.

        ``found`` is what a search has found already.

        Raises:
            PeerError: no connection, or no success.
        """
        kind, identifier = resource["resourceType"], resource["identifier"][0]
        found = found or self.search(kind, identifier)
        if not found:
            body = json.dumps(resource).encode()
            query = search_for(identifier)
            answer = self._server.request("POST", f"/{kind}", body, Content_Type=_JSON, If_None_Exist=query)
            if answer.status not in (200, 201):
                raise _NotSentError(*_refusal(answer))
            found = self.search(kind, identifier)
        if len(found) != 1:
            raise PeerError(f"the server has {len(found)} resources of kind {kind} with one identifier of ours")
        return found[0]

    def check(self) -> None:
        """Return if this is a server of R4 that we may search."""
        answer = self._server.request("GET", "/metadata")
        statement = answer.json
        if answer.status != 200 or not isinstance(statement, dict):
            raise PeerError(answer.problem if answer.status != 200 else f"the server answers with no {_JSON}")
        if not str(statement.get("fhirVersion")).startswith("4."):
            raise PeerError(f"the server speaks FHIR {str(statement.get('fhirVersion'))[:16]}, not R4")
        self.search("DiagnosticReport", uid_identifier("2.25.0"))

    def _found(self, kind: str, query: str) -> list[Resource]:
        answer = self._server.request("GET", f"/{kind}?{query}")
        if answer.status != 200:
            away = answer.verdict in (Verdict.UNREACHABLE, Verdict.LATER)
            raise (PeerUnreachableError if away else PeerError)(answer.problem)
        searchset = answer.json
        if not isinstance(searchset, dict) or searchset.get("type") != "searchset":
            raise PeerError(f"the server answers a search with no {_JSON}")
        resources = [entry.get("resource") or {} for entry in searchset.get("entry") or ()]
        return [each for each in resources if each.get("resourceType") == kind]


def _patient(server: _Server, destination: Destination, header: Dataset, identifier: Resource) -> Resource:
    """A reference to the patient on the server."""
    if "system" not in identifier:
        raise _NotSentError(Verdict.REJECTED, "the issuer of the patient ID has no system, so the patient is not known")
    found = server.search("Patient", identifier)
    if len(found) > 1:
        raise _NotSentError(Verdict.REJECTED, "the server has several patients with this identifier")
    if not found and destination.references == "search":
        raise _NotSentError(Verdict.LATER, "the server does not know the patient of this study yet")
    why_not = not_the_patient(found[0], header) if found else ""
    if why_not:
        raise _NotSentError(Verdict.REJECTED, why_not)
    there = found[0] if found else server.ensured(patient_resource(header, identifier))
    return _reference(there) | logical("Patient", identifier)


def _reference(resource: Resource) -> Resource:
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}


def _check_ours(reports: Sequence[Resource]) -> None:
    """Leave alone what a person has taken over: our reports are preliminary, or entered in error.

    Raises:
        _NotSentError: one of them has another status.
    """
    for each in reports:
        if each.get("status") not in ("registered", "preliminary", ENTERED_IN_ERROR):
            status = re.sub(r"[^a-z-]", "", str(each.get("status")))[:20]
            why = f"somebody has made the report at the server {status or 'another one'}: correct it there by hand"
            raise _NotSentError(Verdict.REJECTED, why)


def _note(server: _Server, note: Dataset, uid_root: str) -> Resource:
    """A transaction that takes back what the server has of the objects in a rejection note.

    A report that a newer revision has replaced is not there any more.
    """
    rejected = [
        str(item.ReferencedSOPInstanceUID)
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
    reports = [found for uid in rejected for found in server.search("DiagnosticReport", uid_identifier(uid))]
    _check_ours(reports)
    wrong = [*server.observations_of(reports, uid_root), *reports]
    return bundle([taken_back(each) for each in wrong if is_valid(each)])


def _receipt(answer: Answer) -> Receipt:
    """What the answer to a transaction says: all of it is stored, or nothing."""
    response = answer.json
    if answer.status in (200, 201):
        if isinstance(response, dict) and response.get("type") == "transaction-response":
            return Receipt(Verdict.SENT)
        note = "the server does not say what became of the transaction"
        return Receipt(Verdict.RETRY, note, may_have_arrived=True)
    # Refused, and there is at least the report that was registered before.
    return Receipt(*_refusal(answer), may_have_arrived=True)


def _refusal(answer: Answer) -> tuple[Verdict, str]:
    """What an answer that is no success says."""
    if answer.verdict in (Verdict.UNREACHABLE, Verdict.LATER):
        return answer.verdict, answer.problem
    # 409 and 412: somebody else writes the same.
    again = Verdict.RETRY if answer.status in (409, 412) else Verdict.REJECTED
    return answer.verdict or again, f"{answer.problem}{_issues(answer.json)}"


def _issues(outcome: Any) -> str:
    """Codes and places of an OperationOutcome; not its words, which may quote patient data."""
    issues = outcome.get("issue") if isinstance(outcome, dict) else None
    parts = []
    for issue in issues if isinstance(issues, list) else ():
        words = [str(issue.get("code") or ""), *map(str, (issue.get("expression") or ())[:1])]
        parts += [" at ".join(word for word in words if re.fullmatch(r"[\w.\[\]-]{1,80}", word, re.ASCII))]
    return f": {'; '.join(parts[:3])}" if any(parts) else ""


def _bearer(destination: Destination, tls: Tls) -> dict[str, str]:
    """The header with a token of the authorization server (RFC 6749 4.4), which is asked anew each time.

    Raises:
        PeerUnreachableError: it gives none.
    """
    assert destination.password is not None, "checked with the settings"
    pair = ":".join(quote(part, safe="") for part in (destination.user, destination.password.get_secret_value()))
    basic = f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
    form = {"grant_type": "client_credentials", **({"scope": destination.scope} if destination.scope else {})}
    with web_server(destination.token_url, destination, tls, Authorization=basic, Accept="application/json") as server:
        kind = "application/x-www-form-urlencoded"
        answer = server.request("POST", "", urlencode(form).encode(), Content_Type=kind)
    response = answer.json
    token = response.get("access_token") if isinstance(response, dict) else None
    if answer.status != 200 or not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        where = urlsplit(destination.token_url).hostname
        raise PeerUnreachableError(f"the authorization server {where} refuses the credentials (status {answer.status})")
    return {"Authorization": f"Bearer {token}"}
