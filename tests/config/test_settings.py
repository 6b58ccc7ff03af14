from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

import config
from config.listener import Peer
from config.reference import commented_toml, differences, effective_toml, keys, markdown_table
from config.settings import MAXIMUM_SOCKET_PATH, Settings, SettingsError, load

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLEURA_CONFIG", raising=False)


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pleura.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_environment_is_stronger_than_the_file_and_the_file_than_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, "[listener]\nport = 104\nae_title = 'FILE'\n")
    monkeypatch.setenv("PLEURA_LISTENER__PORT", "105")
    listener = load(path).listener
    assert (listener.port, listener.ae_title, listener.maximum_associations) == (105, "FILE", 25)


def test_lists_of_tables_are_read(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "[[destinations]]\nname = 'pacs'\nae_title = 'ORTHANC'\nhost = '127.0.0.1'\nport = 4242\nkinds = ['sr']\n",
    )
    (destination,) = load(path).destinations
    assert (destination.name, destination.kinds) == ("pacs", ("sr",))


TLS = "[tls]\ncertificate = 'node.pem'\nca = 'ca.pem'\n"
PACS = "[[destinations]]\nname = 'pacs'\nae_title = 'ARCHIVE'\nhost = 'h'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[listener]\nprot = 104\n", "listener.prot"),
        ("[listener]\nport = 70000\n", "listener.port"),
        ("[listener]\nae_title = 'SEVENTEEN LETTERS'\n", "AE title"),
        ("[site]\nuid_root = '1.02'\n", "UID root"),
        ("[listener\n", "not valid TOML"),
        ("[models]\nactive = ['a']\nshadow = ['a']\n", "both active and in shadow"),
        ("[models]\nactive = []\n", "neither active nor shadow names a model"),
        ("[listener]\nprot = 104\n", r"^listener\.prot: there is no such key; did you mean `port`\?$"),
        ("[listner]\nport = 104\n", r"^listner: there is no such key; did you mean `listener`\?$"),
        ("[listener]\nport = 'x'\n", r"^listener\.port: must be a whole number, not 'x'$"),
        ("[listener]\nae_title = 'SEVENTEEN LETTERS'\n", r"^listener\.ae_title: an AE title has"),
        ("[logs]\nlevel = 'WARN'\n", "'WARNING' or 'ERROR', not 'WARN'; did you mean `WARNING`"),
        (PACS + "port = 0\n", r"^destination `pacs`: port: must be 1 or more, not 0$"),
        (PACS + "port = 104\nkinds = ['seg', 'sx']\n", r"^destination `pacs`: kinds: must be 'seg', .*, not 'sx'"),
        (PACS + "port = 104\ntimeout = 5\n", r"`pacs`: timeout: there is no such key; did you mean `timeout_seconds`"),
        (PACS, r"^destination `pacs`: port: is missing$"),
        (PACS + "port = 104\n" + "[[destinations]]\nhost = 'h'\n", "destination 2: name: is missing"),
        (
            "[[listener.peers]]\nae_title = 'CT1'\naddresses = ['nowhere']\n",
            "^listener.peer `CT1`: addresses: 'nowhere'",
        ),
        ("[eligibility]\ndescriptions = ['(']\n", r"^eligibility\.descriptions: '\(' is not a regular expression"),
        ("[notifications.webhook]\nenabled = true\n", "^notifications: webhook is enabled: set url, secret too$"),
        ("listener = 5\n", "^listener: must be a table$"),
        ("[admin]\nmetrics_token = 51515\n", r"^admin\.metrics_token: must be text$"),
        ("[listener]\ntransport = 'tls'\n", r"listener\.transport is tls: set tls\.certificate and tls\.ca"),
        (TLS + "[listener]\nport = 104\ntls_port = 104\ntransport = 'both'\n", r"port and listener\.tls_port are both"),
        ("[[listener.peers]]\nae_title = 'CT1'\ncertificates = ['a']\n", "`CT1`: certificates need listener.transport"),
        ("[[listener.peers]]\nae_title = 'CT1'\ncertificates = ['sha256:1']\n", "64 digits of its SHA-256 fingerprint"),
        (PACS + "port = 104\ntls = true\n", r"destination `pacs`: tls needs tls\.ca"),
        (TLS + PACS + "port = 104\ncertificates = ['a']\n", "destination `pacs`: certificates need tls = true"),
        (PACS + "port = 104\nkinds = ['lungs']\n[models]\nlungs = ''\n", "`pacs`: kinds: 'lungs' needs models.lungs"),
        ("[broker]\nurl = 'rediss://h/0?ssl_cert_reqs=none'\n", "ssl_cert_reqs must be required"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(_write(tmp_path, text))


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("rediss://h:1/0", "rediss://h:1/0?ssl_cert_reqs=required"),
        (
            "rediss://u@h/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=CERT_REQUIRED",
            "rediss://u@h/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required",
        ),
    ],
)
def test_a_broker_with_tls_is_always_verified(url: str, used: str) -> None:
    """Celery's client uses TLS where the URL names a certificate option, and none otherwise."""
    assert Settings(broker={"url": url}).broker_url == used


def test_a_fingerprint_may_be_written_as_openssl_prints_it() -> None:
    digits = "0123456789abcdef" * 4
    colons = ":".join(digits[at : at + 2].upper() for at in range(0, 64, 2))
    written = (f"sha256 Fingerprint={colons}", f"SHA256:{colons}", colons, digits, f"sha256:{digits}")
    peer = Peer(ae_title="CT1", certificates=(*written, " CT1.Hospital "))
    assert peer.certificates == (*[f"sha256:{digits}"] * 5, "ct1.hospital")


def test_two_destinations_cannot_share_a_name(tmp_path: Path) -> None:
    table = "[[destinations]]\nname = 'a'\nae_title = 'A'\nhost = 'h'\nport = 1\n"
    with pytest.raises(SettingsError, match="same name"):
        load(_write(tmp_path, table * 2))


def test_a_missing_file_is_an_error_and_not_a_default(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("name", ["PLEURA_LISTENER__PROT", "PLEURA_LISTNER__PORT"])
def test_a_misspelt_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "104")
    with pytest.raises(SettingsError, match=f"{name} names no setting; did you mean PLEURA_LISTENER__PORT"):
        load()


def test_paths_in_the_file_are_relative_to_the_file_and_others_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path = _write(
        tmp_path,
        "[models]\nfolder = 'm'\n[hl7]\ntls_certificate = '/etc/c.pem'\n[notifications.webhook]\nca_file = 'ca.pem'\n",
    )
    settings = load(Path("../pleura.toml"))
    assert settings.store.folder.resolve() == tmp_path / "var"
    assert settings.models.folder is not None
    assert settings.models.folder.resolve() == tmp_path / "m"
    assert settings.hl7.tls_certificate == Path("/etc/c.pem")
    assert settings.hl7.tls_key is None
    assert settings.notifications.webhook.ca_file == load(path).notifications.webhook.ca_file == tmp_path / "ca.pem"
    monkeypatch.setenv("PLEURA_STORE__FOLDER", "here")
    assert load(path).store.folder == Path("here")
    monkeypatch.delenv("PLEURA_STORE__FOLDER")
    assert load().store.folder == Path("var")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PLEURA_SERVICE_HOST", "10.0.0.7"),
        ("PLEURA_SERVICE_PORT", "11112"),
        ("PLEURA_SERVICE_PORT_DICOM", "11112"),
        ("PLEURA_PORT", "tcp://10.0.0.7:11112"),
        ("PLEURA_PORT_11112_TCP", "tcp://10.0.0.7:11112"),
        ("PLEURA_PORT_11112_TCP_ADDR", "10.0.0.7"),
        ("PLEURA_ADMIN_SERVICE_HOST", "10.0.0.8"),
        ("PLEURA_ADMIN_PORT", "tcp://10.0.0.8:8080"),
    ],
)
def test_what_kubernetes_sets_for_a_service_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert load() == Settings()


@pytest.mark.parametrize("name", ["PLEURA_PORT", "PLEURA_LISTENER_PORT", "PLEURA_HOST", "PLEURA_SERVICE"])
def test_a_misspelt_variable_is_not_taken_for_one_of_kubernetes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "104")
    with pytest.raises(SettingsError, match=name):
        load()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load().listener.port = 1  # type: ignore[misc]


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEURA_DATABASE__URL", "postgresql+psycopg://pleura:geheim@db/pleura")
    settings = load()
    assert settings.database_url.endswith(":geheim@db/pleura")
    assert "geheim" not in effective_toml(settings)
    assert "geheim" not in repr(settings)


def test_effective_settings_can_be_read_again(tmp_path: Path) -> None:
    settings = Settings(store={"folder": tmp_path / "data"})
    assert load(_write(tmp_path, effective_toml(settings))) == settings
    assert f'folder = "{Path.cwd() / "var"}"' in effective_toml(load()), "in force wherever it is read again"


def test_the_broker_socket_fits_into_the_kernels_limit(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    settings = Settings(store={"folder": deep})
    assert len(str(settings.broker_socket)) <= MAXIMUM_SOCKET_PATH
    assert settings.broker_socket != Settings(store={"folder": deep / "other"}).broker_socket


def test_every_key_is_described() -> None:
    assert [key.name for key in keys() if not key.description] == []


def test_the_documented_table_is_the_settings() -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert markdown_table() in page, "`make reference` writes it"


def test_the_default_file_is_the_defaults() -> None:
    path = Path(config.__file__).parent / "default.toml"
    text = path.read_text(encoding="utf-8")
    assert text == commented_toml(), "`make reference` writes it"
    assert Settings(**tomllib.loads(text)) == Settings()


def test_the_production_file_is_valid() -> None:
    settings = load(Path(config.__file__).parent / "production.toml")
    assert settings.listener.peers, "a listener on every address must name its peers"


def test_differences_go_by_key_and_name_and_show_no_secret(tmp_path: Path) -> None:
    before = load(
        _write(
            tmp_path,
            """
            [database]
            url = "postgresql://a@b/c"
            password = "geheim"
            [notifications.webhook]
            url = "https://me:geheim@hooks.example/in?token=geheim"
            [[destinations]]
            name = "pacs"
            ae_title = "PACS"
            host = "10.0.0.1"
            port = 104
            [[destinations]]
            name = "archive"
            ae_title = "VNA"
            host = "10.0.0.2"
            port = 104
            """,
        )
    )
    after = load(
        _write(
            tmp_path,
            """
            [database]
            url = "postgresql://a@b/c"
            password = "streng geheim"
            [notifications.webhook]
            url = "https://me:geheim@hooks.example/out?token=geheim"
            [[destinations]]
            name = "archive"
            ae_title = "VNA"
            host = "10.0.0.3"
            port = 104
            """,
        )
    )
    assert differences(before, before) == ()
    found = {one.key: (one.before, one.after) for one in differences(before, after)}
    assert found["database.password"] == ('"**********"', '"**********"')
    assert found["destinations.archive.host"] == ('"10.0.0.2"', '"10.0.0.3"')
    assert found["destinations.pacs.port"] == ("104", "")
    hidden = "https://**********@hooks.example/{}?**********"
    assert found["notifications.webhook.url"] == (f'"{hidden.format("in")}"', f'"{hidden.format("out")}"')
    assert not [key for key in found if key.startswith("destinations.archive.") and not key.endswith(".host")]
    assert "geheim" not in repr(found) + effective_toml(before)
