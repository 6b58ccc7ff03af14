"""FHIR R4 resources of a study's report: pure functions of values.

A DiagnosticReport for the study, an Observation for each status and finding, a Device for each algorithm. Codes are
those of the DICOM report. Patient, order and images belong to others: they are referred to.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any, TypeAlias
from urllib.parse import quote

from pydicom.dataset import Dataset

from config.value_types import uri_of
from models.model_spec import Code
from workers.fhir.study_report import AnalysisStatus, FindingSite, Measured, ReportedFinding, StudyReport
from workers.results import codes
from workers.results.header import RESEARCH_USE, text_of
from workers.results.headline import percent
from workers.results.identity import derive_uid

Resource: TypeAlias = dict[str, Any]
Algorithm: TypeAlias = tuple[str, str]
"""Name and version."""

DICOM_UID = "urn:dicom:uid"
"""Identifier system of DICOM UIDs (FHIR R4, ImagingStudy)."""
ENTERED_IN_ERROR = "entered-in-error"

_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "RADLEX": "http://radlex.org",
    "UMLS": "http://terminology.hl7.org/CodeSystem/umls",
    "UCUM": "http://unitsofmeasure.org",
}
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_IMAGING_STUDY = Code("18748-4", "LN", "Diagnostic imaging study")
_SOFTWARE = Code("706689003", "SCT", "Application program software")
_SEPARATORS, _ESCAPED = re.compile(r"[\\,$|]"), r"\\\g<0>"
_SEXES = {"M": "male", "F": "female", "O": "other"}


@dataclass(frozen=True, slots=True)
class Naming:
    """How a site names patients and orders: ``issuers`` are its own of patient IDs, the systems are URIs or empty."""

    uid_root: str
    issuers: tuple[str, ...]
    patient_id_system: str = ""
    accession_system: str = ""


@dataclass(frozen=True, slots=True)
class Links:
    """References to what the report is about, and to the Devices that have made it."""

    patient: Resource
    orders: tuple[Resource, ...]
    study: Resource
    software: Resource
    algorithms: Mapping[Algorithm, Resource]


@dataclass(frozen=True, slots=True)
class Stored:
    """What the server has of a study: the DiagnosticReport and its Observations."""

    report: Resource
    observations: tuple[Resource, ...]


def uid_identifier(uid: str) -> Resource:
    """An Identifier with a DICOM UID."""
    return {"system": DICOM_UID, "value": f"urn:oid:{uid}"}


def patient_identifier(header: Dataset, naming: Naming) -> Resource | None:
    """The Identifier of the patient; None where the study names none.

    It has no system where the ID is of an issuer that is neither the site's own nor an OID or URI: the same number of
    another hospital is another patient.
    """
    value = text_of(header, "PatientID", "\\").strip()
    if not value:
        return None
    issuer = text_of(header, "IssuerOfPatientID", "\\").strip()
    system = _universal(header.get("IssuerOfPatientIDQualifiersSequence")) or uri_of(issuer)
    if issuer in ("", *naming.issuers):
        system = site_system(naming) or system
    made: Resource = {"type": _concept_of(f"{_TERMINOLOGY}/v2-0203", "MR", "Medical record number")}
    made |= {"system": system} if system else {}
    made["value"] = value
    return made | ({"assigner": {"display": issuer}} if issuer else {})


def site_system(naming: Naming) -> str:
    """The system of the site's own patient IDs: as configured, else the first of its issuers that is an OID or URI."""
    return naming.patient_id_system or next(filter(None, map(uri_of, naming.issuers)), "")


def order_identifiers(header: Dataset, naming: Naming) -> tuple[Resource, ...]:
    """The Identifiers of the orders: the accession numbers of the study."""
    system = _universal(header.get("IssuerOfAccessionNumberSequence")) or naming.accession_system
    kind = _concept_of(f"{_TERMINOLOGY}/v2-0203", "ACSN", "Accession ID")
    numbers = filter(None, map(str.strip, text_of(header, "AccessionNumber", "\\").split("\\")))
    return tuple({"type": kind, **({"system": system} if system else {}), "value": number} for number in numbers)


def patient_resource(header: Dataset, identifier: Resource) -> Resource:
    """The patient as the study names them, for a server that does not know them yet."""
    name = header.get("PatientName")
    made: Resource = {"resourceType": "Patient", "identifier": [identifier]}
    family, given = (str(name.family_name), str(name.given_name)) if name else ("", "")
    human = ({"family": family} if family else {}) | ({"given": given.split()} if given else {})
    made |= {"name": [human]} if human else {}
    sex, birth = str(header.get("PatientSex") or ""), _date(header.get("PatientBirthDate"))
    made |= {"gender": _SEXES[sex]} if sex in _SEXES else {}
    return made | ({"birthDate": birth} if birth else {})


def logical(kind: str, identifier: Resource) -> Resource:
    """A reference by identifier: whoever keeps the resource finds it by its own."""
    return {"type": kind, "identifier": identifier}


def report_identifier(header: Dataset, naming: Naming) -> Resource:
    """The Identifier of the study's DiagnosticReport, the same for all its revisions."""
    return uid_identifier(_report_uid(header, naming))


def revision_of(report: Resource, header: Dataset, naming: Naming) -> int:
    """The revision that a DiagnosticReport is of; 0 where it does not say."""
    system = f"urn:oid:{_report_uid(header, naming)}"
    values = [str(each.get("value")) for each in report.get("identifier") or () if each.get("system") == system]
    return max((int(value) for value in values if value.isdecimal()), default=0)


def _report_uid(header: Dataset, naming: Naming) -> str:
    return derive_uid(naming.uid_root, "fhir", "report", str(header.StudyInstanceUID))


def registered(report: StudyReport, links: Links, naming: Naming) -> Resource:
    """The DiagnosticReport as it is registered, before it tells anything."""
    made = _diagnostic_report(report, links, naming)
    del made["conclusion"], made["text"]
    return {**made, "identifier": made["identifier"][:1], "status": "registered"}


def algorithms(report: StudyReport) -> tuple[Algorithm, ...]:
    """The algorithms that have said something, each once."""
    return tuple(dict.fromkeys((each.algorithm, each.algorithm_version) for each in report.findings))


def software_device(header: Dataset, naming: Naming) -> Resource:
    """The Device that stands for this software."""
    return algorithm_device(
        header, naming, (text_of(header, "ManufacturerModelName"), text_of(header, "SoftwareVersions"))
    )


def algorithm_device(
    header: Dataset, naming: Naming, algorithm: Algorithm, software: Resource | None = None
) -> Resource:
    """The Device that stands for an algorithm, which is a part of ``software`` (a reference)."""
    name, version = algorithm
    return {
        "resourceType": "Device",
        "identifier": [uid_identifier(derive_uid(naming.uid_root, "fhir", "device", name, version))],
        "status": "active",
        "manufacturer": text_of(header, "Manufacturer"),
        "deviceName": [{"name": name, "type": "model-name"}],
        "type": _concept(_SOFTWARE),
        "version": [{"value": version}],
        "note": [{"text": RESEARCH_USE}],
        **({"parent": software} if software is not None else {}),
    }


def transaction(report: StudyReport, links: Links, naming: Naming, there: Stored) -> Resource:
    """The Bundle that stores the report of a study: all of it, or nothing.

    What is there already is updated, and what is not told any more is entered in error. The server refuses it where
    somebody has changed the DiagnosticReport meanwhile.
    """
    observations = [*_statuses(report, links), *_findings(report, links)]
    ids = {_key(each): each["id"] for each in there.observations}
    entries = [_write(each, ids.pop(_key(each), None)) for each in observations]
    results = [{"reference": entry["fullUrl"]} for entry in entries]
    entries += [taken_back(each) for each in there.observations if _key(each) in ids and is_valid(each)]
    document = _diagnostic_report(report, links, naming) | {"result": results}
    entries.append(_write(document, there.report["id"], there.report.get("meta", {}).get("versionId")))
    return bundle(entries)


def bundle(entries: Sequence[Resource]) -> Resource:
    """A transaction of ``entries``."""
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def taken_back(resource: Resource) -> Resource:
    """An entry that marks a resource as the server has it as entered in error."""
    kept = {key: value for key, value in resource.items() if key != "meta"}
    return _write({**kept, "status": ENTERED_IN_ERROR}, resource["id"])


def is_valid(resource: Resource) -> bool:
    """Whether a resource of the server is not entered in error."""
    return resource.get("status") != ENTERED_IN_ERROR


def _write(resource: Resource, id_: str | None, version: str | None = None) -> Resource:
    """An entry that updates the resource with this id, in this version, or creates one."""
    kind = resource["resourceType"]
    if id_ is None:
        request = {"method": "POST", "url": kind}
    else:
        resource, request = {**resource, "id": id_}, {"method": "PUT", "url": f"{kind}/{id_}"}
    if version is not None:
        request["ifMatch"] = f'W/"{version}"'
    return {
        "fullUrl": uuid.uuid5(uuid.NAMESPACE_URL, f"{kind}/{_key(resource)}").urn,
        "resource": resource,
        "request": request,
    }


def _key(resource: Resource) -> str:
    """What tells resources of one kind apart: their first identifier."""
    return str(resource["identifier"][0]["value"])


def search_for(identifier: Resource) -> str:
    """The query for an Identifier.

    What separates values in a query is escaped (FHIR R4, 3.1.1.4.0): a patient ID with a comma would ask for two.
    """
    parts = filter(None, (identifier.get("system"), identifier["value"]))
    return f"identifier={quote('|'.join(_SEPARATORS.sub(_ESCAPED, part) for part in parts), safe='')}"


def has_identifier(resource: Resource, identifier: Resource) -> bool:
    """Whether a resource that a search has found has the Identifier that was searched for."""
    system, value = identifier.get("system"), identifier["value"]
    return any(
        each.get("value") == value and system in (None, each.get("system")) for each in resource.get("identifier") or ()
    )


def is_ours(resource: Resource, uid_root: str) -> bool:
    """Whether a resource's first Identifier is a UID that this site has derived."""
    first = (resource.get("identifier") or [{}])[0]
    return first.get("system") == DICOM_UID and str(first.get("value")).startswith(f"urn:oid:{uid_root}.")


def not_the_patient(patient: Resource, header: Dataset) -> str:
    """Why the server's Patient with the ID of a study is not the one to file under; empty where it is."""
    if any(link.get("type") == "replaced-by" for link in patient.get("link") or ()):
        return "the server has replaced the patient with this identifier by another"
    born, there = _date(header.get("PatientBirthDate")), str(patient.get("birthDate") or "")
    if born and re.fullmatch(r"\d{4}-\d\d-\d\d", there) and born != there:
        return "the server's patient with this identifier has another birth date"
    return ""


def _diagnostic_report(report: StudyReport, links: Links, naming: Naming) -> Resource:
    """The DiagnosticReport, without its results."""
    header = report.header
    uid = _report_uid(header, naming)
    revision = {"system": f"urn:oid:{uid}", "value": str(header.get("InstanceNumber") or 1)}
    return {
        "resourceType": "DiagnosticReport",
        "text": {"status": "generated", "div": _narrative(report)},
        "identifier": [uid_identifier(uid), uid_identifier(str(header.SOPInstanceUID)), revision],
        **({"basedOn": list(links.orders)} if links.orders else {}),
        "status": "preliminary",
        "category": [_concept_of(f"{_TERMINOLOGY}/v2-0074", "RAD", "Radiology")],
        "code": {"coding": [_coding(_IMAGING_STUDY), _coding(report.procedure)], "text": report.procedure.meaning},
        "subject": links.patient,
        **_times(report),
        "imagingStudy": [links.study],
        "conclusion": f"{report.sentence} (research use only, not a medical device).",
    }


def _narrative(report: StudyReport) -> str:
    """The report for people, complete: it is what a system shows that knows nothing of our codes."""
    images = [each.image_uid for each in report.statuses if each.image_uid]

    def image(uid: str) -> str:
        return f"Image {images.index(uid) + 1}" if len(images) > 1 else "Image"

    # Two images may have two answers, which would contradict each other without their image.
    lines = [
        f"{f'{image(each.image_uid)}, ' if len(images) > 1 else ''}{each.finding.meaning}: {_in_words(each)}"
        for each in report.findings
    ]
    lines += [
        f"{image(each.image_uid) if each.image_uid else 'Study'}: {each.status.meaning.lower()}. {each.comment}"
        for each in report.statuses
    ]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    sentence = f"<p>{escape(report.sentence)}.</p>"
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{sentence}<ul>{items}</ul><p>{escape(RESEARCH_USE)}</p></div>'


def _in_words(found: ReportedFinding) -> str:
    values = [percent(each.value) if each.unit == codes.UNITY else "" for each in found.measured]
    made_by = f"{found.algorithm} {found.algorithm_version}"
    return ", ".join(filter(None, [found.answer.meaning.lower(), *values, *map(_words, found.sites), made_by]))


def _statuses(report: StudyReport, links: Links) -> Iterator[Resource]:
    """The status of the study, and of each image that was not analysed."""
    for status in report.statuses:
        if not status.image_uid or status.status != codes.SUCCEEDED:
            made = _observation(report, links, links.software, status.uid, codes.SUMMARY_OF_ANALYSES, status.image_uid)
            yield made | _status(status)


def _status(status: AnalysisStatus) -> Resource:
    """Value or reason: an analysis that was not done has no value, so that it is not taken for a negative."""
    values: Resource = {}
    if status.status in (codes.SUCCEEDED, codes.PARTIALLY_SUCCEEDED):
        values["valueCodeableConcept"] = _concept(status.status)
    else:
        reason = "error" if status.status == codes.FAILED else "not-performed"
        values["dataAbsentReason"] = _absent(reason, status.status)
    values["note"] = [{"text": status.comment}]
    if status.priority is not None:
        priority = {"code": _concept(codes.PRIORITY), "valueCodeableConcept": _concept(status.priority)}
        values["component"] = [priority]
    return values


def _findings(report: StudyReport, links: Links) -> Iterator[Resource]:
    for each in report.findings:
        device = links.algorithms[each.algorithm, each.algorithm_version]
        made = _observation(report, links, device, each.uid, each.finding, each.image_uid)
        yield made | _finding(each)


def _finding(found: ReportedFinding) -> Resource:
    values: Resource = {}
    if found.answer == codes.UNDETERMINED and not found.measured:
        values["dataAbsentReason"] = _absent("error", found.answer)
    else:
        values["valueCodeableConcept"] = _concept(found.answer)
    if found.comment:
        values["note"] = [{"text": found.comment}]
    sites = found.sites
    if len(sites) == 1:
        values["bodySite"] = {**_concept(sites[0].structure), "text": _words(sites[0])}
    components = [_quantity(each) for each in found.measured]
    components += [_place(site) for site in sites] if len(sites) > 1 else []
    components += [
        {"code": _concept(codes.LATERALITY), "valueCodeableConcept": _concept(side)}
        for side in dict.fromkeys(site.side for site in sites if site.side is not None)
    ]
    return values | ({"component": components} if components else {})


def _observation(report: StudyReport, links: Links, device: Resource, uid: str, code: Code, image_uid: str) -> Resource:
    study = {**links.study, **({"display": f"image {image_uid}"} if image_uid else {})}
    return {
        "resourceType": "Observation",
        "identifier": [uid_identifier(uid)],
        "status": "preliminary",
        "category": [_concept_of(f"{_TERMINOLOGY}/observation-category", "imaging", "Imaging")],
        "code": _concept(code),
        "subject": links.patient,
        **_times(report),
        "device": device,
        "derivedFrom": [study],
    }


def _times(report: StudyReport) -> Resource:
    """When the images were taken and the report was made."""
    # Without a time of day: whose zone that is in is not known.
    study = _date(report.header.get("StudyDate"))
    return {**({"effectiveDateTime": study} if study else {}), "issued": report.issued.isoformat()}


def _date(value: object) -> str:
    """A DICOM date (PS3.5 6.2, DA) as FHIR writes it; empty where it is none."""
    try:
        return datetime.strptime(str(value or ""), "%Y%m%d").date().isoformat()
    except ValueError:
        return ""


def _coding(code: Code) -> Resource:
    system = _SYSTEMS.get(code.scheme)
    return {**({"system": system} if system else {}), "code": code.value, "display": code.meaning}


def _concept(code: Code) -> Resource:
    return {"coding": [_coding(code)], "text": code.meaning}


def _concept_of(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _absent(reason: str, status: Code) -> Resource:
    """Why there is no value (FHIR's own codes), with the code of the DICOM report."""
    words = {"error": "Error", "not-performed": "Not Performed"}[reason]
    absent = {"system": f"{_TERMINOLOGY}/data-absent-reason", "code": reason, "display": words}
    return {"coding": [absent, _coding(status)], "text": status.meaning}


def _quantity(measured: Measured) -> Resource:
    unit = measured.unit
    value = {"value": measured.value, "unit": unit.value, "system": _SYSTEMS["UCUM"], "code": unit.value}
    return {"code": _concept(measured.name), "valueQuantity": value}


def _place(site: FindingSite) -> Resource:
    where = {**_concept(site.structure), "text": _words(site)}
    return {"code": _concept(codes.FINDING_SITE), "valueCodeableConcept": where}


def _words(site: FindingSite) -> str:
    return ", ".join([site.structure.meaning, *([site.side.meaning.lower()] if site.side else [])])


def _universal(qualifiers: Any) -> str:
    """The issuer as a URI, where an HL7v2 Hierarchic Designator (PS3.3 10.14) says it as an OID."""
    for item in qualifiers or ():
        if str(item.get("UniversalEntityIDType") or "") == "ISO":
            return uri_of(str(item.get("UniversalEntityID") or ""))
    return ""
