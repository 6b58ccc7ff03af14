"""The page over TLS: with a certificate of its own, and behind real proxies with the examples of docs/tls.md."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from config.settings import Admin
from node.cli.main import cli
from node.monitoring.port_health import check_admin
from tests.certificates import Certificates, certificates
from tests.node.web.conftest import filled
from tests.node.web.demo import PASSWORD, settings_for
from tests.node.web.proxies import nginx_command, running_proxy
from tests.node.web.test_live import served
from tests.ports import free_port

__all__ = ["certificates", "filled"]
pytestmark = pytest.mark.peer("openssl")
DOCS = Path(__file__).resolve().parents[3] / "docs" / "tls.md"


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Path:
    return shutil.copytree(filled, tmp_path / "store")


class Browser:
    """A client that trusts the hospital's CA, keeps cookies, and comes by HTTPS."""

    def __init__(self, port: int, certificates: Certificates) -> None:
        self.port = port
        self.context = ssl.create_default_context(cafile=certificates.ca)
        self.cookies: dict[str, str] = {}

    def ask(
        self, method: str, path: str, body: str = "", **headers: str
    ) -> tuple[http.client.HTTPResponse, http.client.HTTPMessage, str]:
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.context, timeout=30)
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        form = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Cookie": cookie, "Host": f"localhost:{self.port}", **form, **given})
        answer = connection.getresponse()
        text = answer.read().decode()
        for each in answer.headers.get_all("set-cookie") or ():
            name, _, value = each.partition(";")[0].partition("=")
            self.cookies[name] = value
        connection.close()
        return answer, answer.headers, text

    def log_in(self) -> None:
        """Log in by the form, and see the worklist; every cookie is for HTTPS alone."""
        _, headers, form = self.ask("GET", "/login")
        assert headers.get_all("strict-transport-security") == ["max-age=31536000"]
        token = re.search(r'name="login_token" value="([^"]+)"', form)
        assert token
        fields = f"login_token={token[1]}&name=ada&password={PASSWORD.replace(' ', '+')}&next=/"
        answer, headers, text = self.ask("POST", "/login", fields, Origin=f"https://localhost:{self.port}")
        assert answer.status == 303, text
        cookies = headers.get_all("set-cookie") or []
        assert cookies
        assert all("; Secure" in cookie for cookie in cookies)
        answer, _, text = self.ask("GET", "/")
        assert answer.status == 200
        assert "Worklist" in text


def test_the_page_has_a_certificate_of_its_own(
    store: Path,
    certificates: Certificates,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = tmp_path / "page.pem", tmp_path / "page.key"
    shutil.copy(certificates.node.certificate, made[0])
    shutil.copy(certificates.node.key, made[1])
    settings = settings_for(store, tls_certificate=made[0], tls_key=made[1], header_timeout_seconds=1)
    with served(settings) as port:
        browser = Browser(port, certificates)
        browser.log_in()
        running = settings.model_copy(update={"admin": settings.admin.model_copy(update={"port": port})})
        assert check_admin(running, running=True).found == f"answers on https://127.0.0.1:{port}/"
        file = tmp_path / "pleura.toml"
        file.write_text(f'[admin]\nport = {port}\ntls_certificate = "{made[0]}"\n', encoding="utf-8")
        assert CliRunner().invoke(cli, ["--config", str(file), "probe", "admin"]).exit_code == 0

        with pytest.raises(http.client.HTTPException):
            _without_tls(port)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
            begun = time.monotonic()
            assert silent.recv(1) == b"", "a handshake that does not begin ends"
            assert time.monotonic() - begun < 10

        shutil.copy(certificates.pacs.key, made[1])
        shutil.copy(certificates.pacs.certificate, made[0])
        with socket.create_connection(("127.0.0.1", port)) as plain:
            shown = browser.context.wrap_socket(plain, server_hostname="localhost").getpeercert()
        assert shown is not None
        assert shown["subject"] == ((("commonName", "pacs.hospital"),),)


def test_connections_that_do_not_shake_hands_make_room(store: Path, certificates: Certificates) -> None:
    """16 of one address may wait for a request, those whose handshake has not ended among them."""
    own = certificates.node
    settings = settings_for(store, tls_certificate=own.certificate, tls_key=own.key, header_timeout_seconds=30)
    with served(settings) as port, ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(17)]
        assert silent[0].recv(1) == b"", "the one that has waited longest is closed for the last one"
        Browser(port, certificates).log_in()
        silent[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            silent[-1].recv(1)


def _without_tls(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/login")
    connection.getresponse()


def test_a_page_without_its_certificate_does_not_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, port=free_port(), tls_certificate=tmp_path / "none.pem")
    check = check_admin(settings, running=False)
    assert not check.ok
    assert "none.pem: No such file" in check.found
    assert check.remedy == "fix admin.tls_certificate"


# --- behind a proxy ---------------------------------------------------------------------------------------------------


def example(language: str) -> str:
    """The example for a proxy in the documentation."""
    found = re.search(rf"```{language}\n(.+?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


Proxy = Callable[[Path, int, int, Certificates], list[str]]


def nginx(folder: Path, port: int, page: int, made: Certificates) -> list[str]:
    """The example of nginx in a configuration that needs no root; the command that runs it."""
    server = example("nginx").replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    server = server.replace("127.0.0.1:8080", f"127.0.0.1:{page}").replace("pleura.hospital", "localhost")
    server = server.replace("/etc/nginx/page.pem", str(made.node.certificate))
    server = server.replace("/etc/nginx/page.key", str(made.node.key))
    return nginx_command(folder, server)


def caddy(folder: Path, port: int, page: int, made: Certificates) -> list[str]:
    """The example of Caddy without its administration port; the command that runs it."""
    site = example("caddy").replace("pleura.hospital {", f"https://localhost:{port} {{\n    bind 127.0.0.1")
    site = site.replace("127.0.0.1:8080", f"127.0.0.1:{page}")
    site = site.replace("/etc/caddy/page.pem", str(made.node.certificate))
    site = site.replace("/etc/caddy/page.key", str(made.node.key))
    options = "{\n    admin off\n    auto_https disable_redirects\n}\n"
    (folder / "Caddyfile").write_text(options + site)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@pytest.mark.parametrize(
    "proxy",
    [
        pytest.param(nginx, marks=pytest.mark.peer("nginx")),
        pytest.param(caddy, marks=[pytest.mark.peer("caddy"), pytest.mark.campaign]),
    ],
)
def test_the_documented_proxy_does_what_the_page_relies_on(
    proxy: Proxy,
    store: Path,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    settings = settings_for(
        store, trusted_proxies=["127.0.0.1"], sign_on_header="X-Remote-User", sign_on_new_users="viewer"
    )
    assert isinstance(settings.admin, Admin)
    folder, port = tmp_path / "proxy", free_port()
    folder.mkdir()
    with served(settings) as page, running_proxy(proxy(folder, port, page, certificates), port, folder):
        browser = Browser(port, certificates)
        answer, _, text = browser.ask("GET", "/login", X_Remote_User="ada", X_Forwarded_For="10.9.9.9")
        assert answer.status == 200, "nobody signs himself on"
        assert "Log in" in text
        browser.log_in()
        assert browser.ask("GET", "/metrics")[0].status == 403
        assert browser.ask("GET", "/system")[0].status == 200
        upload = "x" * 2_000_000
        assert browser.ask("POST", "/login", f"name={upload}")[0].status == 413, "the page's own limit answers"
