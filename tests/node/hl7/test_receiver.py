"""What a message does and how it is answered, on a real database."""

from __future__ import annotations

import contextlib
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from config.hl7 import HL7
from config.settings import Settings, Store
from db.database import Database
from db.engine import connect
from db.queries import study_details
from db.queries.worklist import Worklist
from db.states import Priority
from node.hl7.interpretation import interpret
from node.hl7.receiver import Receiver
from tests.commands import record_instance, study_facts
from tests.db.examples import NOW, finished, received, record, study_of
from tests.migrated import migrate
from tests.node.hl7.messages import PATIENT, Answer, correction, merge, message, order, report
from tests.rules import NO_RULES
from workers.hl7.message import MessageError, read_message
from workers.open_database import rules_of


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path}/test.sqlite")
    migrate(engine)
    return engine


@pytest.fixture
def database(engine: Engine) -> Database:
    return Database(engine, NO_RULES)


def receiver(database: Database, **rules: object) -> Receiver:
    settings = Settings(store=Store(), hl7=HL7(**rules))
    numbers = iter(range(1, 1000))
    return Receiver(settings, database, lambda: NOW + timedelta(minutes=1), lambda: f"ACK{next(numbers)}")


def answer(database: Database, raw: bytes, **rules: object) -> Answer:
    return Answer(receiver(database, **rules).answer(raw))


def test_a_stat_order_makes_its_study_urgent_at_once(database: Database) -> None:
    record(database)
    acknowledged = answer(database, order())
    assert (acknowledged.code, acknowledged.control_id) == ("AA", "M1")
    row = database.read(study_details.study_detail, study_of(database)).row
    assert row.priority is Priority.URGENT
    assert "hospital" in row.reason


@pytest.mark.parametrize("control", ["CA", "DC", "OC", "CR"])
def test_a_cancelled_order_asks_for_nothing_any_more(database: Database, control: str) -> None:
    record(database)
    answer(database, order())
    answer(database, order("M2", control=control, priority=""))
    row = database.read(study_details.study_detail, study_of(database)).row
    assert row.priority is Priority.ROUTINE
    assert Worklist(database.engine).page()


def test_the_hospital_may_lower_its_own_priority(database: Database) -> None:
    record(database)
    answer(database, order())
    answer(database, order("M2", control="XO", priority="R"))
    assert database.read(study_details.study_detail, study_of(database)).row.priority is Priority.ROUTINE


def test_an_order_before_its_study_is_kept(database: Database) -> None:
    acknowledged = answer(database, order())
    assert acknowledged.code == "AA"
    assert "stored" in acknowledged.text
    record(database)
    assert database.read(study_details.study_detail, study_of(database)).row.priority is Priority.URGENT


@pytest.mark.parametrize(
    ("status", "reported"),
    [("F", True), ("C", True), ("P", False), ("R", False), ("X", False), ("I", False)],
)
def test_a_final_report_takes_a_study_off_the_list(database: Database, status: str, reported: bool) -> None:
    record(database)
    assert answer(database, report(status=status)).code == "AA"
    assert study_facts(database, study_of(database)).reported is reported
    assert (Worklist(database.engine).page() == ()) is reported


def test_statuses_of_the_observations_count_where_the_report_has_none(database: Database) -> None:
    record(database)
    obr = f"OBR|1|PL-1|FI-1|X{'|' * 14}A-1"
    partly = message("ORU^R01", "M1", PATIENT, obr, "OBX|1|TX|X||a||||||F", "OBX|2|TX|X||b||||||P")
    answer(database, partly)
    assert not study_facts(database, study_of(database)).reported
    answer(database, message("ORU^R01", "M2", PATIENT, obr, "OBX|1|TX|X||a||||||F", "OBX|2|TX|X||b||||||C"))
    assert study_facts(database, study_of(database)).reported


def test_the_study_uid_of_zds_finds_a_study_without_accession_number(database: Database) -> None:
    record(database, accession_number="")
    zds = "ZDS|1.2.826.0.2.1^RIS^Application^DICOM"
    answer(database, message("ORM^O01", "M1", PATIENT, "ORC|NW|PL-1", "OBR|1|PL-1|||||||||||||||||||||||||^^^^^S", zds))
    assert database.read(study_details.study_detail, study_of(database)).row.priority is Priority.URGENT


def test_ihe_omi_names_study_and_accession_in_ipc(database: Database) -> None:
    record(database, accession_number="")
    segments = (PATIENT, "ORC|NW|PL-1", "TQ1|1||||||||STAT^Stat", "OBR|1|PL-1", "IPC|A-1|RP-1|1.2.826.0.2.1|SPS-1|DX")
    assert answer(database, message("OMI^O23^OMI_O23", "M1", *segments)).code == "AA"
    assert database.read(study_details.study_detail, study_of(database)).row.priority is Priority.URGENT


def test_the_field_of_the_accession_number_can_be_configured(database: Database) -> None:
    record(database)
    raw = message("ORU^R01", "M1", PATIENT, f"OBR|1||FI-9|X{'|' * 15}A-1{'|' * 6}F")
    answer(database, raw, accession_fields=("OBR-19",))
    assert study_facts(database, study_of(database)).reported


def test_each_order_of_a_message_is_applied(database: Database) -> None:
    record(database)
    record(database, study=2, patient_id="P1")
    orders = [
        line
        for number in (1, 2)
        for line in (f"ORC|NW|PL-{number}", f"OBR|{number}|PL-{number}{'|' * 16}A-{number}{'|' * 9}^^^^^S")
    ]
    answer(database, message("ORM^O01", "M1", PATIENT, *orders))
    priorities = [database.read(study_details.study_detail, study_of(database, study)).row.priority for study in (1, 2)]
    assert priorities == [Priority.URGENT, Priority.URGENT]


def test_another_patient_is_an_error_and_changes_nothing(database: Database) -> None:
    record(database)
    before = database.read(study_details.study_detail, study_of(database))
    acknowledged = answer(database, report(patient="PID|1||P9^^^^MR||Else^Somebody"))
    assert (acknowledged.code, acknowledged.error) == ("AE", "204")
    assert "Else" not in acknowledged.text
    assert database.read(study_details.study_detail, study_of(database)) == before


@pytest.mark.parametrize("kind", ["ADT^A08^ADT_A01", "ADT^A28^ADT_A05", "ADT^A31^ADT_A05"])
def test_a_corrected_name_shows_and_keeps_results_back(database: Database, kind: str) -> None:
    finished(database)
    assert answer(database, correction(kind=kind)).code == "AA"
    row = database.read(study_details.study_detail, study_of(database)).row
    assert row.patient_name == "Roe^Jane"
    assert row.on_hold


@pytest.mark.parametrize("kind", ["ADT^A40^ADT_A39", "ADT^A47^ADT_A30"])
def test_a_merge_gives_the_study_its_surviving_identifier(database: Database, kind: str) -> None:
    finished(database)
    assert answer(database, merge(kind=kind)).code == "AA"
    assert database.read(study_details.study_detail, study_of(database)).row.patient_id == "P7"


def test_a_merge_keeps_to_its_issuer(database: Database) -> None:
    record_instance(database, received(issuer_of_patient_id="NORTH"), None, "f" * 64, NOW)
    pid = "PID|1||P7^^^SOUTH^MR~P8^^^NORTH^MR~123^^^NORTH^AN"
    answer(database, message("ADT^A40", "M1", pid, "MRG|P1^^^NORTH^MR~555^^^NORTH^AN"))
    detail = database.read(study_details.study_detail, study_of(database))
    assert (detail.row.patient_id, detail.issuer_of_patient_id) == ("P8", "NORTH")


def test_the_same_message_again_is_accepted_and_does_nothing(database: Database) -> None:
    record(database)
    first = answer(database, report())
    before = database.read(study_details.study_detail, study_of(database))
    again = answer(database, report())
    assert (first.code, again.code) == ("AA", "AA")
    assert "before" in again.text
    assert database.read(study_details.study_detail, study_of(database)) == before


def test_a_message_that_is_sent_again_later_is_still_the_same(database: Database) -> None:
    record(database)
    answer(database, report())
    assert "before" in answer(database, report().replace(b"20260301030000", b"20260301041500")).text
    assert "before" not in answer(database, report(status="C")).text


@pytest.mark.parametrize(("status", "reported"), [("F", True), ("P", False), ("", False)])
def test_a_change_of_status_may_tell_of_the_report(database: Database, status: str, reported: bool) -> None:
    record(database)
    obr = f"OBR|1|PL-1|FI-1|X{'|' * 14}A-1{'|' * 7}{status}"
    assert answer(database, message("ORM^O01", "M1", PATIENT, "ORC|SC|PL-1|FI-1||CM", obr)).code == "AA"
    assert study_facts(database, study_of(database)).reported is reported


@pytest.mark.parametrize(
    ("raw", "code", "error"),
    [
        (message("ADT^A01", "M1", PATIENT), "AR", "201"),
        (message("MDM^T02", "M1", PATIENT), "AR", "200"),
        (message("ORU^R01", "", PATIENT), "AR", "101"),
        (order().replace(b"|P|2.5.1", b"|T|2.5.1"), "AR", "202"),
        (order().replace(b"|P|2.5.1", b"|P|3.0"), "AR", "203"),
        (order().replace(b"UNICODE UTF-8", b"KLINGON"), "AR", "103"),
        (message("ORU^R01", "M1", PATIENT), "AE", "100"),
        (message("ORU^R01", "M1", PATIENT, "OBR|1||||||||||||||||||||||||F"), "AE", "101"),
        (message("ORM^O01", "M1", PATIENT, "ORC|NW|PL-1", "ZDS|not-a-uid"), "AE", "102"),
        (report(patient="PID|1||42^^^^AN||Doe^Jane"), "AE", "101"),
        (message("ADT^A08", "M1", "EVN|A08"), "AE", "100"),
        (message("ADT^A08", "M1", "PID|1||42^^^^AN||Doe^Jane"), "AE", "101"),
        (message("ADT^A40", "M1", "PID|1||P7^^^^MR", "MRG|42^^^^AN"), "AE", "101"),
        (order().replace(b"A-1", b"A-\xff"), "AE", "102"),
        (order().replace(b"P1^", b"P\xff^"), "AE", "102"),
        (order().replace(b"^^^^^S", b"^^^^^\xff"), "AE", "102"),
        (report().replace(b"||||||F", b"||||||\xff"), "AE", "102"),
        (b"hello", "AR", "100"),
    ],
)
def test_what_is_not_taken_is_answered_with_the_reason(database: Database, raw: bytes, code: str, error: str) -> None:
    record(database)
    before = database.read(study_details.study_detail, study_of(database))
    acknowledged = answer(database, raw)
    assert (acknowledged.code, acknowledged.error) == (code, error)
    assert database.read(study_details.study_detail, study_of(database)) == before
    assert hl7.ishl7(acknowledged.text)


def test_an_error_before_version_2_5_is_in_err_1(database: Database) -> None:
    acknowledged = answer(database, message("ADT^A01", "M1", PATIENT, version="2.3"))
    assert acknowledged.segments["ERR"][1].startswith("MSH^1^9^201&")
    assert acknowledged.segments["MSH"][11] == "2.3"
    assert acknowledged.segments["MSH"][8] == "ACK^A01"


def test_an_answer_goes_back_to_who_sent_and_uses_its_delimiters(database: Database) -> None:
    raw = order().replace(b"|", b"$").replace(b"MSH$^~\\&", b"MSH$!~\\&").replace(b"^", b"!")
    text = receiver(database).answer(raw).decode()
    assert text.startswith("MSH$!~\\&$PLEURA$NODE$RIS$HOSPITAL$20260301030100+0000$$ACK!O01!ACK$ACK1$P$2.5.1\r")
    assert "MSA$AA$M1" in text


def test_senders_that_are_not_named_are_refused(database: Database) -> None:
    assert answer(database, order(), senders=("LAB|HOSPITAL",)).code == "AR"
    for name in ("RIS|HOSPITAL", "RIS"):
        assert answer(database, order(), senders=(name,)).code == "AA"


class FullDatabase(Database):
    """A database on a full disk."""

    def write(self, *_: Any, **__: Any) -> Any:
        raise OperationalError("insert", {}, Exception("disk is full"))


def test_what_cannot_be_kept_is_not_acknowledged(engine: Engine, database: Database) -> None:
    acknowledged = answer(FullDatabase(engine, NO_RULES), order())
    assert (acknowledged.code, acknowledged.error) == ("AR", "207")
    assert answer(database, order()).code == "AA"


FIELDS = st.text(st.sampled_from('A1S.|^~\\&"X0FP é'), max_size=12)
SEGMENTS = st.builds(
    lambda name, fields: "|".join((name, *fields)),
    st.sampled_from(["PID", "ORC", "OBR", "OBX", "TQ1", "IPC", "ZDS", "MRG", "NTE"]),
    st.lists(FIELDS, max_size=30),
)


@given(
    kind=st.sampled_from(["ORM^O01", "ORU^R01", "ADT^A08", "ADT^A40", "OMI^O23"]),
    segments=st.lists(SEGMENTS, max_size=8),
)
def test_whatever_comes_is_understood_or_refused(kind: str, segments: list[str]) -> None:
    raw = message(kind, "M1", *segments)
    with contextlib.suppress(MessageError):
        understood = interpret(read_message(raw), raw, HL7())
        assert understood.orders or understood.patients
        assert not any("\0" in news.name for news in understood.patients)


def test_a_name_with_control_characters_is_kept_without_them(database: Database) -> None:
    finished(database)
    assert answer(database, correction(patient="PID|1||P1^^^^MR||Ro\\X00\\e\\X0A\\x^Jane")).code == "AA"
    assert database.read(study_details.study_detail, study_of(database)).row.patient_name == "Ro e x^Jane"


def test_the_log_names_no_patient(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    record(database)
    with caplog.at_level(logging.DEBUG):
        for raw in (
            order(),
            report(),
            correction(),
            merge(),
            report(patient="PID|1||P9^^^^MR||Else^Somebody"),
            message("ADT^A08", "M9", "PID|1||P1\\Zlocal\\^^^^MR||Roe\\Q\\^Jane"),
        ):
            answer(database, raw)
    for secret in ("Jane", "Doe", "Roe", "Else", "P1", "P9", "A-1", "1.2.826"):
        assert secret not in caplog.text


TWO_ISSUERS = "PID|1||123^^^B^MR~555^^^C^MR||Roe^Jane^^^^^L"


@pytest.mark.parametrize(
    "raw",
    [
        correction(patient=TWO_ISSUERS),
        message("ADT^A40^ADT_A39", "M4", TWO_ISSUERS, "MRG|99^^^B^MR~98^^^C^MR"),
        message("ADT^A40^ADT_A39", "M4", "PID|1||7^^^B^MR~8^^^C^MR||Roe^Jane", "MRG|123^^^B^MR~555^^^C^MR"),
    ],
)
def test_a_number_of_another_issuer_is_another_patient(database: Database, raw: bytes) -> None:
    record_instance(database, received(patient_id="555"), None, "f" * 64, NOW)
    acknowledged = answer(database, raw)
    assert acknowledged.code == "AA"
    assert "patient_id_issuers" in acknowledged.segments["MSA"][3]
    row = database.read(study_details.study_detail, study_of(database)).row
    assert (row.patient_id, row.patient_name) == ("555", "Doe^Jane")


def test_an_order_of_another_issuer_is_refused_with_a_hint(database: Database) -> None:
    record_instance(database, received(patient_id="555"), None, "f" * 64, NOW)
    acknowledged = answer(database, report(patient=TWO_ISSUERS))
    assert (acknowledged.code, acknowledged.error) == ("AE", "204")
    assert "patient_id_issuers" in acknowledged.text
    assert Worklist(database.engine).page()


def test_a_placeholder_is_not_merged(engine: Engine) -> None:
    database = Database(engine, rules_of(Settings()))
    record_instance(database, received(patient_id="UNKNOWN"), None, "f" * 64, NOW)
    acknowledged = answer(database, message("ADT^A40", "M4", "PID|1||P7^^^^MR||Roe^Jane", "MRG|UNKNOWN^^^^MR"))
    assert (acknowledged.code, acknowledged.error) == ("AE", "102")
    assert database.read(study_details.study_detail, study_of(database)).row.patient_id == "UNKNOWN"


ADDRESS = PATIENT.encode() + b"|||Stra\xdfe 1^^Town"


@pytest.mark.parametrize("name", ["UNICODE UTF-8", "ASCII", "Windows-1252"])
def test_a_bad_byte_in_an_address_loses_no_order(database: Database, name: str) -> None:
    record(database)
    bad = b"\x81" if name == "Windows-1252" else b"\xdf"
    raw = order().replace(PATIENT.encode(), ADDRESS.replace(b"\xdf", bad)).replace(b"UNICODE UTF-8", name.encode())
    acknowledged = answer(database, raw)
    assert acknowledged.code == "AA"
    assert "PID-11" in acknowledged.segments["MSA"][3]
    assert database.read(study_details.study_detail, study_of(database)).row.priority is Priority.URGENT


def test_a_name_that_cannot_be_read_corrects_nothing(database: Database) -> None:
    finished(database)
    raw = correction().replace(b"Roe", b"R\xffe").replace(b"19700101", b"19700102")
    assert answer(database, raw).code == "AA"
    detail = database.read(study_details.study_detail, study_of(database))
    assert (detail.row.patient_name, detail.row.patient_birth_date) == ("Doe^Jane", "19700102")


@pytest.mark.parametrize("name", ["Windows-1252", "UTF8", "8859-1", "ISO_IR 100", "HOUSE"])
def test_an_order_is_read_whatever_its_sender_calls_the_character_set(database: Database, name: str) -> None:
    record(database)
    raw = order().replace(b"UNICODE UTF-8", name.encode())
    assert answer(database, raw, character_sets={"house": "8859/1"}).code == "AA"
    assert database.read(study_details.study_detail, study_of(database)).row.priority is Priority.URGENT
