"""``pleura drift`` on a real database: a table a person can read, and the same as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from db import feedback
from db.database import Database
from db.engine import connect
from db.user_tables import Verdict
from node.cli.main import cli
from tests.db.queries.test_monitoring import Weeks, scored
from tests.migrated import migrate
from tests.rules import NO_RULES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store = tmp_path / "store"
    store.mkdir()
    monkeypatch.setenv("PLEURA_STORE__FOLDER", str(store))
    return store


def test_the_report_as_tables_and_as_json(folder: Path) -> None:
    engine = connect(f"sqlite:///{folder / 'pleura.sqlite'}")
    migrate(engine)
    weeks, now = Weeks(Database(engine, NO_RULES)), datetime.now(UTC)
    for back, probability in ((50, 0.2), (0, 0.9)):
        for index in range(15):
            score = probability + index / 200
            other = scored(score / 2, model="trial", shadow=True)
            weeks.job(now - timedelta(days=back), scored(score), other, brightness=score, view="PA")
    weeks.job(now, not_analysed="rotated")
    Database(engine, NO_RULES).write(feedback.give, 1, Verdict.REJECT, now, actor="rosa")
    shown = CliRunner().invoke(cli, ["drift", "--weeks", "9"])
    assert shown.exit_code == 0, shown.output
    for text in (
        "Scores",
        "drifted",
        "reference",
        "rotated 1",
        "Readers",
        "In shadow",
        "trial",
        "not a medical device",
    ):
        assert text in shown.output, text
    answered = CliRunner().invoke(cli, ["drift", "--json", "--model", "trial"])
    report = json.loads(answered.output)
    assert {one["model"] for one in report["scores"]} == {"trial"}
    assert report["comparisons"][0]["pairs"]
    assert report["images"][0]["not_analysed"] == 1


def test_a_node_without_images_says_so(folder: Path) -> None:
    missing = CliRunner().invoke(cli, ["drift"])
    assert missing.exit_code == 1
    engine = connect(f"sqlite:///{folder / 'pleura.sqlite'}")
    migrate(engine)
    shown = CliRunner().invoke(cli, ["drift", "--weeks", "2"])
    assert shown.exit_code == 0
    assert "No image was analysed in the last 2 weeks" in shown.output
