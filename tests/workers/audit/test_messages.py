"""Audit messages, by the schema of PS3.15 A.5.1 and its tables in A.5.3."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest

from db.audit import RecordedEntry
from db.audit_chain import Link, anchors_in
from db.audit_events import MEANINGS, AuditEvent
from workers.audit.messages import AuditSource, audit_message
from workers.audit.syslog import octet_counted, syslog_message

SCHEMA = Path(__file__).with_name("audit-message.rng")
SOURCE = AuditSource("PLEURA@node7", "North Hospital", "PLEURA", "node7")
STUDY = RecordedEntry(
    at=datetime(2026, 3, 1, 8, 30, 15, 250_000, tzinfo=UTC),
    actor="ada",
    action="view study",
    subject="study",
    study_id=12,
    address="10.0.0.7",
    detail="Zoë <&> \x01",
    study_instance_uid="1.2.840.1",
    patient_id="K-20418",
    position=7,
    digest="ab" * 32,
)
TRANSFER = replace(STUDY, actor="MODALITY1", data={"instances": {"1.2.840.10008.5.1.4.1.1.1": 2}})
OF_NO_STUDY = replace(STUDY, study_id=None, study_instance_uid="", patient_id="")
PEER = {"peer": "PACS", "instances": {"1.2.840.10008.5.1.4.1.1.66.4": 1}}
QUERY = {"peer": "PACS", "sop_class": "1.2.840.10008.5.1.4.1.2.2.1", "query": base64.b64encode(b"\x08\0").decode()}
EXAMPLES = {
    **{action: replace(OF_NO_STUDY, action=action) for action in MEANINGS},
    "view study": STUDY,
    "hold": replace(STUDY, action="hold", failed=True),
    "receive": replace(TRANSFER, action="receive"),
    "begin sending": replace(STUDY, action="begin sending", actor="PLEURA", address="pacs.example", data=PEER),
    "send": replace(STUDY, action="send", actor="PLEURA", address="fd00::7", data=PEER, failed=True),
    "query": replace(OF_NO_STUDY, action="query", actor="PLEURA", data=QUERY),
    "erase study": replace(TRANSFER, action="erase study", actor="ada"),
    "export worklist": replace(OF_NO_STUDY, action="export worklist"),
    "retry all": replace(OF_NO_STUDY, action="retry all", actor="cli:root", address=""),
}


def _message(action: str) -> Element:
    return fromstring(audit_message(EXAMPLES[action], SOURCE))


def _participants(message: Element) -> list[tuple[str, str, str]]:
    """User, whether requestor, and role of each."""
    return [
        (one.attrib["UserID"], one.attrib["UserIsRequestor"], role.attrib["csd-code"] if role is not None else "")
        for one in message.iter("ActiveParticipant")
        for role in [one.find("RoleIDCode")]
    ]


def _objects(message: Element) -> dict[str, str]:
    """The ID of each participant object, by the code of what it identifies."""
    found = {}
    for one in message.iter("ParticipantObjectIdentification"):
        kind = one.find("ParticipantObjectIDTypeCode")
        assert kind is not None
        found[kind.attrib["csd-code"]] = one.attrib["ParticipantObjectID"]
    return found


@pytest.mark.peer("xmllint")
def test_every_kind_of_message_is_valid(tmp_path: Path) -> None:
    """Among the examples is each event, and each action that the node knows."""
    assert {entry.meaning.event for entry in EXAMPLES.values()} == set(AuditEvent)
    for number, entry in enumerate(EXAMPLES.values()):
        (tmp_path / f"{number}.xml").write_bytes(audit_message(entry, SOURCE))
    (tmp_path / "wrong.xml").write_bytes(audit_message(STUDY, SOURCE).replace(b"EventDateTime", b"EventTime"))
    files = sorted(tmp_path.glob("*.xml"))
    done = subprocess.run(
        ["xmllint", "--noout", "--nonet", "--relaxng", SCHEMA, *files], capture_output=True, text=True, check=False
    )
    invalid = [line for line in done.stderr.splitlines() if line.endswith("fails to validate")]
    assert invalid == [f"{tmp_path / 'wrong.xml'} fails to validate"], done.stderr
    assert done.stderr.count(" validates") == len(files) - 1


@pytest.mark.parametrize(
    ("action", "event", "kind", "access"),
    [
        ("start", "110100", "110120", "E"),
        ("log in failed", "110114", "110122", "E"),
        ("log out", "110114", "110123", "E"),
        ("receive", "110104", None, "C"),
        ("view study", "110103", None, "R"),
        ("hold", "110103", None, "U"),
        ("export worklist", "110106", None, "R"),
        ("erase study", "110105", None, "D"),
        ("export audit", "110101", None, "R"),
        ("reject association", "110113", "110126", "E"),
        ("change configuration", "110113", "110131", "E"),
        ("retry all", "110113", "110132", "E"),
    ],
)
def test_the_event_is_identified(action: str, event: str, kind: str | None, access: str) -> None:
    found = _message(action).find("EventIdentification")
    assert found is not None
    assert found.attrib["EventActionCode"] == access
    assert found.find("EventID").attrib["csd-code"] == event  # type: ignore[union-attr]
    types = [one.attrib["csd-code"] for one in found.iter("EventTypeCode")]
    assert types == ([] if kind is None else [kind])


def test_who_and_what_took_part() -> None:
    node = "PLEURA@node7"
    assert _participants(_message("receive")) == [("MODALITY1", "true", "110153"), (node, "false", "110152")]
    assert _participants(_message("send")) == [(node, "true", "110153"), ("PACS", "false", "110152")]
    assert _participants(_message("view study")) == [("ada", "true", ""), (node, "false", "")]
    assert _participants(_message("erase study")) == [("ada", "true", ""), (node, "false", "")]
    assert _objects(_message("erase study")) == {"110180": "1.2.840.1", "2": "K-20418"}
    assert _participants(_message("reject association"))[0][0] == node
    assert _objects(_message("receive")) == {"110180": "1.2.840.1", "2": "K-20418"}
    assert _objects(_message("query")) == {"110181": QUERY["sop_class"]}
    assert _objects(_message("log in")) == {}
    assert _objects(_message("view audit")) == {"12": "urn:pleura:audit-trail"}
    (sop_class,) = _message("receive").iter("SOPClass")
    assert sop_class.attrib == {"UID": "1.2.840.10008.5.1.4.1.1.1", "NumberOfInstances": "2"}
    kinds = {
        one.attrib["NetworkAccessPointID"]: one.attrib["NetworkAccessPointTypeCode"]
        for action in ("begin sending", "send")
        for one in _message(action).iter("ActiveParticipant")
    }
    assert kinds == {"node7": "1", "pacs.example": "1", "fd00::7": "2"}


def test_the_outcome_ends_with_the_place_in_the_chain() -> None:
    found = _message("hold").find("EventIdentification")
    assert found is not None
    assert found.attrib["EventOutcomeIndicator"] == "4"
    text = str(found.findtext("EventOutcomeDescription"))
    assert text.startswith("hold study Zoë <&> ?; ")
    assert list(anchors_in([text])) == [Link(7, "ab" * 32)]


def test_the_syslog_message_is_as_the_rfcs_want_it() -> None:
    message = syslog_message(STUDY, b"<AuditMessage/>", "node 7.example")
    assert message == (
        b"<85>1 2026-03-01T08:30:15.250000Z node-7.example pleura - DICOM+RFC3881 "
        b'[meta sequenceId="7"] \xef\xbb\xbf<AuditMessage/>'
    )
    assert octet_counted(message).startswith(b"%d <85>1 " % len(message))
    assert syslog_message(replace(STUDY, failed=True), b"", "n").startswith(b"<84>1 ")
