"""URLs that name Sentinels: what is read of them, and what is refused."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from config.sentinel import read_sentinel_url
from config.settings import Settings, SettingsError, load

TWO = "sentinel://one:26379;sentinel://two"


def test_a_url_is_read() -> None:
    named = read_sentinel_url("sentinel://u%2F:p%40@one;sentinel://two:5/3?master_name=m&sentinel_password=s%26")
    assert named.sentinels == (("one", 26379), ("two", 5))
    assert (named.user, named.password, named.database, named.sentinel_password) == ("u/", "p@", 3, "s&")
    assert named.celery_url == "sentinel://u%2F:p%40@one:26379/3;sentinel://u%2F:p%40@two:5/3"
    assert named.sentinel_options(1) == {"socket_timeout": 1, "socket_connect_timeout": 1, "password": "s&"}
    assert "p@" not in repr(named)


def test_tls_is_verified_and_for_both() -> None:
    named = read_sentinel_url(f"{TWO}/0?master_name=m&ssl_ca_certs=/ca.pem")
    assert named.tls == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"}
    assert named.sentinel_options(1).items() >= {"ssl": True, **named.tls}.items()


def test_passwords_have_any_characters() -> None:
    url = f"{TWO}/1?master_name=m"
    broker = {"url": url, "password": "a@b/c;d?e", "sentinel_password": "&x=y"}
    named = read_sentinel_url(Settings(broker=broker).broker_url)
    assert (named.password, named.sentinel_password, named.database) == ("a@b/c;d?e", "&x=y", 1)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"{TWO}/0", "master_name= is missing"),
        (f"{TWO}/zero?master_name=m", "number of a database"),
        (f"{TWO};redis://three/0?master_name=m", "write sentinel://host"),
        (f"{TWO}/0?master_name=m&tls=yes", "tls is not known"),
        (f"{TWO}/0?master_name=m&ssl_cert_reqs=none", "anybody in between"),
    ],
)
def test_a_url_that_is_wrong_is_refused_in_a_sentence(url: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "pleura.toml"
    path.write_text(f'[broker]\nurl = "{url}"\n')
    with pytest.raises(SettingsError, match=message):
        load(path)


def test_a_password_of_sentinels_is_for_sentinels(tmp_path: Path) -> None:
    path = tmp_path / "pleura.toml"
    path.write_text('[broker]\nurl = "redis://one"\nsentinel_password = "s"\n')
    with pytest.raises(SettingsError, match="begins with sentinel"):
        load(path)
