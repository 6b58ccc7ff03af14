"""What doctor says of log-ins by OpenID Connect; ``tests/node/openid`` lets it ask a real provider."""

from __future__ import annotations

from datetime import timedelta

import pytest

from config.settings import Admin, Settings
from config.traces import Traces
from node.monitoring import extras
from node.monitoring.check import Check
from node.monitoring.extras import missing_extras
from node.monitoring.sign_on_health import compare_clocks
from tests.db.examples import NOW
from tests.node.openid.small_provider import ISSUER, rules


@pytest.mark.parametrize("seconds", [-31, 31])
def test_clocks_that_are_apart_are_named_before_they_refuse_log_ins(seconds: int) -> None:
    found = compare_clocks(ISSUER, NOW + timedelta(seconds=seconds), NOW)
    assert not found.ok
    assert "31 s apart" in found.found
    assert found.remedy == "synchronise both by NTP"


@pytest.mark.parametrize("seconds", [0, 29, None])
def test_clocks_that_agree_or_tell_nothing_are_fine(seconds: int | None) -> None:
    theirs = None if seconds is None else NOW + timedelta(seconds=seconds)
    assert compare_clocks(ISSUER, theirs, NOW).ok


@pytest.mark.parametrize(
    ("settings", "extra", "library"),
    [
        (Settings(admin=Admin(openid=rules())), "openid", "authlib"),
        (
            Settings(traces=Traces(enabled=True, endpoint="http://127.0.0.1:4318/v1/traces")),
            "traces",
            "opentelemetry.sdk",
        ),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, extra: str, library: str
) -> None:
    assert list(missing_extras(settings)) == []
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    found = Check(extra, False, f"{library} is not installed", f"pip install 'pleura[{extra}]'")
    assert list(missing_extras(settings)) == [found]
    assert list(missing_extras(Settings())) == []
