"""``pleura notify --test`` and the checks of ``pleura doctor``, against real receivers."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner, Result

from config.settings import load
from db import notifications
from db.database import Database
from db.engine import connect
from db.records import TriageDecision
from db.states import Analysis, Priority
from node.cli.main import cli
from node.monitoring.health import check_channel, examine
from node.monitoring.port_health import check_hl7
from tests.commands import record_triage
from tests.db.examples import MINUTE, NOW, finding, finished, study_of
from tests.migrated import migrate
from tests.rules import rules_that_notify
from tests.workers.notifications.receivers import hospital, mail, web
from workers.notifications.channels import notification_rules

PEOPLE = {"sender": "pleura@north.example", "recipients": ["a@north.example"]}


def configuration(folder: Path, **parts: Any) -> Path:
    path = folder / "pleura.toml"
    path.write_text(tomli_w.dumps({"store": {"folder": str(folder)}, **parts}))
    return path


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--config", str(path), *arguments])


def everything(site: int, post: int, ehr: int) -> dict[str, Any]:
    return {
        "webhook": {"enabled": True, "url": f"http://127.0.0.1:{site}/", "secret": "s"},
        "email": {"enabled": True, "host": "127.0.0.1", "port": post, "security": "none", **PEOPLE},
        "hl7": {"enabled": True, "host": "127.0.0.1", "port": ehr},
    }


@pytest.mark.parametrize("channel", ["webhook", "email", "hl7"])
def test_a_test_message_gets_through(tmp_path: Path, channel: str) -> None:
    with web() as site, mail() as post, hospital() as ehr:
        path = configuration(tmp_path, notifications=everything(site.port, post.port, ehr.port))
        result = run(path, "notify", "--test", channel)
    assert result.exit_code == 0, result.output
    arrived: dict[str, Sequence[object]] = {"webhook": site.requests, "email": post.envelopes, "hl7": ehr.messages}
    assert {name: len(found) for name, found in arrived.items() if found} == {channel: 1}


def test_a_channel_that_is_not_configured_says_what_to_set(tmp_path: Path) -> None:
    result = run(configuration(tmp_path), "notify", "--test", "webhook")
    assert result.exit_code == 1
    assert "url, secret" in result.output


def test_a_receiver_that_refuses_is_an_error(tmp_path: Path) -> None:
    with web(status=500) as site:
        parts = {"webhook": {"url": f"http://127.0.0.1:{site.port}/", "secret": "s"}}
        result = run(configuration(tmp_path, notifications=parts), "notify", "--test", "webhook")
    assert result.exit_code == 1
    assert "500" in result.output
    assert "[notifications.webhook]" in result.output


def test_doctor_asks_every_channel_and_tells_nobody(tmp_path: Path) -> None:
    with web() as site, mail() as post, hospital() as ehr:
        settings = load(configuration(tmp_path, notifications=everything(site.port, post.port, ehr.port)))
        checks = [check_channel(settings, name) for name in ("webhook", "email", "hl7")]
        parts = [check.part for check in examine(settings)]
        without = [check.part for check in examine(settings, peers=False)]
    assert [check.ok for check in checks] == [True, True, True]
    assert not site.requests
    assert not post.envelopes
    assert not ehr.messages
    found = ["notification by webhook", "notification by email", "notification by hl7"]
    assert parts[-3:] == found
    assert not set(found) & set(without)
    assert not any(check_channel(settings, name).ok for name in ("webhook", "email", "hl7")), "they are gone by now"


def test_what_was_failed_is_told_and_sent_again(tmp_path: Path) -> None:
    with web() as site:
        parts = {"webhook": everything(site.port, 1, 1)["webhook"]}
        path = configuration(tmp_path, notifications=parts)
        settings = load(path)
        engine = connect(settings.database_url)
        migrate(engine)
        database = Database(engine, rules_that_notify(notification_rules(settings)))
        finished(database)
        notification = TriageDecision(Priority.CRITICAL, NOW, Analysis.ANALYSED, "pneumothorax", (finding(),))
        record_triage(database, study_of(database), notification, NOW)
        (waiting,) = database.read(notifications.waiting, "webhook", NOW)
        database.write(notifications.claim, waiting, "w", NOW, MINUTE)
        database.write(notifications.fail, waiting, "w", "status 500", NOW)
        check = check_channel(settings, "webhook")
        assert not check.ok
        assert "1 notifications" in check.found
        result = run(path, "notify", "--retry", "webhook")
        assert result.exit_code == 0, result.output
        assert database.read(notifications.waiting, "webhook", NOW) == (waiting,)
        assert check_channel(settings, "webhook").ok


def test_a_command_that_asks_for_nothing_is_a_mistake(tmp_path: Path) -> None:
    assert run(configuration(tmp_path), "notify").exit_code == 2


def test_doctor_looks_at_the_hl7_listener(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = load(configuration(tmp_path, hl7={"enabled": True, "port": port}))
        assert "accepts connections" in check_hl7(settings, running=True).found
        assert "HL7 listener" in [check.part for check in examine(settings, peers=False)]
    assert "is free" in check_hl7(settings, running=False).found
    assert not check_hl7(settings, running=True).ok, "the node runs, and its HL7 listener does not"
    missing = load(configuration(tmp_path, hl7={"enabled": True, "port": port, "tls_certificate": "/nowhere.pem"}))
    assert not check_hl7(missing, running=False).ok
