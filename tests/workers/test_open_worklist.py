"""There is one way to open a worklist and to let triage decide, and it knows whom to tell."""

from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path

import pytest

import workers
from config.settings import Settings, Site, Store
from db.engine import connect, migrate
from db.notifications import Notifications
from db.records import Outcome, ReceivedInstance
from db.worklist import Worklist
from tests.workers.builders import NOON, finding
from workers.open_worklist import rules_of, triage_study, worklist_of

ROOMS = Path(workers.__file__).parents[1]
WEBHOOK = {"webhook": {"enabled": True, "url": "https://notifications.example/", "secret": "s"}}


def calls(name: str) -> set[str]:
    """The modules of ``node`` and ``workers`` that call a function or class of this name."""
    found = set()
    for path in (*(ROOMS / "node").rglob("*.py"), *(ROOMS / "workers").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", getattr(call.func, "attr", "")) == name:
                found.add(str(path.relative_to(ROOMS)))
    return found


def test_a_worklist_without_rules_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Worklist(connect(f"sqlite:///{tmp_path}/test.sqlite"))  # type: ignore[call-arg]


def test_a_worklist_is_opened_in_one_place() -> None:
    # The API has an answer of that name, which opens nothing.
    assert calls("Worklist") - {"node/web/api.py"} == {"workers/open_worklist.py"}
    assert calls("notification_rules") == {"workers/open_worklist.py"}


def test_triage_is_written_in_one_place() -> None:
    assert calls("record_triage") == {"workers/open_worklist.py"}
    assert calls("decide") == {"workers/open_worklist.py", "workers/simulation/policies.py"}


def test_who_lets_triage_decide_tells_of_what_is_critical(tmp_path: Path) -> None:
    settings = Settings(store=Store(folder=tmp_path), notifications=WEBHOOK)  # type: ignore[arg-type]
    engine = connect(settings.database_url)
    migrate(engine)
    worklist = worklist_of(settings)
    received = ReceivedInstance("1.2", "1.2.3", "1.2.4", "d", "a.dcm", 1, "1", "1.1")
    (job,) = worklist.record_instance(received, None, "pipeline", NOON).job_ids
    assert worklist.claim_job(job, "worker", NOON, timedelta(minutes=5))
    worklist.finish_job(job, "worker", Outcome(findings=(finding(),)), NOON)
    assert triage_study(1, worklist, settings.triage, NOON).notifications
    assert Notifications(engine).waiting("webhook", NOON)


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
