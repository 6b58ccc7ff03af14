"""What doctor says of log-ins by OpenID Connect; ``tests/node/openid`` lets it ask a real provider."""

from __future__ import annotations

from datetime import timedelta

import pytest

from config.settings import Admin, Settings
from node.monitoring import sign_on_health
from node.monitoring.sign_on_health import check_openid, check_openid_extra, compare_clocks
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


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_on_health, "find_spec", lambda name: None)
    settings = Settings(admin=Admin(openid=rules()))
    assert check_openid(settings) == check_openid_extra(settings)
    assert check_openid_extra(settings).remedy == "pip install 'pleura[openid]'"
    assert check_openid_extra(Settings()).ok
