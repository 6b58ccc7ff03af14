"""There is one way to open a database and to let triage decide, and it knows whom to tell."""

from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path

import pytest

import workers
from config.settings import Settings, Site, Store
from db import jobs, notifications
from db.database import Database
from db.engine import connect
from db.records import Outcome, ReceivedInstance
from tests.commands import record_instance
from tests.migrated import migrate
from tests.workers.builders import NOON, finding
from workers.open_database import database_of, rules_of, triage_study

ROOMS = Path(workers.__file__).parents[1]
WEBHOOK = {"webhook": {"enabled": True, "url": "https://notifications.example/", "secret": "s"}}


def uses(name: str, owner: str = "") -> set[str]:
    """The modules of ``node`` and ``workers`` that call a function or class of this name; with ``owner``, the module
    that has it, also those that hand it on.
    """
    found = set()
    for path in (*(ROOMS / "node").rglob("*.py"), *(ROOMS / "workers").rglob("*.py")):
        for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if owner:
                meant = isinstance(part, ast.Attribute) and (part.attr, ast.unparse(part.value)) == (name, owner)
            else:
                meant = isinstance(part, ast.Call) and name in (getattr(part.func, key, "") for key in ("id", "attr"))
            if meant:
                found.add(str(path.relative_to(ROOMS)))
    return found


def test_a_database_without_rules_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Database(connect(f"sqlite:///{tmp_path}/test.sqlite"))  # type: ignore[call-arg]


def test_a_database_is_opened_in_one_place() -> None:
    assert uses("Database") == uses("GroupCommit") == set(), "database_of makes one of the kind that it is asked for"
    assert uses("notification_rules") == {"workers/open_database.py"}


def test_triage_is_written_in_one_place() -> None:
    assert uses("triage", "studies") == {"workers/open_database.py"}
    assert uses("record_triage", "studies") == uses("record_triage") == set()
    deciding = {"workers/open_database.py", "workers/simulation/policies.py", "workers/services/expected_route.py"}
    assert uses("decide") == deciding, "the last two write nothing: a simulation, and what would become of a file"


def test_who_lets_triage_decide_tells_of_what_is_critical(tmp_path: Path) -> None:
    settings = Settings(store=Store(folder=tmp_path), notifications=WEBHOOK)
    engine = connect(settings.database_url)
    migrate(engine)
    database = database_of(settings)
    received = ReceivedInstance("1.2", "1.2.3", "1.2.4", "d", "a.dcm", 1, "1", "1.1")
    (job,) = record_instance(database, received, None, "pipeline", NOON).job_ids
    assert database.write(jobs.claim, job, "worker", NOON, timedelta(minutes=5))
    database.write(jobs.finish, job, "worker", Outcome(findings=(finding(),)), NOON)
    assert triage_study(1, database, settings.triage, NOON).notifications
    assert database.read(notifications.waiting, "webhook", NOON)


def test_rules_are_those_of_the_settings() -> None:
    settings = Settings(site=Site(patient_id_issuers=("A", "1.2"), placeholder_patient_ids=("NN",)))
    patients = rules_of(settings).patients
    assert (patients.own_issuers, patients.placeholders) == (("A", "1.2"), ("NN",))


@pytest.mark.parametrize("patient_id", ["", "-", "UNKNOWN", "unknown 1", "0", "000", "99999", "Notfall", "N/A"])
def test_usual_placeholders_name_nobody(patient_id: str) -> None:
    assert rules_of(Settings()).patients.names_nobody(patient_id)


@pytest.mark.parametrize("patient_id", ["P1", "TEST-1042", "10000", "123456", "TRAUMA-20260301-7", "X1"])
def test_other_ids_name_somebody(patient_id: str) -> None:
    assert not rules_of(Settings()).patients.names_nobody(patient_id)
