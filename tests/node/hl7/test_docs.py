"""The examples of docs/hl7.md are messages that this node takes, and tells."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from config.notifications import HL7Notification, Notifications
from config.settings import Settings, Site
from db.database import Database
from db.engine import connect
from db.queries import study_details
from db.states import Priority
from node.hl7.receiver import Receiver
from tests.commands import study_facts
from tests.db.examples import NOW, finished, study_of
from tests.migrated import migrate
from tests.node.hl7.messages import Answer
from tests.rules import NO_RULES
from tests.workers.notifications.test_channels import NOTIFICATION
from workers.hl7.message import read_message
from workers.notifications.observation_report import report

PAGE = Path(__file__).resolve().parents[3] / "docs" / "hl7.md"


def examples() -> dict[str, bytes]:
    """The example messages of the page, by MSH-9; the acknowledgement among them."""
    blocks = re.findall(r"```text\n(MSH.*?)```", PAGE.read_text(), re.DOTALL)
    raw = [block.replace("\n", "\r").encode() for block in blocks]
    return {read_message(each).header.repetitions(9)[0] + read_message(each).header.text(10): each for each in raw}


def test_the_examples_do_what_the_page_says(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/test.sqlite")
    migrate(engine)
    database = Database(engine, NO_RULES)
    receiver = Receiver(Settings(), database, lambda: NOW + timedelta(minutes=45), lambda: "5f0c")
    page = examples()
    finished(database)
    study = study_of(database)
    assert Answer(receiver.answer(page["ORM^O01M1"])).code == "AA"
    assert study_facts(database, study).hospital_priority is Priority.URGENT
    assert receiver.answer(page["ORU^R01^ORU_R01M2"]) == page["ACK^R01^ACK5f0c"]
    assert study_facts(database, study).reported
    assert Answer(receiver.answer(page["ADT^A40^ADT_A39M3"])).code == "AA"
    assert database.read(study_details.study_detail, study).row.patient_id == "P7"


def test_the_example_of_a_notification_is_what_is_written() -> None:
    settings = Settings(
        site=Site(name="North Hospital"),
        notifications=Notifications(hl7=HL7Notification(receiving_application="EHR")),
    )
    plain: dict[str, Any] = {"issuer_of_patient_id": "", "patient_name": "Doe^Jane"}
    written = report(replace(NOTIFICATION, **plain), settings, NOW + timedelta(minutes=20))
    assert written.encode() == examples()["ORU^R01^ORU_R010123456789abcdef0123"]
