"""Which studies of an archive may be a patient's last prior, and a search that an archive cannot stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from config.archives import Priors
from config.destinations import Destination
from config.settings import Eligibility, Settings
from db import erasures
from db import priors as store
from db.database import Database
from db.engine import connect
from db.patients import PatientIdentifier, PatientRules
from db.priors import WantedPrior
from db.queries.study_details import study_detail
from node.monitoring.routing_health import check_comparisons
from tests.commands import record_instance
from tests.db.examples import NOW, PIPELINE, received
from tests.migrated import migrate
from tests.ports import free_port
from tests.rules import NO_RULES
from workers.prior_search import candidates, prior_search
from workers.query_retrieve_scu import ArchiveStudy

TODAY = date(2026, 3, 1)
WANTED = WantedPrior(1, "1.2.3", PatientIdentifier("P1"), ("Doe^Jane", "19600101", "F"), "20260301")
STUDY = ArchiveStudy("P1", "", "DOE^JANE^^", "19600101", "F", "1.2.9", "101500", "Thorax p.a.", "20260101")


def uids(*found: ArchiveStudy, wanted: WantedPrior = WANTED, rules: PatientRules | None = None) -> list[str]:
    fit = candidates(wanted, found, rules or PatientRules(("HOSPITAL",)), Eligibility(), TODAY)
    return [each.study_instance_uid for each in fit]


def test_the_newest_comes_first_each_once() -> None:
    older, newer = replace(STUDY, study_date="20250101", study_instance_uid="1.2.8"), STUDY
    later = replace(STUDY, study_time="200000", study_instance_uid="1.2.10")
    assert uids(older, newer, newer, later) == ["1.2.10", "1.2.9", "1.2.8"]
    assert uids(replace(STUDY, study_description="", issuer_of_patient_id="HOSPITAL")) == ["1.2.9"]


@pytest.mark.parametrize(
    "changes",
    [
        {"patient_id": "P10"},
        {"issuer_of_patient_id": "OTHER"},
        {"patient_name": "Doe^John"},
        {"patient_birth_date": "19600102"},
        {"patient_sex": ""},
        {"study_date": "20260301"},
        {"study_date": "20260302"},
        {"study_date": ""},
        {"study_description": "Knie rechts"},
        {"study_instance_uid": "1.2.3"},
        {"study_instance_uid": ""},
    ],
)
def test_a_doubt_means_no_prior(changes: dict[str, str]) -> None:
    assert uids(replace(STUDY, **changes)) == []


def test_a_study_of_today_is_never_pulled_even_for_one_that_claims_tomorrow() -> None:
    assert uids(replace(STUDY, study_date="20260301"), wanted=replace(WANTED, study_date="20260309")) == []
    assert uids(STUDY, wanted=replace(WANTED, study_date="")) == []


@contextmanager
def searching(folder: Path, port: int) -> Iterator[tuple[Database, Settings]]:
    engine = connect(f"sqlite:///{folder / 'test.sqlite'}")
    migrate(engine)
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_seconds=1)
    yield Database(engine, NO_RULES), Settings(destinations=(pacs,), priors=Priors(archive="pacs", timeout_seconds=1))
    engine.dispose()


def test_an_archive_that_is_down_is_told_and_the_summary_waits_no_longer(tmp_path: Path) -> None:
    with searching(tmp_path, free_port()) as (database, settings):
        record_instance(database, received(1, 1, patient_id="P1", study_date="20260301"), None, PIPELINE, NOW)
        search = prior_search(settings, database, lambda: NOW, lambda seconds: False)
        assert search is not None
        search.once()
        with database.engine.connect() as connection:
            ((problem,),) = connection.exec_driver_sql("select problem from prior_searches").all()
        assert problem.startswith("pacs cannot be searched for a prior: the peer cannot be reached")
        assert not database.read(store.may_still_come, 1, NOW, timedelta(minutes=2))
        search.once()


def test_a_prior_that_was_erased_is_not_pulled_again(tmp_path: Path) -> None:
    with searching(tmp_path, free_port()) as (database, settings):
        record_instance(database, received(1, 1), None, PIPELINE, NOW)
        database.write(erasures.request, 1, "ann", "", "case 88", NOW)
        assert database.write(erasures.erase, 1, NOW) is None
        search = prior_search(settings, database, lambda: NOW, lambda seconds: False)
        assert search is not None
        erased, other = (replace(STUDY, study_instance_uid=f"1.2.826.0.2.{number}") for number in (1, 2))
        assert search._without_erased([erased, other]) == [other]


def test_a_search_whose_process_was_lost_is_ended_by_the_next_one(tmp_path: Path) -> None:
    with searching(tmp_path, free_port()) as (database, settings):
        record_instance(database, received(1, 1, patient_id="P1", study_date="20260301"), None, PIPELINE, NOW)
        database.write(store.begin, 1, NOW - timedelta(hours=1))
        search = prior_search(settings, database, lambda: NOW, lambda seconds: False)
        assert search is not None
        search.once()
        found = database.read(study_detail, 1).prior_search
        assert found is not None
        assert found.problem == "the search for a prior was interrupted"


def test_without_an_archive_nothing_is_searched(tmp_path: Path) -> None:
    with searching(tmp_path, 1) as (database, _):
        assert prior_search(Settings(), database, lambda: NOW, lambda seconds: False) is None


@pytest.mark.parametrize(("kinds", "warned"), [(("sr",), True), (("sr", "summary"), False)])
def test_doctor_says_where_nobody_gets_a_comparison(kinds: tuple[str, ...], warned: bool) -> None:
    pacs = Destination(name="pacs", ae_title="PACS", host="pacs", port=104, kinds=kinds)
    settings = Settings(destinations=(pacs,), priors=Priors(archive="pacs"))
    assert bool(list(check_comparisons(settings))) is warned
