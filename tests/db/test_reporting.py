"""The SQL of docs/reporting.md runs on both databases as it stands, and finds something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import text

from db import feedback, study_status
from db.audit import AuditEntry, AuditTrail
from db.database import Database
from db.user_tables import Verdict
from tests.db.examples import HOUR, MINUTE, NOW, study_of
from tests.db.test_views import analysed

PAGE = Path(__file__).resolve().parents[2] / "docs/reporting.md"
QUESTIONS = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def used(database: Database) -> Database:
    """A node with an analysed, delivered and reported study with feedback, on which a person has acted."""
    analysed(database, 1, MINUTE)
    study = study_of(database)
    database.write(
        feedback.give, database.read(feedback.findings, study)[0].id, Verdict.ACCEPT, NOW + HOUR, actor="anna"
    )
    database.write(study_status.report, study, NOW + HOUR, actor="anna", cause="read")
    AuditTrail(database.engine).add(AuditEntry(NOW, "anna", "hold", "study", study))
    return database


def test_every_question_has_an_answer(used: Database) -> None:
    assert len(QUESTIONS) == 7
    with used.engine.connect() as connection:
        for question in QUESTIONS:
            assert connection.execute(text(question)).all(), question
