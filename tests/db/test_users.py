"""Users, log-ins, tokens, audit and feedback, on both databases."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine

from db import feedback, study_status
from db.audit import AuditTrail
from db.database import Database
from db.errors import RecordNotFoundError
from db.login_attempts import FAILURES_PER_USER, TooManyAttemptsError
from db.queries.monitoring import ModelMonitoring
from db.queries.statistics import Statistics
from db.queries.worklist import Order, Worklist, WorklistPart
from db.queries.worklist_filters import Filters
from db.sign_on import Identity, sign_on
from db.states import Priority
from db.user_tables import Role, Verdict
from db.users import AccountError, Accounts
from tests.commands import study_facts
from tests.db.examples import HOUR, MINUTE, NOW, finished, record, study_of

PASSWORD = "correct horse battery"


@pytest.fixture
def accounts(engine: Engine) -> Accounts:
    return Accounts(engine, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def test_a_user_logs_in_whatever_the_case_of_the_name_and_a_session_ends_in_time(accounts: Accounts) -> None:
    user = accounts.add_user("Ada.L", PASSWORD, Role.ADMIN, NOW, actor="cli")
    assert accounts.log_in("ADA.L", PASSWORD, "", NOW) == user
    assert accounts.log_in("ada.l", PASSWORD + "x", "", NOW) is None
    token = accounts.open_session(user, "::1", NOW, HOUR)
    session = accounts.session(token, NOW + HOUR - MINUTE)
    assert session is not None
    assert session.user.name == "ada.l"
    assert accounts.session(token, NOW + HOUR) is None
    assert accounts.session("", NOW) is None


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaa", "x" * 257])
def test_a_weak_password_is_refused(accounts: Accounts, password: str) -> None:
    with pytest.raises(AccountError):
        accounts.add_user("ada", password, Role.VIEWER, NOW, actor="cli")
    assert accounts.users() == ()


@pytest.mark.parametrize("name", ["", " ", "a b", "<x>", "-x", "x" * 65])
def test_a_strange_name_is_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(AccountError):
        accounts.add_user(name, PASSWORD, Role.VIEWER, NOW, actor="cli")


def _grace(**changed: str) -> Identity:
    known = {"issuer": "https://login", "subject": "0815", "name": "Grace", "display_name": "Grace Hopper"}
    return Identity(**(known | changed), role=Role.RADIOLOGIST)


def test_who_signs_on_is_made_once_and_known_by_issuer_and_subject(database: Database, accounts: Accounts) -> None:
    made = database.write(sign_on, _grace(), NOW)
    assert (made.name, made.role, made.has_password) == ("grace", Role.RADIOLOGIST, False)
    again = database.write(sign_on, _grace(name="grace.m", display_name=""), NOW + HOUR)
    assert (again.id, again.name, again.display_name) == (made.id, "grace", "grace")
    for other in ({"subject": "0816"}, {"issuer": "https://another"}):
        with pytest.raises(AccountError, match="another user grace"):
            database.write(sign_on, _grace(**other), NOW)
    assert len(accounts.users()) == 1


def test_an_account_with_a_password_belongs_to_who_signs_on_only_after_it_was_freed(
    database: Database, accounts: Accounts
) -> None:
    user = accounts.add_user("grace", PASSWORD, Role.ADMIN, NOW, actor="cli")
    token = accounts.open_session(user, "::1", NOW, HOUR)
    with pytest.raises(AccountError, match="--sign-on"):
        database.write(sign_on, _grace(), NOW)
    accounts.free_for_sign_on(user.id, NOW, actor="cli")
    assert accounts.session(token, NOW) is None
    taken = database.write(sign_on, _grace(), NOW)
    assert (taken.id, taken.role) == (user.id, Role.RADIOLOGIST)
    assert accounts.log_in("grace", PASSWORD, "", NOW) is None


def test_a_user_without_password_cannot_log_in_by_one(accounts: Accounts) -> None:
    accounts.add_user("sso", None, Role.VIEWER, NOW, actor="single sign-on")
    assert accounts.log_in("sso", "", "", NOW) is None


def test_guessing_is_limited_for_a_name_and_the_limit_passes(accounts: Accounts) -> None:
    accounts.add_user("ada", PASSWORD, Role.ADMIN, NOW, actor="cli")
    for _ in range(FAILURES_PER_USER):
        assert accounts.log_in("ada", "guess", "", NOW) is None
    with pytest.raises(TooManyAttemptsError):
        accounts.log_in("ada", PASSWORD, "", NOW + MINUTE)
    assert accounts.log_in("ada", PASSWORD, "", NOW + 16 * MINUTE) is not None


def test_the_last_administrator_stays_in_one_transaction(accounts: Accounts) -> None:
    ada = accounts.add_user("ada", PASSWORD, Role.ADMIN, NOW, actor="cli")
    with pytest.raises(AccountError):
        accounts.change_user(ada.id, NOW, actor="ada", disabled=True)
    assert not accounts.users()[0].disabled
    accounts.add_user("eve", PASSWORD, Role.ADMIN, NOW, actor="ada")
    assert accounts.change_user(ada.id, NOW, actor="eve", role=Role.VIEWER).role is Role.VIEWER


def test_a_token_is_known_by_its_secret_until_revoked(accounts: Accounts, engine: Engine) -> None:
    token, secret = accounts.add_token("dash", Role.VIEWER, NOW, actor="ada")
    found = accounts.token(secret, NOW)
    assert found is not None
    assert found.id == token.id
    accounts.revoke_token(token.id, NOW, actor="ada")
    assert accounts.token(secret, NOW) is None
    with pytest.raises(RecordNotFoundError):
        accounts.revoke_token(99, NOW, actor="ada")
    assert [entry.action for entry in AuditTrail(engine).entries()] == ["revoke token", "add token"]


def test_the_latest_verdict_of_a_finding_counts(database: Database, engine: Engine) -> None:
    finished(database)
    study = study_of(database)
    finding = database.read(feedback.findings, study)[0]
    database.write(feedback.give, finding.id, Verdict.REJECT, NOW, actor="rosa", comment="  skin fold ")
    database.write(feedback.give, finding.id, Verdict.MODIFY, NOW + MINUTE, actor="rosa")
    assert [record.comment for record in database.read(feedback.of_study, study)] == ["skin fold", ""]
    (counted,) = ModelMonitoring(engine).verdicts(NOW - HOUR, NOW + HOUR)
    assert (counted.verdict, counted.count) == (Verdict.MODIFY, 1)
    with pytest.raises(RecordNotFoundError):
        database.write(feedback.give, 999, Verdict.ACCEPT, NOW, actor="rosa")


def test_reported_studies_leave_and_come_back(database: Database, engine: Engine) -> None:
    finished(database)
    record(database, 1, 2)
    study, reading = study_of(database), Worklist(engine)
    assert database.write(study_status.report, study, NOW, actor="rosa", cause="by hand")
    assert not database.write(study_status.report, study, NOW, actor="rosa", cause="by hand")
    assert study not in [row.study_id for row in Worklist(database.engine).page()]
    assert [row.study_id for row in reading.page(show=WorklistPart.REPORTED)] == [study]
    assert reading.counts()[WorklistPart.UNREPORTED] == reading.count(WorklistPart.UNREPORTED) == 1
    assert database.write(study_status.undo_report, study, NOW, actor="rosa", cause="by hand")
    assert reading.count(WorklistPart.UNREPORTED) == 2
    with pytest.raises(RecordNotFoundError):
        database.write(study_status.report, 999, NOW, actor="rosa", cause="by hand")


def test_every_part_order_and_search_of_the_list_is_a_valid_question(database: Database, engine: Engine) -> None:
    finished(database)
    reading = Worklist(engine)
    for show in WorklistPart:
        for order in Order:
            for descending in (False, True):
                reading.page(show=show, order=order, descending=descending, filters=Filters(search="jane %_"))
    (row,) = reading.page(filters=Filters(search="DOE jane"))
    assert row.modalities == ("DX",)
    assert row.present[0].label == "pneumothorax"
    assert row.deliveries_all == 2
    assert reading.page(filters=Filters(search="%")) == ()


def test_the_hospitals_priority_is_written_once(database: Database, engine: Engine) -> None:
    finished(database)
    study = study_of(database)
    assert database.write(study_status.set_priority, study, Priority.URGENT, NOW, actor="rosa", cause="by hand")
    assert not database.write(study_status.set_priority, study, Priority.URGENT, NOW, actor="rosa", cause="by hand")
    assert study_facts(database, study).hospital_priority is Priority.URGENT
    assert database.read(study_status.hospital_priority, study) is Priority.URGENT


def test_figures_of_the_node(database: Database, engine: Engine) -> None:
    statistics = Statistics(engine)
    position, _ = statistics.news(None)
    finished(database)
    record(database, 1, 2)
    latest, studies = statistics.news(position)
    assert latest > position
    assert set(studies) == {study_of(database, 1), study_of(database, 2)}
    assert statistics.news(latest) == (latest, ())
    assert len(statistics.finished_jobs(NOW - HOUR)) == 1
    assert len(statistics.arrivals(NOW - HOUR)) == 2
    assert statistics.workers(NOW - HOUR)[0].finished == 1
    assert statistics.oldest_queued(NOW + MINUTE) == 60
    assert statistics.destinations()["pacs"].counts == {"pending": 2}
    assert statistics.models()[0].positives == 1
    assert statistics.failures() == ()
