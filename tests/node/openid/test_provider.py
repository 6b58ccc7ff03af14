"""Log-in at a real provider: oidc-provider from npm, certified by the OpenID Foundation, asked over HTTP."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from config.openid import OpenID
from config.settings import Settings
from db.user_tables import Role
from db.users import Accounts
from node.monitoring.sign_on_health import check_openid
from tests.node.openid.small_provider import SECRET
from tests.node.web.demo import Demo, settings_for
from tests.node.web.test_live import served
from tests.peers import skip_without
from tests.ports import free_port

pytestmark = pytest.mark.peer("npm")
HERE = Path(__file__).parent
USERS = {
    "4711": {"name": "Grace Hopper", "preferred_username": "grace", "groups": ["staff", "pacs-admins"]},
    "4712": {"name": "Alan Turing", "preferred_username": "alan", "groups": ["staff"]},
}


@contextmanager
def running(port: int, page: str, *, userinfo: bool) -> Iterator[str]:
    """The provider; gives its issuer. Each start has another key."""
    if not (HERE / "node_modules" / "oidc-provider").is_dir():
        skip_without("the OpenID provider is missing: `make peers` installs it (npm)")
    asked = {
        "port": port,
        "secret": SECRET,
        "redirect": f"{page}/login/openid/callback",
        "logout": f"{page}/login",
        "userinfo": userinfo,
        "users": USERS,
    }
    command = ["node", "provider.mjs", json.dumps(asked)]
    process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, int]]:
    """A served page, and the port on which its provider is to run."""
    port, theirs = free_port(), free_port()
    rules = OpenID.model_validate(
        {
            "enabled": True,
            "issuer": f"http://127.0.0.1:{theirs}",
            "client_id": "pleura",
            "client_secret": SECRET,
            "page": f"http://127.0.0.1:{port}",
            "admins": ["pacs-admins"],
        }
    )
    settings = settings_for(Demo(tmp_path_factory.mktemp("openid") / "store").folder, port, openid=rules)
    with served(settings):
        yield settings, theirs


@contextmanager
def browser(page: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=page, follow_redirects=True, timeout=30) as client:
        yield client


def sign_on(client: httpx2.Client, user: str) -> httpx2.Response:
    """Log in as a person does: follow the button, type, agree, and end where the provider sends them."""
    shown = client.get(re.findall(r'href="(/login/openid[^"]*)"', client.get("/login?next=/users").text)[0])
    while prompt := re.findall(r'name="prompt" value="(\w+)"', shown.text):
        action = re.findall(r'action="([^"]+)"', shown.text)[0]
        shown = client.post(action, data={"prompt": prompt[0], "login": user, "password": "any"})
    return shown


@pytest.mark.parametrize("userinfo", [False, True])
def test_a_member_of_the_group_is_an_admin_and_logs_out_at_both(node: tuple[Settings, int], userinfo: bool) -> None:
    """With ``userinfo`` the ID token says nothing of groups; each run of the provider has another key."""
    settings, port = node
    page = settings.admin.openid.page
    with running(port, page, userinfo=userinfo), browser(page) as client:
        assert check_openid(settings).ok
        shown = sign_on(client, "4711")
        assert (shown.status_code, shown.url.path) == (200, "/users")
        assert "Grace Hopper" in shown.text
        assert Accounts(Demo(settings.store.folder).engine).find_user("grace").role is Role.ADMIN  # type: ignore[union-attr]
        csrf = re.findall(r'name="csrf" value="([^"]+)"', shown.text)[0]
        left = client.post("/logout", data={"csrf": csrf})
        theirs = client.get(left.headers["refresh"].partition("url=")[2])
        form = dict(re.findall(r'name="(\w+)" value="([^"]+)"', theirs.text)) | {"logout": "yes"}
        back = client.post(re.findall(r'action="([^"]+)"', theirs.text)[0], data=form)
        assert back.url == f"{page}/login"
        assert "Sign-in" in client.get("/login/openid").text, "the provider asks who it is again"


def test_whoever_is_in_no_group_is_refused_with_a_sentence(node: tuple[Settings, int]) -> None:
    settings, port = node
    page = settings.admin.openid.page
    with running(port, page, userinfo=False), browser(page) as client:
        shown = sign_on(client, "4712")
        assert shown.status_code == 403
        assert "You are in no group that may use this node" in shown.text


def test_doctor_names_a_wrong_issuer(node: tuple[Settings, int]) -> None:
    settings, port = node
    rules = settings.admin.openid
    with running(port, rules.page, userinfo=False):
        for end, sentence in (("/", "calls itself http://127.0.0.1:"), ("/realms/x", "answers with status 404")):
            wrong = rules.model_copy(update={"issuer": rules.issuer + end})
            admin = settings.admin.model_copy(update={"openid": wrong})
            found = check_openid(settings.model_copy(update={"admin": admin}))
            assert not found.ok
            assert sentence in found.found


def test_a_provider_that_is_down_is_named_by_page_and_doctor(node: tuple[Settings, int]) -> None:
    settings, _ = node
    found = check_openid(settings)
    assert not found.ok
    assert "does not answer" in found.found
