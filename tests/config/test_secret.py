"""Secrets stand in files, systemd credentials or the environment, and are printed nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from config.reference import effective_toml, keys
from config.settings import Settings, SettingsError, load

# Every character that means something in a URL, a shell or TOML.
NASTY = "p@ss/w#rd%41?&=:;$'\"\\ ü"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLEURA_CONFIG", raising=False)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(NASTY + "\n", encoding="utf-8")
    return path


def _written(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "pleura.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_a_password_with_any_characters_reaches_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEURA_DATABASE__URL", "postgresql+psycopg://pleura@db:5432/pleura?sslmode=require")
    monkeypatch.setenv("PLEURA_DATABASE__PASSWORD", NASTY)
    url = make_url(load().database_url)
    assert (url.username, url.password, url.host, url.port, url.database) == ("pleura", NASTY, "db", 5432, "pleura")
    assert url.query == {"sslmode": "require"}


def test_a_broker_needs_no_user(tmp_path: Path, password_file: Path) -> None:
    text = f'[broker]\nurl = "rediss://broker:6379/0"\npassword = {{ file = "{password_file}" }}\n'
    assert _written(tmp_path, text).broker_url.startswith("rediss://:p%40ss%2Fw%23rd%2541")


def test_every_secret_has_a_variable_for_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, password_file: Path
) -> None:
    text = '[notifications.webhook]\nurl = "https://x"\n[notifications.email]\nhost = "mail"\n'
    monkeypatch.setenv("PLEURA_NOTIFICATIONS__WEBHOOK__SECRET_FILE", str(password_file))
    monkeypatch.setenv("PLEURA_NOTIFICATIONS__EMAIL__PASSWORD_FILE", str(password_file))
    monkeypatch.setenv("PLEURA_ADMIN__METRICS_TOKEN_FILE", str(password_file))
    monkeypatch.setenv("PLEURA_ADMIN__OPENID__CLIENT_SECRET_FILE", str(password_file))
    settings = _written(tmp_path, text)
    channels, admin = settings.notifications, settings.admin
    found = (channels.webhook.secret, channels.email.password, admin.metrics_token, admin.openid.client_secret)
    assert [each and each.get_secret_value() for each in found] == [NASTY] * 4
    assert settings.notifications.email.host == "mail"


def test_a_systemd_credential_is_read(tmp_path: Path, password_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[admin]\nmetrics_token = { credential = "password" }\n'
    with pytest.raises(SettingsError, match="LoadCredential"):
        _written(tmp_path, text)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    token = _written(tmp_path, text).admin.metrics_token
    assert token is not None
    assert token.get_secret_value() == NASTY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[database]\npassword = 'x'\n", "database.url, which is not set"),
        ("[broker]\nurl = 'redis://:a@b/0'\npassword = 'x'\n", "both give a password"),
        ("[admin]\nmetrics_token = { file = '/nowhere/token' }\n", "cannot be read: No such file"),
        ("[admin]\nmetrics_token = { file = 'token' }\n", "absolute path"),
        ("[admin]\nmetrics_token = { fil = '/token' }\n", "a secret is text"),
        ("[admin]\nmetrics_token = { file = '/dev/null' }\n", "is empty"),
    ],
)
def test_a_secret_that_cannot_be_had_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _written(tmp_path, text)


def test_a_secret_and_its_file_cannot_both_be_set(monkeypatch: pytest.MonkeyPatch, password_file: Path) -> None:
    monkeypatch.setenv("PLEURA_ADMIN__METRICS_TOKEN", "x")
    monkeypatch.setenv("PLEURA_ADMIN__METRICS_TOKEN_FILE", str(password_file))
    with pytest.raises(SettingsError, match="METRICS_TOKEN_FILE are both set"):
        load()


def test_only_a_secret_has_a_variable_for_its_file(monkeypatch: pytest.MonkeyPatch, password_file: Path) -> None:
    monkeypatch.setenv("PLEURA_LISTENER__HOST_FILE", str(password_file))
    with pytest.raises(SettingsError, match="HOST_FILE"):
        load()


def test_no_secret_is_printed(tmp_path: Path, password_file: Path) -> None:
    text = f'[database]\nurl = "postgresql://a@b/c"\npassword = {{ file = "{password_file}" }}\n'
    settings = _written(tmp_path, text)
    for printed in (repr(settings), str(settings), settings.model_dump_json(), effective_toml(settings)):
        assert "p@ss" not in printed
        assert "p%40ss" not in printed
    assert {"database.password", "broker.password"} <= {key.name for key in keys()}
