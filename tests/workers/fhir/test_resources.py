"""What a report becomes in FHIR: checked by HL7's JSON schema of R4, and value by value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError
from pydicom import dcmread
from pydicom.dataset import Dataset

from config.destinations import Destination
from config.settings import Settings
from models.model_spec import Code
from tests.workers.fhir.real_server import SCHEMA, skip_without_npm_parts
from tests.workers.fhir.studies import not_analysed_report, study
from workers.fhir.resources import (
    Links,
    Naming,
    Resource,
    Stored,
    algorithm_device,
    algorithms,
    logical,
    order_identifiers,
    patient_identifier,
    patient_resource,
    registered,
    search_for,
    software_device,
    taken_back,
    transaction,
    uid_identifier,
)
from workers.fhir.study_report import FindingSite, ReportedFinding, StudyReport, read_study_report
from workers.results import codes
from workers.results.readings import NotAResult

OID = "1.2.276.0.76.3.1"
NAMING = Naming("2.25", ("HOSPITAL", OID))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> StudyReport:
    made = study(tmp_path_factory.mktemp("study"))
    return read_study_report(made.summary, {str(made.report.SOPInstanceUID): made.report}, UTC)


def links(report: StudyReport) -> Links:
    header = report.header
    patient = patient_identifier(header, NAMING)
    assert patient is not None
    return Links(
        logical("Patient", patient),
        tuple(logical("ServiceRequest", each) for each in order_identifiers(header, NAMING)),
        logical("ImagingStudy", uid_identifier(str(header.StudyInstanceUID))),
        {"reference": "Device/1"},
        {each: {"reference": "Device/2"} for each in algorithms(report)},
    )


def stored(report: StudyReport, *observations: Resource) -> Stored:
    made = registered(report, links(report), NAMING)
    return Stored({**made, "id": "7", "meta": {"versionId": "3"}}, observations)


def observations(report: StudyReport) -> list[Resource]:
    entries = transaction(report, links(report), NAMING, stored(report))["entry"]
    return [each["resource"] for each in entries if each["resource"]["resourceType"] == "Observation"]


def everything(report: StudyReport) -> Iterator[Resource]:
    header = report.header
    patient = patient_identifier(header, NAMING)
    assert patient is not None
    yield patient_resource(header, patient)
    software = software_device(header, NAMING)
    yield software
    yield from (algorithm_device(header, NAMING, each, {"reference": "Device/1"}) for each in algorithms(report))
    yield registered(report, links(report), NAMING)
    gone = {**observations(report)[0], "id": "8", "identifier": [uid_identifier("1.2.3")]}
    bundle = transaction(report, links(report), NAMING, stored(report, gone))
    yield from (entry["resource"] for entry in bundle["entry"])
    yield {
        **bundle,
        "entry": [{key: value for key, value in each.items() if key != "resource"} for each in bundle["entry"]],
    }


def test_every_resource_is_valid_by_the_schema_of_hl7(report: StudyReport, tmp_path: Path) -> None:
    skip_without_npm_parts()
    from jsonschema import Draft6Validator  # more than a second of CPU, which only this test needs

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    not_analysed = read_study_report(dcmread(not_analysed_report(tmp_path).path), {}, UTC)
    kinds = set()
    for each in (resource for one in (report, not_analysed) for resource in everything(one)):
        kind = each["resourceType"]
        one_kind = {"definitions": schema["definitions"], "$ref": f"#/definitions/{kind}"}
        assert [error.message for error in Draft6Validator(one_kind).iter_errors(each)] == []
        kinds.add(kind)
    assert kinds == {"Patient", "Device", "DiagnosticReport", "Observation", "Bundle"}


def _told(finding: ReportedFinding) -> str:
    return f"{finding.finding.meaning}: {finding.answer.meaning.lower()}"


def test_a_person_reads_all_of_it(report: StudyReport) -> None:
    odd = replace(report, sentence=f"{report.sentence} <&>")
    document = transaction(odd, links(odd), NAMING, stored(odd))["entry"][-1]["resource"]
    text = "".join(ElementTree.fromstring(document["text"]["div"]).itertext())
    assert text.startswith(f"{odd.sentence}.")
    assert text.endswith("Not a medical device. Not for diagnosis.")
    images = [each.image_uid for each in report.statuses if each.image_uid]
    for finding in report.findings:
        assert f"Image {images.index(finding.image_uid) + 1}, {_told(finding)}, " in text
    for status in report.statuses:
        assert f"{status.status.meaning.lower()}. {status.comment}" in text
    one = replace(report, statuses=tuple(each for each in report.statuses if each.image_uid in ("", images[0])))
    of_one = replace(one, findings=tuple(each for each in report.findings if each.image_uid == images[0]))
    short = transaction(of_one, links(of_one), NAMING, stored(of_one))["entry"][-1]["resource"]["text"]["div"]
    assert f"<li>{_told(of_one.findings[0])}, " in short, "one image needs no number"
    assert "text" not in registered(report, links(report), NAMING), "nothing is said before there is something to say"


def test_what_is_there_is_updated_and_what_is_not_told_any_more_is_entered_in_error(report: StudyReport) -> None:
    first, *others = observations(report)
    there = [{**first, "id": "10"}, {**first, "id": "11", "identifier": [uid_identifier("1.2.3")]}]
    bundle = transaction(report, links(report), NAMING, stored(report, *there))
    found = {entry["request"]["url"]: entry for entry in bundle["entry"]}
    assert found["Observation/10"]["resource"]["status"] == "preliminary"
    assert found["Observation/11"]["resource"]["status"] == "entered-in-error"
    assert found["DiagnosticReport/7"]["request"]["ifMatch"] == 'W/"3"'
    assert [entry["request"]["method"] for entry in bundle["entry"]].count("POST") == len(others)
    assert len(found["DiagnosticReport/7"]["resource"]["result"]) == 1 + len(others)


def test_the_report_is_registered_without_saying_anything(report: StudyReport) -> None:
    made = registered(report, links(report), NAMING)
    assert (made["status"], len(made["identifier"])) == ("registered", 1)
    assert not {"conclusion", "result"} & set(made)


def issued(issuer: str = "", qualifiers: str = "", **more: str) -> Dataset:
    header = Dataset()
    header.PatientID, header.IssuerOfPatientID = "P1", issuer
    if qualifiers:
        item = Dataset()
        item.UniversalEntityID, item.UniversalEntityIDType = qualifiers, "ISO"
        header.IssuerOfPatientIDQualifiersSequence = [item]
    header.update({})
    for keyword, value in more.items():
        setattr(header, keyword, value)
    return header


@pytest.mark.parametrize(
    ("header", "naming", "system", "assigner"),
    [
        (issued(), NAMING, f"urn:oid:{OID}", None),
        (issued("HOSPITAL"), NAMING, f"urn:oid:{OID}", "HOSPITAL"),
        (
            issued(),
            replace(NAMING, patient_id_system="https://hospital.example/mrn"),
            "https://hospital.example/mrn",
            None,
        ),
        (issued("1.2.3"), NAMING, "urn:oid:1.2.3", "1.2.3"),
        (issued("OTHER", "1.2.3.4"), NAMING, "urn:oid:1.2.3.4", "OTHER"),
        (issued("OTHER"), NAMING, None, "OTHER"),
    ],
)
def test_a_patient_id_is_never_given_to_another_issuer(
    header: Dataset, naming: Naming, system: str | None, assigner: str | None
) -> None:
    made = patient_identifier(header, naming)
    assert made is not None
    assert (made.get("system"), made.get("assigner", {}).get("display")) == (system, assigner)


def test_a_patient_id_that_is_missing_is_none() -> None:
    assert patient_identifier(issued(PatientID=" "), NAMING) is None


def test_each_accession_number_is_an_order() -> None:
    header = issued(AccessionNumber="A1\\A2")
    made = order_identifiers(header, replace(NAMING, accession_system="urn:oid:1.2.9"))
    assert [(each["system"], each["value"]) for each in made] == [("urn:oid:1.2.9", "A1"), ("urn:oid:1.2.9", "A2")]


def test_a_finding_that_could_not_be_assessed_has_a_reason_and_no_value(report: StudyReport) -> None:
    failed = replace(report.findings[0], answer=codes.UNDETERMINED, measured=(), comment="No answer.")
    made = observations(replace(report, findings=(failed,)))[-1]
    assert made["dataAbsentReason"]["coding"][0]["code"] == "error"
    assert "valueCodeableConcept" not in made


def test_a_finding_in_several_places_names_each_with_its_side(report: StudyReport) -> None:
    zones = (FindingSite(codes.ZONES["upper"], codes.RIGHT), FindingSite(codes.ZONES["lower"], codes.LEFT))
    made = observations(replace(report, findings=(replace(report.findings[0], sites=zones),)))[-1]
    assert "bodySite" not in made
    texts = [each["valueCodeableConcept"]["text"] for each in made["component"] if "valueCodeableConcept" in each]
    assert texts == ["Upper zone of lung, right", "Lower zone of lung, left", "Right", "Left"]


def test_a_private_code_has_no_system(report: StudyReport) -> None:
    private = replace(report.findings[0], finding=Code("X1", "99SITE", "Something"))
    coding = observations(replace(report, findings=(private,)))[-1]["code"]["coding"][0]
    assert coding == {"code": "X1", "display": "Something"}


@pytest.mark.parametrize(
    ("declared", "issued"), [(None, "2026-03-04T05:07:07+01:00"), ("-0330", "2026-03-04T01:37:07-03:30")]
)
def test_the_time_of_the_report_is_the_site_s_unless_the_image_declares_another(
    tmp_path: Path, declared: str | None, issued: str
) -> None:
    """Its objects were made with a clock in UTC, and read as if by that of the hospital."""
    made = study(tmp_path, TimezoneOffsetFromUTC=declared)
    report = read_study_report(made.summary, {str(made.report.SOPInstanceUID): made.report}, ZoneInfo("Europe/Berlin"))
    assert {each["issued"] for each in observations(report)} == {issued}


@pytest.mark.parametrize(
    ("made_at", "offset"), [("2026-10-25T00:31:00", "+02:00"), ("2026-10-25T01:31:00", "+01:00"), (None, "+02:00")]
)
def test_a_report_of_the_hour_that_comes_twice_is_issued_when_it_was_made(
    tmp_path: Path, made_at: str | None, offset: str
) -> None:
    made = study(tmp_path)
    made.summary.ContentDate, made.summary.ContentTime = "20261025", "023000.5"
    recorded = datetime.fromisoformat(made_at).replace(tzinfo=UTC) if made_at else None
    reports = {str(made.report.SOPInstanceUID): made.report}
    report = read_study_report(made.summary, reports, ZoneInfo("Europe/Berlin"), recorded)
    assert {each["issued"] for each in observations(report)} == {f"2026-10-25T02:30:00{offset}"}


def test_what_is_no_report_on_a_study_is_refused(report: StudyReport, tmp_path: Path) -> None:
    made = study(tmp_path)
    for document, reports in ((made.summary, {}), (made.report, {}), (Dataset(), {})):
        with pytest.raises(NotAResult):
            read_study_report(document, reports, UTC)


def test_a_resource_of_the_server_is_taken_back_as_it_is() -> None:
    there = {
        "resourceType": "Observation",
        "id": "1",
        "meta": {"versionId": "2"},
        "status": "final",
        "code": {"text": "x"},
    }
    entry = taken_back({**there, "identifier": [{"value": "v"}]})
    assert entry["request"] == {"method": "PUT", "url": "Observation/1"}
    assert (entry["resource"]["status"], entry["resource"]["code"]) == ("entered-in-error", {"text": "x"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": ""}, "url: is missing"),
        ({"kinds": ["sr"]}, "takes summaries"),
        ({"rejection_notes": False}, "takes summaries"),
        ({"verify_identity": True}, "no verify_identity"),
        ({"verification": "commitment"}, "asked by query"),
        ({"token_url": "https://login/token"}, "needs user and password"),
        ({"token_url": "http://login/token", "user": "ann", "password": "x"}, "by https only"),
        ({"kind": "dicomweb", "scope": "x"}, "for kind 'fhir' only"),
        ({"patient_id_system": "HOSPITAL"}, "patient_id_system"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Destination.model_validate({"name": "his", "kind": "fhir", "url": "https://his/fhir", **changes})


def test_a_site_says_whose_its_patient_ids_are() -> None:
    his = {"name": "his", "kind": "fhir", "url": "https://his/fhir"}
    with pytest.raises(ValidationError, match="set patient_id_system"):
        Settings.model_validate({"destinations": [his]})
    Settings.model_validate({"destinations": [{**his, "patient_id_system": "urn:oid:1.2.3"}]})
    Settings.model_validate({"destinations": [his], "site": {"patient_id_issuers": [OID]}})


def test_an_identifier_is_searched_as_one_value_whatever_is_in_it() -> None:
    """Unescaped, a comma asks for another patient, too."""
    assert search_for({"system": "urn:oid:1.2", "value": "4711"}) == "identifier=urn%3Aoid%3A1.2%7C4711"
    assert unquote(search_for({"system": "urn:a", "value": r"1,2|3$4\\5"})) == r"identifier=urn:a|1\,2\|3\$4\\\\5"
