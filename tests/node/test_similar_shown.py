"""``pleura show`` tells the similar cases of a finding, where a retrieval model gave any; so does a job's record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from db import jobs
from db.database import Database
from db.engine import connect
from db.records import SimilarRecord
from models.contract import Finding, ModelUse, Prediction, SimilarCase
from models.model_spec import Code
from node.cli.main import cli
from tests.db.examples import NOW, claim, finding, outcome, record
from tests.migrated import migrate
from tests.rules import NO_RULES
from workers.job_outcome import finding_records
from workers.results.identity import Identity


@pytest.mark.parametrize("cases", [(), (SimilarRecord("index/0042", "pneumothorax", 0.1234),)])
def test_show_has_a_table_only_where_there_are_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: tuple[SimilarRecord, ...]
) -> None:
    monkeypatch.setenv("PLEURA_STORE__FOLDER", str(tmp_path))
    engine = connect(f"sqlite:///{tmp_path / 'pleura.sqlite'}")
    migrate(engine)
    database = Database(engine, NO_RULES)
    job_id = record(database)
    claim(database, job_id)
    database.write(jobs.finish, job_id, "w1", replace(outcome(), findings=(finding(similar=cases),)), NOW)
    shown = CliRunner().invoke(cli, ["show", "#1"])
    assert shown.exit_code == 0, shown.output
    assert ("Similar cases" in shown.output) == bool(cases)
    assert ("index/0042" in shown.output) == bool(cases)


def test_a_model_s_similar_cases_are_recorded_with_its_finding() -> None:
    case = SimilarCase("index/7", "nodule", 0.5)
    code = Code("112002", "DCM", "Nodule")
    found = Finding("nodule", code, "neighbours", 0.7, 0.5, mask=np.ones((2, 2), np.bool_), similar=(case,))
    use = ModelUse("neighbours", "1", "Neighbours", "d", "2.25.1")
    identity = Identity("2.25", "1.2", "d", "p", 1)
    (kept,) = finding_records(Prediction((2, 2), (found,), models=(use,)), None, identity)
    assert kept.similar == (SimilarRecord("index/7", "nodule", 0.5),)
    assert kept.tracking_uid == identity.tracking("neighbours", "nodule")
    assert finding_records(Prediction((2, 2), (found,), models=(use,)), None)[0].tracking_uid == ""
